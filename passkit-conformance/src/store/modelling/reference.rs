//! A model of a store. It keeps the registrations and the changes since each tag, and checks the
//! answers of a store.

use std::{
    collections::{BTreeMap, BTreeSet},
    slice,
    time::{Duration, UNIX_EPOCH},
};

use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{PushToken, TokenDigest},
    store::{Audience, Content, Published, Registered, RegistrationStore, UpdateTag, clock},
};

use super::operation::{DEVICES, Operation, PASSES, Publication, Since, TYPES, Time};
use crate::{
    Rule, Violation,
    store::names::{
        Device, expect_devices, new_push_token, new_type, pass_of, serial, shown_state,
    },
    violation::ensure,
};

pub(super) struct Reference {
    devices: Vec<Device>,
    passes: Vec<PassId>,
    /// The registered passes of each device.
    registered: Vec<BTreeSet<usize>>,
    /// The answers with serial numbers, for each device and type.
    answers: BTreeMap<(usize, usize), Vec<Answered>>,
    /// The last known state of each pass.
    states: Vec<Seen>,
    /// The expected answer of `published` for each pass.
    published: Vec<Option<Published>>,
}

/// A tag, and the changes since it was issued.
struct Answered {
    tag: UpdateTag,
    /// The passes that the list for this tag must name, each with the rule that requires it.
    due: BTreeMap<usize, Rule>,
    /// True if no pass of the type was marked and the device did not register.
    quiet: bool,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    last: Option<PassState>,
    ever_marked: bool,
    marked_since: bool,
}

impl Reference {
    /// Makes an empty model with new identifiers.
    pub(super) fn new() -> Result<Self, Violation> {
        let types = (0..TYPES)
            .map(|_| new_type())
            .collect::<Result<Vec<_>, _>>()?;
        let pass =
            |(type_id, number): (usize, &str)| Ok(pass_of(&types[type_id], &serial(number)?));
        Ok(Self {
            devices: (0..DEVICES)
                .map(|_| Device::new())
                .collect::<Result<_, _>>()?,
            passes: PASSES
                .into_iter()
                .map(pass)
                .collect::<Result<_, Violation>>()?,
            registered: vec![BTreeSet::new(); DEVICES],
            answers: BTreeMap::new(),
            states: vec![Seen::default(); PASSES.len()],
            published: vec![None; PASSES.len()],
        })
    }

    /// Makes a call, checks its answer against the model, and updates the model.
    pub(super) async fn step(
        &mut self,
        store: &dyn RegistrationStore,
        operation: &Operation,
    ) -> Result<(), Violation> {
        match *operation {
            Operation::Register {
                device,
                pass,
                new_token,
            } => {
                let token = new_token.then(new_push_token).transpose()?;
                self.register(store, device, pass, token).await
            }
            Operation::Unregister { device, pass } => {
                let existed = store
                    .unregister(&self.devices[device].id, &self.passes[pass])
                    .await?;
                let wanted = self.registered[device].remove(&pass);
                ensure(
                    Rule::UNREGISTER,
                    existed == wanted,
                    format!("{wanted} from unregister"),
                    || existed.to_string(),
                )
            }
            Operation::Mark {
                type_id,
                ref passes,
            } => {
                let serials: Vec<_> = passes
                    .iter()
                    .map(|pass| self.passes[*pass].serial.clone())
                    .collect();
                store
                    .mark(&self.passes[passes[0]].type_id, Changed::Passes(&serials))
                    .await?;
                self.marked(type_id, passes.iter().copied(), Rule::C1);
                Ok(())
            }
            Operation::MarkAll { type_id } => {
                let passes: Vec<_> = of_type(type_id).collect();
                store
                    .mark(&self.passes[passes[0]].type_id, Changed::All)
                    .await?;
                self.marked(type_id, passes, Rule::C9);
                Ok(())
            }
            Operation::List {
                device,
                type_id,
                since,
            } => self.list(store, device, type_id, since).await,
            Operation::State { pass } => self.state(store, pass).await,
            Operation::Devices { pass, limit } => {
                let audience = Audience::Pass(&self.passes[pass]);
                expect_devices(
                    store,
                    audience,
                    self.registered_for(&[pass]),
                    limit,
                    Rule::C11,
                )
                .await
            }
            Operation::DevicesOfType { type_id, limit } => {
                let passes: Vec<_> = of_type(type_id).collect();
                let audience = Audience::Type(&self.passes[passes[0]].type_id);
                expect_devices(
                    store,
                    audience,
                    self.registered_for(&passes),
                    limit,
                    Rule::C11,
                )
                .await
            }
            Operation::Count { pass, at_most } => {
                let there = self.registered_for(&[pass]).count() as u64;
                let counted = store.count_devices(&self.passes[pass], at_most).await?;
                ensure(
                    Rule::COUNT_DEVICES,
                    (there.min(at_most)..=there).contains(&counted),
                    format!("{there} devices, counted up to {at_most}"),
                    || counted.to_string(),
                )
            }
            Operation::Publish {
                type_id,
                ref contents,
            } => self.publish(store, type_id, contents).await,
            Operation::Published { pass } => {
                let found = store.published(slice::from_ref(&self.passes[pass])).await?;
                let wanted = &self.published[pass];
                // Shows only the numbers from which digests and tokens were made.
                let shown = |one: &Published| {
                    let tokens: Vec<_> =
                        one.tokens.iter().map(|token| token.as_bytes()[0]).collect();
                    format!(
                        "content {:?}, tokens {tokens:?}, removed {}",
                        one.digest.map(|all| all[0]),
                        one.removed
                    )
                };
                ensure(
                    Rule::P5,
                    found == slice::from_ref(wanted),
                    format!("{:?} published", wanted.as_ref().map(shown)),
                    || {
                        format!(
                            "{:?}",
                            found
                                .iter()
                                .map(|one| one.as_ref().map(shown))
                                .collect::<Vec<_>>()
                        )
                    },
                )
            }
            Operation::Forget { device, time } => self.forget(store, device, time).await,
        }
    }

    /// Returns the devices that are registered for at least one of these passes.
    fn registered_for<'a>(&'a self, passes: &'a [usize]) -> impl Iterator<Item = &'a Device> {
        let is_registered = |device: &usize| {
            passes
                .iter()
                .any(|pass| self.registered[*device].contains(pass))
        };
        (0..DEVICES)
            .filter(is_registered)
            .map(|device| &self.devices[device])
    }

    async fn publish(
        &mut self,
        store: &dyn RegistrationStore,
        type_id: usize,
        contents: &[Publication],
    ) -> Result<(), Violation> {
        let digest_of = |number: u8| [number; 32];
        let mut all = Vec::new();
        let mut marked = Vec::new();
        for Publication {
            pass,
            digest,
            tokens,
        } in contents
        {
            let tokens: Vec<_> = tokens
                .iter()
                .map(|number| TokenDigest::from_bytes([*number; 32]))
                .collect();
            let digest = digest.map(digest_of);
            let published = self.published[*pass].get_or_insert_default();
            for token in &tokens {
                published.tokens.retain(|known| known != token);
                published.tokens.push(*token);
            }
            published
                .tokens
                .drain(..published.tokens.len().saturating_sub(16));
            published.removed = digest.is_none();
            if digest.is_some() && digest != published.digest {
                published.digest = digest;
                marked.push(*pass);
            }
            all.push(Content {
                serial: self.passes[*pass].serial.clone(),
                digest,
                tokens,
            });
        }
        let name = &self.passes[of_type(type_id).next().unwrap_or(0)].type_id;
        store.mark(name, Changed::Contents(&all)).await?;
        if !marked.is_empty() {
            self.marked(type_id, marked, Rule::P2);
        }
        Ok(())
    }

    async fn register(
        &mut self,
        store: &dyn RegistrationStore,
        device: usize,
        pass: usize,
        token: Option<PushToken>,
    ) -> Result<(), Violation> {
        if let Some(token) = token {
            self.devices[device].push_token = token;
        }
        let Device { id, push_token } = &self.devices[device];
        let registered = store.register(id, &self.passes[pass], push_token).await?;
        let new = self.registered[device].insert(pass);
        let wanted = if new {
            Registered::Created
        } else {
            Registered::Existing
        };
        for ((of, type_id), answers) in &mut self.answers {
            for answered in answers.iter_mut().filter(|_| *of == device) {
                answered.quiet = false;
                if *type_id == PASSES[pass].0 {
                    answered.due.insert(pass, Rule::C3);
                }
            }
        }
        ensure(
            Rule::C10,
            registered == wanted,
            format!("{wanted:?} from register"),
            || format!("{registered:?}"),
        )
    }

    fn marked(&mut self, type_id: usize, passes: impl IntoIterator<Item = usize>, rule: Rule) {
        let passes: Vec<_> = passes.into_iter().collect();
        for pass in &passes {
            let seen = &mut self.states[*pass];
            (seen.ever_marked, seen.marked_since) = (true, true);
        }
        for ((_, of), answers) in &mut self.answers {
            for answered in answers.iter_mut().filter(|_| *of == type_id) {
                answered.quiet = false;
                answered.due.extend(passes.iter().map(|pass| (*pass, rule)));
            }
        }
    }

    async fn list(
        &mut self,
        store: &dyn RegistrationStore,
        device: usize,
        type_id: usize,
        since: Since,
    ) -> Result<(), Violation> {
        let name = &self.passes[of_type(type_id).next().unwrap_or(0)].type_id;
        let own = self
            .answers
            .get(&(device, type_id))
            .map_or(&[][..], Vec::as_slice);
        let foreign =
            || (0..DEVICES).find(|other| *other != device && self.last(*other, type_id).is_some());
        let known = match since {
            Since::Last => own.last(),
            Since::Older(back) => own
                .len()
                .checked_sub(back + 1)
                .map(|at| &own[at])
                .or(own.first()),
            Since::None | Since::Foreign | Since::Ahead => None,
        };
        let tag = match since {
            Since::Foreign => foreign()
                .and_then(|other| self.last(other, type_id))
                .map(|one| one.tag),
            Since::Ahead => {
                let ahead = clock::now_micros() + 3_600_000_000;
                Some(UpdateTag {
                    type_version: ahead,
                    device_version: ahead,
                })
            }
            _ => known.map(|answered| answered.tag),
        };
        let listed = self.devices[device].list(store, name, tag).await?;

        let registered: Vec<_> = self.registered[device]
            .iter()
            .copied()
            .filter(|pass| PASSES[*pass].0 == type_id)
            .collect();
        listed.is_within(registered.iter().map(|pass| &self.passes[*pass]))?;
        for pass in &registered {
            let rule = match (known, since) {
                (Some(answered), _) => answered.due.get(pass).copied(),
                (None, Since::Ahead) => Some(Rule::C5),
                // The contract does not define the list for a tag of another device.
                (None, Since::Foreign) if tag.is_some() => None,
                (None, _) => Some(Rule::CHANGES_SINCE),
            };
            if let Some(rule) = rule {
                listed.has([&self.passes[*pass]], rule, "by this list")?;
            }
        }
        if known.is_some_and(|answered| answered.quiet) {
            listed.is_empty(Rule::C2, "when nothing happened after the tag was issued")?;
        }
        if listed.serials.is_empty() {
            return Ok(());
        }
        if let Some(last) = own.last().map(|answered| answered.tag) {
            let forward = listed.tag.type_version >= last.type_version
                && listed.tag.device_version >= last.device_version;
            ensure(
                Rule::C4,
                forward,
                format!("a tag that is not before {last}"),
                || listed.tag.to_string(),
            )?;
        }
        let answered = Answered {
            tag: listed.tag,
            due: BTreeMap::new(),
            quiet: true,
        };
        self.answers
            .entry((device, type_id))
            .or_default()
            .push(answered);
        Ok(())
    }

    fn last(&self, device: usize, type_id: usize) -> Option<&Answered> {
        self.answers
            .get(&(device, type_id))
            .and_then(|answers| answers.last())
    }

    async fn state(&mut self, store: &dyn RegistrationStore, pass: usize) -> Result<(), Violation> {
        let now = store.pass_state(&self.passes[pass]).await?;
        let seen = self.states[pass];
        self.states[pass] = Seen {
            last: Some(now),
            marked_since: false,
            ..seen
        };
        ensure(
            Rule::C14,
            (now.version > 0) == seen.ever_marked,
            "version 0 until the first mark",
            || format!("version {}", now.version),
        )?;
        let digest = self.published[pass]
            .as_ref()
            .and_then(|published| published.digest);
        ensure(
            Rule::P2,
            now.published == digest,
            "the digest of the content that was published last",
            || "another digest".into(),
        )?;
        let Some(last) = seen.last else { return Ok(()) };
        let holds = if seen.marked_since {
            now.version > last.version && now.last_modified > last.last_modified
        } else {
            now == PassState {
                published: now.published,
                ..last
            }
        };
        let expected = if seen.marked_since {
            "later than"
        } else {
            "still"
        };
        ensure(
            Rule::C14,
            holds,
            format!("{expected} {}", shown_state(last)),
            || shown_state(now),
        )
    }

    async fn forget(
        &mut self,
        store: &dyn RegistrationStore,
        device: usize,
        time: Time,
    ) -> Result<(), Violation> {
        // A pass of any type will do, because each tag contains the device's clock.
        let Some(pass) = self.registered[device].first() else {
            let later = UNIX_EPOCH
                + Duration::from_micros(clock::now_micros())
                + Duration::from_secs(3_600);
            let forgotten = store.forget_device(&self.devices[device].id, later).await?;
            return ensure(
                Rule::C13,
                !forgotten,
                "false for a device without registrations",
                || forgotten.to_string(),
            );
        };
        let listed = self.devices[device]
            .ask(store, &self.passes[*pass].type_id, None)
            .await?;
        let last = UNIX_EPOCH + Duration::from_micros(listed.tag.device_version);
        let at = match time {
            Time::Before => last - Duration::from_millis(1),
            Time::At => last,
            Time::After => last + Duration::from_secs(3_600),
        };
        let wanted = !matches!(time, Time::Before);
        let forgotten = store.forget_device(&self.devices[device].id, at).await?;
        if wanted {
            self.registered[device].clear();
        }
        ensure(
            Rule::C13,
            forgotten == wanted,
            format!("{wanted} from forget_device"),
            || forgotten.to_string(),
        )
    }
}

fn of_type(type_id: usize) -> impl Iterator<Item = usize> {
    (0..PASSES.len()).filter(move |pass| PASSES[*pass].0 == type_id)
}
