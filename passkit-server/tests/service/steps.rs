//! The spans that follow a change to a phone.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use passkit_server::{
    Changed, async_trait,
    identifiers::{PushToken, TypeIdentifier},
    push::{Publisher, PushConfig, PushOutcome, PushSender},
    store::{MemoryStore, RegistrationStore as _},
};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span,
};

use crate::app::{App, DEVICE, OTHER_DEVICE, OTHER_PUSH, PUSH, TICKET, ticket};

type Fields = BTreeMap<&'static str, String>;

/// Stores each span with its fields.
#[derive(Clone, Default)]
struct Spans {
    next: Arc<AtomicU64>,
    kept: Arc<Mutex<BTreeMap<u64, (&'static str, Fields)>>>,
}

struct Read<'a>(&'a mut Fields);

impl Visit for Read<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("passkit_server")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut fields = Fields::new();
        attributes.record(&mut Read(&mut fields));
        self.kept
            .lock()
            .unwrap()
            .insert(id, (attributes.metadata().name(), fields));
        span::Id::from_u64(id)
    }

    fn record(&self, id: &span::Id, values: &span::Record<'_>) {
        values.record(&mut Read(
            &mut self.kept.lock().unwrap().get_mut(&id.into_u64()).unwrap().1,
        ));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl Spans {
    fn take(&self) -> Vec<(&'static str, Fields)> {
        std::mem::take(&mut *self.kept.lock().unwrap())
            .into_values()
            .collect()
    }
}

struct Sender;

#[async_trait]
impl PushSender for Sender {
    fn covers(&self, _: &TypeIdentifier) -> bool {
        true
    }

    fn credentials(&self, _: &TypeIdentifier) -> String {
        "test".into()
    }

    async fn push(&self, _: &TypeIdentifier, token: &PushToken) -> PushOutcome {
        if token.as_str() == PUSH {
            PushOutcome::Sent
        } else {
            PushOutcome::BadToken("BadDeviceToken".into())
        }
    }
}

#[tokio::test]
async fn a_change_is_followed_to_the_phone_and_no_secret_shows() {
    let store = Arc::new(MemoryStore::new());
    let app = App::over(store.clone());
    let publisher = Publisher::new(store.clone(), Arc::new(Sender), PushConfig::new());
    let pass = ticket("A-1");
    assert_eq!(
        app.status(app.register_call(DEVICE, &pass, PUSH)).await,
        201
    );
    assert_eq!(
        app.status(app.register_call(OTHER_DEVICE, &pass, OTHER_PUSH))
            .await,
        201
    );
    let tag = app.list(DEVICE, TICKET, None).await.unwrap().tag;

    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(spans.clone());
    let changed = Changed::Passes(std::slice::from_ref(&pass.serial));
    publisher.publish(&pass.type_id, changed).await.unwrap();
    publisher.push_pending().await.unwrap();
    let listed = app.list(DEVICE, TICKET, Some(&tag)).await.unwrap();
    assert_eq!(app.send(app.get_call(&pass)).await.status, 200);
    let version = format!("{:x}", store.pass_state(&pass).await.unwrap().version);

    let seen = spans.take();
    let (mut pushes, others): (Vec<_>, Vec<_>) = seen.iter().partition(|(name, _)| *name == "push");
    pushes.sort_by_key(|(_, fields)| &fields["outcome"]);
    let [(_, bad), (_, sent)] = pushes[..] else {
        panic!("{seen:?}")
    };
    let [("publish", publish), ("list", list), ("fetch", fetch)] = &others[..] else {
        panic!("{seen:?}")
    };

    for (_, fields) in &seen {
        assert_eq!(fields["type_id"], TICKET);
        let text = format!("{fields:?}").to_lowercase();
        for secret in [
            DEVICE,
            OTHER_DEVICE,
            PUSH,
            OTHER_PUSH,
            &app.desk.token(&pass),
        ] {
            assert!(!text.contains(&secret.to_lowercase()[..16]), "{text}");
        }
    }
    assert_eq!(publish["passes"], "1");
    assert_eq!(
        (&*sent["outcome"], &*bad["outcome"]),
        ("\"sent\"", "\"bad_token\"")
    );
    assert_eq!(
        [&sent["version"], &bad["version"], &fetch["version"]],
        [&version; 3]
    );
    // The digest identifies the phone.
    assert_eq!(sent["devices"], list["device"]);
    assert_ne!(bad["devices"], list["device"]);
    assert_ne!(sent["token"], bad["token"]);
    assert!(listed.tag.starts_with(&version));
    assert_eq!(
        (&list["since"], &list["tag"], &*list["serials"]),
        (&tag, &listed.tag, "1")
    );
    assert_eq!((&*fetch["serial"], &*fetch["status"]), ("A-1", "200"));
}

#[tokio::test]
async fn a_failed_step_is_a_span_without_its_result() {
    let store = Arc::new(MemoryStore::new());
    let app = App::over(store.clone());
    let publisher = Publisher::new(store, Arc::new(Sender), PushConfig::new());
    let pass = ticket("A-1");
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(spans.clone());

    publisher
        .publish(&pass.type_id, Changed::All)
        .await
        .unwrap();
    assert!(app.list(DEVICE, TICKET, None).await.is_none());
    app.desk.fail_archive(true);
    assert_eq!(app.send(app.get_call(&pass)).await.status, 503);
    let seen = spans.take();
    let [("publish", publish), ("list", list), ("fetch", fetch)] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert!(!publish.contains_key("passes"), "all of them");
    assert!(
        !list.contains_key("since") && !list.contains_key("tag") && list["serials"] == "0",
        "{list:?}"
    );
    assert!(!fetch.contains_key("status"), "{fetch:?}");
}
