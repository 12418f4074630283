use std::collections::BTreeSet;

use passkit_server::{
    PassId,
    identifiers::{PushToken, TypeIdentifier},
    store::{Audience, PageCursor, RegistrationStore},
};

use crate::support::{device, new_store, pass, serial, token, type_id};

#[tokio::test]
async fn the_pages_of_a_type_have_each_of_its_registrations_and_no_other() {
    let store = new_store().await;
    let other = TypeIdentifier::new("pass.com.example.ticket.other").unwrap();
    let other_token = PushToken::new("0ther-wallet:token_1").unwrap();
    for i in 0..20 {
        let device = device(format!("d{i}"));
        for number in 0..=i % 3 {
            store
                .register(&device, &pass(format!("{number}/ä")), &token())
                .await
                .unwrap();
        }
        let of_other = PassId {
            type_id: other.clone(),
            serial: serial("1"),
        };
        store
            .register(
                &crate::support::device(format!("o{i}")),
                &of_other,
                &other_token,
            )
            .await
            .unwrap();
    }
    for limit in [1, 2, 7, 39, 100] {
        let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store
                .devices(Audience::Type(&type_id()), after.as_ref(), limit)
                .await
                .unwrap();
            assert!(page.items.len() <= limit);
            assert!(page.items.iter().all(|one| one.push_token == token()));
            found.extend(
                page.items
                    .into_iter()
                    .map(|one| one.device.as_str().to_owned()),
            );
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(
            found.len(),
            7 + 7 * 2 + 6 * 3,
            "one for each registration, {pages} pages of {limit}"
        );
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 20);
    }
    let of_other = store
        .devices(Audience::Type(&other), None, 100)
        .await
        .unwrap();
    assert_eq!(of_other.items.len(), 20);
    assert!(
        of_other
            .items
            .iter()
            .all(|one| one.push_token == other_token)
    );
    let none = TypeIdentifier::new("pass.com.example.none").unwrap();
    assert!(
        store
            .devices(Audience::Type(&none), None, 9)
            .await
            .unwrap()
            .items
            .is_empty()
    );

    for hostile in [
        "",
        "x",
        "\n",
        "a\n",
        "\nb",
        "a\nb\nc",
        "\0\nb",
        "a\n\0",
        "\u{10ffff}\nd",
    ] {
        let cursor = PageCursor::new(hostile);
        store
            .devices(Audience::Type(&type_id()), Some(&cursor), 9)
            .await
            .unwrap();
        store
            .devices(Audience::Pass(&pass("0/ä")), Some(&cursor), 9)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn counting_stops_at_the_limit() {
    let store = new_store().await;
    for i in 0..5 {
        store
            .register(&device(format!("{i}")), &pass("1"), &token())
            .await
            .unwrap();
    }
    for (at_most, count) in [(0, 0), (1, 1), (4, 4), (5, 5), (u64::MAX, 5)] {
        assert_eq!(
            store.count_devices(&pass("1"), at_most).await.unwrap(),
            count
        );
    }
    assert_eq!(store.count_devices(&pass("2"), 9).await.unwrap(), 0);
}
