//! The calls of a sequence. Devices, passes and types are numbers.

use std::fmt;

use crate::random::Random;

pub(super) const DEVICES: usize = 3;
/// The type and serial number of each pass. Both types have a pass `1`.
pub(super) const PASSES: [(usize, &str); 5] = [(0, "1"), (0, "2"), (0, "A/3"), (1, "1"), (1, "4")];
pub(super) const TYPES: usize = 2;

#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// Registers with the device's push token or a new one.
    Register {
        device: usize,
        pass: usize,
        new_token: bool,
    },
    Unregister {
        device: usize,
        pass: usize,
    },
    /// Marks passes of one type. A pass may occur twice.
    Mark {
        type_id: usize,
        passes: Vec<usize>,
    },
    MarkAll {
        type_id: usize,
    },
    List {
        device: usize,
        type_id: usize,
        since: Since,
    },
    State {
        pass: usize,
    },
    Devices {
        pass: usize,
        limit: usize,
    },
    DevicesOfType {
        type_id: usize,
        limit: usize,
    },
    Count {
        pass: usize,
        at_most: u64,
    },
    /// Publishes passes of one type. Each pass occurs once.
    Publish {
        type_id: usize,
        contents: Vec<Publication>,
    },
    Published {
        pass: usize,
    },
    Forget {
        device: usize,
        time: Time,
    },
}

/// The content that is published for a pass. The pass, the digest and the tokens are numbers.
/// Without a digest, the pass is published as removed.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    pub(super) pass: usize,
    pub(super) digest: Option<u8>,
    pub(super) tokens: Vec<u8>,
}

/// The tag that a device asks with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Since {
    None,
    /// The tag of the device's last answer with serial numbers.
    Last,
    /// The tag that the device got this many answers before its last answer.
    Older(usize),
    /// The last tag of another device.
    Foreign,
    Ahead,
}

/// A time before, at or after the last registration of a device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Time {
    Before,
    At,
    After,
}

/// Makes a sequence of 15 to 44 random calls, then calls that read everything.
pub(super) fn sequence(random: &mut Random) -> Vec<Operation> {
    let length = 15 + random.below(30);
    let mut all: Vec<_> = (0..length).map(|_| one(random)).collect();
    for device in 0..DEVICES {
        for type_id in 0..TYPES {
            for since in [Since::Older(1), Since::Last, Since::Last, Since::None] {
                all.push(Operation::List {
                    device,
                    type_id,
                    since,
                });
            }
        }
    }
    for pass in 0..PASSES.len() {
        all.push(Operation::State { pass });
        all.push(Operation::Devices { pass, limit: 2 });
        all.push(Operation::Published { pass });
    }
    all.extend((0..TYPES).map(|type_id| Operation::DevicesOfType { type_id, limit: 2 }));
    all
}

fn one(random: &mut Random) -> Operation {
    let device = random.below(DEVICES);
    let pass = random.below(PASSES.len());
    let type_id = PASSES[pass].0;
    match random.below(42) {
        0..=7 => Operation::Register {
            device,
            pass,
            new_token: random.below(3) == 0,
        },
        8..=10 => Operation::Unregister { device, pass },
        11..=15 => {
            let of_type: Vec<_> = (0..PASSES.len())
                .filter(|pass| PASSES[*pass].0 == type_id)
                .collect();
            let count = 1 + random.below(3);
            let passes = (0..count)
                .map(|_| of_type[random.below(of_type.len())])
                .collect();
            Operation::Mark { type_id, passes }
        }
        16 => Operation::MarkAll { type_id },
        17..=24 => {
            let since = match random.below(10) {
                0..=4 => Since::Last,
                5..=6 => Since::Older(1 + random.below(4)),
                7 => Since::None,
                8 => Since::Foreign,
                _ => Since::Ahead,
            };
            Operation::List {
                device,
                type_id,
                since,
            }
        }
        25..=27 => Operation::State { pass },
        28..=29 => Operation::Devices {
            pass,
            limit: random.below(4),
        },
        30 => Operation::DevicesOfType {
            type_id,
            limit: random.below(4),
        },
        31 => Operation::Count {
            pass,
            at_most: random.below(4) as u64,
        },
        32..=37 => {
            let mut contents = Vec::new();
            for pass in (0..PASSES.len()).filter(|pass| PASSES[*pass].0 == type_id) {
                if random.below(2) == 0 {
                    let digest = (random.below(5) > 0).then(|| random.below(2) as u8);
                    let tokens = (0..random.below(4))
                        .map(|_| random.below(24) as u8)
                        .collect();
                    contents.push(Publication {
                        pass,
                        digest,
                        tokens,
                    });
                }
            }
            Operation::Publish { type_id, contents }
        }
        38..=39 => Operation::Published { pass },
        _ => {
            let time = [Time::Before, Time::At, Time::After][random.below(3)];
            Operation::Forget { device, time }
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |device: &usize| char::from(b'A' + u8::try_from(*device).unwrap_or(0));
        let pass = |pass: &usize| {
            let (type_id, serial) = PASSES[*pass];
            format!("pass {serial} of type {type_id}")
        };
        match self {
            Self::Register {
                device,
                pass: of,
                new_token,
            } => {
                let token = if *new_token {
                    " with a new push token"
                } else {
                    ""
                };
                write!(
                    f,
                    "register device {} for {}{token}",
                    name(device),
                    pass(of)
                )
            }
            Self::Unregister { device, pass: of } => {
                write!(f, "unregister device {} from {}", name(device), pass(of))
            }
            Self::Mark { type_id, passes } => {
                let serials: Vec<_> = passes.iter().map(|pass| PASSES[*pass].1).collect();
                write!(f, "mark {} of type {type_id}", serials.join(", "))
            }
            Self::MarkAll { type_id } => write!(f, "mark all of type {type_id}"),
            Self::List {
                device,
                type_id,
                since,
            } => {
                let since = match since {
                    Since::None => "no tag".to_owned(),
                    Since::Last => "its last tag".to_owned(),
                    Since::Older(back) => format!("its tag of {back} answers before the last"),
                    Since::Foreign => "the tag of another device".to_owned(),
                    Since::Ahead => "a tag ahead of the clocks".to_owned(),
                };
                write!(
                    f,
                    "list type {type_id} for device {} with {since}",
                    name(device)
                )
            }
            Self::State { pass: of } => write!(f, "state of {}", pass(of)),
            Self::Devices { pass: of, limit } => {
                write!(f, "devices of {} in pages of {limit}", pass(of))
            }
            Self::DevicesOfType { type_id, limit } => {
                write!(f, "devices of type {type_id} in pages of {limit}")
            }
            Self::Count { pass: of, at_most } => {
                write!(f, "count devices of {} up to {at_most}", pass(of))
            }
            Self::Publish { type_id, contents } => {
                let content = |content: &Publication| {
                    let serial = PASSES[content.pass].1;
                    let tokens = &content.tokens;
                    match content.digest {
                        Some(digest) => {
                            format!("content {digest} of {serial} with tokens {tokens:?}")
                        }
                        None => format!("removal of {serial} with tokens {tokens:?}"),
                    }
                };
                let contents: Vec<_> = contents.iter().map(content).collect();
                write!(f, "publish in type {type_id}: {}", contents.join(", "))
            }
            Self::Published { pass: of } => write!(f, "read the published content of {}", pass(of)),
            Self::Forget { device, time } => {
                let time = match time {
                    Time::Before => "a millisecond before",
                    Time::At => "at the time of",
                    Time::After => "an hour after",
                };
                write!(f, "forget device {} {time} its last register", name(device))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence() {
        let shown = |seed| format!("{:?}", sequence(&mut Random::new(seed)));
        assert_eq!(shown(7), shown(7));
        assert_ne!(shown(7), shown(8));
    }
}
