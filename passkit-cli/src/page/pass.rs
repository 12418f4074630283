//! The page of a pass, its picture, and what an operator can do with it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use passkit_archive::{MAX_ARCHIVE_BYTES, PassFiles};
use passkit_picture::{Drawing, Side};
use passkit_server::{
    Changed, PassId, PassSource as _, SourceError, identifiers::Kind, service::ResponseBody,
    store::PageCursor,
};
use sha2::{Digest as _, Sha256};

use super::{
    Page,
    answer::Answer,
    blocking,
    request::{Caller, Form, Refusal, query_of},
    view::{self, Confirm, Line, PassLink, PassView, PhoneLine, TimeLine},
};
use crate::explain::{Explanation, Time, Version, explain_page, text};

/// How many phones a page shows.
const PHONES: usize = 50;
/// How many positions in lists of phones are remembered.
const MAX_CURSORS: usize = 10_000;

/// The positions at which pages of phones begin. An address has only the name of a position,
/// because the position itself may be a device identifier.
#[derive(Default)]
pub(super) struct Cursors(Mutex<HashMap<String, PageCursor>>);

impl Cursors {
    fn keep(&self, cursor: PageCursor) -> String {
        let digest = Sha256::digest(cursor.as_str());
        let name: String = digest
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_CURSORS {
            kept.clear();
        }
        kept.insert(name.clone(), cursor);
        name
    }

    fn get(&self, name: &str) -> Option<PageCursor> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(name).cloned()
    }
}

impl Page {
    /// Shows what became of the newest version of a pass.
    pub(super) async fn pass_page(&self, query: &Form) -> Result<Answer, Refusal> {
        let pass = query.pass()?;
        let archive = self.archive(&pass).await?;
        let has_archive = archive.is_some();
        let content = match archive {
            Some(archive) => blocking(move || Version::of_bytes(archive.to_vec())).await?,
            None => None,
        };
        let content = content.map(|version| version.content(None));
        let after = query
            .get("after")
            .and_then(|name| self.state.cursors.get(name));
        let explained = explain_page(&*self.store.store, &pass, content, after.as_ref(), PHONES);
        let (explanation, next) = self.ask(explained).await?;
        let next = next.map(|next| {
            let name = self.state.cursors.keep(next);
            format!("/pass?{}&after={name}", query_of(&pass))
        });
        Ok(view::page(&PassView {
            done: match query.get("done") {
                Some("push") => {
                    "The pass is marked as changed. Its phones get a push, and fetch it again."
                }
                Some("mark") => {
                    "The pass is marked as changed. No instance sends pushes of its type, so phones notice when they next ask."
                }
                _ => "",
            },
            answer: explanation.sentence(),
            is_bad: explanation.is_wrong(),
            facts: facts(&explanation),
            phones: phones(&explanation),
            shown: shown(&explanation, after.is_some()),
            next,
            timeline: timeline(&explanation),
            has_archive,
            has_picture: has_archive && pass.type_id.kind() == Kind::Pass,
            now: explanation.pass.now.to_string(),
            signed_in: true,
            search: pass.serial.to_string(),
            pass: PassLink::to(&pass),
        }))
    }

    /// Reads the archive that phones get.
    async fn archive(&self, pass: &PassId) -> Result<Option<Bytes>, Refusal> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::warn!("the operator's page can't read {pass}: {error}");
        };
        let read = async {
            let state = self.store.store.pass_state(pass).await?;
            match self.source.credentials(pass).await? {
                // An archive that can't be read does not mean that the store fails.
                Some(_) => Ok::<_, SourceError>(self.source.archive(pass, &state).await),
                None => Ok(Ok(None)),
            }
        };
        let body = match self.ask(read).await? {
            Ok(Some(archive)) => ResponseBody::from(archive),
            Ok(None) => return Ok(None),
            Err(error) => {
                failed(&error);
                return Ok(None);
            }
        };
        match Limited::new(body, MAX_ARCHIVE_BYTES).collect().await {
            Ok(collected) => Ok(Some(collected.to_bytes())),
            Err(error) => {
                failed(&error);
                Ok(None)
            }
        }
    }

    pub(super) async fn picture(&self, query: &Form) -> Result<Answer, Refusal> {
        let pass = query.pass()?;
        let side = match query.get("side") {
            Some("back") => Side::Back,
            _ => Side::Front,
        };
        let archive = self.archive(&pass).await?.ok_or(Refusal::NoArchive)?;
        let drawn = blocking(move || {
            let files = PassFiles::of_archive(&archive).ok()?;
            Drawing::new(side).draw(&files).ok()
        });
        let picture = drawn.await?.ok_or(Refusal::NoArchive)?;
        Ok(Answer::picture(picture.svg))
    }

    /// Asks the user to confirm an action.
    pub(super) async fn confirm(&self, path: &str, query: &Form) -> Result<Answer, Refusal> {
        let pass = query.pass()?;
        let (title, text, button) = if path == "/download" {
            let text = "The file has the authentication token of the pass. With it, anyone can fetch the pass and register for it.";
            ("Download the pass?", text.to_owned(), "Download")
        } else {
            let count = self.store.store.count_devices(&pass, MAX_COUNTED);
            let text = match self.ask(count).await? {
                0 => "No phone is registered. The pass is marked as changed, so that phones fetch it when they ask.".to_owned(),
                count if count >= MAX_COUNTED => format!("{count} phones or more get a push, and fetch the pass again."),
                1 => "One phone gets a push, and fetches the pass again.".to_owned(),
                count => format!("{count} phones get a push, and fetch the pass again."),
            };
            ("Push again?", text, "Push again")
        };
        Ok(view::page(&Confirm {
            path: path.to_owned(),
            title,
            text,
            button,
            signed_in: true,
            search: pass.serial.to_string(),
            pass: PassLink::to(&pass),
        }))
    }

    /// Marks a pass as changed, so that its phones get a push.
    pub(super) async fn push(&self, query: &Form, caller: &Caller) -> Result<Answer, Refusal> {
        let pass = query.pass()?;
        tracing::info!(client = %caller, "the operator's page: push {pass} again");
        let serials = [pass.serial.clone()];
        let published = self
            .publisher
            .publish(&pass.type_id, Changed::Passes(&serials));
        self.ask(published).await?;
        let done = if self.publisher.records(&pass.type_id) {
            "push"
        } else {
            "mark"
        };
        let page = format!("/pass?{}&done={done}", query_of(&pass));
        Ok(Answer::see_other(&page))
    }

    pub(super) async fn download(&self, query: &Form, caller: &Caller) -> Result<Answer, Refusal> {
        let pass = query.pass()?;
        tracing::info!(client = %caller, "the operator's page: download {pass}");
        let archive = self.archive(&pass).await?.ok_or(Refusal::NoArchive)?;
        let kind = pass.type_id.kind();
        let end = match kind {
            Kind::Pass => "pkpass",
            Kind::Order => "order",
        };
        let safe = |c: char| {
            if c.is_ascii_alphanumeric() || "-_".contains(c) {
                c
            } else {
                '_'
            }
        };
        let name: String = pass.serial.as_str().chars().take(60).map(safe).collect();
        Ok(Answer::file(
            kind.media_type(),
            &format!("{name}.{end}"),
            archive,
        ))
    }
}

/// Phones are counted up to this number.
const MAX_COUNTED: u64 = 10_000;

fn facts(explanation: &Explanation) -> Vec<Line> {
    let pass = &explanation.pass;
    let changed = pass.changed_at().map_or_else(
        || "never, as far as the store knows".into(),
        |at| at.to_string(),
    );
    let mut facts = vec![
        Line::new("Last change", changed),
        Line::new("Version", format!("{:x}", pass.version)),
        Line::new("Phones", pass.registrations.to_string()),
    ];
    if let Some(published) = pass.published {
        let digest: String = published
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        facts.push(Line::new("Published content", format!("{digest}…")));
    }
    if pass.removed {
        facts.push(Line::new("Removed", "the pass is no longer served").bad_if(true));
    }
    facts.push(Line::new("Pushes", text::pushes(pass)));
    facts.push(Line::new("Fetches", text::fetches(pass)));
    facts.extend(pass.refused.iter().map(|(denial, seen)| {
        let value = format!(
            "{}, the last at {}: {}",
            text::times(seen.count),
            seen.at,
            text::denial_text(*denial)
        );
        Line::new("Refused", value).bad_if(true)
    }));
    facts.extend(pass.complaints.iter().map(|(complaint, seen)| {
        let value = format!(
            "{}, the last at {}: {}",
            text::times(seen.count),
            seen.at,
            text::complaint_text(*complaint)
        );
        Line::new("Complaint", value).bad_if(true)
    }));
    facts
}

fn phones(explanation: &Explanation) -> Vec<PhoneLine> {
    let phones = explanation.phones.iter();
    phones
        .map(|(phone, cause)| PhoneLine {
            name: phone.name.clone(),
            registered: time(phone.registered),
            asked: time(phone.asked),
            told: text::told(phone),
            sentence: text::sentence(&cause.sentence(&explanation.pass)),
            is_bad: cause.is_wrong(),
        })
        .collect()
}

fn time(time: Option<Time>) -> String {
    text::time_or_unknown(time)
}

/// Says how many phones are shown.
fn shown(explanation: &Explanation, is_later_page: bool) -> String {
    let (shown, all) = (explanation.phones.len(), explanation.pass.registrations);
    let more = if is_later_page { " more" } else { "" };
    if shown >= all.count {
        String::new()
    } else {
        format!("{shown}{more} of {all} phones, the worst first.")
    }
}

fn timeline(explanation: &Explanation) -> Vec<TimeLine> {
    let entries = explanation.timeline.iter();
    entries
        .map(|entry| TimeLine {
            at: entry.at.to_string(),
            text: text::described(entry, &explanation.pass),
        })
        .collect()
}
