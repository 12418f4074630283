//! What `--store` names.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use passkit_server::RegistrationStore;
use passkit_store_sled::SledStore;

use crate::failure::Failure;

/// A store, as written on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// `sled:PATH`
    Sled(PathBuf),
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("sled:") {
            Some("") => Err("no folder behind sled:, as in sled:./passkit-data".into()),
            Some(path) => Ok(Self::Sled(path.into())),
            None => {
                Err("not a store this program knows: write sled:FOLDER, as in sled:./passkit-data".into())
            }
        }
    }
}

impl StoreUrl {
    /// Opens the store.
    pub(crate) async fn open(&self) -> Result<Arc<dyn RegistrationStore>, Failure> {
        let Self::Sled(path) = self.clone();
        let opened = tokio::task::spawn_blocking(move || SledStore::open(path)).await;
        match opened {
            Ok(Ok(store)) => Ok(Arc::new(store)),
            Ok(Err(error)) => Err(Failure::from_error("can't open the store", &error)),
            Err(error) => Err(Failure::from_error("can't open the store", &error)),
        }
    }

    /// The folder for what `serve` keeps beside the store: under the same lock, on the same disk.
    pub(crate) fn companion_folder(&self) -> PathBuf {
        let Self::Sled(path) = self;
        path.join("folder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_urls_are_read_or_explained() {
        assert_eq!("sled:./a b".parse(), Ok(StoreUrl::Sled("./a b".into())));
        for wrong in ["sled:", "", "postgres://localhost", "./passkit-data"] {
            assert!(wrong.parse::<StoreUrl>().unwrap_err().contains("sled:./passkit-data"), "{wrong}");
        }
    }
}
