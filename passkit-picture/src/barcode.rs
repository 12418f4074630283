//! The barcode of a pass, with its white box.

use serde_json::{Map, Value};

use crate::{
    codes::{self, Code},
    pass::Pass,
    svg::{Align, Area, Font, Svg},
    text,
};

/// How many barcodes are tried.
const MAX_TRIED: usize = 10;
/// The height of the text below the barcode.
const ALT_HEIGHT: f64 = 18.0;
const BLACK: [u8; 3] = [0; 3];
const WHITE: [u8; 3] = [255; 3];

/// The barcode that a phone shows: the first one that it can draw.
pub(crate) struct Barcode {
    code: Code,
    alt: String,
    /// A barcode with bars has the height 1.
    is_square: bool,
    opacity: f64,
}

impl Barcode {
    pub(crate) fn of(pass: &mut Pass<'_>) -> Option<Self> {
        let listed = pass.json.get("barcodes").and_then(Value::as_array);
        let listed = listed.into_iter().flatten();
        let single = pass.json.get("barcode");
        let all: Vec<Map<String, Value>> = listed
            .chain(single)
            .filter_map(Value::as_object)
            .take(MAX_TRIED)
            .cloned()
            .collect();
        all.iter().find_map(|barcode| Self::read(barcode, pass))
    }

    fn read(barcode: &Map<String, Value>, pass: &mut Pass<'_>) -> Option<Self> {
        let text = |key: &str| barcode.get(key).and_then(Value::as_str);
        let name = text("format")?;
        let Some(format) = codes::format(name) else {
            let name = text::one_line(&text::clean(name, 60));
            pass.notes.push(format!(
                "the barcode {name} is left out: it is of an unknown kind"
            ));
            return None;
        };
        let encoding = text("messageEncoding").unwrap_or("iso-8859-1");
        let Some(code) = codes::encode(format, text("message")?, encoding) else {
            pass.notes.push(format!(
                "the barcode {name} is left out: it can't have this message"
            ));
            return None;
        };
        let is_voided = pass.json.get("voided") == Some(&Value::Bool(true));
        Some(Self {
            is_square: code.width == code.height,
            code,
            alt: text::one_line(&text::clean(text("altText").unwrap_or_default(), 200)),
            opacity: if is_voided { 0.25 } else { 1.0 },
        })
    }

    /// Returns the size of the box.
    pub(crate) fn size(&self) -> (f64, f64) {
        let alt = if self.alt.is_empty() { 0.0 } else { ALT_HEIGHT };
        let (width, height) = self.code_size();
        (width + 24.0, height + 24.0 + alt)
    }

    pub(crate) fn is_square(&self) -> bool {
        self.is_square
    }

    fn code_size(&self) -> (f64, f64) {
        match (self.is_square, self.code.height) {
            (true, _) => (128.0, 128.0),
            (false, 1) => (260.0, 64.0),
            (false, height) => {
                let width = 260.0;
                let natural = width * f64::from(height) / f64::from(self.code.width);
                (width, natural.clamp(50.0, 120.0))
            }
        }
    }

    /// Draws the box. Its middle is at `x`, and its bottom at `bottom`.
    pub(crate) fn draw(&self, svg: &mut Svg, x: f64, bottom: f64) {
        let (width, height) = self.size();
        let top = bottom - height;
        svg.rect(
            Area::new(x - width / 2.0, top, width, height),
            8.0,
            WHITE,
            1.0,
        );
        let (code_width, code_height) = self.code_size();
        let area = Area::new(x - code_width / 2.0, top + 12.0, code_width, code_height);
        let Code {
            width: columns,
            height: rows,
            path,
        } = &self.code;
        svg.modules(area, (*columns, *rows), path, self.opacity);
        let font = Font::new(13.0, BLACK).align(Align::Center);
        svg.fitted((x, bottom - 10.0), font, width - 12.0, &self.alt);
    }
}
