//! Draws Apple Wallet passes as SVG: front and back, with images and barcodes.
//!
//! A picture is approximate. It has the real colours, texts, images and barcodes of the pass. Their
//! places and sizes are about the same as on an iPhone, and each picture says that it is
//! approximate.
//!
//! ```
//! use passkit_archive::PassFiles;
//! use passkit_picture::{Drawing, Side};
//! # use passkit_archive::ArchiveBuilder;
//! # use passkit_server::identifiers::Kind;
//! # let json = r#"{"description":"A card","storeCard":{"primaryFields":[{"key":"left","value":7}]}}"#;
//! # let bytes = ArchiveBuilder::new(Kind::Pass, json).build_unsigned()?;
//!
//! // PassFiles::open("card.pkpass")? opens a file or a folder.
//! let files = PassFiles::of_archive(&bytes)?;
//! let picture = Drawing::new(Side::Front).language("de").draw(&files)?;
//! assert!(picture.svg.starts_with("<svg "));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Styles
//! The crate draws the five classic styles, and roughly the poster styles: `posterGeneric`,
//! `posterEventTicket` and `semanticBoardingPass`. A pass looks as it does on the newest phones.
//! [`Drawing::classic`] draws it as older phones show it. Orders have no picture.
//!
//! # Passes from strangers
//! * All text is escaped. Control characters, and characters that change the direction of other
//!   text, are left out. Long text is cut.
//! * Images are decoded before they are embedded. An image is left out if it is damaged, is too
//!   large or is not PNG. [`Picture::notes`] then says so.
//! * A picture has at most [`MAX_SVG_BYTES`] bytes, and refers to nothing outside itself. It has no
//!   scripts and no links.

mod back;
mod barcode;
mod classic;
mod codes;
mod error;
mod fields;
mod image;
mod language;
mod pass;
mod poster;
mod svg;
mod text;
mod value;

use passkit_archive::PassFiles;

pub use self::error::DrawError;
use self::{pass::Pass, svg::Svg};

/// The largest picture, in bytes: 6 MiB.
pub const MAX_SVG_BYTES: usize = 6 << 20;

/// The space between the two sides, and around the caption.
const GAP: f64 = 16.0;
/// The height of the caption.
const CAPTION: f64 = 26.0;

/// A side of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Side {
    /// The front.
    Front,
    /// The back, with the fields that a phone shows under "Pass Details".
    Back,
    /// The front, with the back to its right.
    Both,
}

/// What to draw.
#[derive(Clone, Debug)]
#[must_use]
pub struct Drawing {
    side: Side,
    language: Option<String>,
    classic: bool,
}

/// A picture of a pass.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Picture {
    /// The picture, an SVG document.
    pub svg: String,
    /// What is missing in the picture, and why. The lines are for people, and may contain text from
    /// the pass.
    pub notes: Vec<String>,
}

impl Drawing {
    /// Draws this side, in English, as the newest phones show it.
    pub fn new(side: Side) -> Self {
        Self {
            side,
            language: None,
            classic: false,
        }
    }

    /// Uses the texts and images of this language, such as `de` or `pt-BR`. If the pass does not
    /// have the language, the picture uses another language, as a phone does.
    pub fn language(mut self, language: impl Into<String>) -> Self {
        self.language = Some(language.into());
        self
    }

    /// Draws the classic style of a pass that also has a poster style. Older phones show it.
    pub fn classic(mut self, classic: bool) -> Self {
        self.classic = classic;
        self
    }

    /// Draws a pass.
    ///
    /// # Errors
    /// Fails if `pass.json` can't be read, if this crate does not know the style of the pass, or if
    /// the files belong to an order.
    pub fn draw(&self, files: &PassFiles) -> Result<Picture, DrawError> {
        let mut pass = Pass::read(files, self.language.as_deref(), self.classic)?;
        let mut sides = Vec::new();
        if self.side != Side::Back {
            sides.push(front(&mut pass));
        }
        if self.side != Side::Front {
            sides.push(back::draw(&mut pass));
        }
        let svg = sheet(&pass, sides);
        Ok(Picture {
            svg,
            notes: pass.notes,
        })
    }
}

fn front(pass: &mut Pass<'_>) -> Svg {
    match pass.style {
        "posterGeneric" | "posterEventTicket" | "semanticBoardingPass" => poster::draw(pass),
        _ => classic::draw(pass),
    }
}

/// Puts the sides beside each other, with a caption below.
fn sheet(pass: &Pass<'_>, sides: Vec<Svg>) -> String {
    let gaps = sides.len().saturating_sub(1) as f64 * GAP;
    let width = sides.iter().map(|side| side.width).sum::<f64>() + gaps;
    let height = sides.iter().map(|side| side.height).fold(0.0, f64::max);
    let mut sheet = Svg::new(width, height + CAPTION);
    let mut left = 0.0;
    for side in sides {
        let step = side.width + GAP;
        sheet.nested(left, 0.0, side);
        left += step;
    }
    sheet.caption(width / 2.0, height + CAPTION - 8.0);
    let title = pass.text("description").unwrap_or_default();
    sheet.document(&title)
}

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
