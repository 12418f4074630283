//! A store, and instances that serve folders over it.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::BodyExt as _;
use passkit_archive::{ArchiveBuilder, placeholder_icon};
use passkit_folder::{Config, Folder, FolderError};
use passkit_server::{
    PassId, PassSource as _, PassState,
    identifiers::Kind,
    push::Publisher,
    service::ResponseBody,
    store::{MemoryStore, RegistrationStore as _},
};
use serde_json::json;

pub(crate) const TYPE: &str = "pass.com.example.folders";
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn a_pass() -> PassId {
    PassId::new(TYPE, "A-1").unwrap()
}

pub(crate) fn content(version: &str) -> Vec<u8> {
    changed(json!({"description": version}))
        .build_unsigned()
        .unwrap()
}

/// Returns the description of the pass with a change. `null` removes a key.
pub(crate) fn description(change: serde_json::Value) -> serde_json::Value {
    let mut description = json!({
        "formatVersion": 1, "passTypeIdentifier": TYPE, "serialNumber": "A-1", "teamIdentifier": "TEAM123456",
        "organizationName": "Example", "description": "one", "generic": {},
        "webServiceURL": "https://wallet.example.com/", "authenticationToken": "a-token-of-this-pass",
    });
    for (key, value) in change.as_object().unwrap() {
        if value.is_null() {
            description.as_object_mut().unwrap().remove(key);
        } else {
            description[key] = value.clone();
        }
    }
    description
}

pub(crate) fn changed(change: serde_json::Value) -> ArchiveBuilder {
    ArchiveBuilder::new(Kind::Pass, description(change).to_string())
        .file("icon.png", placeholder_icon(29))
}

/// A store, and the disks of the instances over it.
pub(crate) struct World {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) disk: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            disk: tempfile::tempdir().unwrap(),
        }
    }

    /// Writes the file of an instance in one step, as a careful program does.
    pub(crate) fn write(&self, instance: &str, content: &[u8]) {
        let folder = self.disk.path().join(instance).join("passes");
        fs::create_dir_all(&folder).unwrap();
        let (file, part) = (folder.join("a.pkpass"), folder.join("a.part"));
        fs::write(&part, content).unwrap();
        fs::rename(part, file).unwrap();
    }

    /// Returns a path on the disk of an instance.
    pub(crate) fn path(&self, instance: &str, name: &str) -> PathBuf {
        self.disk.path().join(instance).join(name)
    }

    /// Returns a configuration with the passes and copies of an instance.
    pub(crate) fn config(&self, instance: &str) -> Config {
        Config::new(self.path(instance, "copies"))
            .passes(self.path(instance, "passes"))
            .allow_unsigned(true)
    }

    pub(crate) async fn try_open(&self, config: Config) -> Result<Instance, FolderError> {
        let publisher = Arc::new(Publisher::marking(self.store.clone()));
        Ok(Instance {
            folder: Folder::open(config, publisher).await?,
            store: self.store.clone(),
        })
    }

    pub(crate) async fn open(&self, instance: &str) -> Instance {
        self.try_open(self.config(instance)).await.unwrap()
    }

    /// Starts an instance that serves this version.
    pub(crate) async fn serve(&self, instance: &str, version: &str) -> Instance {
        self.write(instance, &content(version));
        self.open(instance).await
    }

    pub(crate) async fn state(&self) -> PassState {
        self.store.pass_state(&a_pass()).await.unwrap()
    }

    pub(crate) async fn wait_for_mark_after(&self, version: u64) -> PassState {
        let deadline = Instant::now() + SOON;
        loop {
            let state = self.state().await;
            if state.version > version {
                return state;
            }
            assert!(Instant::now() < deadline, "the pass was not marked");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) folder: Folder,
    store: Arc<MemoryStore>,
}

impl Instance {
    /// Returns the answer to a request that comes now.
    pub(crate) async fn get(&self) -> Vec<u8> {
        let state = self.store.pass_state(&a_pass()).await.unwrap();
        self.get_at(&state).await
    }

    pub(crate) async fn get_at(&self, state: &PassState) -> Vec<u8> {
        let archive = self
            .folder
            .archive(&a_pass(), state)
            .await
            .unwrap()
            .expect("the pass is served");
        ResponseBody::from(archive)
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec()
    }

    pub(crate) async fn stop(self) {
        self.folder.close().await;
    }
}
