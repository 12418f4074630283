use std::{fmt, path::PathBuf, sync::Arc};

use passkit_server::{
    delivery::DeliveryRecorder, identifiers::Kind, service::Prefix, store::ArchiveStore,
};

/// Says which folders a [`Folder`](crate::Folder) serves, and with which rules.
///
/// ```
/// use passkit_folder::Config;
///
/// let config = Config::new("./passkit-copies").passes("./passes").orders("./orders");
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The folders, each with the kind of archives to look for. The folders below them are searched
    /// too.
    pub roots: Vec<(Kind, PathBuf)>,
    /// The folder for the copies of the archives. It is created if it does not exist. It needs as
    /// much disk space as the archives, and must be on a disk of this machine.
    pub copies: PathBuf,
    /// What to do if another process uses the folder for the copies. `false`: opening fails.
    /// `true`: the name of the folder gets `-2` at its end, then `-3`, and so on up to `-64`, until
    /// a folder is free.
    pub next_free: bool,
    /// A name for the state of the store. Change it after the store was restored from a backup, or
    /// was replaced by another store. If the name differs from the name at the last start,
    /// everything is published again. Content that the store knows is not marked again.
    pub edition: Option<String>,
    /// Whether development archives are served: those without a signature, and those with a
    /// `webServiceURL` of `http://`.
    pub allow_unsigned: bool,
    /// The path below which the service answers, in addition to the root. If it is set, the log
    /// has a warning about each other path in a `webServiceURL`.
    pub prefix: Option<Prefix>,
    /// Where to record what differs when the content of a pass changes. Without it, nothing is
    /// compared.
    pub delivery_log: Option<DeliveryRecorder>,
    /// The store, if it keeps archives that the service serves when no folder has the pass. When a
    /// file is removed, and the store has the archive of the content that was published last, the
    /// pass is not withdrawn from the store.
    pub archives: Option<Arc<dyn ArchiveStore>>,
}

impl Config {
    /// Makes a configuration that keeps copies in this folder. Add at least one folder to serve.
    #[must_use]
    pub fn new(copies: impl Into<PathBuf>) -> Self {
        Self {
            roots: Vec::new(),
            copies: copies.into(),
            next_free: false,
            edition: None,
            allow_unsigned: false,
            prefix: None,
            delivery_log: None,
            archives: None,
        }
    }

    /// Adds a folder with `.pkpass` files.
    #[must_use]
    pub fn passes(mut self, folder: impl Into<PathBuf>) -> Self {
        self.roots.push((Kind::Pass, folder.into()));
        self
    }

    /// Adds a folder with `.order` files.
    #[must_use]
    pub fn orders(mut self, folder: impl Into<PathBuf>) -> Self {
        self.roots.push((Kind::Order, folder.into()));
        self
    }

    /// Sets [`next_free`](Self::next_free).
    #[must_use]
    pub fn next_free(mut self, next_free: bool) -> Self {
        self.next_free = next_free;
        self
    }

    /// Sets [`edition`](Self::edition).
    #[must_use]
    pub fn edition(mut self, edition: impl Into<String>) -> Self {
        self.edition = Some(edition.into());
        self
    }

    /// Sets whether development archives are served too.
    #[must_use]
    pub fn allow_unsigned(mut self, allow: bool) -> Self {
        self.allow_unsigned = allow;
        self
    }

    /// Sets the [`prefix`](Self::prefix) below which the service answers. The log then has a
    /// warning about each other path in a `webServiceURL`.
    #[must_use]
    pub fn prefix(mut self, prefix: Prefix) -> Self {
        self.prefix = Some(prefix);
        self
    }
    /// Records what differs when the content of a pass changes: which fields, other keys and files,
    /// and whether phones show it. No value of a pass is recorded.
    #[must_use]
    pub fn delivery_log(mut self, recorder: DeliveryRecorder) -> Self {
        self.delivery_log = Some(recorder);
        self
    }

    /// Sets the store with the [`archives`](Self::archives) that the service serves when no folder
    /// has the pass. It must be the store of the publisher.
    #[must_use]
    pub fn archives(mut self, store: Arc<dyn ArchiveStore>) -> Self {
        self.archives = Some(store);
        self
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            roots,
            copies,
            next_free,
            edition,
            allow_unsigned,
            prefix,
            delivery_log,
            archives,
        } = self;
        f.debug_struct("Config")
            .field("roots", roots)
            .field("copies", copies)
            .field("next_free", next_free)
            .field("edition", edition)
            .field("allow_unsigned", allow_unsigned)
            .field("prefix", prefix)
            .field("delivery_log", delivery_log)
            .field("archives", &archives.is_some())
            .finish()
    }
}
