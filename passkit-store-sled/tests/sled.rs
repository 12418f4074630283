//! The store on a real disk: under load, killed, out of space, and opened by the wrong one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic")]

#[path = "sled/concurrency.rs"]
mod concurrency;
#[path = "sled/crash.rs"]
mod crash;
#[path = "sled/disk_full.rs"]
mod disk_full;
#[path = "sled/durability.rs"]
mod durability;
#[path = "sled/faults.rs"]
mod faults;
#[path = "sled/maintenance.rs"]
mod maintenance;
#[path = "sled/opening.rs"]
mod opening;
#[path = "sled/rows.rs"]
mod rows;

mod support {
    use std::{io::Write as _, path::PathBuf, process::Command};

    use passkit_server::{
        DeviceIdentifier, PassId, PushToken, RegistrationStore, SerialNumber, TypeIdentifier,
    };

    pub(crate) fn type_id() -> TypeIdentifier {
        TypeIdentifier::new("pass.com.example.ticket").unwrap()
    }

    pub(crate) fn serial(text: impl AsRef<str>) -> SerialNumber {
        SerialNumber::new(text.as_ref()).unwrap()
    }

    pub(crate) fn pass(text: impl AsRef<str>) -> PassId {
        PassId { type_id: type_id(), serial: serial(text) }
    }

    pub(crate) fn device(text: impl AsRef<str>) -> DeviceIdentifier {
        DeviceIdentifier::new(text.as_ref()).unwrap()
    }

    pub(crate) fn token() -> PushToken {
        PushToken::new("c0ffee").unwrap()
    }

    /// The serial numbers registered on a device, sorted.
    pub(crate) async fn held(store: &dyn RegistrationStore, device: &DeviceIdentifier) -> Vec<String> {
        let all = store.updated_since(device, &type_id(), None).await.unwrap();
        let mut held = all.serials.iter().map(|s| s.as_str().to_owned()).collect::<Vec<_>>();
        held.sort();
        held
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
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env("PASSKIT_SLED_CHILD", folder);
        command
    }
}
