use std::fmt;

/// What a device has seen of one type: the tag it is given with a list answer and sends back with its next list call.
///
/// A tag is a reading of two clocks, that of the type and that of the device, each in microseconds since the Unix
/// epoch and kept strictly increasing by the store (a hybrid logical clock). The first covers changes of passes, the
/// second new registrations of this device.
///
/// To a device it is an opaque string; it is written with characters that pass through any URL unchanged.
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
    /// Reads a tag as a device sends it back. `None` for anything that [`Display`](fmt::Display) never wrote, which
    /// counts as no tag at all.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (type_version, device_version) = text.split_once('-')?;
        Some(Self { type_version: parse_hex(type_version)?, device_version: parse_hex(device_version)? })
    }

    /// This tag, unless it is ahead of `clocks`, the store's own reading now. A tag from the future was issued by
    /// another store, or before a backup was restored; it counts as no tag at all.
    #[must_use]
    pub fn unless_ahead_of(self, clocks: Self) -> Option<Self> {
        (self.type_version <= clocks.type_version && self.device_version <= clocks.device_version)
            .then_some(self)
    }
}

/// Only what `{:x}` writes: no sign, no capital, no leading zero.
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
        for (type_version, device_version) in
            [(0, 0), (0, 7), (1_790_000_000_000_000, 1), (u64::MAX, u64::MAX)]
        {
            let tag = UpdateTag { type_version, device_version };
            assert_eq!(UpdateTag::parse(&tag.to_string()), Some(tag));
        }
        for text in
            ["", "-", "1", "1-", "-1", "1-2-3", "A-1", "01-1", "+1-1", "1-1 ", "1-10000000000000000", "é-1"]
        {
            assert_eq!(UpdateTag::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_tag_ahead_in_either_part_is_no_tag() {
        let at = |type_version, device_version| UpdateTag { type_version, device_version };
        assert_eq!(at(5, 5).unless_ahead_of(at(5, 5)), Some(at(5, 5)));
        assert_eq!(at(6, 5).unless_ahead_of(at(5, 5)), None);
        assert_eq!(at(5, 6).unless_ahead_of(at(5, 5)), None);
    }
}
