//! Images of a pass.

use std::io::Cursor;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use passkit_archive::PassFiles;

/// The largest image file that is embedded.
const MAX_BYTES: usize = 1 << 20;
/// The most pixels of an image. A background at @3x has 1.6 million.
const MAX_PIXELS: u64 = 8_000_000;

/// An image that was decoded without error.
pub(crate) struct Image {
    /// The file as a `data:` URI.
    pub(crate) uri: String,
    /// The size in points.
    pub(crate) width: f64,
    pub(crate) height: f64,
    /// The size of the file.
    pub(crate) bytes: usize,
}

impl Image {
    /// Finds an image, preferably for a screen with two pixels a point. Like phones, prefers the top
    /// level to the folder of the language. Adds a note for each file that can't be used.
    pub(crate) fn find(
        files: &PassFiles,
        name: &str,
        language: Option<&str>,
        notes: &mut Vec<String>,
    ) -> Option<Self> {
        let folders = [
            Some(String::new()),
            language.map(|of| format!("{of}.lproj/")),
        ];
        for folder in folders.into_iter().flatten() {
            for (scale, end) in [(2.0, "@2x.png"), (3.0, "@3x.png"), (1.0, ".png")] {
                let file = format!("{folder}{name}{end}");
                let Some(content) = files.get(&file) else {
                    continue;
                };
                match Self::read(content, scale) {
                    Ok(image) => return Some(image),
                    Err(reason) => notes.push(format!("{file} is left out: it {reason}")),
                }
            }
        }
        None
    }

    fn read(content: &[u8], scale: f64) -> Result<Self, &'static str> {
        if content.len() > MAX_BYTES {
            return Err("has more than 1 MiB");
        }
        let (width, height) = decode(content)?;
        let base64 = BASE64_STANDARD.encode(content);
        Ok(Self {
            uri: format!("data:image/png;base64,{base64}"),
            width: f64::from(width) / scale,
            height: f64::from(height) / scale,
            bytes: content.len(),
        })
    }

    /// Returns the width if the image is shown with this height, or lower.
    pub(crate) fn width_in(&self, width: f64, height: f64) -> f64 {
        self.width * (width / self.width).min(height / self.height)
    }
}

/// Decodes an image, and returns its size in pixels.
fn decode(content: &[u8]) -> Result<(u32, u32), &'static str> {
    const DAMAGED: &str = "is not a PNG image, or is damaged";
    let mut decoder = png::Decoder::new(Cursor::new(content));
    // Texts and colour profiles may be compressed, and the picture does not need them.
    decoder.set_ignore_text_chunk(true);
    let (width, height) = {
        let header = decoder.read_header_info().map_err(|_| DAMAGED)?;
        (header.width, header.height)
    };
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err("has more than 8 million pixels");
    }
    let mut reader = decoder.read_info().map_err(|_| DAMAGED)?;
    while reader.next_row().map_err(|_| DAMAGED)?.is_some() {}
    reader.finish().map_err(|_| DAMAGED)?;
    Ok((width, height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_images_are_told_from_good_ones() {
        let good = passkit_archive::placeholder_icon(38);
        assert_eq!(decode(&good), Ok((38, 38)));
        for cut in [0, 8, 20, 33, 50, good.len() - 13] {
            assert!(decode(&good[..cut]).is_err(), "{cut}");
        }
        let mut flipped = good.clone();
        flipped[60] ^= 1;
        assert!(decode(&flipped).is_err());
        assert!(decode(b"GIF89a").is_err());
        let large = passkit_archive::placeholder_icon(4000);
        assert_eq!(decode(&large), Err("has more than 8 million pixels"));
    }
}
