use std::path::PathBuf;

use passkit_server::{delivery::DeliveryRecorder, identifiers::Kind, service::Prefix};

/// Says which folders a [`Folder`](crate::Folder) serves, and with which rules.
///
/// ```
/// use passkit_folder::Config;
///
/// let config = Config::new("./passkit-copies").passes("./passes").orders("./orders");
/// ```
#[derive(Clone, Debug)]
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
    /// A name for the state of the store. Change it when the store was restored from a backup, or
    /// is another one. If the name differs from that of the last start, everything is published
    /// again. Content that the store knows is not marked again.
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
}
