//! Tests the store on a real file: shared by processes, killed, locked, out of space, and opened wrongly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic"
)]

mod archives;
mod backup;
mod crash;
mod delivery;
mod disk_full;
mod durability;
mod flipped_bits;
mod groups;
mod log;
mod opening;
mod power_loss;
mod sharing;
mod transactions;
mod views;

mod support {
    use std::error::Error;

    use passkit_server::store::StoreError;
    use passkit_store_sqlite::rusqlite;
    pub(crate) use passkit_test_servers::fixtures::{
        device, pass, registered, serial, token, type_id,
    };

    /// Returns the code of the driver's error.
    pub(crate) fn sqlite_code(error: &StoreError) -> rusqlite::ErrorCode {
        let of_store = error.source().unwrap();
        let of_driver = of_store.source().unwrap().downcast_ref::<rusqlite::Error>();
        of_driver
            .and_then(rusqlite::Error::sqlite_error_code)
            .unwrap()
    }

    /// Returns the text of the store's own error, which must be one line.
    pub(crate) fn text(error: &StoreError) -> String {
        let source = error.source().unwrap().to_string();
        assert!(!source.contains('\n'), "{source}");
        source
    }
}
