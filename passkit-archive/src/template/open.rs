//! Opens templates. Templates may come from strangers, so everything is limited.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use passkit_server::identifiers::Kind;

use super::{
    Template, TemplateError,
    document::{Json, escape},
    draft,
};
use crate::{
    ArchiveBuilder, Finding, MAX_ARCHIVE_BYTES, MAX_ENTRIES, MAX_JSON_BYTES, MAX_UNPACKED_BYTES,
    contents::{self, Litter},
    json,
    layout::{Layout, MANIFEST, SIGNATURE},
    rules,
};

/// How deep folders may be nested. A pass has one level: `de.lproj`.
const MAX_FOLDERS: usize = 4;

/// How many bytes of an image the checks need.
const HEADER: usize = 64;

impl Template {
    /// Opens a folder or a zip archive.
    ///
    /// Reads at most as much as an archive may have: 1,000 files, 64 MiB unpacked, 1 MiB of JSON.
    ///
    /// # Errors
    /// Fails if there is neither `pass.json` nor `order.json`, if that file is no JSON object, if a
    /// file can't be read or is a link, or if there is more than the limits allow.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TemplateError> {
        let path = path.as_ref();
        let unreadable = |error| TemplateError::Read(path.to_owned(), error);
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            let mut files = BTreeMap::new();
            let mut left = MAX_UNPACKED_BYTES;
            read_folder(path, "", 0, &mut left, &mut files)?;
            let has = |kind: &Kind| files.contains_key(Layout::of(*kind).description_file);
            let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(has).collect();
            let [kind] = kinds[..] else {
                let message = match kinds[..] {
                    [] => "has neither pass.json nor order.json; name the folder that has one",
                    _ => "has both pass.json and order.json; remove one of them",
                };
                return Err(Finding::of_archive(&rules::NO_DESCRIPTION, message).into());
            };
            return Self::of_files(kind, files);
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| {
                file.take(MAX_ARCHIVE_BYTES as u64 + 1)
                    .read_to_end(&mut bytes)
            })
            .map_err(unreadable)?;
        Self::read(&bytes)
    }

    /// Reads a zip archive, such as a `.pkpass`.
    ///
    /// # Errors
    /// Fails like [`open`](Self::open).
    pub fn read(bytes: &[u8]) -> Result<Self, TemplateError> {
        let (kind, files) = contents::unpack_all(bytes)?;
        Self::of_files(kind, files)
    }

    pub(super) fn of_files(
        kind: Kind,
        mut files: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, TemplateError> {
        let description = Layout::of(kind).description_file;
        let text = files.remove(description).unwrap_or_default();
        if text.len() > MAX_JSON_BYTES {
            let message = format!("is larger than the {MAX_JSON_BYTES} bytes allowed for it");
            return Err(Finding::in_file(&rules::ENTRY, description, message).into());
        }
        let unreadable = |error: serde_json::Error| {
            Finding::in_file(
                &rules::JSON,
                description,
                format!("is not valid JSON: {error}"),
            )
        };
        let mut json =
            Json::parse(&json::strict(description, &text)?).map_err(unreadable)?;
        drop_ids(&mut json);
        let samples = drop_samples(&mut json);

        files.retain(|name, _| is_of_pass(name));
        if kind == Kind::Pass && !files.contains_key("icon.png") {
            // Pass Designer writes no icon.png, and phones were seen to refuse passes without it.
            let larger = ["icon@2x.png", "icon@3x.png"];
            if let Some(icon) = larger.iter().find_map(|name| files.get(*name).cloned()) {
                files.insert("icon.png".into(), icon);
            }
        }
        let builder = ArchiveBuilder::new(kind, "");
        let outline = files.iter().fold(builder.clone(), |outline, (name, content)| {
            outline.file(name, outline_of(name, content))
        });
        let files = files
            .into_iter()
            .fold(builder, |builder, (name, content)| builder.file(name, content));
        Ok(Self {
            kind,
            json,
            files,
            outline,
            samples,
        })
    }
}

/// Returns the part of a file that is checked for each pass.
pub(super) fn outline_of<'a>(name: &str, content: &'a [u8]) -> &'a [u8] {
    match content.get(..HEADER) {
        Some(header) if name.ends_with(".png") => header,
        _ => content,
    }
}

/// Returns whether a file of a template belongs into a pass.
fn is_of_pass(name: &str) -> bool {
    let is_tool = matches!(name, MANIFEST | SIGNATURE | "tooling.json" | "passkit.toml");
    !is_tool && Litter::of(name).is_none()
}

/// Reads the files of a folder. `prefix` is the name of the folder in the archive, with a slash.
fn read_folder(
    folder: &Path,
    prefix: &str,
    depth: usize,
    left: &mut usize,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), TemplateError> {
    let unreadable = |error| TemplateError::Read(folder.to_owned(), error);
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let refuse = |message: &str| {
            let error = io::Error::new(io::ErrorKind::InvalidInput, message);
            TemplateError::Read(path.clone(), error)
        };
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| refuse("its name is not UTF-8; rename it"))?;
        let name = format!("{prefix}{name}");
        if !is_of_pass(&name) || name == "__MACOSX" {
            continue;
        }
        if let Some(reason) = contents::unusable_name(&name) {
            return Err(refuse(reason));
        }
        // The link itself is looked at, because a link could lead out of the template.
        let found = fs::symlink_metadata(&path)
            .map_err(|error| TemplateError::Read(path.clone(), error))?;
        if found.is_dir() {
            if depth == MAX_FOLDERS {
                return Err(refuse("it is too deep; a template has only folders such as de.lproj"));
            }
            read_folder(&path, &format!("{name}/"), depth + 1, left, files)?;
        } else if found.is_file() {
            let mut content = Vec::new();
            File::open(&path)
                .and_then(|file| file.take(*left as u64 + 1).read_to_end(&mut content))
                .map_err(|error| TemplateError::Read(path.clone(), error))?;
            *left = left.checked_sub(content.len()).ok_or_else(|| {
                refuse("with it, the template has more than 64 MiB; use smaller images")
            })?;
            files.insert(name, content);
        } else {
            return Err(refuse("it is no file; put the file itself there"));
        }
        if files.len() > MAX_ENTRIES {
            return Err(refuse("with it, the template has more than 1,000 files"));
        }
    }
    Ok(())
}

/// Removes the `_id` that Pass Designer writes. `userInfo` belongs to the app of the issuer.
fn drop_ids(json: &mut Json) {
    match json {
        Json::Object(members) => {
            members.retain(|(key, _)| key != "_id");
            members
                .iter_mut()
                .filter(|(key, _)| key != "userInfo")
                .for_each(|(_, value)| drop_ids(value));
        }
        Json::List(items) => items.iter_mut().for_each(drop_ids),
        _ => {}
    }
}

/// Removes sample values. Returns the pointers to them.
fn drop_samples(json: &mut Json) -> Vec<String> {
    let mut samples = Vec::new();
    if let Some(semantics) = json.remove_member("semantics") {
        let tags = semantics.members().iter();
        samples.extend(tags.map(|(tag, _)| format!("/semantics/{}", escape(tag))));
    }
    if json.remove_member("locations").is_some() {
        samples.push("/locations".into());
    }
    for (pointer, field) in draft::fields_mut(json) {
        if field.remove_member("semantics").is_some() {
            samples.push(format!("{pointer}/semantics"));
        }
    }
    samples
}
