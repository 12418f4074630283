//! Several instances over one store.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use crate::{
    archives::{pass, replace, token_of, with_token},
    program::{Service, eventually},
};

const TYPE: &str = "pass.com.example.shared";

/// Two instances over this store and one folder agree on what changed, and serve it. A third
/// instance that starts later agrees with them.
pub(crate) fn agree(store: &str) {
    let mut one = Service::over(store);
    let file = one.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "0")).unwrap();
    fs::write(one.passes().join("b.pkpass"), pass(TYPE, "B-1", "0")).unwrap();
    let mut two = one.sibling();
    one.start();
    two.start();

    assert_eq!(one.register("D", TYPE, "A-1"), 201);
    assert_eq!(two.register("D", TYPE, "A-1"), 200);
    let (_, mut tag) = two.list("D", TYPE, None).unwrap();
    let mut date = one
        .get(TYPE, "A-1", None)
        .header("last-modified")
        .unwrap()
        .to_owned();
    assert_eq!(two.get(TYPE, "A-1", Some(&date)).status, 304);
    for version in 1..=4 {
        let content = pass(TYPE, "A-1", &version.to_string());
        replace(&file, &content);
        eventually("the change is listed", || {
            one.list("D", TYPE, Some(&tag)).is_some()
        });
        // Both serve the change at once, even if the other one noticed it first.
        for service in [&two, &one] {
            let answer = service.get(TYPE, "A-1", Some(&date));
            assert_eq!(answer.status, 200, "{}", service.said());
            assert!(answer.body == content, "old content under a new date");
        }
        let (serials, newer) = two.list("D", TYPE, Some(&tag)).unwrap();
        assert_eq!(serials, ["A-1"]);
        date = one
            .get(TYPE, "A-1", None)
            .header("last-modified")
            .unwrap()
            .to_owned();
        // By now both have noticed the change, and only one mark was made.
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(one.list("D", TYPE, Some(&newer)), None, "marked twice");
        assert_eq!(two.get(TYPE, "A-1", Some(&date)).status, 304);
        tag = newer;
    }

    // A third instance starts with an empty disk. It changes nothing.
    let mut three = one.sibling();
    three.start();
    assert_eq!(three.list("D", TYPE, Some(&tag)), None);
    assert_eq!(three.get(TYPE, "A-1", Some(&date)).status, 304);
    assert_eq!(one.stop("TERM").code(), Some(0));
    assert_eq!(three.unregister("D", TYPE, "A-1"), 200);
    assert_eq!(two.list("D", TYPE, None), None);
}

/// Instances with different content over this store keep answering, and don't mark the pass again
/// and again. When they have the same content, every phone gets it, with any version that it had.
pub(crate) fn disagree(store: &str) {
    let [old, new] = ["old", "new"].map(|version| pass(TYPE, "A-1", version));
    let mut one = Service::over(store);
    let file = one.passes().join("a.pkpass");
    fs::write(&file, &new).unwrap();
    one.start();
    assert_eq!(one.register("D", TYPE, "A-1"), 201);
    // An old instance restarts with an empty disk.
    let mut two = one.newcomer();
    fs::write(two.passes().join("a.pkpass"), &old).unwrap();
    let started = Instant::now();
    two.start();

    let mut versions = BTreeSet::new();
    let mut fetch_from_both = || {
        for (service, content) in [(&one, &new), (&two, &old)] {
            let answer = service.get(TYPE, "A-1", None);
            assert_eq!(answer.status, 200, "{}", service.said());
            assert!(answer.body == *content, "the copy of another instance");
            versions.insert(answer.header("etag").unwrap().to_owned());
        }
        versions.len()
    };
    eventually("both publish their content again", || {
        fetch_from_both() >= 3
    });
    for _ in 0..30 {
        fetch_from_both();
    }
    // The second instance marked the pass at its start, and then each instance marked it once more.
    // After that, no pause is shorter than a minute.
    let pauses = started.elapsed().as_secs() as usize / 60;
    assert!(versions.len() <= 3 + 2 * pauses, "{versions:?}");
    let said = one.said() + &two.said();
    let lines = said.matches("instances serve different contents").count();
    assert!((1..=2 + 2 * pauses).contains(&lines), "{said}");

    // A phone got the new content with the `Last-Modified` of the old content. It gets the old content when
    // both instances have it.
    let date = || {
        one.get(TYPE, "A-1", None)
            .header("last-modified")
            .unwrap()
            .to_owned()
    };
    let (_, tag) = one.list("D", TYPE, None).unwrap();
    let date_before = date();
    replace(&file, &old);
    eventually("both have the same content", || {
        one.get(TYPE, "A-1", None).body == old
    });
    eventually("the pass is listed", || {
        one.list("D", TYPE, Some(&tag)).is_some()
    });
    for service in [&one, &two] {
        let answer = service.get(TYPE, "A-1", Some(&date_before));
        assert_eq!(answer.status, 200);
        assert!(answer.body == old);
    }
    // After that nothing changes. The pass changed so often that its date is a few seconds ahead.
    let (_, tag) = one.list("D", TYPE, Some(&tag)).unwrap();
    eventually("the date is reached", || {
        one.get(TYPE, "A-1", Some(&date())).status == 304
    });
    let date = date();
    for service in [&one, &two, &one] {
        assert_eq!(service.get(TYPE, "A-1", Some(&date)).status, 304);
        assert_eq!(service.list("D", TYPE, Some(&tag)), None);
    }
}

/// An instance that starts later with an empty disk knows earlier tokens, removed passes, and
/// passes whose files it does not have.
pub(crate) fn know_tokens(store: &str) {
    const FIRST: &str = "the-first-token-of-it";
    const SECOND: &str = "the-second-token-of-it";
    let mut one = Service::over(store).given(&["--allow-unsigned"]);
    let [renewed, removed] =
        ["renewed", "removed"].map(|name| one.passes().join(format!("{name}.pkpass")));
    fs::write(&renewed, with_token(TYPE, "renewed", FIRST)).unwrap();
    fs::write(&removed, pass(TYPE, "removed", "one")).unwrap();
    fs::write(
        one.passes().join("missing.pkpass"),
        pass(TYPE, "missing", "one"),
    )
    .unwrap();
    one.start();
    let [of_removed, of_missing] = ["removed", "missing"].map(|serial| token_of(TYPE, serial));
    assert_eq!(one.register("D-1", TYPE, "removed"), 201);
    replace(&renewed, &with_token(TYPE, "renewed", SECOND));
    fs::remove_file(&removed).unwrap();

    let mut two = one.newcomer();
    fs::write(
        two.passes().join("renewed.pkpass"),
        with_token(TYPE, "renewed", SECOND),
    )
    .unwrap();
    two.start();
    for token in [FIRST, SECOND] {
        assert_eq!(
            two.statuses("D-2", TYPE, "renewed", token),
            [201, 200, 200],
            "{token}"
        );
    }
    assert_eq!(two.statuses("D-2", TYPE, "renewed", &of_missing), [401; 3]);

    // At first the instance does not have this pass yet. Later the pass is no longer offered.
    eventually("the removal is known", || {
        two.statuses("D-2", TYPE, "removed", &of_removed) == [401, 401, 200]
    });
    let (serials, _) = two.list("D-1", TYPE, None).unwrap();
    assert_eq!(serials, ["removed"]);
    assert_eq!(two.unregister("D-1", TYPE, "removed"), 200);
    assert_eq!(one.list("D-1", TYPE, None), None);

    assert_eq!(
        two.statuses("D-2", TYPE, "missing", &of_missing),
        [201, 503, 200]
    );
    assert_eq!(
        two.get(TYPE, "missing", None).header("retry-after"),
        Some("30")
    );
    assert_eq!(two.statuses("D-2", TYPE, "missing", FIRST), [401; 3]);
    assert_eq!(two.statuses("D-2", TYPE, "nothing", &of_missing), [401; 3]);
}
