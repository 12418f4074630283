//! Opens templates. Templates may come from strangers, so everything is limited.

use std::path::Path;

use passkit_server::identifiers::Kind;

use super::{
    Template, TemplateError,
    document::{Json, escape, fields_mut},
    outline::outline_of,
};
use crate::{
    ArchiveBuilder, Finding, PassFiles, ReadError,
    files::strict_description,
    layout::{Layout, RECIPE},
    rules,
};

/// Files of the tools that make templates.
const TOOLS: [&str; 2] = ["tooling.json", RECIPE];

impl Template {
    /// Opens a folder or a zip archive.
    ///
    /// Reads at most as much as an archive may have: 1,000 files, 64 MiB unpacked, 1 MiB of JSON.
    ///
    /// # Errors
    /// Fails if there is neither `pass.json` nor `order.json`, or if this file is not a JSON
    /// object. Also fails if a file can't be read or is a link, or if there is more than the limits
    /// allow.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TemplateError> {
        Self::of_files(PassFiles::open(path)?, Semantics::AreSamples)
    }

    /// Reads a zip archive, such as a `.pkpass`.
    ///
    /// # Errors
    /// Fails like [`open`](Self::open).
    pub fn read(bytes: &[u8]) -> Result<Self, TemplateError> {
        let files = PassFiles::of_archive(bytes).map_err(ReadError::from)?;
        Self::of_files(files, Semantics::AreSamples)
    }

    /// Reads a finished pass or order, to change a few of its values. Its `semantics` and
    /// `locations` stay, because they are not samples.
    ///
    /// # Errors
    /// Fails like [`open`](Self::open).
    pub fn read_finished(bytes: &[u8]) -> Result<Self, TemplateError> {
        let files = PassFiles::of_archive(bytes).map_err(ReadError::from)?;
        Self::of_files(files, Semantics::AreReal)
    }

    fn of_files(files: PassFiles, semantics: Semantics) -> Result<Self, TemplateError> {
        let (kind, mut files) = files.into_parts();
        let description = Layout::of(kind).description_file;
        let text = files.remove(description).unwrap_or_default();
        let text = strict_description(description, &text).map_err(ReadError::from)?;
        let mut json = Json::parse(&text).map_err(|error| {
            let message = format!("is not valid JSON: {error}");
            ReadError::from(Finding::in_file(&rules::JSON, description, message))
        })?;
        drop_ids(&mut json);
        let samples = match semantics {
            Semantics::AreSamples => drop_samples(&mut json),
            Semantics::AreReal => Vec::new(),
        };

        let recipe = files.remove(RECIPE);
        files.retain(|name, _| !TOOLS.contains(&&**name));
        if kind == Kind::Pass && !files.contains_key("icon.png") {
            // Pass Designer writes no icon.png, but some phones refuse passes without it.
            let larger = ["icon@2x.png", "icon@3x.png"];
            if let Some(icon) = larger.iter().find_map(|name| files.get(*name).cloned()) {
                files.insert("icon.png".into(), icon);
            }
        }
        let builder = ArchiveBuilder::new(kind, "");
        let outline = files
            .iter()
            .fold(builder.clone(), |outline, (name, content)| {
                outline.file(name, outline_of(name, content))
            });
        let files = files.into_iter().fold(builder, |builder, (name, content)| {
            builder.file(name, content)
        });
        Ok(Self {
            kind,
            json,
            files,
            outline,
            samples,
            recipe,
        })
    }
}

/// What the `semantics` and `locations` of the files are.
enum Semantics {
    AreSamples,
    AreReal,
}

/// Removes the `_id` that Pass Designer writes. `userInfo` belongs to the issuer's app, and stays
/// unchanged.
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
    for (pointer, field) in fields_mut(json) {
        if field.remove_member("semantics").is_some() {
            samples.push(format!("{pointer}/semantics"));
        }
    }
    samples
}
