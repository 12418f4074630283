//! Draws `docs/images/card.svg` from a store card that the program made. The colours, texts, images
//! and the barcode come from the card. Their places are roughly the same as on a phone.

use std::{fmt::Write as _, fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use qrcode::{EcLevel, QrCode};
use serde_json::Value;

const WIDTH: usize = 375;
const HEIGHT: usize = 500;
const STRIP_TOP: usize = 76;
const STRIP_HEIGHT: usize = 144;
const MARGIN: usize = 16;
/// The white square of the barcode.
const CODE_TOP: usize = 300;
const CODE_SIDE: usize = 170;

/// Draws the front of a store card from the folder of its unzipped archive.
pub(crate) fn draw(pass: &Path) -> String {
    let json = fs::read(pass.join("pass.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let image = |name: &str| {
        let png = fs::read(pass.join(name)).unwrap();
        format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png))
    };
    let text = |key: &str| json[key].as_str().unwrap();
    let (fore, label) = (text("foregroundColor"), text("labelColor"));
    let right = WIDTH - MARGIN;
    let mut svg = Svg(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" font-family=\"-apple-system, system-ui, Helvetica, Arial, sans-serif\">\n\
         <title>{}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"14\" fill=\"{}\"/>\n\
         <image href=\"{}\" x=\"{MARGIN}\" y=\"13\" width=\"50\" height=\"50\"/>\n\
         <image href=\"{}\" y=\"{STRIP_TOP}\" width=\"{WIDTH}\" height=\"{STRIP_HEIGHT}\"/>\n",
        escaped(text("description")),
        text("backgroundColor"),
        image("logo@2x.png"),
        image("strip@2x.png"),
    ));
    svg.text((76, 45), 19, "start", fore, text("logoText"));

    let card = &json["storeCard"];
    let (name, value) = field(&card["headerFields"][0]);
    svg.text((right, 32), 11, "end", label, &name.to_uppercase());
    svg.text((right, 55), 20, "end", fore, &value);
    let (name, value) = field(&card["primaryFields"][0]);
    svg.text((MARGIN, STRIP_TOP + 78), 58, "start", fore, &value);
    svg.text((MARGIN, STRIP_TOP + 106), 17, "start", fore, name);
    let fields = card["secondaryFields"].as_array().unwrap();
    for (index, of) in fields.iter().enumerate() {
        let (name, value) = field(of);
        let (x, anchor) = match of["textAlignment"].as_str() {
            Some("PKTextAlignmentRight") => (right, "end"),
            _ => (MARGIN + index * (right - MARGIN) / fields.len(), "start"),
        };
        svg.text((x, 246), 11, anchor, label, &name.to_uppercase());
        svg.text((x, 270), 20, anchor, fore, &value);
    }
    svg.barcode(&json["barcodes"][0]);
    svg.0.push_str("</svg>\n");
    svg.0
}

struct Svg(String);

impl Svg {
    fn text(&mut self, (x, y): (usize, usize), size: usize, anchor: &str, fill: &str, text: &str) {
        let text = escaped(text);
        writeln!(
            self.0,
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"{fill}\">{text}</text>"
        )
        .unwrap();
    }

    fn barcode(&mut self, barcode: &Value) {
        assert_eq!(barcode["format"], "PKBarcodeFormatQR");
        let (path, modules) = qr_path(barcode["message"].as_str().unwrap());
        let left = (WIDTH - CODE_SIDE) / 2;
        let side = CODE_SIDE - 44;
        writeln!(
            self.0,
            "<rect x=\"{left}\" y=\"{CODE_TOP}\" width=\"{CODE_SIDE}\" height=\"{CODE_SIDE}\" rx=\"8\" fill=\"white\"/>\n\
             <svg x=\"{}\" y=\"{}\" width=\"{side}\" height=\"{side}\" viewBox=\"0 0 {modules} {modules}\" \
             shape-rendering=\"crispEdges\"><path d=\"{path}\"/></svg>",
            left + 22,
            CODE_TOP + 14,
        )
        .unwrap();
        let below = (WIDTH / 2, CODE_TOP + CODE_SIDE - 10);
        self.text(
            below,
            13,
            "middle",
            "black",
            barcode["altText"].as_str().unwrap(),
        );
    }
}

/// Returns the label and the value of a field.
fn field(field: &Value) -> (&str, String) {
    (field["label"].as_str().unwrap(), shown(field))
}

/// Returns a path with a rectangle for each run of black modules, and the number of modules on each
/// side.
fn qr_path(message: &str) -> (String, usize) {
    let code = QrCode::with_error_correction_level(message, EcLevel::M).unwrap();
    let (side, modules) = (code.width(), code.to_colors());
    let mut path = String::new();
    for (row, line) in modules.chunks(side).enumerate() {
        let mut column = 0;
        for run in line.chunk_by(|one, other| one == other) {
            if run[0] == qrcode::Color::Dark {
                write!(path, "M{column} {row}h{}v1h-{}z", run.len(), run.len()).unwrap();
            }
            column += run.len();
        }
    }
    (path, side)
}

/// Returns the value of a field as a phone in English shows it.
fn shown(field: &Value) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    match &field["value"] {
        Value::String(date) if field.get("dateStyle").is_some() => {
            let part =
                |range: std::ops::Range<usize>| date.get(range).unwrap().parse::<usize>().unwrap();
            let month = MONTHS[part(5..7) - 1];
            format!("{month} {}, {}", part(8..10), part(0..4))
        }
        Value::String(text) => text.clone(),
        number => number.to_string(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
