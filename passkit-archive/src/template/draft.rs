use passkit_server::identifiers::Kind;
use serde_json::Value;

use super::{
    Template, TemplateError,
    document::{Json, fields_mut, groups_mut},
    outline::outline_of,
    strings,
};
use crate::{
    ArchiveBuilder, Level, Report, Rules, color,
    layout::{Layout, PERSONALIZATION},
};

/// The colours of a pass at its top level.
const COLORS: [&str; 5] = [
    "backgroundColor",
    "foregroundColor",
    "labelColor",
    "stripColor",
    "footerBackgroundColor",
];

/// Semantic tags that Apple's pages and Apple's tools spell differently.
const SPELLINGS: [[&str; 2]; 5] = [
    ["departureLocationTimeZone", "departureAirportTimeZone"],
    ["destinationLocationTimeZone", "destinationAirportTimeZone"],
    [
        "departureLocationSecurityPrograms",
        "departureAirportSecurityPrograms",
    ],
    [
        "destinationLocationSecurityPrograms",
        "destinationAirportSecurityPrograms",
    ],
    // The value of the first key is a list, and the value of the second key is a string.
    ["loungePlaceIDs", "airlineLoungePlaceID"],
];

/// A pass that is being filled in.
///
/// After the first value that can't be set, the following steps do nothing, and
/// [`finish`](Self::finish) fails.
#[derive(Clone, Debug)]
#[must_use]
pub struct Draft<'a> {
    template: &'a Template,
    json: Json,
    files: ArchiveBuilder,
    outline: ArchiveBuilder,
    problem: Option<(String, String)>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(template: &'a Template) -> Self {
        Self {
            template,
            json: template.json.clone(),
            files: template.files.clone(),
            outline: template.outline.clone(),
            problem: None,
        }
    }

    /// Sets the serial number of a pass, or the order identifier of an order.
    pub fn serial(self, serial: &str) -> Self {
        let key = Layout::of(self.template.kind).serial_key;
        self.set(&format!("/{key}"), serial)
    }

    /// Sets the value of every field with this key, in all styles. An `attributedValue` is removed,
    /// because phones would show it instead.
    pub fn field(self, key: &str, value: impl Into<Value>) -> Self {
        let value = Json::from(value.into());
        self.fields_of(key, |field| {
            field.insert("value", value.clone());
            field.remove_member("attributedValue");
        })
    }

    /// Removes every field with this key, in all styles. Also removes the translations of its texts,
    /// unless the pass has the same text elsewhere.
    pub fn remove_field(mut self, key: &str) -> Self {
        let mut texts = Vec::new();
        self = self.fields_of(key, |field| {
            let values = field.members().iter().map(|(_, value)| value);
            texts.extend(values.filter_map(Json::text).map(str::to_owned));
        });
        let is_other = |field: &Json| field.member("key").and_then(Json::text) != Some(key);
        if self.problem.is_none() {
            for group in groups_mut(&mut self.json) {
                if let Json::List(fields) = group.1 {
                    fields.retain(is_other);
                }
            }
            texts.retain(|text| !self.json.has_text(text));
            self = self.remove_translations(&texts);
        }
        self
    }

    fn remove_translations(mut self, texts: &[String]) -> Self {
        let changed: Vec<_> = self
            .files
            .names()
            .filter(|name| name.ends_with(".lproj/pass.strings"))
            .filter_map(|name| {
                let content = self.files.content(name).unwrap_or_default();
                Some((name.to_owned(), strings::remove(content, texts)?))
            })
            .collect();
        for (name, content) in changed {
            self = self.file(&name, content.into_bytes());
        }
        self
    }

    fn fields_of(mut self, key: &str, mut change: impl FnMut(&mut Json)) -> Self {
        if self.problem.is_some() {
            return self;
        }
        let mut found = false;
        for (_, field) in fields_mut(&mut self.json) {
            if field.member("key").and_then(Json::text) == Some(key) {
                found = true;
                change(field);
            }
        }
        if !found {
            let message = match self.template.kind {
                Kind::Pass => "is not the key of a field in any style",
                Kind::Order => {
                    "is not a field, because orders have no fields; set it by its JSON Pointer"
                }
            };
            self.problem = Some((key.to_owned(), message.into()));
        }
        self
    }

    /// Sets the message of all barcodes of the pass. If the text below a barcode was equal to its
    /// message, also sets this text.
    pub fn barcode(mut self, message: &str) -> Self {
        if self.problem.is_some() {
            return self;
        }
        let mut found = false;
        for key in ["barcodes", "barcode"] {
            let barcodes = match self.json.member_mut(key) {
                Some(Json::List(barcodes)) => &mut barcodes[..],
                Some(barcode) => std::slice::from_mut(barcode),
                None => continue,
            };
            for barcode in barcodes {
                found = true;
                let before = barcode.member("message").cloned();
                if before.is_some() && barcode.member("altText") == before.as_ref() {
                    barcode.insert("altText", Json::Text(message.to_owned()));
                }
                barcode.insert("message", Json::Text(message.to_owned()));
            }
        }
        if !found {
            let message = "is missing in the template; add a barcode to the template";
            self.problem = Some(("/barcodes".into(), message.into()));
        }
        self
    }

    /// Sets the value at a JSON Pointer (RFC 6901), such as `/semantics/seats/0/seatRow`. Makes
    /// missing objects and lists that lead to it. The step `-` adds an item to a list.
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        if self.problem.is_none()
            && let Err(message) = self.json.set(pointer, value.into().into())
        {
            self.problem = Some((pointer.to_owned(), message));
        }
        self
    }

    /// Removes the value at a JSON Pointer, if there is one.
    pub fn remove(mut self, pointer: &str) -> Self {
        if self.problem.is_none()
            && let Err(message) = self.json.remove(pointer)
        {
            self.problem = Some((pointer.to_owned(), message));
        }
        self
    }

    /// Sets an image, such as `thumbnail` or `thumbnail@2x`. The image must be a PNG file.
    ///
    /// A name without scale replaces the images of all scales and languages. Phones then use the
    /// image for all scales.
    pub fn image(mut self, name: &str, png: impl Into<Vec<u8>>) -> Self {
        let png = png.into();
        let name = name.strip_suffix(".png").unwrap_or(name);
        if self.problem.is_some() {
            return self;
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '@';
        let reason = match png_fault(&png) {
            _ if name.is_empty() || !name.chars().all(is_name) => {
                Some("is not the name of an image; use a name such as thumbnail or thumbnail@2x")
            }
            fault => fault,
        };
        if let Some(reason) = reason {
            self.problem = Some((name.to_owned(), reason.into()));
            return self;
        }
        if !name.contains('@') {
            self = self.remove_image(name);
        }
        self.file(&format!("{name}.png"), png)
    }

    /// Removes the image of this name, such as `thumbnail`, in all scales and languages.
    pub fn remove_image(mut self, name: &str) -> Self {
        let is_same = |path: &&str| {
            let file = path.rsplit('/').next().unwrap_or_default();
            let rest = file.strip_prefix(name);
            rest.is_some_and(|rest| matches!(rest, ".png" | "@2x.png" | "@3x.png"))
        };
        let same = self.files.names().filter(is_same);
        let same: Vec<String> = same.map(str::to_owned).collect();
        for path in same {
            self.files.remove(&path);
            self.outline.remove(&path);
        }
        self
    }

    /// Ends the offer of rewards enrolment: removes `personalization.json` and its logo.
    pub fn without_enrolment(mut self) -> Self {
        self.files.remove(PERSONALIZATION);
        self.outline.remove(PERSONALIZATION);
        let mut this = self.remove_image("personalizationLogo");
        let is_text = |path: &&str| path.ends_with("/personalization.strings");
        let texts = this.files.names().filter(is_text);
        let texts: Vec<String> = texts.map(str::to_owned).collect();
        for path in texts {
            this.files.remove(&path);
            this.outline.remove(&path);
        }
        this
    }

    /// Sets a text of a language, in `pass.strings`. The language is a tag such as `de` or `pt-BR`.
    pub fn string(mut self, language: &str, key: &str, text: &str) -> Self {
        if self.problem.is_some() {
            return self;
        }
        let is_tag = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if language.is_empty() || !language.chars().all(is_tag) {
            let message = "is not a language; use a tag such as de or pt-BR";
            self.problem = Some((language.to_owned(), message.into()));
            return self;
        }
        let strings = match self.template.kind {
            Kind::Pass => "pass.strings",
            Kind::Order => "order.strings",
        };
        let name = format!("{language}.lproj/{strings}");
        match strings::set(self.files.content(&name).unwrap_or_default(), key, text) {
            Ok(content) => self.file(&name, content.into_bytes()),
            Err(message) => {
                self.problem = Some((name, message));
                self
            }
        }
    }

    fn file(mut self, name: &str, content: Vec<u8>) -> Self {
        self.outline = self.outline.file(name, outline_of(name, &content));
        self.files = self.files.file(name, content);
        self
    }

    /// Returns the first value that could not be set: its JSON Pointer or name, and what is wrong.
    #[must_use]
    pub fn problem(&self) -> Option<(&str, &str)> {
        let (pointer, message) = self.problem.as_ref()?;
        Some((pointer, message))
    }

    /// Returns the `manifest.json` that the finished pass will have. Checks nothing else, so this is
    /// a quick way to notice that a pass is the same as an earlier one.
    ///
    /// # Errors
    /// Fails if a value could not be set.
    pub fn manifest(&mut self) -> Result<Vec<u8>, TemplateError> {
        self.settle()?;
        self.write_description();
        Ok(self.files.manifest())
    }

    /// Makes the pass ready for [`ArchiveBuilder::build_signed`]. Writes colours as `rgb(…)`. If
    /// Apple spells a semantic tag in two ways, writes both.
    ///
    /// # Errors
    /// Fails if a value could not be set. Also fails if phones would refuse the pass, or if
    /// something in it could not work. [`Report::of`] has all findings about the finished archive.
    pub fn finish(mut self) -> Result<ArchiveBuilder, TemplateError> {
        self.settle()?;
        self.write_description();
        let name = Layout::of(self.template.kind).description_file;
        let files = self.files;
        let outline = self.outline.share(name, &files);
        let bytes = outline.build_bare().map_err(|error| TemplateError::Value {
            pointer: name.into(),
            message: error.to_string(),
        })?;
        let findings = Report::of(&bytes, Rules::development())
            .findings
            .at_least(Level::Error);
        if !findings.is_empty() {
            return Err(TemplateError::Pass(findings));
        }
        Ok(files)
    }

    /// Makes a template from this draft. The rest can be filled in later.
    ///
    /// # Errors
    /// Fails if a value could not be set.
    pub fn into_template(mut self) -> Result<Template, TemplateError> {
        self.settle()?;
        Ok(Template {
            json: self.json,
            files: self.files,
            outline: self.outline,
            ..self.template.clone()
        })
    }

    /// Writes the description file, unless an earlier call wrote the same. Its digest is then known already.
    fn write_description(&mut self) {
        let name = Layout::of(self.template.kind).description_file;
        let text = self.json.to_string();
        if self.files.content(name) != Some(text.as_bytes()) {
            self.files.insert(name, text.into_bytes());
        }
    }

    fn settle(&mut self) -> Result<(), TemplateError> {
        if let Some((pointer, message)) = self.problem.take() {
            return Err(TemplateError::Value { pointer, message });
        }
        for key in COLORS {
            if let Some(Json::Text(color)) = self.json.member_mut(key)
                && color.starts_with('#')
                && let Some([r, g, b]) = color::parse(color)
            {
                // Only newer phones read colours like `#RRGGBB`.
                *color = format!("rgb({r}, {g}, {b})");
            }
        }
        if let Some(semantics) = self.json.member_mut("semantics") {
            spell_both(semantics);
        }
        for (_, field) in fields_mut(&mut self.json) {
            if let Some(semantics) = field.member_mut("semantics") {
                spell_both(semantics);
            }
        }
        Ok(())
    }
}

/// Adds the missing spelling of a semantic tag.
fn spell_both(semantics: &mut Json) {
    for [page, tool] in SPELLINGS {
        let is_list = page == "loungePlaceIDs";
        let (value, key) = match (semantics.member(page), semantics.member(tool)) {
            (Some(Json::List(items)), None) if is_list => match items.first() {
                Some(first) => (first.clone(), tool),
                None => continue,
            },
            (Some(value), None) => (value.clone(), tool),
            (None, Some(value)) if is_list => (Json::List(vec![value.clone()]), page),
            (None, Some(value)) => (value.clone(), page),
            _ => continue,
        };
        semantics.insert(key, value);
    }
}

/// Returns why bytes are not a usable PNG file, or `None` if they are. Walks through all chunks,
/// and so notices a file that is cut off.
fn png_fault(png: &[u8]) -> Option<&'static str> {
    let Some(mut rest) = png.strip_prefix(b"\x89PNG\r\n\x1a\n") else {
        return Some("is not a PNG file; save the image as PNG");
    };
    let mut is_first = true;
    let mut has_pixels = false;
    loop {
        let [a, b, c, d, name @ ..] = rest else {
            return Some("is cut off; save the image again");
        };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (Some(chunk), Some(sum)) = (
            name.get(..length.saturating_add(4)),
            name.get(length.saturating_add(4)..)
                .and_then(|rest| rest.get(..4)),
        ) else {
            return Some("is cut off; save the image again");
        };
        if crate::icon::crc32(chunk).to_be_bytes() != *sum || is_first != chunk.starts_with(b"IHDR")
        {
            return Some("is a damaged PNG file; save the image again");
        }
        is_first = false;
        has_pixels |= chunk.starts_with(b"IDAT");
        if chunk.starts_with(b"IEND") {
            return (!has_pixels).then_some("is a PNG file without pixels; save the image again");
        }
        rest = name.get(length + 8..).unwrap_or_default();
    }
}
