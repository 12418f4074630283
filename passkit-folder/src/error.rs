use std::{error::Error, io, path::PathBuf};

use passkit_server::text::OneLine;

/// The reason why a [`Folder`](crate::Folder) could not be opened. The cause, if there is one, is
/// the `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The [`Config`](crate::Config) names no folder.
    #[error("there is no folder to serve")]
    NoFolder,
    /// A folder does not exist, or can't be listed.
    #[error("can't read the folder {}", OneLine::path(path))]
    Unreadable {
        /// The folder, as written in the configuration.
        path: PathBuf,
        /// What the operating system reports.
        source: io::Error,
    },
    /// The copies of the archives can't be read or written. Another process may use them, or the disk may be full.
    #[error("can't use the copies in {}", OneLine::path(path))]
    Copies {
        /// The folder of the copies.
        path: PathBuf,
        /// What the database of the copies reports.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The first search of the folders did not finish. The runtime may have been shut down.
    #[error("the first search of the folders did not end")]
    Interrupted(#[source] Box<dyn Error + Send + Sync>),
}
