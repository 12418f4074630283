use std::fmt;

/// The update tag of a device for one type. The device gets the tag with a list answer and sends it
/// with its next list call.
///
/// A tag has the readings of two clocks, the type's and the device's. Both are in microseconds
/// since the Unix epoch, and the store keeps them strictly increasing (hybrid logical clocks). The
/// type's clock covers changes of passes. The device's clock covers new registrations of this
/// device.
///
/// To a device the tag is an opaque string. All its characters pass through any URL unchanged.
///
/// Source: Apple's *Get the List of Updatable Passes*, `lastUpdated` and `passesUpdatedSince`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpdateTag {
    /// The type's clock: every change of a pass of the type up to this version has been reported.
    pub type_version: u64,
    /// The device's clock: every registration of the device up to this version has been reported.
    pub device_version: u64,
}

impl UpdateTag {
    /// Reads a tag that a device sends. Returns `None` for text that [`Display`](fmt::Display)
    /// never writes. Such text counts as no tag.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (type_version, device_version) = text.split_once('-')?;
        Some(Self {
            type_version: parse_hex(type_version)?,
            device_version: parse_hex(device_version)?,
        })
    }

    /// Returns this tag, unless it is ahead of `clocks`, the current reading of the store. A tag
    /// that is ahead comes from another store, or was given before an older backup was restored.
    /// Such a tag counts as no tag.
    #[must_use]
    pub fn unless_ahead_of(self, clocks: Self) -> Option<Self> {
        (self.type_version <= clocks.type_version && self.device_version <= clocks.device_version)
            .then_some(self)
    }
}

/// Accepts only what `{:x}` writes: no sign, no capital letter, no leading zero.
fn parse_hex(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    if !canonical || !(1..=16).contains(&text.len()) {
        return None;
    }
    text.bytes().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}

impl fmt::Display for UpdateTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.type_version, self.device_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        for (type_version, device_version) in [
            (0, 0),
            (0, 7),
            (1_790_000_000_000_000, 1),
            (u64::MAX, u64::MAX),
        ] {
            let tag = UpdateTag {
                type_version,
                device_version,
            };
            assert_eq!(UpdateTag::parse(&tag.to_string()), Some(tag));
        }
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-2-3",
            "A-1",
            "01-1",
            "+1-1",
            "1-1 ",
            "1-10000000000000000",
            "é-1",
        ] {
            assert_eq!(UpdateTag::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_tag_ahead_in_either_part_is_no_tag() {
        let at = |type_version, device_version| UpdateTag {
            type_version,
            device_version,
        };
        assert_eq!(at(5, 5).unless_ahead_of(at(5, 5)), Some(at(5, 5)));
        assert_eq!(at(6, 5).unless_ahead_of(at(5, 5)), None);
        assert_eq!(at(5, 6).unless_ahead_of(at(5, 5)), None);
    }
}
