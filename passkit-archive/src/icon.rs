/// Makes a PNG of a white square of `size` by `size` pixels. Use it as `icon.png` in demos and
/// tests.
///
/// ```
/// let png = passkit_archive::placeholder_icon(29);
/// assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
/// ```
#[must_use]
pub fn placeholder_icon(size: u16) -> Vec<u8> {
    // A row begins with the number of its filter (0 for none). Then it has one bit for each pixel.
    let row_bytes = usize::from(size).div_ceil(8);
    let row = [vec![0], vec![0xff; row_bytes]].concat();
    let rows = row.repeat(size.into());

    let side = u32::from(size).to_be_bytes();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    // Bit depth 1, greyscale, and the default compression, filter and interlace methods.
    chunk(
        &mut png,
        *b"IHDR",
        &[&side[..], &side, &[1, 0, 0, 0, 0]].concat(),
    );
    chunk(&mut png, *b"IDAT", &zlib_stored(&rows));
    chunk(&mut png, *b"IEND", &[]);
    png
}

fn chunk(png: &mut Vec<u8>, kind: [u8; 4], content: &[u8]) {
    let checked = [&kind, content].concat();
    png.extend((content.len() as u32).to_be_bytes());
    png.extend(&checked);
    png.extend(crc32(&checked).to_be_bytes());
}

/// Makes a zlib stream. Its blocks are stored, not compressed.
fn zlib_stored(content: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    for block in content.chunks(usize::from(u16::MAX)) {
        // A block is never longer than a `u16` allows.
        let length = block.len() as u16;
        stream.push(0);
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
    }
    // The last block is empty.
    stream.extend([1, 0, 0, 0xff, 0xff]);
    stream.extend(adler32(content).to_be_bytes());
    stream
}

fn adler32(content: &[u8]) -> u32 {
    let (a, b) = content.iter().fold((1_u32, 0_u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

pub(crate) fn crc32(content: &[u8]) -> u32 {
    !content.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_known_values() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn large_icons_have_several_blocks() {
        // The 8-byte PNG signature, then three chunks with 12 bytes of framing each. The second
        // chunk has three deflate blocks with content and an empty last one.
        let content = 13 + (2 + 3 * 5 + 1024 * 129 + 5 + 4);
        assert_eq!(placeholder_icon(1024).len(), 8 + 3 * 12 + content);
    }
}
