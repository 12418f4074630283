//! Tokens that phones have from another service. This service also accepts them.
//!
//! The store keeps them together with the tokens that `serve` publishes.

use std::collections::{BTreeMap, BTreeSet};

use passkit_server::{
    Changed, PassId,
    identifiers::{TokenDigest, TypeIdentifier},
    store::{Content, ContentDigest, Published, StoreError, unite_tokens},
};

use crate::store::Store;

/// The maximum number of attempts to write the tokens. An attempt must be repeated if a service
/// published a pass during it.
const TRIES: u32 = 10;

/// The tokens of some lines.
#[derive(Default)]
pub(super) struct Tokens(BTreeMap<PassId, Vec<TokenDigest>>);

impl Tokens {
    pub(super) fn add(&mut self, pass: &PassId, token: TokenDigest) {
        let tokens = self.0.entry(pass.clone()).or_default();
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }

    /// Adds these tokens to the tokens in the store. The tokens that are already in the store count
    /// as newer. Returns the passes that have more tokens than a store keeps.
    ///
    /// The call does not change the published content of a pass, and does not mark the pass. The
    /// call may be repeated.
    pub(super) async fn store(&self, store: &dyn Store) -> Result<BTreeSet<PassId>, StoreError> {
        let mut left = self.0.clone();
        let mut crowded = BTreeSet::new();
        // For each pass, the content that was published when the tokens were written.
        let mut written: BTreeMap<PassId, Option<ContentDigest>> = BTreeMap::new();
        for _ in 0..TRIES {
            let passes: Vec<PassId> = left.keys().cloned().collect();
            let mut changes: BTreeMap<TypeIdentifier, Vec<Content>> = BTreeMap::new();
            for (pass, published) in passes.iter().zip(store.published(&passes).await?) {
                let known = published.unwrap_or(Published {
                    removed: true,
                    ..Published::default()
                });
                let imported = left.get(pass).map(Vec::as_slice).unwrap_or_default();
                let tokens = unite_tokens(imported, &known.tokens);
                if imported.iter().any(|token| !tokens.contains(token)) {
                    crowded.insert(pass.clone());
                }
                // A service may have published the pass for the first time just before the tokens
                // were written.
                let is_hidden = known.removed
                    && known.digest.is_some()
                    && written.get(pass).is_some_and(Option::is_none);
                if tokens == known.tokens && !is_hidden {
                    left.remove(pass);
                    continue;
                }
                // Without a digest, the pass counts as removed until a service publishes it.
                let digest = known.digest.filter(|_| !known.removed || is_hidden);
                written.insert(pass.clone(), known.digest);
                changes
                    .entry(pass.type_id.clone())
                    .or_default()
                    .push(Content {
                        serial: pass.serial.clone(),
                        digest,
                        tokens,
                    });
            }
            if changes.is_empty() {
                break;
            }
            for (type_id, contents) in changes {
                store.mark(&type_id, Changed::Contents(&contents)).await?;
            }
        }
        Ok(crowded)
    }
}

#[cfg(test)]
mod tests {
    use passkit_server::{
        AuthToken,
        store::{MemoryStore, RegistrationStore as _},
    };

    use super::*;

    fn token(number: usize) -> TokenDigest {
        AuthToken::new(&format!("token-number-{number:04}"))
            .unwrap()
            .digest()
    }

    fn tokens(pass: &PassId, numbers: std::ops::Range<usize>) -> Tokens {
        let mut tokens = Tokens::default();
        for number in numbers {
            tokens.add(pass, token(number));
            tokens.add(pass, token(number));
        }
        tokens
    }

    async fn publish(store: &dyn Store, pass: &PassId, digest: Option<u8>, number: usize) {
        let content = Content {
            serial: pass.serial.clone(),
            digest: digest.map(|byte| [byte; 32]),
            tokens: vec![token(number)],
        };
        store
            .mark(
                &pass.type_id,
                Changed::Contents(std::slice::from_ref(&content)),
            )
            .await
            .unwrap();
    }

    async fn published(store: &dyn Store, pass: &PassId) -> Published {
        let all = store.published(std::slice::from_ref(pass)).await.unwrap();
        all.into_iter().next().flatten().unwrap()
    }

    #[tokio::test]
    async fn tokens_are_added_and_nothing_else_changes() {
        let store = MemoryStore::new();
        let pass = PassId::new("pass.com.example.a", "1").unwrap();
        // A service publishes the pass later, or has published it, or has removed it.
        for (before, after) in [(None, Some(1)), (Some(2), None), (None, None)] {
            if let Some(digest) = before {
                publish(&store, &pass, Some(digest), 90).await;
            }
            let state = store.pass_state(&pass).await.unwrap();
            let crowded = tokens(&pass, 0..3).store(&store).await.unwrap();
            assert!(crowded.is_empty());
            assert_eq!(store.pass_state(&pass).await.unwrap(), state);
            let kept = published(&store, &pass).await;
            assert!((0..3).all(|number| kept.tokens.contains(&token(number))));
            if before.is_some() {
                assert_eq!(
                    (kept.digest, kept.removed),
                    (before.map(|byte| [byte; 32]), false)
                );
            }
            publish(&store, &pass, after, 91).await;
            let kept = published(&store, &pass).await;
            assert_eq!(kept.removed, after.is_none());
            assert!((0..3).all(|number| kept.tokens.contains(&token(number))));
        }
    }

    #[tokio::test]
    async fn the_tokens_of_the_service_are_kept_first() {
        let store = MemoryStore::new();
        let pass = PassId::new("pass.com.example.a", "1").unwrap();
        publish(&store, &pass, Some(1), 90).await;
        for _ in 0..2 {
            let crowded = tokens(&pass, 0..20).store(&store).await.unwrap();
            assert!(crowded.len() == 1 && crowded.contains(&pass));
            let kept = published(&store, &pass).await;
            assert_eq!(kept.tokens.len(), Published::MAX_TOKENS);
            assert_eq!(kept.tokens.last(), Some(&token(90)));
            assert!(kept.tokens.contains(&token(19)) && !kept.tokens.contains(&token(0)));
        }
    }
}
