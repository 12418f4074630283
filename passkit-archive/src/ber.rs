//! Converts BER to DER. Apple's signing tool, and every signer that streams, writes indefinite
//! lengths and splits octet strings. DER readers accept neither of these.

/// Deeper nesting is an error. A signature with its certificates has a depth of 12.
const MAX_DEPTH: usize = 32;

const OCTET_STRING: u8 = 0x04;
const CONSTRUCTED: u8 = 0x20;
const END_OF_CONTENTS: [u8; 2] = [0, 0];

/// The reason why bytes are not BER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BerError {
    #[error("it ends in the middle of an element")]
    Truncated,
    #[error("an element has an impossible length")]
    Length,
    #[error("a tag number is too large")]
    Tag,
    #[error("a part of an octet string is not an octet string")]
    OctetString,
    #[error("it nests more than {MAX_DEPTH} deep")]
    Depth,
    #[error("data follows after its end")]
    TrailingBytes,
}

/// Rewrites `ber`, a single BER element. Every length becomes definite and minimal, and every octet
/// string becomes one piece.
///
/// DER input stays unchanged. Work and memory are at most [`MAX_DEPTH`] times the input.
pub(crate) fn to_der(ber: &[u8]) -> Result<Vec<u8>, BerError> {
    let mut input = ber;
    let mut der = Vec::with_capacity(ber.len() + 16);
    element(&mut input, MAX_DEPTH, &mut der)?;
    if input.is_empty() {
        Ok(der)
    } else {
        Err(BerError::TrailingBytes)
    }
}

/// The end of the contents of an element.
#[derive(Clone, Copy)]
enum Length {
    Definite(usize),
    Indefinite,
}

fn element(input: &mut &[u8], depth: usize, der: &mut Vec<u8>) -> Result<(), BerError> {
    let tag = take_tag(input)?;
    let length = take_length(input)?;
    if tag == [OCTET_STRING | CONSTRUCTED] {
        let mut octets = Vec::new();
        each_part(input, length, depth, |part, depth| {
            octet_string_part(part, depth, &mut octets)
        })?;
        der.push(OCTET_STRING);
        put_length(octets.len(), |bytes| der.extend_from_slice(bytes));
        der.extend_from_slice(&octets);
    } else if tag.first().is_some_and(|first| first & CONSTRUCTED != 0) {
        der.extend_from_slice(tag);
        let start = der.len();
        each_part(input, length, depth, |part, depth| {
            element(part, depth, der)
        })?;
        put_length(der.len() - start, |bytes| {
            drop(der.splice(start..start, bytes.iter().copied()))
        });
    } else {
        let Length::Definite(length) = length else {
            return Err(BerError::Length);
        };
        der.extend_from_slice(tag);
        put_length(length, |bytes| der.extend_from_slice(bytes));
        der.extend_from_slice(take(input, length)?);
    }
    Ok(())
}

/// Reads a part of an octet string. The part may itself have parts.
fn octet_string_part(
    input: &mut &[u8],
    depth: usize,
    octets: &mut Vec<u8>,
) -> Result<(), BerError> {
    let tag = take_tag(input)?;
    let length = take_length(input)?;
    match (tag, length) {
        ([OCTET_STRING], Length::Definite(length)) => {
            octets.extend_from_slice(take(input, length)?)
        }
        (&[tag], length) if tag == OCTET_STRING | CONSTRUCTED => {
            each_part(input, length, depth, |part, depth| {
                octet_string_part(part, depth, octets)
            })?;
        }
        _ => return Err(BerError::OctetString),
    }
    Ok(())
}

/// Calls `part` for each element in the contents of an element, one level deeper. Removes the
/// contents from `input`.
fn each_part(
    input: &mut &[u8],
    length: Length,
    depth: usize,
    mut part: impl FnMut(&mut &[u8], usize) -> Result<(), BerError>,
) -> Result<(), BerError> {
    let depth = depth.checked_sub(1).ok_or(BerError::Depth)?;
    match length {
        Length::Definite(length) => {
            let mut contents = take(input, length)?;
            while !contents.is_empty() {
                part(&mut contents, depth)?;
            }
        }
        Length::Indefinite => {
            while !input.starts_with(&END_OF_CONTENTS) {
                part(input, depth)?;
            }
            take(input, END_OF_CONTENTS.len())?;
        }
    }
    Ok(())
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], BerError> {
    let (taken, rest) = input.split_at_checked(length).ok_or(BerError::Truncated)?;
    *input = rest;
    Ok(taken)
}

fn take_byte(input: &mut &[u8]) -> Result<u8, BerError> {
    let (&byte, rest) = input.split_first().ok_or(BerError::Truncated)?;
    *input = rest;
    Ok(byte)
}

fn take_tag<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], BerError> {
    let first = *input.first().ok_or(BerError::Truncated)?;
    if first & 0x1f != 0x1f {
        return take(input, 1);
    }
    // The number follows, with seven bits in each byte. No real tag needs more than four bytes.
    match input
        .iter()
        .skip(1)
        .take(4)
        .position(|byte| byte & 0x80 == 0)
    {
        Some(last) => take(input, last + 2),
        None => Err(if input.len() < 5 {
            BerError::Truncated
        } else {
            BerError::Tag
        }),
    }
}

fn take_length(input: &mut &[u8]) -> Result<Length, BerError> {
    let first = take_byte(input)?;
    match first {
        0..0x80 => Ok(Length::Definite(first.into())),
        0x80 => Ok(Length::Indefinite),
        0x81.. => take(input, usize::from(first & 0x7f))?
            .iter()
            .try_fold(0_usize, |length, &byte| {
                length.checked_mul(256)?.checked_add(byte.into())
            })
            .map(Length::Definite)
            .ok_or(BerError::Length),
    }
}

/// Passes the DER form of a length to `put`.
fn put_length(length: usize, put: impl FnOnce(&[u8])) {
    let bytes = length.to_be_bytes();
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let significant = bytes.get(zeros..).unwrap_or_default();
    match significant {
        [] => put(&[0]),
        &[short] if short < 0x80 => put(&[short]),
        _ => {
            // A length has at most eight bytes.
            let mut long = vec![0x80 | (significant.len() as u8)];
            long.extend_from_slice(significant);
            put(&long);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn indefinite_lengths_become_definite() {
        let ber = [
            0x30, 0x80, 0x02, 0x01, 0x05, 0xa0, 0x80, 0x05, 0x00, 0, 0, 0, 0,
        ];
        assert_eq!(
            to_der(&ber).unwrap(),
            [0x30, 0x07, 0x02, 0x01, 0x05, 0xa0, 0x02, 0x05, 0x00]
        );
    }

    #[test]
    fn octet_strings_are_joined() {
        let ber = [
            0x24, 0x80, 0x04, 1, 7, 0x24, 4, 0x04, 2, 8, 9, 0x04, 0, 0, 0,
        ];
        assert_eq!(to_der(&ber).unwrap(), [0x04, 3, 7, 8, 9]);
        assert_eq!(
            to_der(&[0x24, 0x80, 0x02, 1, 7, 0, 0]),
            Err(BerError::OctetString)
        );
    }

    #[test]
    fn lengths_become_minimal() {
        assert_eq!(to_der(&[0x04, 0x83, 0, 0, 1, 7]).unwrap(), [0x04, 1, 7]);
        let long = [&[0x04, 0x84, 0, 0, 1, 0][..], &[7; 256]].concat();
        assert_eq!(
            to_der(&long).unwrap(),
            [&[0x04, 0x82, 1, 0][..], &[7; 256]].concat()
        );
    }

    #[test]
    fn what_is_no_ber_is_refused() {
        for (ber, error) in [
            (&[][..], BerError::Truncated),
            (&[0x30], BerError::Truncated),
            (&[0x30, 0x80, 0], BerError::Truncated),
            (&[0x30, 2, 4, 1, 0], BerError::Truncated),
            (&[0x04, 0x80, 0, 0], BerError::Length),
            (&[0x04, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0], BerError::Length),
            (&[0x1f, 0xff, 0xff, 0xff, 0xff, 0x01, 0], BerError::Tag),
            (&[0x1f, 0xff], BerError::Truncated),
            (&[0x05, 0, 0], BerError::TrailingBytes),
        ] {
            assert_eq!(to_der(ber), Err(error), "{ber:?}");
        }
        assert_eq!(to_der(&[0x30, 0x80].repeat(50_000)), Err(BerError::Depth));
        assert_eq!(to_der(&[0x24, 0x80].repeat(50_000)), Err(BerError::Depth));
    }

    /// Makes a random element. Returns it in DER and in a random BER form.
    fn random_element(random: &mut Random, depth: usize) -> (Vec<u8>, Vec<u8>) {
        let with_header = |random: &mut Random, tag: u8, der: Vec<u8>, ber: Vec<u8>| {
            let mut der_element = vec![tag & !if tag == 0x24 { CONSTRUCTED } else { 0 }];
            put_length(der.len(), |bytes| der_element.extend_from_slice(bytes));
            der_element.extend(der);
            let mut ber_element = vec![tag];
            if tag & CONSTRUCTED != 0 && random.below(2) == 0 {
                ber_element.push(0x80);
                ber_element.extend(ber);
                ber_element.extend(END_OF_CONTENTS);
            } else if random.below(2) == 0 {
                ber_element.push(0x84);
                ber_element.extend(u32::try_from(ber.len()).unwrap().to_be_bytes());
                ber_element.extend(ber);
            } else {
                put_length(ber.len(), |bytes| ber_element.extend_from_slice(bytes));
                ber_element.extend(ber);
            }
            (der_element, ber_element)
        };
        match random.below(if depth == 0 { 1 } else { 4 }) {
            0 => {
                let content = random.bytes(200);
                with_header(random, 0x04, content.clone(), content)
            }
            1 => {
                let (mut der, mut ber) = (Vec::new(), Vec::new());
                for _ in 0..random.below(4) {
                    let part = random.bytes(20);
                    ber.extend([0x04, u8::try_from(part.len()).unwrap()]);
                    ber.extend(&part);
                    der.extend(part);
                }
                with_header(random, 0x24, der, ber)
            }
            _ => {
                let (mut der, mut ber) = (Vec::new(), Vec::new());
                for _ in 0..random.below(5) {
                    let (der_part, ber_part) = random_element(random, depth - 1);
                    der.extend(der_part);
                    ber.extend(ber_part);
                }
                let tag = [0x30, 0x31, 0xa0][random.below(3)];
                with_header(random, tag, der, ber)
            }
        }
    }

    #[test]
    fn every_ber_form_comes_out_as_the_same_der() {
        let mut random = Random::new(1);
        for _ in 0..2_000 {
            let (der, ber) = random_element(&mut random, 5);
            assert_eq!(to_der(&ber).as_ref(), Ok(&der), "{ber:x?}");
            assert_eq!(to_der(&der).as_ref(), Ok(&der), "DER stays unchanged");
        }
    }

    #[test]
    fn hostile_bytes_do_no_harm() {
        let mut random = Random::new(2);
        for _ in 0..20_000 {
            let (_, mut ber) = random_element(&mut random, 4);
            for _ in 0..random.below(4) {
                let at = random.below(ber.len());
                ber[at] = [0x00, 0x24, 0x30, 0x80, 0x84, 0xff, random.byte()][random.below(7)];
            }
            ber.truncate(random.below(ber.len() + 1));
            if let Ok(der) = to_der(&ber) {
                assert_eq!(
                    to_der(&der),
                    Ok(der.clone()),
                    "a second conversion changes nothing"
                );
            }
        }
    }
}
