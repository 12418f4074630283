//! Tests the store on a real file: shared processes, kills, locks, a full disk, and wrong files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic"
)]

mod backup;
mod crash;
mod disk_full;
mod durability;
mod flipped_bits;
mod groups;
mod log;
mod opening;
mod sharing;
mod transactions;
mod views;

mod support {
    use std::{
        error::Error,
        io::Write as _,
        path::{Path, PathBuf},
        process::Command,
    };

    use passkit_server::{
        PassId,
        identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
        store::{RegistrationStore, StoreError},
    };
    use passkit_store_sqlite::rusqlite;

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
    pub(crate) async fn registered(
        store: &dyn RegistrationStore,
        device: &DeviceIdentifier,
    ) -> Vec<String> {
        let all = store.changes_since(device, &type_id(), None).await.unwrap();
        let mut serials = all
            .serials
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        serials.sort();
        serials
    }

    /// Prints a complete line for the parent process at once.
    pub(crate) fn report(line: &str) {
        let mut out = std::io::stdout().lock();
        out.write_all(format!("{line}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }

    /// The path of the store in a child process. `None` in the parent.
    pub(crate) fn child_path() -> Option<PathBuf> {
        std::env::var_os("PASSKIT_SQLITE_CHILD").map(PathBuf::from)
    }

    /// Starts this program again as a child that runs one test.
    pub(crate) fn child(test: &str, path: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env("PASSKIT_SQLITE_CHILD", path);
        command
    }

    /// The code of the driver's error in the chain.
    pub(crate) fn sqlite_code(error: &StoreError) -> rusqlite::ErrorCode {
        let of_store = error.source().unwrap();
        let of_driver = of_store.source().unwrap().downcast_ref::<rusqlite::Error>();
        of_driver
            .and_then(rusqlite::Error::sqlite_error_code)
            .unwrap()
    }

    /// The text of the store's own error, in one line.
    pub(crate) fn text(error: &StoreError) -> String {
        let source = error.source().unwrap().to_string();
        assert!(!source.contains('\n'), "{source}");
        source
    }
}
