//! A folder of Apple Wallet passes and orders as a [`PassSource`](passkit_server::PassSource).
//!
//! A [`Folder`] serves every `.pkpass` and `.order` file below some folders, and publishes each
//! change of a file. Give the folder to a [`WalletService`](passkit_server::WalletService). The
//! [`Publisher`](passkit_server::push::Publisher) sends the pushes.
//!
//! ```
//! use std::sync::Arc;
//!
//! use passkit_folder::{Config, Folder};
//! use passkit_server::{WalletService, push::Publisher, store::MemoryStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let disk = tempfile::tempdir()?;
//! # let (passes, copies) = (disk.path().join("passes"), disk.path().join("copies"));
//! # std::fs::create_dir(&passes)?;
//! let store = Arc::new(MemoryStore::new());
//! let publisher = Arc::new(Publisher::marking(store.clone()));
//! let folder = Folder::open(Config::new(copies).passes(passes), publisher).await?;
//! let service = WalletService::new(store, folder.clone());
//! // … serve it; then, before the program ends:
//! # drop(service);
//! folder.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is served
//! * An archive is identified by the type and serial number inside it, never by its file name. No
//!   path that a device sends is joined to a file name. Files and folders whose names start with a
//!   dot are ignored.
//! * Every file is [checked](passkit_archive::Archive::check) before it is served. A half-written
//!   or broken file is refused with a warning, and the previous version stays.
//! * If two files hold the same pass, the one that was there first is served, and a warning names
//!   both.
//! * A pass has changed if its content has. A new time stamp or a new signature does not count as a
//!   change.
//! * When a file is removed, its pass is withdrawn. Phones can still unregister it.
//! * If a withdrawn pass is purged from the store, the folder forgets it at its next start, or within an hour.
//! * While a folder itself is missing, or an empty one is in its place, the passes from it stay available. Only the removal of
//!   a file from an existing folder withdraws its pass.
//! * The last 16 tokens of a pass keep working, because a copy on a phone has the token that it came with.
//!
//! # How a change is noticed
//! The operating system reports changes of files. The folders are also searched from time to time,
//! because not every file system reports changes. Small folders are searched twice a second. A
//! changed file is read once it has stayed the same for 0.1 s. A file must be gone for half a
//! second before its pass is withdrawn.
//!
//! A change then goes through four steps. A crash after any of them loses nothing:
//! 1. Copies: one commit writes the new archive and notes that the change is not marked yet.
//! 2. Memory: requests see the new archive.
//! 3. Store: the content is published. This marks the pass and makes its pushes pending.
//! 4. Copies: the change is noted as marked.
//!
//! Only the copies are used to answer requests. They are in an SQLite file in the folder of the
//! copies, whose cache takes 8 MiB of memory. A damaged copy is never served. It is made again from
//! the file.
//!
//! # Several instances
//! Several processes may serve the same folder over one store, each with separate copies. The store
//! knows the digest of the content that was published last. The first instance that notices a
//! change marks it. An instance whose copy has another digest reads the file again before it serves
//! the pass.
//!
//! If the file has the same content as the copy, then the instances serve different files, or the
//! database was restored from an older copy. The instance then serves its copy and publishes it
//! again: at once the first time, and later after pauses that grow from a minute to an hour. No
//! request is answered 503 because of it.
//!
//! A phone that fetches this copy gets it with the `Last-Modified` of the published content. If the
//! published content were served later, the phone would get a 304 and keep the copy. So the pass is
//! *misdated* until it is marked again. Its next change is marked even if the store knows the new
//! content, and so is its removal.
//!
//! If the service also serves [archives from the store](Config::archives), then the removal of a
//! file is not published when the store has the archive of the content that was published last. The
//! service then serves the pass from the store. A file that differs from such an archive is not
//! published again either, unless it changes.

mod catalog;
mod check;
mod config;
mod error;
mod files;
mod folder;
mod listed;
mod pauses;
mod publish;
mod read;
mod readers;
mod shared;
mod watch;

pub use config::Config;
pub use error::FolderError;
pub use folder::Folder;
pub use passkit_archive;
pub use read::{FoundFile, find_archive, read_archives};

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
