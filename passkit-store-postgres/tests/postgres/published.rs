use passkit_server::{
    Changed,
    identifiers::TypeIdentifier,
    push::{PushQueue, Scope},
    store::{Content, Published, RegistrationStore, unite_tokens},
};
use passkit_store_postgres::{Config, PostgresStore, mark_and_push_in};
use tokio::task::JoinSet;

use crate::support::{
    auth_tokens, content, deadlocks, device, new_database, new_store, pass, serial, token, type_id,
};

async fn publish(store: &PostgresStore, contents: &[Content]) {
    store
        .mark(&type_id(), Changed::Contents(contents))
        .await
        .unwrap();
}

async fn published(store: &PostgresStore, name: &str) -> Option<Published> {
    let mut published = store.published(&[pass(name)]).await.unwrap();
    assert_eq!(published.len(), 1);
    published.remove(0)
}

/// The list of a device has exactly the passes that were marked.
#[tokio::test]
async fn only_new_content_is_marked() {
    let store = new_store().await;
    let (device, type_id) = (device("d"), type_id());
    for name in ["1", "2", "3"] {
        store
            .register(&device, &pass(name), &token())
            .await
            .unwrap();
    }
    let of = |name: &str, digest: u8| content(name, Some(digest), &[1]);
    assert_eq!(store.pass_state(&pass("1")).await.unwrap().published, None);
    let mut tag = store
        .changes_since(&device, &type_id, None)
        .await
        .unwrap()
        .tag;
    let mut reported = async || {
        let changes = store
            .changes_since(&device, &type_id, Some(tag))
            .await
            .unwrap();
        tag = changes.tag;
        let mut reported: Vec<_> = changes
            .serials
            .iter()
            .map(|serial| serial.as_str().to_owned())
            .collect();
        reported.sort();
        reported
    };

    publish(&store, &[of("1", 1), of("2", 1)]).await;
    assert_eq!(reported().await, ["1", "2"]);
    let before = store.pass_state(&pass("1")).await.unwrap();
    assert_eq!(before.published, Some([1; 32]));
    publish(&store, &[of("2", 1), of("1", 1)]).await;
    publish(&store, &[]).await;
    assert_eq!(reported().await, Vec::<String>::new());
    assert_eq!(store.pass_state(&pass("1")).await.unwrap(), before);

    // The first pass is unchanged, the second has new content, the third is new.
    publish(&store, &[of("1", 1), of("2", 2), of("3", 1)]).await;
    assert_eq!(reported().await, ["2", "3"]);
    assert_eq!(store.pass_state(&pass("1")).await.unwrap(), before);
    assert_eq!(
        store.pass_state(&pass("2")).await.unwrap().published,
        Some([2; 32])
    );

    // Other marks don't change digests, and don't give one to a pass without a digest.
    store
        .mark(
            &type_id,
            Changed::Passes(&[serial("1"), serial("unpublished")]),
        )
        .await
        .unwrap();
    store.mark(&type_id, Changed::All).await.unwrap();
    assert_eq!(reported().await, ["1", "2", "3"]);
    assert_eq!(
        store.pass_state(&pass("1")).await.unwrap().published,
        Some([1; 32])
    );
    assert_eq!(
        store
            .pass_state(&pass("unpublished"))
            .await
            .unwrap()
            .published,
        None
    );
    assert_eq!(published(&store, "unpublished").await, None);
    publish(&store, &[of("1", 1), of("2", 2), of("3", 1)]).await;
    assert_eq!(reported().await, Vec::<String>::new());
    publish(&store, &[of("1", 0)]).await;
    assert_eq!(reported().await, ["1"]);
    assert!(store.pass_state(&pass("1")).await.unwrap().last_modified > before.last_modified);
}

/// The database stores what [`Published::update`] computes, for any content in any order.
#[tokio::test]
async fn tokens_digests_and_removals_follow_the_rules() {
    let store = new_store().await;
    let mut expected: Vec<Option<Published>> = vec![None; 3];
    // The test publishes content and removals, with lists of tokens that are known, new, repeated, empty and too long.
    let mut random = 7_u32;
    let mut next = |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) % below
    };
    for round in 0..150 {
        let mut contents = Vec::new();
        for (name, known) in expected.iter_mut().enumerate() {
            if next(4) == 0 {
                continue;
            }
            let digest = (next(3) > 0).then(|| next(3) as u8);
            let count = [0, 1, 1, 2, 3, 20][next(6) as usize];
            let tokens: Vec<u8> = (0..count).map(|_| next(24) as u8).collect();
            let content = content(format!("{name}"), digest, &tokens);
            let before = store.pass_state(&pass(format!("{name}"))).await.unwrap();
            contents.push((
                content.clone(),
                before,
                known.get_or_insert_default().update(&content),
            ));
        }
        publish(
            &store,
            &contents
                .iter()
                .map(|(content, ..)| content.clone())
                .collect::<Vec<_>>(),
        )
        .await;
        for (content, before, is_marked) in contents {
            let after = store
                .pass_state(&pass(content.serial.as_str()))
                .await
                .unwrap();
            assert_eq!(
                after.version > before.version,
                is_marked,
                "round {round}: {content:?}"
            );
            assert_eq!(
                after.last_modified > before.last_modified,
                is_marked,
                "round {round}: {content:?}"
            );
        }
        let passes = ["0", "1", "2"].map(pass);
        assert_eq!(
            store.published(&passes).await.unwrap(),
            expected,
            "round {round}"
        );
        for (pass, expected) in passes.iter().zip(&expected) {
            let digest = expected.as_ref().and_then(|published| published.digest);
            assert_eq!(
                store.pass_state(pass).await.unwrap().published,
                digest,
                "round {round}"
            );
        }
    }
}

#[tokio::test]
async fn a_removal_of_an_unpublished_pass_marks_nothing_and_does_not_hide_the_next_content() {
    let store = new_store().await;
    let before = store.pass_state(&pass("1")).await.unwrap();
    store
        .mark_and_push(&type_id(), Changed::Contents(&[content("1", None, &[1])]))
        .await
        .unwrap();
    assert_eq!(store.pass_state(&pass("1")).await.unwrap(), before);
    assert!(store.backlog().await.unwrap().is_empty());
    let expected = Published {
        digest: None,
        tokens: auth_tokens(&[1]),
        removed: true,
    };
    assert_eq!(published(&store, "1").await, Some(expected));
    store
        .mark_and_push(&type_id(), Changed::Contents(&[content("1", Some(1), &[])]))
        .await
        .unwrap();
    assert!(store.pass_state(&pass("1")).await.unwrap().version > before.version);
    assert_eq!(store.backlog().await.unwrap().len(), 1);
}

/// The row with the tokens is written only when it changes. PostgreSQL's version of the row shows that.
#[tokio::test]
async fn unchanged_tokens_are_not_written() {
    let store = new_store().await;
    let row = async || {
        let row =
            "select xmin::text || ' ' || xmax::text || ' ' || ctid::text from passkit.published";
        sqlx::query_scalar::<_, String>(row)
            .fetch_one(store.pool())
            .await
            .unwrap()
    };
    publish(&store, &[content("1", Some(1), &[1, 2, 3])]).await;
    let before = row().await;
    for (digest, tokens) in [
        (1, &[1, 2, 3][..]),
        (2, &[1, 2, 3]),
        (3, &[3]),
        (4, &[]),
        (4, &[2, 3, 2, 3]),
    ] {
        publish(&store, &[content("1", Some(digest), tokens)]).await;
        assert_eq!(row().await, before, "{tokens:?}");
    }
    publish(&store, &[content("1", Some(4), &[2])]).await;
    assert_ne!(row().await, before);
    assert_eq!(
        published(&store, "1").await.unwrap().tokens,
        auth_tokens(&[1, 3, 2])
    );
}

#[tokio::test]
async fn published_answers_in_order_for_any_passes() {
    let store = new_store().await;
    publish(&store, &[content("1", Some(1), &[1])]).await;
    let other = passkit_server::PassId {
        type_id: TypeIdentifier::new("pass.com.example.other").unwrap(),
        serial: serial("1"),
    };
    let one = Some(Published {
        digest: Some([1; 32]),
        tokens: auth_tokens(&[1]),
        removed: false,
    });
    let asked = [pass("none"), pass("1"), other, pass("1")];
    assert_eq!(
        store.published(&asked).await.unwrap(),
        [None, one.clone(), None, one]
    );
    assert_eq!(store.published(&[]).await.unwrap(), []);
}

/// Exactly the passes that were marked are pending, with the versions of their marks.
#[tokio::test]
async fn passes_marked_by_new_content_are_pending() {
    let store = new_store().await;
    let contents = |second| {
        [
            content("1", Some(1), &[1]),
            content("2", Some(second), &[1]),
        ]
    };
    publish(&store, &contents(0)).await;
    assert!(store.backlog().await.unwrap().is_empty());
    store
        .mark_and_push(&type_id(), Changed::Contents(&contents(0)))
        .await
        .unwrap();
    assert!(store.backlog().await.unwrap().is_empty());
    store
        .mark_and_push(&type_id(), Changed::Contents(&contents(1)))
        .await
        .unwrap();
    let version = store.pass_state(&pass("2")).await.unwrap().version;
    let pending = store.pending(&type_id(), 9).await.unwrap();
    let pending: Vec<_> = pending
        .into_iter()
        .map(|change| (change.scope, change.version))
        .collect();
    assert_eq!(pending, [(Scope::Pass(serial("2")), version)]);
}

/// Publishes and marks more passes than fit into one statement, in a call and in a transaction.
#[tokio::test]
async fn very_many_contents_and_passes_are_marked() {
    let store = new_store().await;
    let contents: Vec<_> = (0..4_500)
        .map(|i| content(format!("{i}"), Some(7), &[1, 2]))
        .collect();
    let serials: Vec<_> = contents
        .iter()
        .map(|content| content.serial.clone())
        .collect();
    let probes = ["0", "1023", "1024", "4499"].map(pass);
    let versions = async || {
        let mut versions = Vec::new();
        for pass in &probes {
            versions.push(store.pass_state(pass).await.unwrap().version);
        }
        versions
    };
    publish(&store, &contents).await;
    let tokens = unite_tokens(&[], &contents[0].tokens);
    let expected = Published {
        digest: Some([7; 32]),
        tokens,
        removed: false,
    };
    assert_eq!(
        store.published(&probes).await.unwrap(),
        vec![Some(expected); 4]
    );
    assert_eq!(published(&store, "4500").await, None);
    let first = versions().await;
    store
        .mark_and_push(&type_id(), Changed::Passes(&serials))
        .await
        .unwrap();
    let second = versions().await;
    assert!(
        first
            .iter()
            .zip(&second)
            .all(|(first, second)| *first > 0 && first < second)
    );
    assert_eq!(store.backlog().await.unwrap()[0].pending, 4_500);

    let mut transaction = store.pool().begin().await.unwrap();
    mark_and_push_in(&mut transaction, &type_id(), Changed::Contents(&contents))
        .await
        .unwrap();
    assert_eq!(versions().await, second);
    let removals: Vec<_> = serials
        .iter()
        .map(|serial| content(serial.as_str(), None, &[]))
        .collect();
    mark_and_push_in(&mut transaction, &type_id(), Changed::Contents(&removals))
        .await
        .unwrap();
    mark_and_push_in(&mut transaction, &type_id(), Changed::Passes(&serials))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert!(
        versions()
            .await
            .iter()
            .zip(&second)
            .all(|(third, second)| third > second)
    );
    assert!(published(&store, "4499").await.unwrap().removed);
}

/// Several instances publish each change of a folder while others mark. Each change is marked once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_that_publish_the_same_mark_it_once() {
    const NAMES: [&str; 5] = ["1", "2", "3", "4", "5"];
    let url = new_database().await;
    let stores = [
        PostgresStore::connect(&url, Config::new()).await.unwrap(),
        PostgresStore::connect(&url, Config::new()).await.unwrap(),
    ];
    stores[0].migrate().await.unwrap();
    for round in 0..40 {
        let mut publishing = JoinSet::new();
        for task in 0..6 {
            let store = stores[task % 2].clone();
            publishing.spawn(async move {
                // Each task has a different order and a different token.
                let mut contents = NAMES.map(|name| content(name, Some(round), &[task as u8]));
                contents.rotate_left(task);
                store
                    .mark_and_push(&type_id(), Changed::Contents(&contents))
                    .await
                    .unwrap();
                Some(store.pass_state(&pass("1")).await.unwrap())
            });
            let store = stores[(task + 1) % 2].clone();
            publishing.spawn(async move {
                let serials = [serial("other"), serial("another")];
                store
                    .mark(&type_id(), Changed::Passes(&serials))
                    .await
                    .unwrap();
                None
            });
        }
        // A second mark would have changed the state that the first publisher read.
        let states: Vec<_> = publishing.join_all().await.into_iter().flatten().collect();
        assert!(
            states.iter().all(|state| *state == states[0]),
            "round {round}: {states:?}"
        );
        for name in NAMES {
            let published = published(&stores[0], name).await.unwrap();
            assert_eq!(
                (published.digest, published.removed),
                (Some([round; 32]), false)
            );
            let mut tokens: Vec<u8> = published
                .tokens
                .iter()
                .map(|token| token.as_bytes()[0])
                .collect();
            tokens.sort_unstable();
            assert_eq!(tokens, [0, 1, 2, 3, 4, 5], "a token is lost");
        }
    }
    assert_eq!(deadlocks(&stores[0]).await, 0);
}
