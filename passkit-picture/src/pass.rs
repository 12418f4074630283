//! A pass that is being drawn.

use passkit_archive::{PassFiles, keys, read_color, shown_style};
use passkit_server::identifiers::Kind;
use serde_json::{Map, Value};

use crate::{
    DrawError,
    image::Image,
    language::Language,
    svg::{Align, Color},
    text, value,
};

/// The greatest total size of the images in a picture, in bytes.
const MAX_IMAGES: usize = 3 << 20;
/// Most fields have a short value. Longer texts are on the back.
const MAX_SHORT: usize = 200;
const MAX_LONG: usize = 2_000;

/// The content of a pass.
pub(crate) struct Pass<'a> {
    files: &'a PassFiles,
    pub(crate) json: Map<String, Value>,
    /// The style or the scheme.
    pub(crate) style: &'static str,
    pub(crate) language: Language,
    pub(crate) colors: Colors,
    /// What is missing in the picture.
    pub(crate) notes: Vec<String>,
    image_bytes_left: usize,
}

#[derive(Clone, Copy)]
pub(crate) struct Colors {
    pub(crate) background: Color,
    pub(crate) foreground: Color,
    pub(crate) label: Color,
}

/// A field, with its texts as they are shown.
pub(crate) struct Field {
    pub(crate) label: String,
    pub(crate) value: String,
    /// `None` if the place of the field decides.
    pub(crate) align: Option<Align>,
    /// Whether an auxiliary field is in the second row.
    pub(crate) is_in_second_row: bool,
}

impl<'a> Pass<'a> {
    pub(crate) fn read(
        files: &'a PassFiles,
        language: Option<&str>,
        classic: bool,
    ) -> Result<Self, DrawError> {
        if files.kind() == Kind::Order {
            return Err(DrawError::Order);
        }
        let json = files.description()?;
        let style = if classic {
            classic_style(&json)
        } else {
            shown_style(&json)
        };
        let style = style.ok_or(DrawError::NoStyle)?;
        let mut notes = Vec::new();
        Ok(Self {
            language: Language::choose(files, language, &mut notes),
            colors: Colors::of(&json),
            files,
            json,
            style,
            notes,
            image_bytes_left: MAX_IMAGES,
        })
    }

    /// Returns a text of the pass in the language, on one line.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let text = self.json.get(key)?.as_str()?;
        Some(self.short(text)).filter(|text| !text.is_empty())
    }

    fn short(&self, text: &str) -> String {
        // Translations are cut too, so the text is cut twice.
        let text = self.language.translate(text);
        text::one_line(&text::clean(text, MAX_SHORT))
    }

    /// Returns a semantic tag.
    pub(crate) fn tag(&self, key: &str) -> Option<&Value> {
        self.json.get("semantics")?.get(key)
    }

    /// Returns a semantic tag as a text. A list becomes one text.
    pub(crate) fn tag_text(&self, key: &str) -> Option<String> {
        let text = match self.tag(key)? {
            Value::String(text) => self.short(text),
            Value::Number(number) => number.to_string(),
            Value::Array(items) => {
                let items = items.iter().take(4).filter_map(Value::as_str);
                let items: Vec<String> = items.map(|item| self.short(item)).collect();
                items.join(", ")
            }
            _ => return None,
        };
        Some(text).filter(|text| !text.is_empty())
    }

    /// Returns the first fields of a group, with short values.
    pub(crate) fn fields(&self, group: &str, most: usize) -> Vec<Field> {
        let fields = self.group(group).map(|field| {
            let mut field = self.field(field);
            field.value = text::one_line(&text::clean(&field.value, MAX_SHORT));
            field
        });
        fields.take(most).collect()
    }

    /// Returns the number of fields of a group.
    pub(crate) fn count(&self, group: &str) -> usize {
        self.group(group).count()
    }

    /// Returns the fields of a group, with long values.
    pub(crate) fn long_fields(&self, group: &str) -> impl Iterator<Item = Field> {
        self.group(group).map(|field| {
            let mut shown = self.field(field);
            if let Some(Value::String(marked)) = field.get("attributedValue") {
                shown.value = without_tags(self.language.translate(marked));
            }
            shown.value = text::clean(&shown.value, MAX_LONG);
            shown
        })
    }

    fn group(&self, group: &str) -> impl Iterator<Item = &Map<String, Value>> {
        let plain = match self.style {
            "posterEventTicket" => "eventTicket",
            "semanticBoardingPass" => "boardingPass",
            style => style,
        };
        let fields = self
            .json
            .get(plain)
            .and_then(|style| style.get(group)?.as_array());
        fields.into_iter().flatten().filter_map(Value::as_object)
    }

    fn field(&self, field: &Map<String, Value>) -> Field {
        let label = field
            .get("label")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let align = match field.get("textAlignment").and_then(Value::as_str) {
            Some("PKTextAlignmentLeft") => Some(Align::Left),
            Some("PKTextAlignmentCenter") => Some(Align::Center),
            Some("PKTextAlignmentRight") => Some(Align::Right),
            _ => None,
        };
        Field {
            label: self.short(label),
            value: value::shown(field, &self.language).unwrap_or_default(),
            align,
            is_in_second_row: field.get("row").and_then(Value::as_u64) == Some(1),
        }
    }

    /// Returns an image that can be embedded.
    pub(crate) fn image(&mut self, name: &str) -> Option<Image> {
        let folder = self.language.folder.as_deref();
        let image = Image::find(self.files, name, folder, &mut self.notes)?;
        match self.image_bytes_left.checked_sub(image.bytes) {
            Some(left) => {
                self.image_bytes_left = left;
                Some(image)
            }
            None => {
                let note =
                    format!("the image {name} is left out: the images are too large together");
                self.notes.push(note);
                None
            }
        }
    }
}

/// Returns the style for phones that know no poster styles.
fn classic_style(json: &Map<String, Value>) -> Option<&'static str> {
    let styles = keys::STYLES
        .iter()
        .filter(|style| json.contains_key(style.name));
    let mut styles: Vec<&str> = styles.map(|style| style.name).collect();
    // A pass may have only the poster style.
    styles.sort_by_key(|style| *style == "posterGeneric");
    styles.first().copied()
}

/// Removes the tags of `attributedValue`, which may have links.
fn without_tags(marked: &str) -> String {
    let mut plain = String::new();
    let mut rest = marked;
    while let Some((before, tag)) = rest.split_once('<') {
        plain.push_str(before);
        rest = tag.split_once('>').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
}

impl Colors {
    fn of(json: &Map<String, Value>) -> Self {
        let color = |key: &str| read_color(json.get(key)?.as_str()?);
        let background = color("backgroundColor").unwrap_or([255; 3]);
        let foreground = color("foregroundColor").unwrap_or_else(|| readable_on(background));
        Self {
            background,
            foreground,
            label: color("labelColor").unwrap_or(foreground),
        }
    }
}

/// Returns black or white.
pub(crate) fn readable_on([r, g, b]: Color) -> Color {
    let light = 299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b);
    if light > 150_000 { [0; 3] } else { [255; 3] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_of_an_attributed_value_is_kept() {
        let marked =
            "See <a href='https://example.org/?a=1&amp;b'>our <b>page</b></a> &amp; &lt;us&gt;";
        assert_eq!(without_tags(marked), "See our page & <us>");
        assert_eq!(without_tags("1 < 2"), "1 ");
    }
}
