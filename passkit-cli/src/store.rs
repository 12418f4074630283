//! What `--store` names.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use passkit_server::{PublishedContent, StoreMaintenance};
use passkit_store_sled::SledStore;

use crate::failure::Failure;

/// A store, as written on the command line. Neither `Display` nor `Debug` shows a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// `sled:PATH`
    Sled(PathBuf),
}

/// A store that is ready.
#[derive(Clone)]
pub(crate) struct OpenStore {
    pub(crate) registrations: Arc<dyn StoreMaintenance>,
    /// The same store, if several processes may use it at once.
    pub(crate) published: Option<Arc<dyn PublishedContent>>,
}

const FORMS: &str = "sled:FOLDER, as in sled:./passkit-data";

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("sled:") {
            Some("") => Err("no folder behind sled:, as in sled:./passkit-data".into()),
            Some(path) => Ok(Self::Sled(path.into())),
            None => Err(format!("not a store this program knows: write {FORMS}")),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sled(path) => write!(f, "sled:{}", path.display()),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StoreUrl {
    /// Opens the store.
    pub(crate) async fn open(&self) -> Result<OpenStore, Failure> {
        let cannot = |error: &dyn std::error::Error| Failure::from_error("can't open the store", error);
        match self.clone() {
            Self::Sled(path) => {
                let opened = tokio::task::spawn_blocking(move || SledStore::open(path)).await;
                let store = opened.map_err(|error| cannot(&error))?.map_err(|error| cannot(&error))?;
                Ok(OpenStore { registrations: Arc::new(store), published: None })
            }
        }
    }

    /// Makes or updates what the store needs; `false` if there is nothing of the kind.
    pub(crate) async fn migrate(&self) -> Result<bool, Failure> {
        match self {
            Self::Sled(_) => Ok(false),
        }
    }

    /// The folder for what `serve` keeps of its own, where the store has one: under the same lock, on the same disk.
    pub(crate) fn companion_folder(&self) -> Option<PathBuf> {
        match self {
            Self::Sled(path) => Some(path.join("folder")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_urls_are_read_or_explained() {
        assert_eq!("sled:./a b".parse(), Ok(StoreUrl::Sled("./a b".into())));
        for wrong in ["sled:", "", "mysql://localhost", "./passkit-data"] {
            assert!(wrong.parse::<StoreUrl>().unwrap_err().contains("sled:./passkit-data"), "{wrong}");
        }
    }
}
