use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    io::{Cursor, Write as _},
    sync::{Arc, OnceLock},
};

use passkit_server::identifiers::Kind;
use serde_json::{Map, Value};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::{
    Purpose, Signer, SignerError,
    layout::{Layout, MANIFEST, SIGNATURE},
};

/// An error while an archive was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The zip archive could not be written.
    #[error("failed to write the zip archive")]
    Zip(#[source] Box<dyn Error + Send + Sync>),
    /// The manifest could not be signed.
    #[error(transparent)]
    Sign(#[from] SignerError),
}

impl BuildError {
    pub(crate) fn zip(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Zip(Box::new(error))
    }
}

/// Makes an archive from files. Also writes the manifest and the signature.
///
/// The builder does not check the files, so that tests can also make broken archives.
/// [`Archive::check`](crate::Archive::check) checks the result.
///
/// The same files give the same zip archive, because names are sorted and times are fixed. Only the
/// signature differs each time, because it contains the time and random numbers.
///
/// A clone of a builder shares the files. The digest and the compressed bytes of each file are
/// computed once.
///
/// ```
/// use passkit_archive::{Archive, ArchiveBuilder, Rules, Signer, placeholder_icon};
/// use passkit_server::identifiers::{Kind, TypeIdentifier};
///
/// let order = serde_json::json!({
///     "schemaVersion": 1,
///     "orderTypeIdentifier": "order.com.example.shop",
///     "orderIdentifier": "1042",
///     "orderType": "ecommerce",
///     "orderManagementURL": "https://example.com/orders/1042",
///     "merchant": {
///         "displayName": "Example Shop",
///         "merchantIdentifier": "com.example.shop",
///         "url": "https://example.com",
///     },
///     "status": "open",
///     "createdAt": "2026-01-31T12:00:00Z",
///     "updatedAt": "2026-01-31T12:00:00Z",
///     "webServiceURL": "https://example.com/wallet",
///     "authenticationToken": "0123456789abcdef",
/// });
/// let signer = Signer::throwaway(&TypeIdentifier::new("order.com.example.shop")?, "ABCDE12345")?;
/// let bytes = ArchiveBuilder::new(Kind::Order, order.to_string())
///     .file("logo.png", placeholder_icon(64))
///     .build_signed(&signer)?;
/// assert_eq!(Archive::check(&bytes, Rules::strict())?.id.to_string(), "order.com.example.shop 1042");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ArchiveBuilder {
    layout: &'static Layout,
    files: BTreeMap<String, Arc<File>>,
}

/// A file, and the values that are computed from it when they are needed.
struct File {
    content: Vec<u8>,
    /// The digest that the manifest lists.
    digest: OnceLock<String>,
    /// A zip archive that contains only this file. It is read once, and its clones share its bytes.
    zip: OnceLock<ZipArchive<Cursor<Arc<[u8]>>>>,
}

impl File {
    fn new(content: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            content,
            digest: OnceLock::new(),
            zip: OnceLock::new(),
        })
    }

    /// Adds the file to an archive. If other builders have the file too, it is compressed once for
    /// all of them.
    fn add_to(self: &Arc<Self>, zip: &mut Zip, name: &str) -> Result<(), BuildError> {
        if Arc::strong_count(self) == 1 {
            return self.write_to(zip, name);
        }
        let packed = match self.zip.get() {
            Some(packed) => packed,
            None => {
                let mut packed = ZipWriter::new(Cursor::new(Vec::new()));
                self.write_to(&mut packed, name)?;
                let packed = packed.finish().map_err(BuildError::zip)?.into_inner();
                let packed = ZipArchive::new(Cursor::new(packed.into()));
                let packed = packed.map_err(BuildError::zip)?;
                self.zip.get_or_init(|| packed)
            }
        };
        let mut packed = packed.clone();
        let packed = packed.by_index_raw(0).map_err(BuildError::zip)?;
        zip.raw_copy_file(packed).map_err(BuildError::zip)
    }

    /// Compresses the file into an archive.
    fn write_to(&self, zip: &mut Zip, name: &str) -> Result<(), BuildError> {
        // PNG files are compressed already. The signature can hardly be compressed, and the manifest
        // is short: compressing the two takes longer than their transfer.
        let method = if name.ends_with(".png") || matches!(name, MANIFEST | SIGNATURE) {
            CompressionMethod::Stored
        } else {
            CompressionMethod::Deflated
        };
        self.write_as(zip, name, method)
    }

    fn write_as(
        &self,
        zip: &mut Zip,
        name: &str,
        method: CompressionMethod,
    ) -> Result<(), BuildError> {
        add(zip, name, &self.content, method)
    }
}

pub(crate) type Zip = ZipWriter<Cursor<Vec<u8>>>;

/// Adds a file with a fixed time to an archive.
pub(crate) fn add(
    zip: &mut Zip,
    name: &str,
    content: &[u8],
    method: CompressionMethod,
) -> Result<(), BuildError> {
    let options = SimpleFileOptions::default()
        .compression_method(method)
        .last_modified_time(DateTime::DEFAULT)
        .unix_permissions(0o644);
    zip.start_file(name, options).map_err(BuildError::zip)?;
    zip.write_all(content).map_err(BuildError::zip)
}

impl ArchiveBuilder {
    /// Makes a builder with the content of `pass.json` or `order.json`.
    pub fn new(kind: Kind, description: impl Into<Vec<u8>>) -> Self {
        let layout = Layout::of(kind);
        Self {
            layout,
            files: BTreeMap::from([(
                layout.description_file.to_owned(),
                File::new(description.into()),
            )]),
        }
    }

    /// Adds a file under its name in the archive, such as `icon.png` or `en.lproj/pass.strings`.
    /// Replaces a file of the same name.
    pub fn file(mut self, name: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        self.insert(name, content);
        self
    }

    /// Does the same as [`file`](Self::file).
    pub(crate) fn insert(&mut self, name: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.files.insert(name.into(), File::new(content.into()));
    }

    /// Adds a file of another builder. Its digest and its compressed bytes are shared.
    pub(crate) fn share(mut self, name: &str, other: &Self) -> Self {
        if let Some(file) = other.files.get(name) {
            self.files.insert(name.into(), file.clone());
        }
        self
    }

    /// Removes a file.
    pub(crate) fn remove(&mut self, name: &str) {
        self.files.remove(name);
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    pub(crate) fn content(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(|file| &*file.content)
    }

    /// Makes the archive with manifest and signature.
    ///
    /// # Errors
    /// Fails if signing fails, or if a file does not fit into a zip archive.
    pub fn build_signed(&self, signer: &Signer) -> Result<Vec<u8>, BuildError> {
        let manifest = self.manifest();
        let signature = signer.sign(Purpose::Manifest, &manifest)?;
        self.zip([(MANIFEST, &manifest), (SIGNATURE, &signature)])
    }

    /// Makes the archive with manifest, but without signature.
    ///
    /// # Errors
    /// Fails if a file does not fit into a zip archive.
    pub fn build_unsigned(&self) -> Result<Vec<u8>, BuildError> {
        self.zip([(MANIFEST, &self.manifest())])
    }

    /// Makes an archive that is only read by the checks: without manifest and signature, and not
    /// compressed.
    pub(crate) fn build_bare(&self) -> Result<Vec<u8>, BuildError> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, file) in &self.files {
            file.write_as(&mut zip, name, CompressionMethod::Stored)?;
        }
        Ok(zip.finish().map_err(BuildError::zip)?.into_inner())
    }

    /// Makes the `manifest.json` that lists the files.
    #[must_use]
    pub fn manifest(&self) -> Vec<u8> {
        let digests = self.files.iter().map(|(name, file)| {
            let listed = || self.layout.digest.listed(&file.content);
            let digest = file.digest.get_or_init(listed);
            (name.clone(), Value::String(digest.clone()))
        });
        Value::Object(digests.collect::<Map<_, _>>())
            .to_string()
            .into_bytes()
    }

    /// Zips the files and `more`. A file in `more` replaces a file of the same name.
    fn zip<const N: usize>(&self, more: [(&str, &Vec<u8>); N]) -> Result<Vec<u8>, BuildError> {
        let more = more.map(|(name, content)| (name, File::new(content.clone())));
        let own = self.files.iter().map(|(name, file)| (&**name, file));
        let mut files: BTreeMap<&str, &Arc<File>> = own.collect();
        files.extend(more.iter().map(|(name, file)| (*name, file)));
        let length: usize = files.values().map(|file| file.content.len()).sum();
        // Each file has two headers.
        let length = length + 256 * files.len();
        let mut zip = ZipWriter::new(Cursor::new(Vec::with_capacity(length)));
        for (name, file) in files {
            file.add_to(&mut zip, name)?;
        }
        Ok(zip.finish().map_err(BuildError::zip)?.into_inner())
    }
}

impl fmt::Debug for ArchiveBuilder {
    /// Shows only the names of the files, because the contents include a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.files.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_make_the_same_bytes() {
        let first = ArchiveBuilder::new(Kind::Pass, "{}")
            .file("b.png", "b")
            .file("a.png", "a");
        let second = ArchiveBuilder::new(Kind::Pass, "{}")
            .file("a.png", "a")
            .file("b.png", "b");
        assert_eq!(
            first.build_unsigned().unwrap(),
            second.build_unsigned().unwrap()
        );
    }

    #[test]
    fn shared_files_make_the_same_bytes() {
        let text = "a text that can be compressed ".repeat(50);
        let alone = ArchiveBuilder::new(Kind::Pass, &*text)
            .file("a.png", "a")
            .file("de.lproj/pass.strings", &*text);
        let bytes = alone.build_unsigned().unwrap();
        let shared = alone.clone();
        assert!(shared.build_unsigned().unwrap() == bytes);
        assert!(shared.build_unsigned().unwrap() == bytes);
        drop(shared);
        assert!(alone.build_unsigned().unwrap() == bytes);
    }

    #[test]
    fn a_file_that_cannot_be_compressed_hardly_grows() {
        // A generator of pseudo-random numbers: xorshift.
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()
        })
        .take(12_500)
        .flatten()
        .collect();
        let archive = ArchiveBuilder::new(Kind::Pass, "{}").file("noise.bin", noise.clone());
        let length = archive.build_unsigned().unwrap().len();
        assert!(length < noise.len() * 101 / 100, "{length}");
    }

    #[test]
    fn manifests_list_the_digest_of_their_kind() {
        // The SHA-1 and the SHA-256 of "abc", from the standards.
        let manifest =
            |kind| String::from_utf8(ArchiveBuilder::new(kind, "abc").manifest()).unwrap();
        assert_eq!(
            manifest(Kind::Pass),
            r#"{"pass.json":"a9993e364706816aba3e25717850c26c9cd0d89d"}"#
        );
        assert_eq!(
            manifest(Kind::Order),
            r#"{"order.json":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"#
        );
    }
}
