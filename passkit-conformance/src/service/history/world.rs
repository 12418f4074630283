use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::super::{answer::Answer, archives::readable, session::Session, target::Subject};
use crate::{CaseResult, Rule, Stop};

/// Most phones have only a few passes of a type.
const PASSES: usize = 5;

/// The state that all phones of a round share.
pub(super) struct World {
    /// The passes that the phones may have. All have the same type.
    pub(super) passes: Vec<Subject>,
    /// Each pass of `passes`, but with the token of another pass. `None` if all tokens are equal.
    pub(super) with_wrong_token: Vec<Option<Subject>>,
    moments: AtomicUsize,
    acts: AtomicUsize,
    /// For each pass, the moment at which its change began. `None` if the change is not done yet. A
    /// pass changes once in a round.
    changed: Mutex<Vec<Option<usize>>>,
}

impl World {
    pub(super) fn new(session: &Session) -> Result<Self, Stop> {
        let mut passes = session.plain(2).or_else(|_| session.plain(1))?;
        passes.truncate(PASSES);
        let first = passes[0];
        passes.retain(|one| one.has_type_of(first));
        let wrong = |one: &&Subject| {
            let mut others = session.all().iter();
            let other = others.find(|other| !other.has_token_of(one))?;
            Some(Subject {
                pass: one.pass.clone(),
                token: other.token.clone(),
            })
        };
        Ok(Self {
            with_wrong_token: passes.iter().map(wrong).collect(),
            moments: AtomicUsize::new(0),
            acts: AtomicUsize::new(0),
            changed: Mutex::new(vec![None; passes.len()]),
            passes: passes.into_iter().cloned().collect(),
        })
    }

    /// Returns a new moment. Each moment is greater than every earlier one.
    pub(super) fn now(&self) -> usize {
        self.moments.fetch_add(1, SeqCst)
    }

    /// Returns for each pass the moment at which its change began. `None` if the change is not done
    /// yet.
    pub(super) fn changed(&self) -> Vec<Option<usize>> {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.clone()
    }

    /// Counts an act of a phone.
    pub(super) fn acted(&self) {
        self.acts.fetch_add(1, SeqCst);
    }

    /// Changes a pass once the phones have made `acts` acts.
    pub(super) async fn change(&self, session: &Session, at: usize, acts: usize) -> CaseResult {
        while self.acts.load(SeqCst) < acts {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let began = self.now();
        session.change_at_once(&self.passes[at]).await?;
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed[at] = Some(began);
        Ok(())
    }

    /// Fetches all passes. The content of a pass is `None` if the service builds it differently each
    /// time, because then it can't be compared.
    pub(super) async fn newest(&self, session: &Session) -> Result<Vec<Option<Content>>, Stop> {
        let session = session.beside(super::SHOWN, 0);
        let mut newest = Vec::new();
        for pass in &self.passes {
            let fetch = async || {
                let answer = session.fetch(pass, None).await?;
                answer.is(200, Rule::GET_9)?;
                Ok::<_, Stop>(Content::of(&answer))
            };
            let (once, again) = (fetch().await?, fetch().await?);
            newest.push((once == again).then_some(once));
        }
        Ok(newest)
    }
}

/// The content of a fetched pass. Two contents are equal if only the signatures differ.
#[derive(PartialEq, Eq)]
pub(super) struct Content(Vec<u8>);

impl Content {
    pub(super) fn of(answer: &Answer) -> Self {
        Self(match readable(answer) {
            Some(archive) => archive.content_digest.to_vec(),
            None => answer.body().to_vec(),
        })
    }
}
