use std::{io::Write as _, path::PathBuf, process::Command};

use passkit_server::{
    Changed, PassId,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TokenDigest, TypeIdentifier},
    store::{Audience, Content, RegisteredDevice, RegistrationStore},
};

pub(crate) fn type_id() -> TypeIdentifier {
    TypeIdentifier::new("pass.com.example.ticket").unwrap()
}

pub(crate) fn serial(text: impl AsRef<str>) -> SerialNumber {
    SerialNumber::new(text.as_ref()).unwrap()
}

pub(crate) fn pass(text: impl AsRef<str>) -> PassId {
    PassId {
        type_id: type_id(),
        serial: serial(text),
    }
}

pub(crate) fn device(text: impl AsRef<str>) -> DeviceIdentifier {
    DeviceIdentifier::new(text.as_ref()).unwrap()
}

pub(crate) fn token() -> PushToken {
    PushToken::new("c0ffee").unwrap()
}

/// The serial numbers registered on a device, sorted.
pub(crate) async fn registrations(
    store: &dyn RegistrationStore,
    device: &DeviceIdentifier,
) -> Vec<String> {
    let all = store.changes_since(device, &type_id(), None).await.unwrap();
    let mut serials = all
        .serials
        .iter()
        .map(|s| s.as_str().to_owned())
        .collect::<Vec<_>>();
    serials.sort();
    serials
}

/// The devices registered for a pass, on one page.
pub(crate) async fn devices(store: &dyn RegistrationStore, pass: &PassId) -> Vec<RegisteredDevice> {
    let page = store
        .devices(Audience::Pass(pass), None, 1_000)
        .await
        .unwrap();
    assert!(page.next.is_none());
    page.items
}

/// What is published of a pass: a digest and a token of this byte, or that it is no longer offered.
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

/// A line to the parent process, at once and whole.
pub(crate) fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Where a child process finds its store; `None` in the parent.
pub(crate) fn child_folder() -> Option<PathBuf> {
    std::env::var_os("PASSKIT_SLED_CHILD").map(PathBuf::from)
}

/// This program again, to run one test of its own as a child.
pub(crate) fn child(test: &str, folder: &std::path::Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("PASSKIT_SLED_CHILD", folder);
    command
}
