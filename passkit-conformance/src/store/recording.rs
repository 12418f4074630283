//! Cases about delivery records.
//!
//! All times are after 2023, except in the case that discards old records. It discards only records
//! with times in the first seconds of 1970, so it does not touch the records of other cases.

use std::{
    collections::BTreeMap,
    slice,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use passkit_server::{
    PassId,
    delivery::{Complaint, DeliveryLog, Denial, Event, PushFailure, Record, Subject},
    identifiers::{DeviceIdentifier, TypeIdentifier},
};
use tokio::{sync::Barrier, task::JoinSet};

use super::{
    case::catalogue,
    names::{all, new_device, new_passes, new_type, pass_of, serial, unique},
    naming::{ALIKE, Judge, wild_serials},
};
use crate::{
    Rule, Violation,
    random::{Random, seed_of_run, with_seed},
    violation::ensure,
};

catalogue! {
    "delivery/records-are-merged" Must [D1] delivery records_are_merged,
        "Merges up to three records with smaller, equal and greater versions, times and details, in \
         every order, in one call and in several. The numbers go up to 2^53 - 1.",
        "The operator sees an old fetch as the last one, or a number of refusals that never happened.";
    "delivery/events-are-kept-apart" Must [D1] delivery events_are_kept_apart,
        "Makes a record of every event of one subject, twice. Each event has its own record.",
        "The operator sees that a phone was refused, although it fetched the pass.";
    "delivery/random-records-follow-the-model" Must [D1] delivery random_records_follow_the_model,
        "Merges random records of a few subjects, in batches of 1 to 12, and compares all records \
         with a model after each batch.",
        "The operator sees numbers and times that belong to no version of the pass.";
    "delivery/parallel-records-add-up" Must [D1] delivery parallel_records_add_up,
        "16 tasks each make 12 calls with records of the same subjects, in different orders. The \
         counts must add up, and the newest version and the last time must stay.",
        "If many instances write at once, records get lost, or the database stops with a deadlock.";
    "delivery/subjects-are-kept-apart" Must [D2 NAMES] delivery subjects_are_kept_apart,
        "Makes records of passes, devices and types with equal names, odd names, long names, names \
         that look or start alike, and names that give equal texts if they are joined. Then forgets \
         every second subject. No two subjects may be mixed up.",
        "The operator sees the records of another pass, and tells its owner the wrong reason.";
    "delivery/answers-are-in-order" Must [D2] delivery answers_are_in_order,
        "Reads subjects in several orders, some of them twice, some without records, and none at \
         all. Each answer must be at the place of its subject.",
        "The page of a pass shows the records of one phone beside the name of another.";
    "delivery/forgotten-subject-has-no-records" Must [D3] delivery forgotten_subject_has_no_records,
        "Forgets subjects, and makes new records of them. The new records must not contain anything \
         of the forgotten ones, and the records of other subjects must stay.",
        "Records of a person are kept although the operator deleted them.";
    "delivery/old-records-are-discarded" Must [D3] delivery old_records_are_discarded,
        "Discards records before several times, in steps of 10. Some of the records became newer or \
         older when another record was merged into them. Exactly the records before the time must go.",
        "Records are kept longer than the operator promised, or disappear while they are needed.";
    "delivery/acknowledged-calls-show" Must [D4] delivery acknowledged_calls_show,
        "Eight tasks make records of a subject of their own, read them, forget them, and read again, \
         20 times. Each read must show the call before it.",
        "The operator presses a button and sees the state from before.";
    "delivery/batches-of-many-sizes" Must [D1 D2 D3] delivery batches_of_many_sizes,
        "Makes, reads and forgets 501, 1,000, 1,001 and 10,007 records in one call.",
        "After a push to many phones, the records of some of them are missing.";
}

type Store = Arc<dyn DeliveryLog>;

/// The usual time of a record, in microseconds: in November 2023.
const NOW: u64 = 1_700_000_000_000_000;

fn record(subject: &Subject, event: Event) -> Record {
    Record {
        subject: subject.clone(),
        event,
        version: 0,
        count: 1,
        at: NOW,
        detail: String::new(),
    }
}

fn new_subject() -> Result<Subject, Violation> {
    Ok(Subject::Device(new_type()?, new_device()?))
}

/// The expected records of some subjects.
#[derive(Default)]
struct Model(BTreeMap<Subject, BTreeMap<Event, Record>>);

impl Model {
    fn merge(&mut self, record: &Record) {
        let of_subject = self.0.entry(record.subject.clone()).or_default();
        match of_subject.get_mut(&record.event) {
            Some(known) => known.merge(record.clone()),
            None => _ = of_subject.insert(record.event, record.clone()),
        }
    }

    fn of(&self, subject: &Subject) -> Vec<Record> {
        let records = self.0.get(subject);
        records.map_or(Vec::new(), |records| records.values().cloned().collect())
    }
}

/// Reads the records of `subjects`, and ensures that they are `wanted`, in any order within a subject.
async fn expect(
    store: &Store,
    rule: Rule,
    subjects: &[Subject],
    wanted: impl Fn(&Subject) -> Vec<Record>,
    when: &str,
) -> Result<(), Violation> {
    let answers = store.records(subjects).await?;
    ensure(
        rule,
        answers.len() == subjects.len(),
        format!("{} lists of records {when}", subjects.len()),
        || format!("{} lists", answers.len()),
    )?;
    for (subject, mut found) in subjects.iter().zip(answers) {
        let mut wanted = wanted(subject);
        found.sort_by_key(|record| record.event);
        wanted.sort_by_key(|record| record.event);
        ensure(
            rule,
            found == wanted,
            format!("{} of a {} {when}", shown(&wanted), kind(subject)),
            || {
                let foreign = found.iter().any(|record| record.subject != *subject);
                let foreign = if foreign { " of another subject" } else { "" };
                format!("{}{foreign}", shown(&found))
            },
        )?;
    }
    Ok(())
}

fn kind(subject: &Subject) -> &'static str {
    subject.parts().0
}

/// Describes the first records of a list.
fn shown(records: &[Record]) -> String {
    let one = |record: &Record| {
        let detail: String = record.detail.chars().take(40).collect();
        format!(
            "{} x {} of version {} at {} {detail:?}",
            record.count,
            record.event.name(),
            record.version,
            record.at
        )
    };
    let first: Vec<_> = records.iter().take(3).map(one).collect();
    format!("{} records [{}]", records.len(), first.join(", "))
}

/// A record in short: version, count, time after [`NOW`], detail.
type Short<'a> = (u64, u64, u64, &'a str);

const MOST: u64 = Record::MAX_NUMBER;

/// Records to merge, and the result.
const MERGED: &[(&[Short<'_>], Short<'_>)] = &[
    (&[(0, 1, 0, "")], (0, 1, 0, "")),
    (
        &[(0, 1, 0, "a"), (0, 2, 5, "b"), (0, 4, 3, "c")],
        (0, 7, 5, "b"),
    ),
    (&[(7, 1, 0, "a"), (7, 2, 1, "")], (7, 3, 1, "")),
    (&[(7, 1, 1, "a"), (7, 2, 0, "z")], (7, 3, 1, "a")),
    // The newest version counts, even if its time is earlier.
    (&[(5, 3, 9, "old"), (9, 1, 2, "new")], (9, 1, 2, "new")),
    (&[(9, 3, 9, "new"), (10, 1, 2, "")], (10, 1, 2, "")),
    (
        &[(9, 1, 0, "a"), (5, 8, 9, "old"), (9, 2, 1, "b")],
        (9, 3, 1, "b"),
    ),
    (&[(0, 8, 9, "none"), (1, 2, 0, "first")], (1, 2, 0, "first")),
    (
        &[(1, 1, 0, "a"), (2, 1, 0, "b"), (3, 1, 0, "c")],
        (3, 1, 0, "c"),
    ),
    (
        &[(MOST - 1, 8, 9, "old"), (MOST, 1, 0, "new")],
        (MOST, 1, 0, "new"),
    ),
    (
        &[(NOW, 8, 9, "old"), (NOW + 1, 1, 0, "new")],
        (NOW + 1, 1, 0, "new"),
    ),
    // If the times are equal, the greater detail stays, byte by byte.
    (&[(0, 1, 0, "b"), (0, 1, 0, "a")], (0, 2, 0, "b")),
    (
        &[(0, 1, 0, ""), (0, 1, 0, "a"), (0, 1, 0, "B")],
        (0, 3, 0, "a"),
    ),
    (&[(0, 1, 0, "a"), (0, 1, 0, "a ")], (0, 2, 0, "a ")),
    (&[(0, 1, 0, "9"), (0, 1, 0, "10")], (0, 2, 0, "9")),
    (&[(0, 1, 0, "z"), (0, 1, 0, "\u{e9}")], (0, 2, 0, "\u{e9}")),
    (
        &[(0, 1, 0, "\u{ffff}"), (0, 1, 0, "\u{1f3ab}")],
        (0, 2, 0, "\u{1f3ab}"),
    ),
    // Numbers are exact, and a count does not overflow.
    (
        &[(0, 1, 999_999, "a"), (0, 1, 1_000_000, "b")],
        (0, 2, 1_000_000, "b"),
    ),
    (
        &[(0, 1, 1, "a"), (0, 1, 2, "b"), (0, 1, 3, "c")],
        (0, 3, 3, "c"),
    ),
    (&[(0, MOST - 2, 0, ""), (0, 1, 1, "")], (0, MOST - 1, 1, "")),
    (&[(0, MOST - 1, 0, ""), (0, 5, 1, "")], (0, MOST, 1, "")),
    (
        &[(0, MOST, 0, ""), (0, MOST, 1, ""), (0, 1, 2, "")],
        (0, MOST, 2, ""),
    ),
    (
        &[(0, 1 << 40, 0, ""), (0, 3, 1, "")],
        (0, (1 << 40) + 3, 1, ""),
    ),
    (
        &[(0, 1, MOST - NOW, "last"), (0, 1, 0, "")],
        (0, 2, MOST - NOW, "last"),
    ),
    // Details come back as they are.
    (&[(0, 1, 0, " a  b ")], (0, 1, 0, " a  b ")),
    (
        &[(0, 1, 0, "it's \"100 %\" \\ {a:b}; -- null")],
        (0, 1, 0, "it's \"100 %\" \\ {a:b}; -- null"),
    ),
    (&[(0, 1, 0, "12:34:56:78")], (0, 1, 0, "12:34:56:78")),
    (
        &[(0, 1, 0, "A\u{308} \u{c4} \u{1f3ab}\u{fe0f} \u{202e}")],
        (0, 1, 0, "A\u{308} \u{c4} \u{1f3ab}\u{fe0f} \u{202e}"),
    ),
];

fn full(subject: &Subject, (version, count, at, detail): Short<'_>) -> Record {
    Record {
        version,
        count,
        at: NOW + at,
        detail: detail.to_owned(),
        ..record(subject, Event::Fetched)
    }
}

/// Returns all orders of up to three items.
fn orders<T: Copy>(items: &[T]) -> Vec<Vec<T>> {
    match *items {
        [a, b] => vec![vec![a, b], vec![b, a]],
        [a, b, c] => [
            [a, b, c],
            [a, c, b],
            [b, a, c],
            [b, c, a],
            [c, a, b],
            [c, b, a],
        ]
        .map(Vec::from)
        .to_vec(),
        _ => vec![items.to_vec()],
    }
}

async fn records_are_merged(store: &Store) -> Result<(), Violation> {
    let long = "\u{fc}".repeat(Record::MAX_DETAIL / 2);
    let long = [(0, 1, 0, long.as_str())];
    let tables = MERGED.iter().copied().chain([(&long[..], long[0])]);
    // One call has all records of a subject, or each call has one record of each subject.
    let mut at_once: Vec<Record> = Vec::new();
    let mut steps: [Vec<Record>; 3] = Default::default();
    let mut wanted = BTreeMap::new();
    for (records, merged) in tables {
        for order in orders(records) {
            let [together, apart] = [new_subject()?, new_subject()?];
            at_once.extend(order.iter().map(|short| full(&together, *short)));
            for (step, short) in steps.iter_mut().zip(order) {
                step.push(full(&apart, short));
            }
            for subject in [together, apart] {
                let merged = full(&subject, merged);
                wanted.insert(subject, merged);
            }
        }
    }
    store.record(&at_once).await?;
    for step in &steps {
        store.record(step).await?;
    }
    let subjects: Vec<_> = wanted.keys().cloned().collect();
    let of = |subject: &Subject| wanted.get(subject).cloned().into_iter().collect();
    expect(
        store,
        Rule::D1,
        &subjects,
        of,
        "after merging records in any order",
    )
    .await
}

async fn events_are_kept_apart(store: &Store) -> Result<(), Violation> {
    let subjects = [
        Subject::Type(new_type()?),
        new_subject()?,
        Subject::Pass(new_passes(1)?.1[0].clone()),
    ];
    let mut model = Model::default();
    for round in 0..2 {
        let mut batch = Vec::new();
        for (number, event) in (0..).zip(Event::all()) {
            for subject in &subjects {
                batch.push(Record {
                    count: 1 + number,
                    at: NOW + round * 100 + number,
                    detail: format!("{} {round}", event.name()),
                    ..record(subject, event)
                });
            }
        }
        batch.iter().for_each(|record| model.merge(record));
        store.record(&batch).await?;
    }
    let of = |subject: &Subject| model.of(subject);
    expect(
        store,
        Rule::D1,
        &subjects,
        of,
        "with one record for each event",
    )
    .await
}

async fn random_records_follow_the_model(store: &Store) -> Result<(), Violation> {
    let seed = seed_of_run()?;
    follow_the_model(store, &mut Random::new(seed))
        .await
        .map_err(|violation| with_seed(violation, seed))
}

async fn follow_the_model(store: &Store, random: &mut Random) -> Result<(), Violation> {
    const EVENTS: [Event; 3] = [
        Event::Fetched,
        Event::Refused(Denial::WrongToken),
        Event::PushFailed(PushFailure::TooMany),
    ];
    const DETAILS: [&str; 5] = ["", "a", "b", "a ", "\u{e4}"];
    let (type_id, passes) = new_passes(2)?;
    let mut subjects: Vec<_> = passes.into_iter().map(Subject::Pass).collect();
    subjects.extend([
        Subject::Device(type_id.clone(), new_device()?),
        Subject::Type(type_id),
    ]);
    let mut model = Model::default();
    let mut below = |end: usize| random.below(end) as u64;
    for _ in 0..60 {
        let batch: Vec<_> = (0..=below(12))
            .map(|_| Record {
                version: below(4),
                count: 1 + below(3),
                at: NOW + below(6),
                detail: DETAILS[below(DETAILS.len()) as usize].to_owned(),
                ..record(
                    &subjects[below(subjects.len()) as usize],
                    EVENTS[below(EVENTS.len()) as usize],
                )
            })
            .collect();
        store.record(&batch).await?;
        batch.iter().for_each(|record| model.merge(record));
        let of = |subject: &Subject| model.of(subject);
        expect(store, Rule::D1, &subjects, of, "after a random batch").await?;
    }
    Ok(())
}

async fn parallel_records_add_up(store: &Store) -> Result<(), Violation> {
    const TASKS: u64 = 16;
    const CALLS: u64 = 12;
    let (type_id, passes) = new_passes(3)?;
    let mut subjects: Vec<_> = passes.into_iter().map(Subject::Pass).collect();
    subjects.push(Subject::Type(type_id));
    let events = [Event::Fetched, Event::Unchanged];
    let start = Arc::new(Barrier::new(TASKS as usize));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (store, start, mut subjects) = (store.clone(), start.clone(), subjects.clone());
        // The tasks name the subjects in different orders, so that a store that locks them in the
        // order of the call runs into a deadlock.
        subjects.rotate_left(task as usize % 4);
        if task % 2 == 0 {
            subjects.reverse();
        }
        tasks.spawn(async move {
            start.wait().await;
            for call in 0..CALLS {
                let batch: Vec<_> = subjects
                    .iter()
                    .flat_map(|subject| events.map(|event| record(subject, event)))
                    .map(|record| Record {
                        version: 1 + call % 2,
                        count: 1 + task,
                        at: NOW + call * TASKS + task,
                        detail: format!("{call} of {task}"),
                        ..record
                    })
                    .collect();
                store.record(&batch).await?;
            }
            Ok::<_, Violation>(())
        });
    }
    all(tasks).await?;
    // Every second call has version 2, among them the last one.
    let wanted = |subject: &Subject| {
        let of = |event| Record {
            version: 2,
            count: CALLS / 2 * (TASKS * (TASKS + 1) / 2),
            at: NOW + CALLS * TASKS - 1,
            detail: format!("{} of {}", CALLS - 1, TASKS - 1),
            ..record(subject, event)
        };
        events.map(of).to_vec()
    };
    expect(store, Rule::D1, &subjects, wanted, "after parallel calls").await
}

async fn subjects_are_kept_apart(store: &Store) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    let device = DeviceIdentifier::new("serial-0")?;
    let plain = [
        Subject::Pass(passes[0].clone()),
        Subject::Pass(passes[1].clone()),
        Subject::Device(type_id.clone(), device.clone()),
        Subject::Device(new_type()?, device),
        Subject::Type(type_id),
    ];
    each_has_its_own(store, &plain, Judge::Plain).await?;
    each_has_its_own(store, &odd_subjects()?, Judge::Odd).await
}

/// Subjects that a store may confuse.
fn odd_subjects() -> Result<Vec<Subject>, Violation> {
    let base = new_type()?;
    let mut subjects = Vec::new();
    let alike = ALIKE.iter().flat_map(|group| *group);
    for text in alike.map(|text| format!("n{text}")).chain(wild_serials()) {
        subjects.push(Subject::Pass(pass_of(&base, &serial(&text)?)));
        if let Ok(device) = DeviceIdentifier::new(&text) {
            subjects.push(Subject::Device(base.clone(), device));
        }
    }
    let upper = format!("pass.{}", base.as_str()[5..].to_uppercase());
    let order = base.as_str().replacen("pass.", "order.", 1);
    let longest = format!("{base}{}", "u".repeat(128 - base.as_str().len()));
    let other = format!("{}v", &longest[..127]);
    let mut types = vec![base.as_str().to_owned(), upper, order, longest, other];
    types.extend(["u", ".u", "-u", "_u", "~u", "_", "x"].map(|end| format!("{base}{end}")));
    for text in types {
        let type_id = TypeIdentifier::new(&text)?;
        let names = ["u", "U", ".u", "uu", "device", "pass", "type"];
        for name in names {
            subjects.push(Subject::Pass(PassId::new(&text, name)?));
            let device = DeviceIdentifier::new(name)?;
            subjects.push(Subject::Device(type_id.clone(), device));
        }
        for joint in ["/", ":", "\u{1f}", " ", "|"] {
            // For example, `pass.t` and `u/u` joined with a slash look like a type and two names.
            if let Ok(pass) = PassId::new(&text, &format!("u{joint}u")) {
                subjects.push(Subject::Pass(pass));
            }
        }
        subjects.push(Subject::Type(type_id));
    }
    let long = format!("{}{}", unique(), "x".repeat(95));
    for end in ["", "y", "z"] {
        let device = DeviceIdentifier::new(&format!("{long}{end}"))?;
        subjects.push(Subject::Device(base.clone(), device));
    }
    subjects.sort();
    subjects.dedup();
    Ok(subjects)
}

/// Makes two records of each subject, and forgets every second subject. Ensures that each subject
/// has its own records all the time.
async fn each_has_its_own(
    store: &Store,
    subjects: &[Subject],
    judge: Judge,
) -> Result<(), Violation> {
    let mut model = Model::default();
    for (number, subject) in (1..).zip(subjects) {
        for (event, at) in [(Event::Fetched, NOW), (Event::Unchanged, NOW + number)] {
            model.merge(&Record {
                count: number,
                at,
                detail: format!("{number} of {}", kind(subject)),
                ..record(subject, event)
            });
        }
    }
    let records: Vec<_> = subjects.iter().flat_map(|one| model.of(one)).collect();
    store.record(&records).await?;
    let rule = judge.rule(Rule::D2);
    let of = |subject: &Subject| model.of(subject);
    expect(store, rule, subjects, of, "that is like other subjects").await?;
    let forgotten: Vec<_> = subjects.iter().step_by(2).cloned().collect();
    store.forget(&forgotten).await?;
    let left = |subject: &Subject| {
        let is_forgotten = forgotten.contains(subject);
        if is_forgotten {
            Vec::new()
        } else {
            of(subject)
        }
    };
    let rule = judge.rule(Rule::D3);
    expect(store, rule, subjects, left, "after others were forgotten").await
}

async fn answers_are_in_order(store: &Store) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(4)?;
    let mut subjects: Vec<_> = passes.into_iter().map(Subject::Pass).collect();
    subjects.insert(1, Subject::Type(type_id.clone()));
    subjects.push(Subject::Device(type_id, new_device()?));
    let mut model = Model::default();
    for (number, subject) in (1..).zip(&subjects).filter(|(number, _)| number % 3 != 0) {
        model.merge(&Record {
            count: number,
            ..record(subject, Event::Fetched)
        });
    }
    let records: Vec<_> = subjects.iter().flat_map(|one| model.of(one)).collect();
    store.record(&records).await?;
    store.record(&[]).await?;
    store.forget(&[]).await?;
    let of = |subject: &Subject| model.of(subject);
    for turn in 0..subjects.len() {
        subjects.rotate_left(turn);
        let mut asked = subjects.clone();
        asked.extend_from_slice(&subjects[..2]);
        asked.push(subjects[0].clone());
        expect(store, Rule::D2, &asked, of, "at its place in the answer").await?;
    }
    expect(store, Rule::D2, &[], of, "if none was asked for").await
}

async fn forgotten_subject_has_no_records(store: &Store) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    let device = Subject::Device(type_id.clone(), DeviceIdentifier::new("serial-0")?);
    let subjects = [
        Subject::Pass(passes[0].clone()),
        device,
        Subject::Type(type_id),
        Subject::Pass(passes[1].clone()),
    ];
    let events = [
        Event::Fetched,
        Event::Complaint(Complaint::Other),
        Event::PushFailed(PushFailure::Gone),
    ];
    let of = |subject: &Subject, version| {
        let one = |event| Record {
            version,
            count: version,
            detail: format!("of version {version}"),
            ..record(subject, event)
        };
        events.map(one).to_vec()
    };
    for subject in &subjects {
        let mut both: Vec<_> = subjects.iter().flat_map(|one| of(one, 9)).collect();
        store.forget(&subjects).await?;
        store.record(&both).await?;
        // A subject may occur twice, and may have no records.
        let twice = [subject.clone(), new_subject()?, subject.clone()];
        store.forget(&twice).await?;
        both.retain(|record| record.subject != *subject);
        let left = |one: &Subject| {
            let records = both.iter().filter(|record| record.subject == *one);
            records.cloned().collect()
        };
        expect(
            store,
            Rule::D3,
            &subjects,
            left,
            "after one subject was forgotten",
        )
        .await?;
        // A forgotten version does not hide an older one.
        store.record(&of(subject, 5)).await?;
        let asked = slice::from_ref(subject);
        let wanted = |one: &Subject| of(one, 5);
        expect(store, Rule::D3, asked, wanted, "that was forgotten before").await?;
    }
    Ok(())
}

/// Discards records until none remains before this time, in microseconds.
async fn discard_before(store: &Store, micros: u64) -> Result<(), Violation> {
    let time = UNIX_EPOCH + Duration::from_micros(micros);
    // A call may remove fewer records than its limit, but the calls must finish at some point.
    for _ in 0..10_000 {
        if store.discard_before(time, 10).await? {
            return Ok(());
        }
    }
    Err(Violation::new(
        Rule::D3,
        "true from discard_before, once no record before the time is left",
        "false from 10,000 calls",
    ))
}

async fn old_records_are_discarded(store: &Store) -> Result<(), Violation> {
    let subjects: Vec<_> = (0..60).map(|_| new_subject()).collect::<Result<_, _>>()?;
    let mut model = Model::default();
    let mut batch = Vec::new();
    for (number, subject) in (0..).zip(&subjects) {
        let at = |event, version, at| Record {
            at,
            version,
            ..record(subject, event)
        };
        // One record is old from the start.
        batch.push(at(Event::Fetched, 0, 1_000 + number));
        // One became newer, and one became older with a newer version.
        batch.push(at(Event::Asked, 0, 1_000 + number));
        batch.push(at(Event::Asked, 0, 3_000_000 + number));
        batch.push(at(Event::PushEnded, 1, 3_000_000 + number));
        batch.push(at(Event::PushEnded, 2, 1_000 + number));
        // One never becomes old here.
        if number % 2 == 0 {
            batch.push(at(Event::Told, 0, NOW));
        }
    }
    for part in batch.chunks(7) {
        store.record(part).await?;
        part.iter().for_each(|record| model.merge(record));
    }
    for before in [1_000, 1_001, 1_030, 2_999_999, 3_000_030, 4_000_000] {
        discard_before(store, before).await?;
        for records in model.0.values_mut() {
            records.retain(|_, record| record.at >= before);
        }
        let of = |subject: &Subject| model.of(subject);
        let when = format!("after everything before {before} was discarded");
        expect(store, Rule::D3, &subjects, of, &when).await?;
    }
    // A discarded version does not hide an older one.
    let again = Record {
        version: 1,
        ..record(&subjects[0], Event::PushEnded)
    };
    store.record(slice::from_ref(&again)).await?;
    model.merge(&again);
    discard_before(store, 5_000_000).await?;
    let of = |subject: &Subject| model.of(subject);
    expect(
        store,
        Rule::D3,
        &subjects,
        of,
        "after old records were discarded",
    )
    .await
}

async fn acknowledged_calls_show(store: &Store) -> Result<(), Violation> {
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let subject = new_subject()?;
            let asked = slice::from_ref(&subject);
            for round in 1..=20 {
                let fetched = Record {
                    count: round,
                    ..record(&subject, Event::Fetched)
                };
                store.record(slice::from_ref(&fetched)).await?;
                // With several instances, the reads go to different ones.
                for _ in 0..3 {
                    let wanted = |_: &Subject| vec![fetched.clone()];
                    expect(&store, Rule::D4, asked, wanted, "that was just recorded").await?;
                }
                store.forget(asked).await?;
                for _ in 0..3 {
                    let none = |_: &Subject| Vec::new();
                    expect(&store, Rule::D4, asked, none, "that was just forgotten").await?;
                }
            }
            Ok::<_, Violation>(())
        });
    }
    all(tasks).await.map(drop)
}

async fn batches_of_many_sizes(store: &Store) -> Result<(), Violation> {
    for size in [501, 1_000, 1_001, 10_007] {
        let (_, passes) = new_passes(size)?;
        let subjects: Vec<_> = passes.into_iter().map(Subject::Pass).collect();
        let records: Vec<_> = (1..)
            .zip(&subjects)
            .map(|(count, subject)| Record {
                count,
                ..record(subject, Event::Fetched)
            })
            .collect();
        store.record(&records).await?;
        let counts: BTreeMap<_, _> = records.iter().map(|one| (&one.subject, one)).collect();
        let of = |subject: &Subject| counts.get(subject).copied().cloned().into_iter().collect();
        let when = format!("in a batch of {size}");
        expect(store, Rule::D1, &subjects, of, &when).await?;
        store.forget(&subjects).await?;
        let none = |_: &Subject| Vec::new();
        expect(store, Rule::D3, &subjects, none, &when).await?;
    }
    Ok(())
}
