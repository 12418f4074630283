//! Reads long hashes page by page.

use super::{
    answers::{one, read},
    command::Command,
    runner::Runner,
};
use crate::error::Error;

/// The maximum number of entries to read with one command.
const SCAN: usize = 1_000;

/// Where a page of a hash starts: at a cursor of the server, or after a field if the server returns the whole hash.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    cursor: u64,
    after: String,
}

impl Place {
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (cursor, after) = text.split_once('-')?;
        Some(Self {
            cursor: cursor.parse().ok()?,
            after: after.to_owned(),
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.cursor, self.after)
    }
}

impl Runner {
    /// Reads about `limit` entries of a hash, starting at a place. Returns the next place, if there is one.
    pub(crate) async fn page<V: redis::FromRedisValue>(
        &self,
        key: String,
        Place { cursor, after }: Place,
        limit: usize,
        what: &'static str,
    ) -> Result<(Vec<(String, V)>, Option<Place>), Error> {
        let (next, mut entries) = self.scan(key, cursor, limit, what).await?;
        if cursor != 0 || next != 0 {
            return Ok((
                entries,
                (next != 0).then(|| Place {
                    cursor: next,
                    after: String::new(),
                }),
            ));
        }
        // The server returns all entries of a small hash, whatever the count is.
        entries.retain(|(field, _)| *field > after);
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if entries.len() <= limit {
            return Ok((entries, None));
        }
        entries.truncate(limit);
        let after = entries
            .last()
            .map_or_else(String::new, |(field, _)| field.clone());
        Ok((entries, Some(Place { cursor: 0, after })))
    }

    /// Reads one part of a hash. Returns the next cursor, which is 0 at the end.
    pub(crate) async fn scan<V: redis::FromRedisValue>(
        &self,
        key: String,
        cursor: u64,
        count: usize,
        what: &'static str,
    ) -> Result<(u64, Vec<(String, V)>), Error> {
        let call = Command::plain("HSCAN", key)
            .arg(cursor)
            .arg("COUNT")
            .arg(count.min(SCAN));
        read(one(self.read(vec![call]).await?), what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_back() {
        for place in [
            Place::default(),
            Place {
                cursor: u64::MAX,
                after: "a-b~".into(),
            },
        ] {
            assert_eq!(Place::read(&place.to_string()), Some(place));
        }
        for text in ["", "0", "x-", "-1-"] {
            assert_eq!(Place::read(text), None, "{text}");
        }
    }
}
