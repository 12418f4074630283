use std::sync::Arc;

use http::{Method, header};
use passkit_server::identifiers::SerialNumber;

use super::{
    super::{
        answer::Answer,
        session::{Auth, Device, ServiceRequest, Session},
        steps::together,
        target::Subject,
    },
    world::{Content, World},
};
use crate::{
    CaseResult, Exchange, Rule, Stop,
    random::Random,
    wire::{ListAnswer, first_few},
};

/// A phone, with its knowledge about its passes.
pub(super) struct Phone {
    session: Session,
    world: Arc<World>,
    random: Random,
    device: Device,
    tag: Option<String>,
    passes: Vec<Held>,
}

/// The knowledge of a phone about a pass.
#[derive(Default)]
struct Held {
    /// The moment after the phone registered for the pass. `None` if the pass is not registered now.
    registered: Option<usize>,
    was_unregistered: bool,
    /// The moment after the last list that named the pass.
    named: Option<usize>,
    fetched: Option<Fetched>,
}

struct Fetched {
    content: Content,
    last_modified: Option<String>,
    /// The moment after the answer arrived.
    arrived: usize,
    /// The moment after the last 304.
    unchanged: Option<usize>,
}

/// The reason why a phone can't continue, and its last exchanges.
pub(super) struct Broken {
    pub(super) stop: Stop,
    pub(super) exchanges: Vec<Exchange>,
}

impl Broken {
    pub(super) fn without_exchanges(stop: Stop) -> Self {
        Self {
            stop,
            exchanges: Vec::new(),
        }
    }
}

impl Phone {
    pub(super) fn new(session: Session, world: Arc<World>, random: Random) -> Result<Self, Stop> {
        Ok(Self {
            device: session.device()?,
            session,
            random,
            tag: None,
            passes: world.passes.iter().map(|_| Held::default()).collect(),
            world,
        })
    }

    /// Registers for some passes, then acts at random.
    pub(super) async fn acts(mut self, count: usize) -> Result<Self, Broken> {
        let result = async {
            for at in 0..self.passes.len() {
                if self.random.below(2) == 0 {
                    self.register(at).await?;
                }
            }
            for _ in 0..count {
                self.act().await?;
                self.world.acted();
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        let result = result.await;
        self.or_broken(result)
    }

    /// Reads all lists after the passes have stopped changing. Then the phone must have the newest
    /// content of all its passes. Finally, the phone unregisters them.
    pub(super) async fn settles(mut self, newest: &[Option<Content>]) -> Result<(), Broken> {
        let result = async {
            self.list(true).await?;
            self.is_quiet().await?;
            for at in self.registered() {
                self.is_up_to_date(at, newest[at].as_ref()).await?;
            }
            self.list(false).await?;
            self.unregister_all().await?;
            self.list(false).await
        };
        let result = result.await;
        self.or_broken(result).map(drop)
    }

    fn or_broken(self, result: CaseResult) -> Result<Self, Broken> {
        match result {
            Ok(()) => Ok(self),
            Err(stop) => Err(Broken {
                stop,
                exchanges: self.session.last_exchanges(),
            }),
        }
    }

    async fn act(&mut self) -> CaseResult {
        let at = self.random.below(self.passes.len());
        match self.random.below(20) {
            0..=6 => self.list(true).await,
            7 => self.list(false).await,
            8..=10 => self.register(at).await,
            11..=12 => self.unregister(at).await,
            13..=15 => self.fetch(at).await,
            16..=17 => self.use_wrong_token(at).await,
            18 => self.unregister_all().await,
            _ => self.change_push_token().await,
        }
    }

    fn subject(&self, at: usize) -> &Subject {
        &self.world.passes[at]
    }

    /// Returns the passes that are registered.
    fn registered(&self) -> Vec<usize> {
        let is_registered = |at: &usize| self.passes[*at].registered.is_some();
        (0..self.passes.len()).filter(is_registered).collect()
    }

    async fn register(&mut self, at: usize) -> CaseResult {
        let answer = self
            .session
            .register(&self.device, self.subject(at))
            .await?;
        answer.is_one_of(&[200, 201], Rule::REG_1)?;
        let now = self.world.now();
        let held = &mut self.passes[at];
        if held.registered.is_some() {
            return Ok(());
        }
        held.registered = Some(now);
        // A phone fetches a pass that it has just added.
        self.fetch(at).await
    }

    async fn unregister(&mut self, at: usize) -> CaseResult {
        let answer = self.session.unregister(&self.device, self.subject(at));
        answer.await?.is(200, Rule::UNR_1)?;
        self.removed(at);
        Ok(())
    }

    /// Unregisters all passes at once.
    async fn unregister_all(&mut self) -> CaseResult {
        let registered = self.registered();
        let calls = registered
            .iter()
            .map(|at| self.session.unregister(&self.device, self.subject(*at)));
        for answer in together(calls).await {
            answer?.is(200, Rule::UNR_1)?;
        }
        registered.into_iter().for_each(|at| self.removed(at));
        Ok(())
    }

    fn removed(&mut self, at: usize) {
        let was_unregistered =
            self.passes[at].was_unregistered || self.passes[at].registered.is_some();
        self.passes[at] = Held {
            was_unregistered,
            ..Held::default()
        };
    }

    /// Registers for all its passes again, with a new push token.
    async fn change_push_token(&mut self) -> CaseResult {
        self.device.push_token = self.session.device()?.push_token;
        for at in self.registered() {
            self.register(at).await?;
        }
        Ok(())
    }

    async fn ask(&self, tag: Option<&str>) -> Result<Answer, Stop> {
        let type_id = &self.world.passes[0].pass.type_id;
        self.session.list(&self.device, type_id, tag).await
    }

    /// Asks for the list, and fetches the listed passes.
    async fn list(&mut self, with_tag: bool) -> CaseResult {
        let changed = self.world.changed();
        let tag = self.tag.clone().filter(|_| with_tag);
        let answer = self.ask(tag.as_deref()).await?;
        let arrived = self.world.now();
        let listed = self.read(&answer)?;
        for at in &listed {
            self.passes[*at].named = Some(arrived);
        }
        for at in self.registered() {
            if tag.is_none() {
                self.is_among(at, &listed, &answer)?;
            }
            let Held {
                registered, named, ..
            } = &self.passes[at];
            if changed[at].is_some_and(|began| *registered < Some(began) && *named < Some(began)) {
                self.is_registered_there(at).await?;
                let expected = format!(
                    "'{}' in the list, because the pass changed and no list has named it since",
                    self.subject(at).pass.serial
                );
                return Err(answer.violation(Rule::LIST_5, expected, self.shown(&listed)));
            }
        }
        for at in listed {
            self.fetch(at).await?;
        }
        Ok(())
    }

    /// Expects a registered pass in a list without a tag.
    fn is_among(&self, at: usize, listed: &[usize], answer: &Answer) -> CaseResult {
        if listed.contains(&at) {
            return Ok(());
        }
        let expected = format!(
            "'{}' in a list without a tag, because the phone registered for it",
            self.subject(at).pass.serial
        );
        Err(answer.violation(Rule::LIST_1, expected, self.shown(listed)))
    }

    /// Finds out why a list lacks a pass. Fails if the registration is lost.
    async fn is_registered_there(&mut self, at: usize) -> CaseResult {
        let answer = self.ask(None).await?;
        let listed = self.read(&answer)?;
        self.is_among(at, &listed, &answer)
    }

    /// Expects that the next list is empty.
    async fn is_quiet(&mut self) -> CaseResult {
        let Some(tag) = self.tag.clone() else {
            return Ok(());
        };
        let answer = self.ask(Some(&tag)).await?;
        match &self.read(&answer)?[..] {
            [] => Ok(()),
            listed => {
                let expected = "a list that names nothing, because nothing changed after the tag";
                Err(answer.violation(Rule::LIST_2, expected, self.shown(listed)))
            }
        }
    }

    /// Reads a list and keeps its tag. Returns the listed passes. Accepts any form of an empty list,
    /// because other cases check the form.
    fn read(&mut self, answer: &Answer) -> Result<Vec<usize>, Stop> {
        if matches!(answer.status(), 204 | 404) {
            return Ok(Vec::new());
        }
        answer.is_list()?;
        let kind = self.session.kind();
        let Some(list) = ListAnswer::read(kind, answer.body()) else {
            return answer.listed(kind).map(|_| Vec::new());
        };
        let mut listed = Vec::new();
        for serial in &list.serials {
            listed.push(self.held(answer, serial)?);
        }
        if list.tag.is_some() {
            self.tag = list.tag;
        }
        Ok(listed)
    }

    fn held(&self, answer: &Answer, serial: &SerialNumber) -> Result<usize, Stop> {
        let mut passes = self.world.passes.iter();
        let at = passes.position(|one| one.pass.serial == *serial);
        match at.map(|at| (at, &self.passes[at])) {
            Some((at, held)) if held.registered.is_some() => Ok(at),
            Some((_, held)) if held.was_unregistered => {
                let expected = format!("a list without '{serial}', which the phone unregistered");
                Err(answer.violation(Rule::UNR_1, expected, "a list that names it"))
            }
            _ => {
                let expected = "only passes that the phone registered";
                Err(answer.violation(Rule::LIST_3, expected, serial))
            }
        }
    }

    fn shown(&self, listed: &[usize]) -> String {
        let serials: Vec<_> = listed
            .iter()
            .map(|at| &self.subject(*at).pass.serial)
            .collect();
        match &serials[..] {
            [] => "a list that names nothing".into(),
            some => format!("a list that names {}", first_few(some)),
        }
    }

    /// Fetches a pass. Sends the date from the last fetch.
    async fn fetch(&mut self, at: usize) -> CaseResult {
        let changed = self.world.changed()[at];
        let fetched = self.passes[at].fetched.as_ref();
        let since = fetched.and_then(|fetched| fetched.last_modified.as_deref());
        let answer = self.session.fetch(self.subject(at), since).await?;
        if answer.status() == 304 && since.is_some() {
            if fetched.map(|fetched| fetched.arrived) < changed && changed.is_some() {
                let expected = "status 200, because the pass changed after it was fetched";
                return Err(answer.violation(Rule::GET_2, expected, "status 304"));
            }
            let now = self.world.now();
            if let Some(fetched) = &mut self.passes[at].fetched {
                fetched.unchanged = Some(now);
            }
            return Ok(());
        }
        answer.is(200, Rule::GET_9)?;
        self.passes[at].fetched = Some(Fetched {
            content: Content::of(&answer),
            last_modified: answer.header(header::LAST_MODIFIED),
            arrived: self.world.now(),
            unchanged: None,
        });
        Ok(())
    }

    /// Expects the newest content. All lists must have been read.
    async fn is_up_to_date(&mut self, at: usize, newest: Option<&Content>) -> CaseResult {
        let (Some(newest), Some(fetched)) = (newest, &self.passes[at].fetched) else {
            return Ok(());
        };
        if fetched.content == *newest {
            return Ok(());
        }
        let pass = &self.subject(at).pass.serial;
        let since = fetched.last_modified.as_deref();
        let answer = self.session.fetch(self.subject(at), since).await?;
        let old = "old content on a phone that has read all lists";
        // The wrong 304 may be this answer or an earlier answer.
        let was_304 = fetched.unchanged.is_some() && fetched.unchanged > self.world.changed()[at];
        if answer.status() == 304 || was_304 {
            let expected = format!("new content of '{pass}', because the phone has old content");
            return Err(answer.violation(Rule::GET_2, expected, "status 304"));
        }
        let expected = format!("'{pass}' in a list after its new content is available");
        Err(answer.violation(Rule::CON_1, expected, old))
    }

    /// Makes a call with the token of another pass.
    async fn use_wrong_token(&mut self, at: usize) -> CaseResult {
        let Some(wrong) = &self.world.with_wrong_token[at] else {
            return Ok(());
        };
        let path = self.session.registration_path(&self.device.id, &wrong.pass);
        let call = match self.random.below(3) {
            0 => self.session.fetch_call(wrong, None),
            1 => self.session.register_call(&self.device, wrong),
            _ => ServiceRequest::new(Method::DELETE, path).auth(&Auth::Token(wrong)),
        };
        let registers = call.method == Method::POST;
        let answer = self.session.send(call).await?;
        if !matches!(answer.status(), 200 | 201 | 304) {
            return Ok(());
        }
        if registers {
            self.session.will_register(&self.device, self.subject(at));
        }
        let expected = format!(
            "status 401 to '{}' with the token of another pass",
            wrong.pass
        );
        let actual = format!("status {}", answer.status());
        Err(answer.violation(Rule::AUTH_2, expected, actual))
    }
}
