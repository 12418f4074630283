//! Describes a file that is not a zip archive.

/// How many bytes at the start are examined.
const LOOK_AT: usize = 1_024;

/// Describes bytes that have no end of a zip archive. The text fits after "the archive: ".
pub(crate) fn what(bytes: &[u8]) -> &'static str {
    let start = bytes.get(..LOOK_AT).unwrap_or(bytes);
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let text = start.trim_ascii_start();
    let begins = |mark: &[u8]| {
        text.get(..mark.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(mark))
    };
    if bytes.is_empty() {
        "is empty; the program that wrote it failed or has not finished"
    } else if start.starts_with(b"PK\x03\x04") {
        "is a zip archive whose end is missing; it was cut off, so copy or download it again"
    } else if begins(b"{") || begins(b"[") {
        "is JSON, not a zip archive, perhaps the error message of a web server, \
         or pass.json alone; zip and sign all files of the pass"
    } else if begins(b"<!doctype html") || begins(b"<html") {
        "is a web page (HTML), not a zip archive, perhaps the error page of a web \
         server; look at it in a browser"
    } else if begins(b"<") {
        "is XML, not a zip archive, perhaps the error message of a web \
         server; look at it in an editor"
    } else if start.starts_with(b"\x1f\x8b") {
        "is compressed with gzip, perhaps by a web server; use `gunzip`"
    } else if begins(b"UEsDB") {
        "is a zip archive in base64; decode it with `base64 -d`"
    } else if begins(b"HTTP/") {
        "is the answer of a web server with its headers, not a zip archive; save only the body"
    } else if begins(b"version https://git-lfs") {
        "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    } else if begins(b"-----BEGIN") {
        "is PEM, such as a certificate or a key, not a zip archive"
    } else if !text.is_empty()
        && text
            .iter()
            .all(|byte| !byte.is_ascii_control() || byte.is_ascii_whitespace())
    {
        "is text, not a zip archive, perhaps an error message; look at it in an editor"
    } else {
        "is not a zip archive; zip the files of the pass, and name the result .pkpass"
    }
}

#[cfg(test)]
mod tests {
    use super::what;

    #[test]
    fn each_kind_of_file_is_named() {
        for (bytes, part) in [
            (&b""[..], "is empty"),
            (b"PK\x03\x04...", "cut off"),
            (b"{\"message\":\"no\"}", "is JSON"),
            (b"\xef\xbb\xbf \n[1]", "is JSON"),
            (b"\n<!DOCTYPE HTML><p>404", "web page"),
            (b"<html>", "web page"),
            (b"<?xml version=\"1.0\"?><Error/>", "is XML"),
            (b"\x1f\x8b\x08\0", "gunzip"),
            (b"UEsDBBQAAAAI", "base64"),
            (b"HTTP/1.1 200 OK\r\n", "headers"),
            (b"version https://git-lfs.github.com/spec/v1", "git lfs"),
            (b"-----BEGIN CERTIFICATE-----", "PEM"),
            (b"Not found\n", "is text"),
            (b"\0\x01\x02", "is not a zip archive"),
        ] {
            assert!(what(bytes).contains(part), "{part}");
        }
    }
}
