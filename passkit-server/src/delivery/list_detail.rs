use std::fmt;

use crate::store::UpdateTag;

/// The detail of the events [`Asked`](super::Event::Asked) and [`Told`](super::Event::Told), as a
/// text such as `since none, 3 serials, tag 1f-2e`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListDetail {
    /// The tag that the device sent. `None` if it sent no tag that can be read.
    pub since: Option<UpdateTag>,
    /// How many serial numbers the answer had.
    pub serials: u64,
    /// The tag of this moment. The answer has it only if the answer has serial numbers.
    pub tag: UpdateTag,
}

impl ListDetail {
    /// Reads the text of a record. Returns `None` for text that [`Display`](fmt::Display) never
    /// writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (since, rest) = text.strip_prefix("since ")?.split_once(", ")?;
        let (serials, tag) = rest.split_once(" serials, tag ")?;
        let since = match since {
            "none" => None,
            tag => Some(UpdateTag::parse(tag)?),
        };
        Some(Self {
            since,
            serials: serials.parse().ok()?,
            tag: UpdateTag::parse(tag)?,
        })
    }
}

impl fmt::Display for ListDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.since {
            Some(since) => write!(f, "since {since}")?,
            None => f.write_str("since none")?,
        }
        write!(f, ", {} serials, tag {}", self.serials, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Record;

    #[test]
    fn a_detail_is_read_back_and_fits_a_record() {
        let tag = |type_version, device_version| UpdateTag {
            type_version,
            device_version,
        };
        for (since, serials, text) in [
            (None, 0, "since none, 0 serials, tag 1f-2e"),
            (Some(tag(1, 0)), 3, "since 1-0, 3 serials, tag 1f-2e"),
        ] {
            let detail = ListDetail {
                since,
                serials,
                tag: tag(0x1f, 0x2e),
            };
            assert_eq!(detail.to_string(), text);
            assert_eq!(ListDetail::parse(text), Some(detail));
        }
        let longest = ListDetail {
            since: Some(tag(u64::MAX, u64::MAX)),
            serials: u64::MAX,
            tag: tag(u64::MAX, u64::MAX),
        };
        assert!(longest.to_string().len() <= Record::MAX_DETAIL);
        for text in [
            "",
            "since none",
            "since x, 0 serials, tag 1-1",
            "since none, x serials, tag 1-1",
        ] {
            assert_eq!(ListDetail::parse(text), None, "{text}");
        }
    }
}
