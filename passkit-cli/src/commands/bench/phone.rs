//! A phone that needs little processor time. It makes the calls of a phone and checks their
//! answers, except for the content of archives.

use std::sync::Arc;

use http::{HeaderValue, header::LAST_MODIFIED};
use passkit_conformance::load::ListAnswer;
use passkit_server::identifiers::{
    DeviceIdentifier, InvalidIdentifier, SerialNumber, TypeIdentifier,
};

use super::{
    caller::{Asked, Caller},
    passes::Subject,
    tally::{Call, Problem},
};

/// The start of all device library identifiers, by which leftover phones can be recognised.
const PREFIX: &str = "be9cbe9c";

/// A date that is older than every pass.
const LONG_AGO: HeaderValue = HeaderValue::from_static("Sat, 01 Jan 2000 00:00:00 GMT");

/// A kind of visit: the calls that a phone makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visit {
    /// Lists with the tag from before the last change, or without a tag. Fetches the listed passes
    /// with an old date, and expects 200.
    Changed,
    /// Lists without a tag, and fetches all passes with their dates. Expects 304.
    Unchanged,
    /// Lists with its tag, and usually gets 204. Fetches the listed passes.
    Quiet,
    /// Registers all its passes with a new push token, and expects 200. Then continues like
    /// `Quiet`.
    NewToken,
    /// Unregisters a pass, registers it again and expects 201, lists with its tag, and fetches the
    /// pass without a date.
    AddedAgain,
}

/// The visits of every phone, in a loop. Phone n starts at place n of the loop.
const MIX: [Visit; 20] = {
    use Visit::{AddedAgain, Changed, NewToken, Quiet, Unchanged};
    [
        Changed, Quiet, Unchanged, Changed, Quiet, Changed, Unchanged, NewToken, Changed,
        Unchanged, //
        Changed, Quiet, Unchanged, Changed, Quiet, Changed, Unchanged, AddedAgain, Changed, Quiet,
    ]
};

impl Visit {
    /// Returns the visit with this number, if `phones` phones take turns.
    pub(super) fn of(number: u64, phones: u64) -> Self {
        let (phone, round) = (number % phones, number / phones);
        MIX[((phone + round) % MIX.len() as u64) as usize]
    }
}

/// Whether the service has a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registration {
    No,
    Yes,
    /// Registering or unregistering got no answer.
    Unclear,
}

struct Held {
    pass: Arc<Subject>,
    registration: Registration,
    /// The `Last-Modified` of the last fetch.
    date: Option<HeaderValue>,
}

pub(super) struct Phone {
    device: DeviceIdentifier,
    seed: u64,
    /// How many push tokens the phone had before.
    tokens: u64,
    type_id: TypeIdentifier,
    held: Box<[Held]>,
    tag: Option<Box<str>>,
    /// The tag before the current one.
    earlier: Option<Box<str>>,
    /// The number of `AddedAgain` visits so far. It decides which pass is removed and added.
    turn: usize,
}

/// The tag of a list call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Since {
    Tag,
    Earlier,
    Nothing,
}

/// The date of a fetch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dated {
    AsKept,
    LongAgo,
}

impl Phone {
    /// Makes a phone with these passes of one type. The phone has not registered yet. Its
    /// identifiers are made from `seed` and `number`.
    pub(super) fn new<'a>(
        seed: u64,
        number: u64,
        type_id: &TypeIdentifier,
        held: impl Iterator<Item = &'a Arc<Subject>>,
    ) -> Result<Self, InvalidIdentifier> {
        let seed = mixed(seed ^ mixed(number));
        let device = format!("{PREFIX}{:08x}{:016x}", seed as u32, mixed(seed));
        let held = held.map(|pass| Held {
            pass: pass.clone(),
            registration: Registration::No,
            date: None,
        });
        Ok(Self {
            device: DeviceIdentifier::new(&device)?,
            seed,
            tokens: 0,
            type_id: type_id.clone(),
            held: held.collect(),
            tag: None,
            earlier: None,
            turn: 0,
        })
    }

    /// Adds the passes one after another. Like a real phone, it registers, lists and fetches.
    pub(super) async fn add_all(&mut self, caller: &mut Caller) -> Result<(), Problem> {
        for index in 0..self.held.len() {
            self.add(index, caller).await?;
        }
        Ok(())
    }

    pub(super) async fn visit(&mut self, visit: Visit, caller: &mut Caller) -> Result<(), Problem> {
        // Like a real phone, this phone repeats registrations that failed.
        for index in 0..self.held.len() {
            if self.held[index].registration != Registration::Yes {
                self.register(index, caller).await?;
            }
        }
        let (since, dated) = match visit {
            Visit::Changed => (Since::Earlier, Dated::LongAgo),
            Visit::Unchanged => (Since::Nothing, Dated::AsKept),
            Visit::Quiet => (Since::Tag, Dated::AsKept),
            Visit::NewToken => {
                self.tokens += 1;
                for index in 0..self.held.len() {
                    self.register(index, caller).await?;
                }
                (Since::Tag, Dated::AsKept)
            }
            Visit::AddedAgain => {
                let index = self.turn % self.held.len();
                self.turn += 1;
                self.unregister(index, caller).await?;
                self.held[index].date = None;
                return self.add(index, caller).await;
            }
        };
        for index in self.list(since, caller).await? {
            self.fetch(index, dated, caller).await?;
        }
        Ok(())
    }

    /// Unregisters all passes of the phone. Stops at the first failure.
    pub(super) async fn remove_all(&mut self, caller: &mut Caller) -> Result<(), Problem> {
        for index in 0..self.held.len() {
            if self.held[index].registration != Registration::No {
                self.unregister(index, caller).await?;
            }
        }
        Ok(())
    }

    /// Returns how many passes of the phone may be registered.
    pub(super) fn registrations(&self) -> usize {
        self.held
            .iter()
            .filter(|held| held.registration != Registration::No)
            .count()
    }

    /// Adds a pass. A phone fetches the pass that it adds, even if the list does not name it.
    async fn add(&mut self, added: usize, caller: &mut Caller) -> Result<(), Problem> {
        self.register(added, caller).await?;
        for index in self.list(Since::Tag, caller).await? {
            if index != added {
                self.fetch(index, Dated::AsKept, caller).await?;
            }
        }
        self.fetch(added, Dated::AsKept, caller).await
    }

    async fn register(&mut self, index: usize, caller: &mut Caller) -> Result<(), Problem> {
        let body = Some(format!(r#"{{"pushToken":"{}"}}"#, self.push_token()));
        let held = &mut self.held[index];
        let url = caller.url.registration(&self.device, &held.pass.id);
        let before = std::mem::replace(&mut held.registration, Registration::Unclear);
        let asked = Asked {
            url,
            authorization: Some(&held.pass.authorization),
            body,
            since: None,
        };
        let reply = caller.send(Call::Register, asked).await?;
        if !matches!(reply.status(), 200 | 201) {
            return Err(reply.wrong(""));
        }
        held.registration = Registration::Yes;
        match (reply.status(), before) {
            (201, Registration::Yes) => Err(reply.wrong(" although it is registered already")),
            (200, Registration::No) => Err(reply.wrong(" although it is not registered yet")),
            _ => {
                caller.count(&reply);
                Ok(())
            }
        }
    }

    async fn unregister(&mut self, index: usize, caller: &mut Caller) -> Result<(), Problem> {
        let held = &mut self.held[index];
        let url = caller.url.registration(&self.device, &held.pass.id);
        held.registration = Registration::Unclear;
        let asked = Asked {
            url,
            authorization: Some(&held.pass.authorization),
            ..Asked::default()
        };
        let reply = caller.send(Call::Unregister, asked).await?;
        if reply.status() != 200 {
            return Err(reply.wrong(""));
        }
        held.registration = Registration::No;
        caller.count(&reply);
        Ok(())
    }

    /// Asks what changed, and keeps the new tag. Returns which passes of the phone are listed.
    async fn list(&mut self, since: Since, caller: &mut Caller) -> Result<Vec<usize>, Problem> {
        let tag = match since {
            Since::Tag => self.tag.clone(),
            Since::Earlier => self.earlier.clone(),
            Since::Nothing => None,
        };
        let url = caller.url.list(&self.device, &self.type_id, tag.as_deref());
        let reply = caller
            .send(
                Call::List,
                Asked {
                    url,
                    ..Asked::default()
                },
            )
            .await?;
        match reply.status() {
            204 if tag.is_none() => return Err(reply.wrong(" without a tag")),
            204 => {
                caller.count(&reply);
                if since == Since::Earlier {
                    // The service treats the earlier tag as the newest tag, so this tag is useless.
                    self.earlier = None;
                }
                return Ok(Vec::new());
            }
            200 => {}
            _ => return Err(reply.wrong("")),
        }
        let Some(answer) = ListAnswer::read(self.type_id.kind(), &reply.answer.body) else {
            return Err(Problem::new("malformed list"));
        };
        let place = |serial: &SerialNumber| {
            self.held
                .iter()
                .position(|held| held.pass.id.serial == *serial)
        };
        let listed: Option<Vec<usize>> = answer.serials.iter().map(place).collect();
        let listed =
            listed.ok_or_else(|| Problem::new("list of a pass that the phone does not have"))?;
        let is_left_out = |(index, held): (usize, &Held)| {
            held.registration == Registration::Yes && !listed.contains(&index)
        };
        if listed.is_empty() {
            return Err(Problem::new("empty list with status 200"));
        }
        if tag.is_none() && self.held.iter().enumerate().any(is_left_out) {
            return Err(Problem::new("list without a tag that leaves out a pass"));
        }
        let new = answer
            .tag
            .ok_or_else(|| Problem::new("list answer without a tag"))?
            .into_boxed_str();
        if tag.as_ref() == Some(&new) {
            return Err(Problem::new("list answer with the tag of the request"));
        }
        caller.count(&reply);
        if self.tag.as_ref() != Some(&new) {
            self.earlier = self.tag.replace(new);
        }
        Ok(listed)
    }

    async fn fetch(
        &mut self,
        index: usize,
        dated: Dated,
        caller: &mut Caller,
    ) -> Result<(), Problem> {
        let held = &mut self.held[index];
        let since = match dated {
            Dated::AsKept => held.date.clone(),
            Dated::LongAgo => Some(LONG_AGO),
        };
        let url = caller.url.pass(&held.pass.id);
        let authorization = Some(&held.pass.authorization);
        let asked = Asked {
            url,
            authorization,
            since: since.as_ref(),
            body: None,
        };
        let reply = caller.send(Call::Get, asked).await?;
        let date = reply.answer.headers.get(LAST_MODIFIED);
        match reply.status() {
            200 if reply.answer.body_bytes == 0 => {
                return Err(Problem::new("get with an empty body and status 200"));
            }
            200 if date.is_none() => return Err(Problem::new("get answer without Last-Modified")),
            200 if date == since.as_ref() => {
                return Err(reply.wrong(" although nothing changed since the date"));
            }
            // The date is copied, because the header would keep the entire read buffer in memory.
            200 => held.date = date.and_then(|date| HeaderValue::from_bytes(date.as_bytes()).ok()),
            304 if since.is_none() => return Err(reply.wrong(" without a date")),
            304 if dated == Dated::LongAgo => return Err(reply.wrong(" with an old date")),
            304 => {}
            _ => return Err(reply.wrong("")),
        }
        caller.count(&reply);
        Ok(())
    }

    /// Returns 64 hexadecimal digits, like an APNs token.
    fn push_token(&self) -> String {
        let first = mixed(self.seed ^ mixed(self.tokens));
        let second = mixed(first);
        let third = mixed(second);
        format!("{first:016x}{second:016x}{third:016x}{:016x}", mixed(third))
    }
}

/// SplitMix64. It scatters consecutive numbers, so that rows are not inserted in order.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phone_and_every_round_go_through_the_complete_mix() {
        for phones in [1, 7, 20, 40] {
            for phone in 0..phones {
                let visits: Vec<Visit> = (0..20)
                    .map(|round| Visit::of(phone + round * phones, phones))
                    .collect();
                for (visit, times) in [
                    (Visit::Changed, 8),
                    (Visit::Unchanged, 5),
                    (Visit::Quiet, 5),
                    (Visit::NewToken, 1),
                    (Visit::AddedAgain, 1),
                ] {
                    assert_eq!(
                        visits.iter().filter(|one| **one == visit).count(),
                        times,
                        "{visit:?}"
                    );
                }
            }
        }
        let round: Vec<Visit> = (40..60).map(|number| Visit::of(number, 20)).collect();
        assert_eq!(
            round.iter().filter(|one| **one == Visit::Changed).count(),
            8
        );
    }
}
