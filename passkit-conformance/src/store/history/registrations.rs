//! Who was registered for what, as far as the answers tell.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use passkit_server::{DeviceIdentifier, DevicePage, PassId, PushToken, Registered};

use super::{Event, History, Span};
use crate::{
    Rule,
    breach::{Kept, demand},
};

/// By device and pass, what was done to the registration; by device, the push tokens that were sent.
pub(super) struct Registrations<'h> {
    changes: BTreeMap<&'h DeviceIdentifier, BTreeMap<&'h PassId, Changes>>,
    tokens: HashMap<&'h DeviceIdentifier, Vec<(Span, &'h PushToken)>>,
}

#[derive(Default)]
pub(super) struct Changes(Vec<(Span, Change)>);

#[derive(Clone, Copy)]
enum Change {
    Register(Option<Registered>),
    Unregister(Option<bool>),
    Forget,
}

impl<'h> Registrations<'h> {
    pub(super) fn of(history: &'h History) -> Self {
        let mut all = Self { changes: BTreeMap::new(), tokens: HashMap::new() };
        for call in &history.calls {
            let (device, pass, change) = match &call.event {
                Event::Register { device, pass, push_token, answer } => {
                    all.tokens.entry(device).or_default().push((call.span(), push_token));
                    (device, pass, Change::Register(*answer))
                }
                Event::Unregister { device, pass, answer } => (device, pass, Change::Unregister(*answer)),
                _ => continue,
            };
            all.changes.entry(device).or_default().entry(pass).or_default().0.push((call.span(), change));
        }
        for call in &history.calls {
            if let Event::Forget { device, answer: None | Some(true) } = &call.event {
                for changes in all.changes.get_mut(device).into_iter().flat_map(BTreeMap::values_mut) {
                    changes.0.push((call.span(), Change::Forget));
                }
            }
        }
        all
    }

    /// What a device was ever registered for.
    pub(super) fn of_device(
        &self,
        device: &DeviceIdentifier,
    ) -> impl Iterator<Item = (&'h PassId, &Changes)> {
        self.changes.get(device).into_iter().flatten().map(|(pass, changes)| (*pass, changes))
    }

    /// When the device registered for anything.
    pub(super) fn registers(&self, device: &DeviceIdentifier) -> impl Iterator<Item = Span> {
        self.tokens.get(device).into_iter().flatten().map(|(span, _)| *span)
    }

    pub(super) fn add_up(&self) -> Kept {
        for (pass, changes) in self.changes.values().flatten() {
            demand(
                Rule::C10,
                changes.add_up(),
                "answers of register and unregister that some order of the calls explains",
                || {
                    let answers: Vec<_> = changes.0.iter().map(|(_, change)| change.shown()).collect();
                    format!(
                        "for one device and {pass:?}, in the order of their begins: {}",
                        answers.join(", ")
                    )
                },
            )?;
        }
        Ok(())
    }

    /// Whether the pages hold who must be there, not who can't be, and no outdated push token.
    pub(super) fn pages(&self, history: &History) -> Kept {
        for call in &history.calls {
            let Event::Devices { pass, from_start, answer: Some(DevicePage { devices, next }) } = &call.event
            else {
                continue;
            };
            let (begin, end) = (call.begin, call.end.unwrap_or(u64::MAX));
            for one in devices {
                let changes = self.changes.get(&one.device).and_then(|passes| passes.get(pass));
                demand(
                    Rule::UNREGISTER,
                    changes.is_some_and(|changes| !changes.surely_absent(begin, end)),
                    "no device in the pages of a pass that it is not registered for",
                    || format!("one that was not registered for {pass:?} all the while"),
                )?;
                demand(
                    Rule::C10,
                    self.may_be_the_token(&one.device, &one.push_token, begin, end),
                    "the push token of the last register, or of one under way",
                    || "one that was replaced before, or never sent".into(),
                )?;
            }
            if *from_start && next.is_none() {
                let shown: HashSet<_> = devices.iter().map(|one| &one.device).collect();
                let missing = self.changes.iter().filter(|(device, passes)| {
                    let here = passes.get(pass).is_some_and(|changes| changes.surely_present(begin, end));
                    here && !shown.contains(*device)
                });
                let missing = missing.count();
                demand(Rule::C11, missing == 0, "every device that is registered for the pass", || {
                    format!("{missing} missing from the only page of {pass:?}")
                })?;
            }
        }
        Ok(())
    }

    fn may_be_the_token(&self, device: &DeviceIdentifier, token: &PushToken, begin: u64, end: u64) -> bool {
        let sent = self.tokens.get(device).map_or(&[][..], Vec::as_slice);
        sent.iter().filter(|(span, one)| *one == token && span.begin < end).any(|(span, _)| {
            // Not if another register came after this one, and was over before the reading began.
            !sent.iter().any(|(later, _)| later.over_before(begin) && span.over_before(later.begin))
        })
    }
}

impl Changes {
    fn registers(&self) -> impl Iterator<Item = Span> {
        self.0.iter().filter(|(_, change)| matches!(change, Change::Register(_))).map(|(span, _)| *span)
    }

    fn removals(&self) -> impl Iterator<Item = Span> {
        self.0.iter().filter(|(_, change)| !matches!(change, Change::Register(_))).map(|(span, _)| *span)
    }

    /// Whether the registration was there from `begin` to `end`, whatever the order of overlapping calls.
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
        last.is_some_and(|last| self.removals().any(|gone| gone.over_before(begin) && last < gone.begin))
    }

    /// The begin of the last register that was over before `time`.
    pub(super) fn last_register(&self, time: u64) -> Option<u64> {
        self.registers().filter(|made| made.over_before(time)).map(|made| made.begin).max()
    }

    /// Whether some order of the calls that their times allow explains all answers.
    ///
    /// Goes through the ends of calls, and keeps each state the registration may be in together with the calls still
    /// under way that brought it there.
    fn add_up(&self) -> bool {
        /// Beyond this the order is too open to be followed.
        const MOST: usize = 20_000;
        let mut points: Vec<(u64, bool, usize)> = Vec::new();
        for (n, (span, _)) in self.0.iter().enumerate() {
            points.push((span.begin, false, n));
            points.extend(span.end.map(|end| (end, true, n)));
        }
        points.sort_unstable();
        let mut open: BTreeSet<usize> = BTreeSet::new();
        let mut states = HashSet::from([(false, BTreeSet::new())]);
        for (_, is_end, n) in points {
            if !is_end {
                open.insert(n);
                continue;
            }
            let mut reached = HashSet::new();
            let mut next: Vec<_> = states.drain().collect();
            while let Some((registered, mut done)) = next.pop() {
                // What leaves the state as it is can be taken to have happened here: nothing is lost by it.
                done.extend(open.iter().filter(|one| self.0[**one].1.after(registered) == Some(registered)));
                for one in open.difference(&done) {
                    if let Some(then) = self.0[*one].1.after(registered) {
                        let mut done = done.clone();
                        done.insert(*one);
                        next.push((then, done));
                    }
                }
                if !reached.insert((registered, done)) {
                    continue;
                }
                if reached.len() + next.len() > MOST {
                    return true;
                }
            }
            open.remove(&n);
            states = reached
                .into_iter()
                .filter_map(|(registered, mut done)| done.remove(&n).then_some((registered, done)))
                .collect();
            if states.is_empty() {
                return false;
            }
        }
        true
    }
}

impl Change {
    /// Whether the registration is there after this, if the answer fits.
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
