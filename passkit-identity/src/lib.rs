//! Certificates of Apple Wallet passes, each with its private key.
//!
//! An [`Identity`] is the certificate of one pass type, with its key and its chain. Apple issues
//! the certificate as a "Pass Type ID Certificate" (or "Order Type ID Certificate"). The same
//! certificate signs the passes of the type and sends their pushes.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("ticket.pem");
//! # std::fs::write(&file, "")?;
//! use passkit_identity::Identity;
//! use passkit_server::identifiers::TypeIdentifier;
//!
//! let ticket = TypeIdentifier::new("pass.com.example.ticket")?;
//! let error = Identity::from_files(&ticket, &file, &file).unwrap_err().to_string();
//! assert!(error.starts_with("certificate for pass.com.example.ticket: "));
//! assert!(error.ends_with("ticket.pem: has no certificate in PEM or DER"));
//! # Ok(())
//! # }
//! ```
//!
//! # What is checked
//! An identity exists only if its key fits its certificate, and the certificate is for the type.
//! The certificate may have expired, because a service should start nevertheless:
//! [`Identity::check_expiry`] checks that. The crate does not check whether Apple issued the
//! certificate. The chain stays as it was read.
//!
//! A file may contain more than one certificate and, in PKCS #12, more than one key. If several
//! pairs fit the type, the pair whose certificate expires last is used. The other certificates
//! become the rest of the chain.
//!
//! # Renewal
//! An identity keeps the names of its files. [`Identity::current_stamp`] shows whether they changed, and
//! [`Identity::reload`] reads them again.
//!
//! # Features
//! | feature | default | effect |
//! |---|---|---|
//! | `pkcs12` | off | Reads `.p12` files, with `Identity::from_pkcs12` and `Identity::from_pkcs12_file`, and encrypted keys in PEM, with `Identity::from_pem_with_password` and `Identity::from_files_with_password`. |

mod certificate;
mod error;
mod identity;
mod key;
mod parts;
pub mod pem;
#[cfg(feature = "pkcs12")]
mod pkcs12;
#[doc(hidden)]
pub mod x509;

pub use error::IdentityError;
pub use identity::{FileStamp, Identity, types_of_certificate, validity_of_certificate};
pub use key::{SignError, SignatureAlgorithm};
pub use rustls_pki_types as pki_types;

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
