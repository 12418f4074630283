//! Finds out from the answers when devices were registered for passes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, SystemTime},
};

use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, PushToken},
    store::{Page, Registered, RegisteredDevice},
};

use super::record::{Event, History, Span};
use crate::{Rule, Violation, violation::ensure};

/// All changes of each registration, and the push tokens that each device sent.
pub(super) struct Registrations<'h> {
    changes: BTreeMap<&'h DeviceIdentifier, BTreeMap<&'h PassId, Changes>>,
    tokens: HashMap<&'h DeviceIdentifier, Vec<(Span, &'h PushToken)>>,
}

#[derive(Default)]
pub(super) struct Changes(Vec<(Span, Change)>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Register(Option<Registered>),
    Unregister(Option<bool>),
    Forget,
}

impl<'h> Registrations<'h> {
    pub(super) fn of(history: &'h History) -> Self {
        let mut all = Self {
            changes: BTreeMap::new(),
            tokens: HashMap::new(),
        };
        for call in &history.calls {
            let (device, pass, change) = match &call.event {
                Event::Register {
                    device,
                    pass,
                    push_token,
                    answer,
                } => {
                    all.tokens
                        .entry(device)
                        .or_default()
                        .push((call.span(), push_token));
                    (device, pass, Change::Register(*answer))
                }
                Event::Unregister {
                    device,
                    pass,
                    answer,
                } => (device, pass, Change::Unregister(*answer)),
                _ => continue,
            };
            all.changes
                .entry(device)
                .or_default()
                .entry(pass)
                .or_default()
                .0
                .push((call.span(), change));
        }
        for call in &history.calls {
            if let Event::Forget {
                device,
                answer: None | Some(true),
                ..
            } = &call.event
            {
                for changes in all
                    .changes
                    .get_mut(device)
                    .into_iter()
                    .flat_map(BTreeMap::values_mut)
                {
                    changes.0.push((call.span(), Change::Forget));
                }
            }
        }
        all
    }

    /// The passes that a device ever registered for.
    pub(super) fn of_device(
        &self,
        device: &DeviceIdentifier,
    ) -> impl Iterator<Item = (&'h PassId, &Changes)> {
        self.changes
            .get(device)
            .into_iter()
            .flatten()
            .map(|(pass, changes)| (*pass, changes))
    }

    /// All calls of `register` for a device.
    pub(super) fn registers(&self, device: &DeviceIdentifier) -> impl Iterator<Item = Span> {
        self.tokens
            .get(device)
            .into_iter()
            .flatten()
            .map(|(span, _)| *span)
    }

    pub(super) fn add_up(&self) -> Result<(), Violation> {
        for (pass, changes) in self.changes.values().flatten() {
            ensure(
                Rule::C10,
                changes.add_up(),
                "answers of register and unregister that are correct in some order of the calls",
                || {
                    let shown = |(Span { begin, end }, change): &(Span, Change)| {
                        let end = end.map_or("?".into(), |end| end.to_string());
                        format!("{} ({begin} to {end})", change.shown())
                    };
                    let answers: Vec<_> = changes.0.iter().map(shown).collect();
                    format!(
                        "for a device and {pass:?}, with begin and end of each call: {}",
                        answers.join(", ")
                    )
                },
            )?;
        }
        Ok(())
    }

    /// Checks that pages and counts contain every device that must be registered, no device that
    /// can't be registered, and no outdated push token.
    pub(super) fn pages(&self, history: &History) -> Result<(), Violation> {
        for call in &history.calls {
            let (begin, end) = (call.begin, call.end.unwrap_or(u64::MAX));
            match &call.event {
                Event::Devices {
                    pass,
                    from_start,
                    answer: Some(page),
                } => {
                    let is_of = |one: &PassId| one == pass;
                    self.page(page, *from_start, is_of, &format!("{pass:?}"), begin, end)?;
                }
                Event::DevicesOfType {
                    type_id,
                    from_start,
                    answer: Some(page),
                } => {
                    let is_of = |one: &PassId| one.type_id == *type_id;
                    self.page(
                        page,
                        *from_start,
                        is_of,
                        &format!("a pass of {type_id}"),
                        begin,
                        end,
                    )?;
                }
                Event::Count {
                    pass,
                    at_most,
                    answer: Some(count),
                } => {
                    let of_pass = || self.changes.values().filter_map(|passes| passes.get(pass));
                    let least = of_pass()
                        .filter(|changes| changes.surely_present(begin, end))
                        .count() as u64;
                    let most = of_pass()
                        .filter(|changes| !changes.surely_absent(begin, end))
                        .count() as u64;
                    ensure(
                        Rule::COUNT_DEVICES,
                        (least.min(*at_most)..=most).contains(count),
                        format!("from {least} to {most} devices, counted up to {at_most}"),
                        || count.to_string(),
                    )?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn page(
        &self,
        page: &Page<RegisteredDevice>,
        from_start: bool,
        is_of: impl Fn(&PassId) -> bool,
        what: &str,
        begin: u64,
        end: u64,
    ) -> Result<(), Violation> {
        let of_device = |device: &DeviceIdentifier| {
            let passes = self.changes.get(device).into_iter().flatten();
            passes
                .filter(|(pass, _)| is_of(pass))
                .map(|(_, changes)| changes)
        };
        for one in &page.items {
            let may_be_there =
                of_device(&one.device).any(|changes| !changes.surely_absent(begin, end));
            ensure(
                Rule::UNREGISTER,
                may_be_there,
                "only devices that are registered",
                || format!("a device that was never registered for {what} during the call"),
            )?;
            ensure(
                Rule::C10,
                self.may_be_the_token(&one.device, &one.push_token, begin, end),
                "the push token of the last register, or of an overlapping or unanswered register",
                || "a push token that was replaced before, or never sent".into(),
            )?;
        }
        if from_start && page.next.is_none() {
            let seen: HashSet<_> = page.items.iter().map(|one| &one.device).collect();
            let missing = self.changes.keys().filter(|device| {
                !seen.contains(**device)
                    && of_device(device).any(|changes| changes.surely_present(begin, end))
            });
            let missing = missing.count();
            ensure(Rule::C11, missing == 0, "every registered device", || {
                format!("{missing} devices missing from the only page of {what}")
            })?;
        }
        Ok(())
    }

    /// Checks that a device was forgotten if, and only if, the given time required this.
    pub(super) fn forgets(&self, history: &History) -> Result<(), Violation> {
        const DAY: Duration = Duration::from_secs(86_400);
        let now = SystemTime::now();
        for call in &history.calls {
            let Event::Forget {
                device,
                unregistered_at,
                answer: Some(forgotten),
            } = &call.event
            else {
                continue;
            };
            let (begin, end) = (call.begin, call.end.unwrap_or(u64::MAX));
            if *forgotten {
                let passes = self
                    .changes
                    .get(device)
                    .into_iter()
                    .flat_map(BTreeMap::values);
                let may_be_there = passes
                    .filter(|changes| !changes.surely_absent(begin, end))
                    .count();
                ensure(
                    Rule::C13,
                    may_be_there > 0 && *unregistered_at + DAY > now,
                    "false, because the device is not registered, or registered after the time",
                    || "true".into(),
                )?;
            } else if *unregistered_at > now + DAY {
                let passes = self
                    .changes
                    .get(device)
                    .into_iter()
                    .flat_map(BTreeMap::values);
                let present = passes
                    .filter(|changes| changes.surely_present(begin, end))
                    .count();
                ensure(
                    Rule::C13,
                    present == 0,
                    "true, because the device registered before the time",
                    || format!("false, and {present} registrations"),
                )?;
            }
        }
        Ok(())
    }

    fn may_be_the_token(
        &self,
        device: &DeviceIdentifier,
        token: &PushToken,
        begin: u64,
        end: u64,
    ) -> bool {
        let sent = self.tokens.get(device).map_or(&[][..], Vec::as_slice);
        sent.iter()
            .filter(|(span, one)| *one == token && span.begin < end)
            .any(|(span, _)| {
                // The token was replaced if a later register ended before the page was read.
                !sent
                    .iter()
                    .any(|(later, _)| later.over_before(begin) && span.over_before(later.begin))
            })
    }
}

impl Changes {
    fn registers(&self) -> impl Iterator<Item = Span> {
        self.0
            .iter()
            .filter(|(_, change)| matches!(change, Change::Register(_)))
            .map(|(span, _)| *span)
    }

    fn removals(&self) -> impl Iterator<Item = Span> {
        self.0
            .iter()
            .filter(|(_, change)| !matches!(change, Change::Register(_)))
            .map(|(span, _)| *span)
    }

    /// Returns whether the registration certainly existed from `begin` to `end`, in every possible
    /// order of overlapping calls.
    pub(super) fn surely_present(&self, begin: u64, end: u64) -> bool {
        self.registers()
            .filter(|made| made.over_before(begin))
            .any(|made| !self.removals().any(|gone| gone.touches(made.begin, end)))
    }

    pub(super) fn surely_absent(&self, begin: u64, end: u64) -> bool {
        let mut made = self.registers().filter(|made| made.begin < end).peekable();
        if made.peek().is_none() {
            return true;
        }
        let last = made.try_fold(0, |last, made| Some(last.max(made.end?)));
        last.is_some_and(|last| {
            self.removals()
                .any(|gone| gone.over_before(begin) && last < gone.begin)
        })
    }

    /// Returns the start of the last call of `register` that ended before `time`.
    pub(super) fn last_register(&self, time: u64) -> Option<u64> {
        self.registers()
            .filter(|made| made.over_before(time))
            .map(|made| made.begin)
            .max()
    }

    /// Returns whether the calls can have happened in an order that their times allow and in which
    /// all answers are correct.
    ///
    /// Goes through the starts and ends of the calls in order of time, and keeps all states in
    /// which the registration may be.
    fn add_up(&self) -> bool {
        /// If there are more states than this, the calls are not checked.
        const MOST: usize = 20_000;
        let mut points: Vec<(u64, bool, usize)> = Vec::new();
        for (n, (span, _)) in self.0.iter().enumerate() {
            points.push((span.begin, false, n));
            points.extend(span.end.map(|end| (end, true, n)));
        }
        points.sort_unstable();
        let mut open: BTreeSet<usize> = BTreeSet::new();
        let mut states = HashSet::from([State::default()]);
        for (_, is_end, n) in points {
            if !is_end {
                open.insert(n);
                continue;
            }
            let mut reached = HashSet::new();
            let mut next: Vec<_> = states.drain().collect();
            while let Some(mut state) = next.pop() {
                let changes_nothing = |one: &&usize| {
                    self.0[**one].1.after(state.registered) == Some(state.registered)
                };
                state.idle.extend(open.iter().filter(changes_nothing));
                // Among several calls with the same effect, it is enough to try the call that ends
                // first.
                let mut first: Vec<(Change, (u64, usize))> = Vec::new();
                for one in open.difference(&state.done) {
                    let (span, change) = self.0[*one];
                    let end = (span.end.unwrap_or(u64::MAX), *one);
                    match first.iter_mut().find(|(known, _)| *known == change) {
                        Some((_, known)) => *known = end.min(*known),
                        None => first.push((change, end)),
                    }
                }
                for (change, (_, one)) in first {
                    let then = change.after(state.registered);
                    if let Some(registered) = then.filter(|then| *then != state.registered) {
                        let mut done = state.done.clone();
                        done.insert(one);
                        next.push(State {
                            registered,
                            done,
                            idle: state.idle.clone(),
                        });
                    }
                }
                if !reached.insert(state) {
                    continue;
                }
                if reached.len() + next.len() > MOST {
                    return true;
                }
            }
            open.remove(&n);
            states = reached
                .into_iter()
                .filter_map(|mut state| {
                    let (done, idle) = (state.done.remove(&n), state.idle.remove(&n));
                    (done || idle).then_some(state)
                })
                .collect();
            if states.is_empty() {
                return false;
            }
        }
        true
    }
}

/// A possible state of a registration. The sets contain only calls that have begun but not ended.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct State {
    registered: bool,
    /// The calls that changed the registration.
    done: BTreeSet<usize>,
    /// The calls that may already have taken effect without a change. Until its end, such a call
    /// may also take effect later and change something.
    idle: BTreeSet<usize>,
}

impl Change {
    /// Returns whether the registration exists after this call, or `None` if the answer of the call
    /// is wrong.
    fn after(self, registered: bool) -> Option<bool> {
        match self {
            Self::Register(Some(Registered::Created)) if registered => None,
            Self::Register(Some(Registered::Existing)) if !registered => None,
            Self::Register(_) => Some(true),
            Self::Unregister(Some(existed)) if existed != registered => None,
            Self::Unregister(_) | Self::Forget => Some(false),
        }
    }

    fn shown(self) -> String {
        match self {
            Self::Register(Some(answer)) => format!("register {answer:?}"),
            Self::Register(None) => "register unanswered".into(),
            Self::Unregister(Some(answer)) => format!("unregister {answer}"),
            Self::Unregister(None) => "unregister unanswered".into(),
            Self::Forget => "forgotten".into(),
        }
    }
}
