use std::collections::BTreeSet;

use passkit_server::{
    identifiers::{PushToken, TypeIdentifier},
    maintenance::{Registration, StoreMaintenance, TypeStats},
    store::{PageCursor, RegistrationStore},
};

use crate::support::{device, new_store, pass, registered, serial, token, type_id};

fn registration(i: usize) -> Registration {
    Registration {
        device: device(format!("d{}", i / 3)),
        push_token: token(),
        pass: pass(format!("{}", i % 50)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn registrations_go_in_and_out() {
    let store = new_store().await;
    // These are more registrations than fit into one statement. The first occurs again at the end, with another push token.
    let mut all: Vec<_> = (0..5_000).map(registration).collect();
    let newer = PushToken::new("beef").unwrap();
    all.push(Registration {
        push_token: newer.clone(),
        ..registration(0)
    });
    assert_eq!(store.register_many(&all).await.unwrap(), 5_000);
    assert_eq!(store.register_many(&all).await.unwrap(), 0);
    assert_eq!(store.register_many(&[]).await.unwrap(), 0);
    assert_eq!(registered(&store, &device("d1")).await, ["3", "4", "5"]);

    for limit in [1, 7, 1_000, 100_000] {
        let (mut found, mut after) = (BTreeSet::new(), None);
        for _ in 0..if limit == 1 { 100 } else { usize::MAX } {
            let page = store.registrations(after.as_ref(), limit).await.unwrap();
            for one in page.items {
                assert_eq!(one.push_token == newer, one.device == device("d0"));
                let name = (
                    one.device.as_str().to_owned(),
                    one.pass.serial.as_str().to_owned(),
                );
                assert!(found.insert(name), "a registration occurs twice");
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found.len(), if limit == 1 { 100 } else { 5_000 });
    }
    for hostile in [
        "",
        "x",
        "\n",
        "a\nb",
        "a\nb\nc\nd",
        "\0\n\n",
        "\u{10ffff}\n\u{10ffff}\n\u{10ffff}",
    ] {
        store
            .registrations(Some(&PageCursor::new(hostile)), 9)
            .await
            .unwrap();
    }

    let other = TypeIdentifier::new("order.com.example.shop").unwrap();
    let order = passkit_server::PassId {
        type_id: other.clone(),
        serial: serial("1"),
    };
    store.register(&device("d0"), &order, &newer).await.unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.devices, 1_667);
    let of = |type_id, passes, registrations| TypeStats {
        type_id,
        passes,
        registrations,
    };
    assert_eq!(stats.types, [of(other, 1, 1), of(type_id(), 50, 5_000)]);
    assert!(stats.storage_bytes.unwrap() > 100_000);
}
