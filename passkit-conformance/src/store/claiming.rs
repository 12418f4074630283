//! Cases about claims and notes.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use passkit_server::store::Coordination;
use tokio::{sync::Barrier, task::JoinSet};

use super::{
    case::catalogue,
    names::{all, unique},
    stores::Opened,
};
use crate::{CaseResult, Rule, Violation, violation::ensure};

catalogue! {
    "coordination/one-owner-has-a-claim" Must [K1] coordination one_owner_has_a_claim,
        "20 owners claim one name at once, ten times. The winner may claim it again, and the \
         other owners are refused.",
        "Two workers send the same phones a push for the same change.";
    "coordination/claims-end-in-time" Must [K1] coordination claims_end_in_time,
        "An owner claims a name for a second, while another owner tries to claim it too. Then the owner of a \
         claim extends it, and later shortens it.",
        "After a worker died, phones with passes of its type get no more pushes.";
    "coordination/only-the-owner-releases" Must [K2] coordination only_the_owner_releases,
        "Claims are released by another owner, by the owner, and by a former owner.",
        "A slow worker ends the claim of its successor, and two workers send pushes to the same \
         phones.";
    "coordination/one-of-many-replaces-a-note" Must [K3] coordination one_of_many_replaces_a_note,
        "20 callers create, change or remove one note at once, eight times. Each time, only one \
         may succeed.",
        "Two instances do something that only one of them should do. For example, an enrolment is accepted \
         twice.";
    "coordination/counting-in-a-note-loses-nothing" Must [K3] coordination
        counting_in_a_note_loses_nothing,
        "Ten tasks each add one to a number in a note, 20 times. A task tries again if another \
         task was faster.",
        "The progress of an import goes back, or two restores use the same epoch.";
    "coordination/notes-are-compared" Must [K3] coordination notes_are_compared,
        "Replaces notes with many kinds of text. Each call names the current note or a wrong note as the \
         expected one. Reads the note after each call.",
        "An instance overwrites a note that another instance wrote in the meantime.";
    "coordination/names-are-kept-apart" Must [K1 K3 NAMES] coordination names_are_kept_apart,
        "Makes claims and notes with odd names, long names, and names that start alike or differ \
         only in case. None may affect another.",
        "The claims of two types are mixed up, and no instance sends the pushes of one of them.";
    "coordination/notes-survive-reopening" Must [K4] opened notes_survive_reopening,
        "16 tasks create, replace and remove notes. Then the data are opened again, as after a \
         crash. All acknowledged changes must be there.",
        "After a restart, an enrolment is accepted a second time, or an import starts from the \
         beginning.";
}

type Store = Arc<dyn Coordination>;

const LONG: Duration = Duration::from_secs(600);

/// The longest wait for the end of a short claim. The limit is generous, for slow machines.
const TIMEOUT: Duration = Duration::from_secs(60);

fn new_name() -> String {
    format!("conformance:{}", unique())
}

/// Claims a name. Ensures that the answer is `wanted`.
async fn claims(
    store: &Store,
    name: &str,
    owner: &str,
    time: Duration,
    wanted: bool,
    when: &str,
) -> Result<(), Violation> {
    let given = store.claim(name, owner, time).await?;
    ensure(
        Rule::K1,
        given == wanted,
        format!("{wanted} for a claim {when}"),
        || given.to_string(),
    )
}

/// Claims `name` for `owner` again and again, until the claim succeeds.
async fn claims_in_time(
    store: &Store,
    name: &str,
    owner: &str,
    time: Duration,
) -> Result<(), Violation> {
    let start = Instant::now();
    while !store.claim(name, owner, time).await? {
        ensure(
            Rule::K1,
            start.elapsed() < TIMEOUT,
            "a claim that ends after its time",
            || format!("a claim that still exists after {TIMEOUT:?}"),
        )?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn one_owner_has_a_claim(store: &Store) -> Result<(), Violation> {
    const AT_ONCE: usize = 20;
    for _ in 0..10 {
        let name = new_name();
        let start = Arc::new(Barrier::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for number in 0..AT_ONCE {
            let (store, name, start) = (store.clone(), name.clone(), start.clone());
            tasks.spawn(async move {
                let owner = format!("owner-{number}");
                start.wait().await;
                let given = store.claim(&name, &owner, LONG).await?;
                Ok::<_, Violation>((owner, given))
            });
        }
        let answers = all(tasks).await?;
        let owners: Vec<_> = answers
            .iter()
            .filter(|(_, given)| *given)
            .map(|(owner, _)| owner)
            .collect();
        ensure(
            Rule::K1,
            owners.len() == 1,
            "exactly one of 20 owners with the claim",
            || owners.len().to_string(),
        )?;
        let Some(owner) = owners.first() else {
            continue;
        };
        let [one, two] = ["a", "b"].map(|last| format!("{}{last}", "x".repeat(999)));
        let beside = new_name();
        claims(store, &beside, &one, LONG, true, "that nobody has").await?;
        claims(store, &beside, &two, LONG, false, "that another owner has").await?;
        for _ in 0..2 {
            claims(store, &name, owner, LONG, true, "by the owner that has it").await?;
            for other in ["owner", "owner-20", "Owner-1", " "] {
                claims(store, &name, other, LONG, false, "that another owner has").await?;
            }
        }
    }
    Ok(())
}

async fn claims_end_in_time(store: &Store) -> Result<(), Violation> {
    const SHORT: Duration = Duration::from_millis(300);
    const SECOND: Duration = Duration::from_secs(1);
    let name = new_name();
    let asked = Instant::now();
    claims(store, &name, "a", SECOND, true, "that nobody has").await?;
    claims_in_time(store, &name, "b", SHORT).await?;
    let elapsed = asked.elapsed();
    // A clock with whole milliseconds may lose a fraction of a millisecond.
    ensure(
        Rule::K1,
        elapsed >= SECOND - Duration::from_millis(2),
        "a claim of a second",
        || format!("{elapsed:?}"),
    )?;

    // A longer time extends a claim. To see this, a short claim of another name is made later. When
    // the other claim has ended, the short time of the first claim has passed too.
    let name = new_name();
    claims(store, &name, "a", SHORT, true, "that nobody has").await?;
    claims(store, &name, "a", LONG, true, "by the owner that had it").await?;
    let beside = new_name();
    claims(store, &beside, "a", SHORT, true, "of another name").await?;
    claims_in_time(store, &beside, "b", LONG).await?;
    claims(store, &name, "b", LONG, false, "that was extended").await?;

    // A shorter time ends a claim sooner.
    claims(
        store,
        &name,
        "a",
        Duration::from_millis(1),
        true,
        "by the owner that has it",
    )
    .await?;
    claims_in_time(store, &name, "b", LONG).await?;
    claims(
        store,
        &name,
        "a",
        LONG,
        false,
        "that ended, and that another owner has now",
    )
    .await
}

async fn only_the_owner_releases(store: &Store) -> Result<(), Violation> {
    let released = |given: bool| {
        ensure(
            Rule::K2,
            !given,
            "a claim that others can't release",
            || "a claim that another owner released".into(),
        )
    };
    let name = new_name();
    store.release(&name, "a").await?;
    claims(store, &name, "a", LONG, true, "that nobody has").await?;
    for other in ["b", "A", "a ", "a:b", "*"] {
        store.release(&name, other).await?;
        released(store.claim(&name, "b", LONG).await?)?;
    }
    store.release(&name, "a").await?;
    let given = store.claim(&name, "b", LONG).await?;
    ensure(
        Rule::K2,
        given,
        "a claim after its owner released it",
        || "none".into(),
    )?;
    // The former owner releases the claim once more, too late.
    store.release(&name, "a").await?;
    released(store.claim(&name, "c", LONG).await?)?;
    store.release(&name, "b").await?;
    store.release(&name, "b").await?;
    let given = store.claim(&name, "a", LONG).await?;
    ensure(
        Rule::K2,
        given,
        "a claim after its owner released it twice",
        || "none".into(),
    )
}

async fn expect_note(
    store: &Store,
    name: &str,
    wanted: Option<&str>,
    when: &str,
) -> Result<(), Violation> {
    let found = store.note(name).await?;
    ensure(
        Rule::K3,
        found.as_deref() == wanted,
        format!("the note {} {when}", shown(wanted)),
        || shown(found.as_deref()),
    )
}

async fn replaces(
    store: &Store,
    name: &str,
    expected: Option<&str>,
    new: Option<&str>,
    wanted: bool,
) -> Result<(), Violation> {
    let before = store.note(name).await?;
    let replaced = store.replace_note(name, expected, new).await?;
    ensure(
        Rule::K3,
        replaced == wanted,
        format!(
            "{wanted} if the old note is expected to be {} and is {}",
            shown(expected),
            shown(before.as_deref())
        ),
        || replaced.to_string(),
    )?;
    expect_note(
        store,
        name,
        if wanted { new } else { before.as_deref() },
        "after that",
    )
    .await
}

/// The first characters of a note.
fn shown(note: Option<&str>) -> String {
    format!(
        "{:?}",
        note.map(|note| note.chars().take(40).collect::<String>())
    )
}

async fn one_of_many_replaces_a_note(store: &Store) -> Result<(), Violation> {
    const AT_ONCE: usize = 20;
    let name = new_name();
    let mut before: Option<String> = None;
    for round in 0..8 {
        let removing = round % 4 == 3;
        let start = Arc::new(Barrier::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for number in 0..AT_ONCE {
            let (store, name, start, before) =
                (store.clone(), name.clone(), start.clone(), before.clone());
            tasks.spawn(async move {
                let new = (!removing).then(|| format!("round {round}, caller {number}"));
                start.wait().await;
                let replaced = store
                    .replace_note(&name, before.as_deref(), new.as_deref())
                    .await?;
                Ok::<_, Violation>(replaced.then_some(new))
            });
        }
        let mut replaced: Vec<_> = all(tasks).await?.into_iter().flatten().collect();
        ensure(
            Rule::K3,
            replaced.len() == 1,
            format!(
                "exactly one of 20 callers that replaces {}",
                shown(before.as_deref())
            ),
            || replaced.len().to_string(),
        )?;
        before = replaced.pop().flatten();
        expect_note(
            store,
            &name,
            before.as_deref(),
            "of the caller that replaced it",
        )
        .await?;
    }
    Ok(())
}

async fn counting_in_a_note_loses_nothing(store: &Store) -> Result<(), Violation> {
    const TASKS: u64 = 10;
    const EACH: u64 = 20;
    let name = new_name();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (store, name) = (store.clone(), name.clone());
        tasks.spawn(async move {
            let mut left = EACH;
            while left > 0 {
                let before = store.note(&name).await?;
                let number: u64 = before
                    .as_deref()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(0);
                let next = (number + 1).to_string();
                if store
                    .replace_note(&name, before.as_deref(), Some(&next))
                    .await?
                {
                    left -= 1;
                } else {
                    tokio::task::yield_now().await;
                }
            }
            Ok::<_, Violation>(())
        });
    }
    all(tasks).await?;
    expect_note(
        store,
        &name,
        Some(&(TASKS * EACH).to_string()),
        "after so many additions",
    )
    .await
}

async fn notes_are_compared(store: &Store) -> Result<(), Violation> {
    let name = new_name();
    let long = "ü".repeat(500);
    let long_too = format!("{}xy", "ü".repeat(499));
    expect_note(store, &name, None, "of a new name").await?;
    replaces(store, &name, Some("a"), Some("b"), false).await?;
    replaces(store, &name, Some("a"), None, false).await?;
    replaces(store, &name, None, None, true).await?;
    let notes = [
        "a",
        "A",
        "a ",
        "%",
        "*",
        "0",
        "null",
        "{\"a\": \"b\"}",
        "'; --",
        "\u{1f3ab}",
        "\u{e4}",
        "a\u{308}",
        &long,
        &long_too,
    ];
    let mut before: Option<&str> = None;
    for note in notes {
        for wrong in notes
            .into_iter()
            .map(Some)
            .chain([None])
            .filter(|wrong| *wrong != before)
        {
            replaces(store, &name, wrong, Some("wrong"), false).await?;
        }
        replaces(store, &name, before, Some(note), true).await?;
        replaces(store, &name, Some(note), Some(note), true).await?;
        before = Some(note);
    }
    replaces(store, &name, Some("a"), None, false).await?;
    replaces(store, &name, before, None, true).await?;
    replaces(store, &name, before, None, false).await?;
    replaces(store, &name, None, Some("a"), true).await
}

async fn names_are_kept_apart(store: &Store) -> Result<(), Violation> {
    let base = new_name();
    let long = |last: char| format!("{base}{}{last}", "x".repeat(699 - base.len()));
    let mut names = vec![base.clone(), base.to_uppercase(), long('y'), long('z')];
    for end in [
        "0",
        ".b",
        ":b",
        " ",
        "*",
        "%",
        "_",
        "/",
        "{a}",
        "\\",
        "'",
        "\u{fc}",
        "\u{1f3ab}",
    ] {
        names.push(format!("{base}{end}"));
    }
    for name in &names {
        expect_note(store, name, None, "of a new name")
            .await
            .map_err(|found| found.unless_error_under(Rule::NAMES))?;
        let given = store.claim(name, "one", LONG).await?;
        ensure(Rule::NAMES, given, "a separate claim for each name", || {
            "no claim".into()
        })?;
        replaces(store, name, None, Some(name), true)
            .await
            .map_err(|found| found.unless_error_under(Rule::NAMES))?;
    }
    for (n, name) in names.iter().enumerate() {
        let given = store.claim(name, "another", LONG).await?;
        ensure(
            Rule::NAMES,
            !given,
            "a claim that lasts until it is released",
            || "no claim, or a claim of another owner".into(),
        )?;
        expect_note(store, name, Some(name), "of this name")
            .await
            .map_err(|found| found.unless_error_under(Rule::NAMES))?;
        // A claim and a note may have the same name, and don't affect each other.
        if n % 2 == 0 {
            store.release(name, "one").await?;
            expect_note(
                store,
                name,
                Some(name),
                "after the claim of the same name was released",
            )
            .await?;
            replaces(store, name, Some(name), None, true)
                .await
                .map_err(|found| found.unless_error_under(Rule::NAMES))?;
        } else {
            replaces(store, name, Some(name), None, true)
                .await
                .map_err(|found| found.unless_error_under(Rule::NAMES))?;
            let given = store.claim(name, "another", LONG).await?;
            ensure(
                Rule::NAMES,
                !given,
                "a claim after the note of its name was removed",
                || "no claim, or a claim of another owner".into(),
            )?;
            store.release(name, "one").await?;
        }
        let given = store.claim(name, "another", LONG).await?;
        ensure(Rule::NAMES, given, "a claim that was released", || {
            "no claim".into()
        })?;
        // The notes of the following names are still there.
        expect_note(store, name, None, "of a removed name")
            .await
            .map_err(|found| found.unless_error_under(Rule::NAMES))?;
    }
    Ok(())
}

async fn notes_survive_reopening(opened: &Opened) -> CaseResult {
    let store = opened.coordination()?;
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        let store = store.clone();
        tasks.spawn(async move { write(&store, number).await });
    }
    let notes: BTreeMap<String, Option<String>> = all(tasks).await?.into_iter().flatten().collect();
    let reopened = opened.reopen().await?;
    let reopened = reopened.coordination()?;
    for (name, note) in &notes {
        let found = expect_note(reopened, name, note.as_deref(), "as it was acknowledged").await;
        found.map_err(|found| found.unless_error_under(Rule::K4))?;
        // The notes can be replaced as before.
        replaces(reopened, name, note.as_deref(), Some("next"), true)
            .await
            .map_err(|found| found.unless_error_under(Rule::K4))?;
    }
    Ok(())
}

/// Writes some notes. Returns each name with its expected note, or with `None` if the note was
/// removed.
async fn write(store: &Store, number: usize) -> Result<Vec<(String, Option<String>)>, Violation> {
    let [kept, replaced, removed] = [new_name(), new_name(), new_name()];
    for name in [&kept, &replaced, &removed] {
        replaces(store, name, None, Some("first"), true).await?;
    }
    let last = format!("last of {number}");
    replaces(store, &replaced, Some("first"), Some("second"), true).await?;
    replaces(store, &replaced, Some("second"), Some(&last), true).await?;
    replaces(store, &replaced, Some("second"), Some("wrong"), false).await?;
    replaces(store, &removed, Some("first"), None, true).await?;
    Ok(vec![
        (kept, Some("first".into())),
        (replaced, Some(last)),
        (removed, None),
    ])
}
