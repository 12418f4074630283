use std::collections::HashSet;

use crate::identifiers::{SerialNumber, TokenDigest};

/// A digest of the content of a pass without its signature. Equal content has equal digests.
pub type ContentDigest = [u8; 32];

/// The content that a source serves for a pass from now on, for
/// [`Changed::Contents`](crate::Changed::Contents).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The pass.
    pub serial: SerialNumber,
    /// The digest of the content. `None` if the pass is no longer offered.
    pub digest: Option<ContentDigest>,
    /// The authentication tokens that open the pass, the newest last.
    pub tokens: Vec<TokenDigest>,
}

/// What a store keeps about a pass that was published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The digest of the content that was published last. A removal does not change it. `None` if
    /// only removals were published.
    pub digest: Option<ContentDigest>,
    /// The authentication tokens that ever opened the pass, the newest last. There are at most
    /// [`Published::MAX_TOKENS`].
    pub tokens: Vec<TokenDigest>,
    /// Whether the pass is no longer offered. If so, its tokens can only unregister it.
    pub removed: bool,
}

impl Published {
    /// How many tokens a store keeps for a pass.
    pub const MAX_TOKENS: usize = 16;

    /// Updates this value with `content` by the rules P2 and P5 of
    /// [`RegistrationStore`](crate::store::RegistrationStore). Returns whether the pass must be
    /// marked.
    ///
    /// Stores that keep this value in one piece can call this method.
    pub fn update(&mut self, content: &Content) -> bool {
        self.tokens = unite_tokens(&self.tokens, &content.tokens);
        self.removed = content.digest.is_none();
        let is_new = content.digest.is_some() && self.digest != content.digest;
        if is_new {
            self.digest = content.digest;
        }
        is_new
    }
}

/// Returns the tokens that a store keeps when `new` tokens are added to the `known` ones. Each
/// token occurs once, at its last position. Only the last [`Published::MAX_TOKENS`] remain.
#[must_use]
pub fn unite_tokens(known: &[TokenDigest], new: &[TokenDigest]) -> Vec<TokenDigest> {
    let mut seen = HashSet::new();
    let newest_first = new.iter().rev().chain(known.iter().rev());
    let mut tokens: Vec<TokenDigest> = newest_first
        .filter(|token| seen.insert(*token.as_bytes()))
        .take(Published::MAX_TOKENS)
        .copied()
        .collect();
    tokens.reverse();
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(digest: Option<u8>, tokens: &[u8]) -> Content {
        Content {
            serial: SerialNumber::new("A-1").unwrap(),
            digest: digest.map(|byte| [byte; 32]),
            tokens: digests(tokens),
        }
    }

    fn digests(bytes: &[u8]) -> Vec<TokenDigest> {
        bytes
            .iter()
            .map(|byte| TokenDigest::from_bytes([*byte; 32]))
            .collect()
    }

    #[test]
    fn a_pass_is_marked_when_its_digest_is_new() {
        let mut published = Published::default();
        assert!(published.update(&content(Some(1), &[1])));
        assert!(!published.update(&content(Some(1), &[2])));
        assert!(published.update(&content(Some(2), &[2])));
        assert!(published.update(&content(Some(1), &[2])));
        assert_eq!(published.tokens, digests(&[1, 2]));
    }

    #[test]
    fn a_removal_marks_nothing_and_keeps_digest_and_tokens() {
        let mut published = Published::default();
        published.update(&content(Some(1), &[1]));
        assert!(!published.update(&content(None, &[2])));
        assert_eq!(
            published,
            Published {
                digest: Some([1; 32]),
                tokens: digests(&[1, 2]),
                removed: true
            }
        );
        assert!(
            !published.update(&content(Some(1), &[])),
            "the same content again"
        );
        assert!(!published.removed);
    }

    #[test]
    fn a_removal_that_comes_first_does_not_hide_the_next_content() {
        let mut published = Published::default();
        assert!(!published.update(&content(None, &[1])));
        assert_eq!(
            published,
            Published {
                digest: None,
                tokens: digests(&[1]),
                removed: true
            }
        );
        assert!(published.update(&content(Some(1), &[1])));
    }

    #[test]
    fn the_last_tokens_are_kept_and_a_token_named_again_counts_as_new() {
        let all: Vec<u8> = (0..20).collect();
        assert_eq!(
            unite_tokens(&digests(&all[..10]), &digests(&all[10..])),
            digests(&all[4..])
        );
        let known = digests(&all[..16]);
        let mut expected = all[2..16].to_vec();
        expected.extend([0, 99]);
        assert_eq!(unite_tokens(&known, &digests(&[0, 99])), digests(&expected));
        assert_eq!(unite_tokens(&[], &digests(&[1, 1, 2, 1])), digests(&[2, 1]));
    }
}
