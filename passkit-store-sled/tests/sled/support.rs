use passkit_server::{
    Changed, PassId,
    identifiers::{SerialNumber, TokenDigest},
    store::{Audience, Content, RegisteredDevice, RegistrationStore},
};
pub(crate) use passkit_test_servers::fixtures::{device, pass, registered, serial, token, type_id};

/// Returns the devices that are registered for a pass, on one page.
pub(crate) async fn devices(store: &dyn RegistrationStore, pass: &PassId) -> Vec<RegisteredDevice> {
    let page = store
        .devices(Audience::Pass(pass), None, 1_000)
        .await
        .unwrap();
    assert!(page.next.is_none());
    page.items
}

/// Returns content whose digest and token repeat this byte, or a removal.
pub(crate) fn content(name: &str, digest: Option<u8>) -> Content {
    let digest = digest.map(|byte| [byte; 32]);
    Content {
        serial: serial(name),
        digest,
        tokens: digest.into_iter().map(TokenDigest::from_bytes).collect(),
    }
}

pub(crate) async fn publish(store: &dyn RegistrationStore, content: &Content) {
    store
        .mark(&type_id(), Changed::Contents(std::slice::from_ref(content)))
        .await
        .unwrap();
}

pub(crate) async fn mark(store: &dyn RegistrationStore, serials: &[SerialNumber]) {
    store
        .mark(&type_id(), Changed::Passes(serials))
        .await
        .unwrap();
}
