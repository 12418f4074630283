//! Makes the modules of barcodes.

use std::fmt::Write as _;

use rxing::{BarcodeFormat, EncodeHints, MultiFormatWriter, Writer as _, common::BitMatrix};

/// The longest message that is encoded. No kind of barcode that phones read has room for more.
const MAX_MESSAGE: usize = 2_500;

/// The black modules of a barcode.
pub(crate) struct Code {
    pub(crate) width: u32,
    /// 1 if the barcode has bars.
    pub(crate) height: u32,
    /// A path that fills them.
    pub(crate) path: String,
}

/// Returns the kind of a barcode by the name that Apple gave it.
pub(crate) fn format(name: &str) -> Option<BarcodeFormat> {
    Some(match name {
        "PKBarcodeFormatQR" => BarcodeFormat::QR_CODE,
        "PKBarcodeFormatPDF417" => BarcodeFormat::PDF_417,
        "PKBarcodeFormatAztec" => BarcodeFormat::AZTEC,
        "PKBarcodeFormatCode128" => BarcodeFormat::CODE_128,
        "PKBarcodeFormatCode39" => BarcodeFormat::CODE_39,
        "PKBarcodeFormatCodabar" => BarcodeFormat::CODABAR,
        "PKBarcodeFormatEAN13" => BarcodeFormat::EAN_13,
        "PKBarcodeFormatI2of5" => BarcodeFormat::ITF,
        _ => return None,
    })
}

/// Encodes a message. Returns `None` if the kind of barcode can't encode it.
pub(crate) fn encode(format: BarcodeFormat, message: &str, encoding: &str) -> Option<Code> {
    let in_codabar = |c: char| "0123456789-$:/.+ABCDabcd".contains(c);
    if message.is_empty()
        || message.len() > MAX_MESSAGE
        // The encoder panics on other characters.
        || (format == BarcodeFormat::CODABAR && !message.chars().all(in_codabar))
    {
        return None;
    }
    // Without a hint, ASCII needs no mark for its encoding. Some scanners don't know this mark.
    let encoding = (!message.is_ascii()).then(|| encoding.to_ascii_lowercase());
    let hints = EncodeHints {
        CharacterSet: encoding,
        ErrorCorrection: (format == BarcodeFormat::QR_CODE).then(|| "M".into()),
        Margin: Some("0".into()),
        ..EncodeHints::default()
    };
    let modules = MultiFormatWriter.encode_with_hints(message, &format, 0, 0, &hints);
    modules.ok().map(|modules| Code::of(&modules))
}

impl Code {
    fn of(modules: &BitMatrix) -> Self {
        let (width, height) = (modules.width(), modules.height());
        let row = |y: u32| -> Vec<bool> { (0..width).map(|x| modules.get(x, y)).collect() };
        let rows: Vec<Vec<bool>> = (0..height).map(row).collect();
        let mut path = String::new();
        let mut y = 0;
        // The rows of PDF417 are several modules high.
        for same in rows.chunk_by(|one, other| one == other) {
            let high = same.len();
            let mut x = 0;
            for run in same
                .first()
                .into_iter()
                .flat_map(|row| row.chunk_by(|one, other| one == other))
            {
                let wide = run.len();
                if run.first() == Some(&true) {
                    // Writing to a string never fails.
                    let _ = write!(path, "M{x} {y}h{wide}v{high}h-{wide}z");
                }
                x += wide;
            }
            y += high;
        }
        Self {
            width,
            height,
            path,
        }
    }
}
