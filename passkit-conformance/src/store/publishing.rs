//! Cases about publishing: when the store marks a pass, and what it remembers.

use std::{slice, sync::Arc};

use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{SerialNumber, TokenDigest, TypeIdentifier},
    store::{Content, ContentDigest, Published, RegistrationStore},
};
use tokio::{sync::Barrier, task::JoinSet};

use super::{
    cancelling::{MOST_POLLS, comes_to_rest, give_up_after, states},
    case::catalogue,
    names::{Device, all, new_passes, new_type, pass_of, serial, serials, shown_state, unique},
    queue::{Queue, end, expect_pending, finish_all, pending_of, scope},
    stores::Opened,
};
use crate::{CaseResult, Rule, Violation, violation::ensure};

catalogue! {
    "store/new-content-marks-its-pass" Must [P2 P5] store new_content_marks_its_pass,
        "Publishes three passes: with new content, the same content, earlier content, and mixtures \
         in one call. Publishes one pass twice in one call. Reads list, dates and digests after \
         each step.",
        "A phone never gets new content, or fetches a pass that did not change.";
    "store/one-content-is-marked-once" Must [P1] store one_content_is_marked_once,
        "12 callers publish the same content at once, eight times. Each caller reads version and date \
         after its call.",
        "If several instances notice the change, all phones fetch the pass several times.";
    "store/parallel-contents-lose-nothing" Must [P1 P5] store parallel_contents_lose_nothing,
        "12 callers publish one pass at once, four times. Each caller publishes a different authentication \
         token, with a different digest or with a common digest.",
        "A phone has an old copy of the pass, and its authentication token is refused.";
    "store/other-marks-keep-the-digest" Must [P4] store other_marks_keep_the_digest,
        "Publishes content, marks the pass and its type, registers and unregisters. Then publishes \
         the same content, and other content.",
        "After a mark of the type, every starting instance marks all passes again.";
    "store/tokens-are-united" Must [P5] store tokens_are_united,
        "Publishes authentication tokens one by one, several at once, some again, and more than \
         16, with the same digest and with new digests.",
        "An old copy of a pass can no longer be updated, or the newest authentication token is \
         dropped before older ones.";
    "store/removals-keep-what-was-published" Must [P5] store removals_keep_what_was_published,
        "Publishes the removal of a pass that was published, and of a pass that was never published. Then \
         publishes the same content, and other content.",
        "A phone can't unregister a removed pass, or fetches a pass again that came back \
         unchanged.";
    "store/published-answers-in-order" Must [PUBLISHED] store published_answers_in_order,
        "Reads the published content of passes of two types. Some passes are requested twice, and some were never \
         published. Also makes an empty request.",
        "The token of one pass opens another pass.";
    "store/contents-keep-passes-apart" Must [NAMES P2] store contents_keep_passes_apart,
        "Publishes passes with odd serial numbers, and passes with equal serial numbers in types \
         that start alike.",
        "The changes of two passes are mixed up, and the phones of one pass get no update.";
    "store/dropped-publish-is-all-or-nothing" Must [C12 P3] store dropped_publish_is_all_or_nothing,
        "A call that publishes 20 passes is dropped after 0 polls, in the next round after 1 poll, and so on. \
         Soon after each drop, digests, tokens and states must show all 20 publications or none.",
        "New content counts as published, but no phone ever gets it.";
    "store/published-contents-survive-reopening" Must [P6] opened
        published_contents_survive_reopening,
        "16 tasks publish content and removals. The data are opened again as they are at that \
         moment. Digests, tokens and removals must be as acknowledged. Publishing works as before.",
        "After a crash, all passes are marked again, or an acknowledged change is not marked.";
    "queue/new-contents-are-pending" Must [Q1 P2 P3] queue new_contents_are_pending,
        "Publishes new content, the same content and removals, with and without pushes. Reads the \
         pending changes.",
        "Phones get a push for content that did not change, or no push for content that changed.";
    "queue/one-content-is-pending-once" Must [P1 Q1] queue one_content_is_pending_once,
        "12 callers publish the same content with pushes at once, eight times. Each caller reads version \
         and date after its call.",
        "If several instances notice the change, all phones get several pushes.";
    "queue/dropped-publish-is-all-or-nothing" Must [C12 P3 Q1] queue
        dropped_publish_and_push_is_all_or_nothing,
        "A mark_and_push that publishes 20 passes is dropped after 0 polls, in the next round after 1 poll, and so \
         on. Soon after each drop, each pass must be published, marked and pending, or none of these.",
        "New content counts as published, but no phone ever gets a push for it.";
}

const AT_ONCE: usize = 12;

/// Returns a digest that no other call returns.
fn new_digest() -> ContentDigest {
    let mut digest = [0; 32];
    digest.copy_from_slice(unique().as_bytes());
    digest
}

fn token(number: u8) -> TokenDigest {
    TokenDigest::from_bytes([number; 32])
}

fn tokens(numbers: impl IntoIterator<Item = u8>) -> Vec<TokenDigest> {
    numbers.into_iter().map(token).collect()
}

fn content(
    pass: &PassId,
    digest: Option<ContentDigest>,
    numbers: impl IntoIterator<Item = u8>,
) -> Content {
    Content {
        serial: pass.serial.clone(),
        digest,
        tokens: tokens(numbers),
    }
}

/// Publishes one pass.
async fn publish(
    store: &dyn RegistrationStore,
    pass: &PassId,
    digest: Option<ContentDigest>,
    numbers: impl IntoIterator<Item = u8>,
) -> Result<(), Violation> {
    let content = content(pass, digest, numbers);
    Ok(store
        .mark(&pass.type_id, Changed::Contents(slice::from_ref(&content)))
        .await?)
}

async fn published(
    store: &dyn RegistrationStore,
    pass: &PassId,
) -> Result<Option<Published>, Violation> {
    let mut answer = store.published(slice::from_ref(pass)).await?;
    ensure(
        Rule::PUBLISHED,
        answer.len() == 1,
        "one answer for one pass",
        || answer.len().to_string(),
    )?;
    Ok(answer.pop().flatten())
}

/// Ensures that `published` returns `wanted`, and that the state of the pass has the same digest.
async fn expect_published(
    store: &dyn RegistrationStore,
    pass: &PassId,
    wanted: Option<&Published>,
    rule: Rule,
    when: &str,
) -> Result<(), Violation> {
    let found = published(store, pass).await?;
    ensure(
        rule,
        found.as_ref() == wanted,
        format!("{} {when}", shown(wanted)),
        || shown(found.as_ref()),
    )?;
    let digest = store.pass_state(pass).await?.published;
    let same = digest == wanted.and_then(|published| published.digest);
    ensure(
        rule,
        same,
        format!("the same digest in the state of the pass {when}"),
        || "another digest".into(),
    )
}

/// Describes what was published, with only the first bytes of digests and tokens.
fn shown(published: Option<&Published>) -> String {
    let Some(Published {
        digest,
        tokens,
        removed,
    }) = published
    else {
        return "nothing published".into();
    };
    let digest = digest.map(|digest| format!("{:02x?}", &digest[..16]));
    let tokens: Vec<_> = tokens.iter().map(|token| token.as_bytes()[0]).collect();
    format!("digest {digest:?}, tokens {tokens:?}, removed {removed}")
}

/// Ensures that a pass was marked between two states, or not marked if `wanted` is false.
fn expect_marked(
    before: PassState,
    after: PassState,
    wanted: bool,
    rule: Rule,
    what: &str,
) -> Result<(), Violation> {
    let later = after.version > before.version && after.last_modified > before.last_modified;
    let still = after.version == before.version && after.last_modified == before.last_modified;
    let expected = if wanted {
        "a mark because of"
    } else {
        "no mark because of"
    };
    ensure(
        rule,
        if wanted { later } else { still },
        format!("{expected} {what}"),
        || format!("{}; then {}", shown_state(before), shown_state(after)),
    )
}

async fn new_content_marks_its_pass(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let device = Device::registered_for(store, &passes).await?;
    let mut tag = device
        .lists_exactly(store, &type_id, &passes, Rule::CHANGES_SINCE)
        .await?;
    store.mark(&type_id, Changed::Contents(&[])).await?;
    device
        .list(store, &type_id, Some(tag))
        .await?
        .is_empty(Rule::MARK, "after an empty batch")?;
    let [a, b, c] = [new_digest(), new_digest(), new_digest()];
    // The passes of a call with their digests, the passes that it must mark, and a description.
    type Step<'a> = (&'a [(usize, ContentDigest)], &'a [usize], &'a str);
    let steps: [Step<'_>; 9] = [
        (&[(0, a)], &[0], "first content"),
        (&[(0, a)], &[], "equal content"),
        (&[(0, b)], &[0], "another content"),
        (&[(0, a)], &[0], "earlier content"),
        (
            &[(0, a), (1, a), (2, b)],
            &[1, 2],
            "equal content and first content of two passes",
        ),
        (
            &[(2, b), (1, a), (0, a)],
            &[],
            "equal content of three passes",
        ),
        (
            &[(0, a), (1, c), (2, b)],
            &[1],
            "other content of one pass, and equal content of two",
        ),
        (
            &[(0, b), (1, a), (2, a)],
            &[0, 1, 2],
            "other content of three passes",
        ),
        (
            &[(0, b), (1, a), (2, a)],
            &[],
            "the same content of three passes again",
        ),
    ];
    for (contents, marked, what) in steps {
        let before = states(store, &passes).await?;
        let contents: Vec<_> = contents
            .iter()
            .map(|(pass, digest)| content(&passes[*pass], Some(*digest), []))
            .collect();
        store.mark(&type_id, Changed::Contents(&contents)).await?;
        let after = states(store, &passes).await?;
        for (n, (before, after)) in before.into_iter().zip(after).enumerate() {
            expect_marked(before, after, marked.contains(&n), Rule::P2, what)?;
            let named = contents
                .iter()
                .find(|content| content.serial == passes[n].serial);
            let digest = named.map_or(before.published, |content| content.digest);
            ensure(
                Rule::P2,
                after.published == digest,
                format!("the digest of {what} in the state"),
                || "another digest".into(),
            )?;
        }
        let listed = device.list(store, &type_id, Some(tag)).await?;
        listed.has(
            marked.iter().map(|pass| &passes[*pass]),
            Rule::P2,
            &format!("after {what}"),
        )?;
        if marked.is_empty() {
            listed.is_empty(Rule::P2, &format!("after {what}"))?;
        } else {
            tag = listed.tag;
        }
    }
    let [d, e] = [new_digest(), new_digest()];
    for pass in &passes {
        let before = store.pass_state(pass).await?;
        // The store may use either of the two entries.
        let twice = [
            content(pass, Some(d), [1, 2]),
            content(pass, Some(e), [1, 2]),
        ];
        store.mark(&type_id, Changed::Contents(&twice)).await?;
        let after = store.pass_state(pass).await?;
        expect_marked(
            before,
            after,
            true,
            Rule::P2,
            "two publications of one pass in a call",
        )?;
        ensure(
            Rule::P2,
            [Some(d), Some(e)].contains(&after.published),
            "one of two published digests in the state",
            || "another digest".into(),
        )?;
        device.list(store, &type_id, Some(tag)).await?.has(
            [pass],
            Rule::P2,
            "after two publications of one pass in a call",
        )?;
    }
    // Digests and tokens that differ in one byte, or that are not valid text.
    let pass = &passes[0];
    let with = |at: usize, byte: u8| {
        let mut all = [b'x'; 32];
        all[at] = byte;
        all
    };
    let zero_first = with(0, 0);
    for (step, all) in [
        [0; 32],
        zero_first,
        [0xff; 32],
        with(31, 1),
        with(31, 2),
        with(0, 0xfe),
        with(0, 0xfd),
        with(15, b'X'),
        with(31, b'X'),
        with(16, b'X'),
    ]
    .into_iter()
    .enumerate()
    {
        let before = store.pass_state(pass).await?;
        let one = Content {
            serial: pass.serial.clone(),
            digest: Some(all),
            tokens: vec![TokenDigest::from_bytes(all)],
        };
        store
            .mark(&type_id, Changed::Contents(slice::from_ref(&one)))
            .await?;
        let after = store.pass_state(pass).await?;
        let what = "content whose digest differs from the last digest in few bytes";
        expect_marked(before, after, true, Rule::P2, what)?;
        let found = published(store, pass).await?.unwrap_or_default();
        ensure(
            Rule::P2,
            after.published == Some(all) && found.digest == Some(all),
            "exactly the digest that was published",
            || "another digest".into(),
        )?;
        ensure(
            Rule::P5,
            found.tokens.last() == one.tokens.last()
                && found.tokens.len() == (step + 3).min(Published::MAX_TOKENS),
            "exactly the token that was published, and the earlier tokens",
            || format!("{} tokens, or a different last token", found.tokens.len()),
        )?;
    }
    // This pass is on no device, and was never marked.
    let unknown = pass_of(&type_id, &serial("unknown")?);
    publish(store, &unknown, Some(a), [1]).await?;
    let remembered = Published {
        digest: Some(a),
        tokens: tokens([1]),
        removed: false,
    };
    expect_published(
        store,
        &unknown,
        Some(&remembered),
        Rule::P2,
        "of a pass that no device has",
    )
    .await
}

/// Publishes the same content with 12 callers at once. Ensures that the pass is not marked again
/// after the first call has ended.
async fn publish_at_once<F>(
    store: &Arc<dyn RegistrationStore>,
    pass: &PassId,
    publish: impl Fn(Content) -> F,
) -> Result<PassState, Violation>
where
    F: Future<Output = Result<(), Violation>> + Send + 'static,
{
    let before = store.pass_state(pass).await?;
    let digest = new_digest();
    let start = Arc::new(Barrier::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let publishing = publish(content(pass, Some(digest), [1]));
        let (store, pass, start) = (store.clone(), pass.clone(), start.clone());
        tasks.spawn(async move {
            start.wait().await;
            publishing.await?;
            Ok::<_, Violation>(store.pass_state(&pass).await?)
        });
    }
    let seen = all(tasks).await?;
    let after = store.pass_state(pass).await?;
    expect_marked(before, after, true, Rule::P2, "new content")?;
    let others = seen.iter().filter(|state| **state != after).count();
    ensure(
        Rule::P1,
        others == 0,
        format!(
            "no mark after the end of the first call: {} for all callers",
            shown_state(after)
        ),
        || format!("{others} of {AT_ONCE} callers read another state"),
    )?;
    Ok(after)
}

async fn one_content_is_marked_once(store: &Arc<dyn RegistrationStore>) -> Result<(), Violation> {
    let (_, passes) = new_passes(8)?;
    for pass in &passes {
        for _ in 0..2 {
            publish_at_once(store, pass, |content| {
                let (store, type_id) = (store.clone(), pass.type_id.clone());
                async move { Ok(store.mark(&type_id, Changed::Contents(&[content])).await?) }
            })
            .await?;
        }
    }
    Ok(())
}

async fn one_content_is_pending_once(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(8)?;
    let store: Arc<dyn RegistrationStore> = queue.clone();
    for pass in &passes {
        let state = publish_at_once(&store, pass, |content| {
            let (queue, type_id) = (queue.clone(), pass.type_id.clone());
            async move {
                Ok(queue
                    .mark_and_push(&type_id, Changed::Contents(&[content]))
                    .await?)
            }
        })
        .await?;
        let pending = expect_pending(
            queue,
            &type_id,
            [&scope(pass)],
            Rule::Q1,
            "after the same content was published at once",
        )
        .await?;
        let change = &pending[&scope(pass)];
        ensure(
            Rule::Q1,
            change.version == state.version,
            format!("the version {}", state.version),
            || change.version.to_string(),
        )?;
        queue
            .record_progress(&type_id, &[(scope(pass), end(state.version))])
            .await?;
    }
    Ok(())
}

async fn parallel_contents_lose_nothing(
    store: &Arc<dyn RegistrationStore>,
) -> Result<(), Violation> {
    let (_, passes) = new_passes(4)?;
    for (round, pass) in passes.iter().enumerate() {
        let first = new_digest();
        if round % 2 == 1 {
            publish(&**store, pass, Some(first), []).await?;
        }
        let before = store.pass_state(pass).await?;
        let start = Arc::new(Barrier::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for caller in 0..AT_ONCE as u8 {
            let (store, pass, start) = (store.clone(), pass.clone(), start.clone());
            // In the second half of the rounds, all callers publish the same digest.
            let digest = if round < 2 { new_digest() } else { first };
            tasks.spawn(async move {
                start.wait().await;
                publish(&*store, &pass, Some(digest), [caller]).await?;
                Ok::<_, Violation>(digest)
            });
        }
        let digests = all(tasks).await?;
        let after = store.pass_state(pass).await?;
        expect_marked(before, after, round < 3, Rule::P2, "publications at once")?;
        let found = published(&**store, pass).await?.unwrap_or_default();
        let one = found.digest.is_some_and(|digest| digests.contains(&digest))
            && after.published == found.digest;
        ensure(Rule::P1, one, "one of the digests, in both answers", || {
            shown(Some(&found))
        })?;
        let lost = (0..AT_ONCE as u8)
            .filter(|caller| !found.tokens.contains(&token(*caller)))
            .count();
        ensure(Rule::P5, lost == 0, "the tokens of all callers", || {
            format!("{lost} of {AT_ONCE} tokens missing")
        })?;
    }
    Ok(())
}

async fn other_marks_keep_the_digest(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    let pass = &passes[0];
    let [a, b] = [new_digest(), new_digest()];
    publish(store, pass, Some(a), [1]).await?;
    let remembered = Published {
        digest: Some(a),
        tokens: tokens([1]),
        removed: false,
    };
    for step in 0..4 {
        let what = match step {
            0 => {
                store
                    .mark(&type_id, Changed::Passes(&serials(&passes)))
                    .await?;
                "a mark of passes"
            }
            1 => {
                store.mark(&type_id, Changed::All).await?;
                "a mark of the type"
            }
            2 => {
                let device = Device::registered_for(store, &passes).await?;
                store.unregister(&device.id, pass).await?;
                "register and unregister"
            }
            _ => {
                publish(store, &passes[1], Some(b), [2]).await?;
                "a publication of another pass"
            }
        };
        expect_published(
            store,
            pass,
            Some(&remembered),
            Rule::P4,
            &format!("unchanged after {what}"),
        )
        .await?;
        if step < 3 {
            let other = format!("for a pass that was never published, after {what}");
            expect_published(store, &passes[1], None, Rule::P4, &other).await?;
        }
        let before = store.pass_state(pass).await?;
        publish(store, pass, Some(a), [1]).await?;
        let after = store.pass_state(pass).await?;
        expect_marked(
            before,
            after,
            false,
            Rule::P4,
            &format!("equal content after {what}"),
        )?;
    }
    let before = store.pass_state(pass).await?;
    publish(store, pass, Some(b), [1]).await?;
    expect_marked(
        before,
        store.pass_state(pass).await?,
        true,
        Rule::P4,
        "other content after other marks",
    )
}

async fn tokens_are_united(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (_, passes) = new_passes(1)?;
    let pass = &passes[0];
    let [mut digest, before] = [new_digest(), new_digest()];
    publish(store, pass, Some(before), []).await?;
    let steps: [(&[u8], &[u8]); 10] = [
        (&[1], &[1]),
        (&[2, 3], &[1, 2, 3]),
        (&[], &[1, 2, 3]),
        (&[1], &[2, 3, 1]),
        (&[4, 5, 4], &[2, 3, 1, 5, 4]),
        (
            &[6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
            &[2, 3, 1, 5, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        ),
        (
            &[17],
            &[3, 1, 5, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17],
        ),
        // If a token is published again, it becomes the newest, and no token is dropped.
        (
            &[3],
            &[1, 5, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 3],
        ),
        (
            &[18, 5],
            &[4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 3, 18, 5],
        ),
        (
            &[
                20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38,
            ],
            &[
                23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38,
            ],
        ),
    ];
    for (step, (new, wanted)) in steps.into_iter().enumerate() {
        let is_new = step % 3 == 0;
        if is_new {
            digest = new_digest();
        }
        let before = store.pass_state(pass).await?;
        publish(store, pass, Some(digest), new.iter().copied()).await?;
        let after = store.pass_state(pass).await?;
        expect_marked(before, after, is_new, Rule::P2, "content with other tokens")?;
        let remembered = Published {
            digest: Some(digest),
            tokens: tokens(wanted.iter().copied()),
            removed: false,
        };
        let when = format!("after tokens {new:?} were published");
        expect_published(store, pass, Some(&remembered), Rule::P5, &when).await?;
    }
    Ok(())
}

async fn removals_keep_what_was_published(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    let device = Device::registered_for(store, &passes).await?;
    let tag = device
        .lists_exactly(store, &type_id, &passes, Rule::CHANGES_SINCE)
        .await?;
    let [a, b] = [new_digest(), new_digest()];
    // The published digest and tokens, whether the call must mark the pass, what the store must
    // then remember, and a description.
    type Step<'a> = (
        Option<ContentDigest>,
        &'a [u8],
        bool,
        (Option<ContentDigest>, &'a [u8], bool),
        &'a str,
    );
    let of_first: [Step<'_>; 7] = [
        (
            None,
            &[1],
            false,
            (None, &[1], true),
            "a removal before all content",
        ),
        (
            None,
            &[2],
            false,
            (None, &[1, 2], true),
            "a second removal before all content",
        ),
        (
            Some(a),
            &[1],
            true,
            (Some(a), &[2, 1], false),
            "the first content, after a removal",
        ),
        (None, &[], false, (Some(a), &[2, 1], true), "a removal"),
        (
            None,
            &[3],
            false,
            (Some(a), &[2, 1, 3], true),
            "a second removal",
        ),
        (
            Some(a),
            &[2],
            false,
            (Some(a), &[1, 3, 2], false),
            "the same content, after a removal",
        ),
        (
            None,
            &[],
            false,
            (Some(a), &[1, 3, 2], true),
            "another removal",
        ),
    ];
    for (digest, new, marks, (remembered, tokens_then, removed), what) in of_first {
        let before = store.pass_state(&passes[0]).await?;
        publish(store, &passes[0], digest, new.iter().copied()).await?;
        expect_marked(
            before,
            store.pass_state(&passes[0]).await?,
            marks,
            Rule::P5,
            what,
        )?;
        let remembered = Published {
            digest: remembered,
            tokens: tokens(tokens_then.iter().copied()),
            removed,
        };
        let when = format!("after {what}");
        expect_published(store, &passes[0], Some(&remembered), Rule::P5, &when).await?;
        let listed = device.list(store, &type_id, Some(tag)).await?;
        ensure(
            Rule::P5,
            listed.serials.contains(&passes[0].serial) == (remembered.digest.is_some()),
            format!("the pass to be listed if and only if content was published ({what})"),
            || format!("{} listed", listed.serials.len()),
        )?;
    }
    // In one call, a pass comes back with other content, and another pass is removed.
    publish(store, &passes[1], Some(a), [1]).await?;
    let before = states(store, &passes).await?;
    let both = [
        content(&passes[0], Some(b), [4]),
        content(&passes[1], None, [5]),
    ];
    store.mark(&type_id, Changed::Contents(&both)).await?;
    let after = states(store, &passes).await?;
    expect_marked(
        before[0],
        after[0],
        true,
        Rule::P5,
        "other content after a removal",
    )?;
    expect_marked(
        before[1],
        after[1],
        false,
        Rule::P5,
        "a removal together with other content",
    )?;
    let remembered = [
        Published {
            digest: Some(b),
            tokens: tokens([1, 3, 2, 4]),
            removed: false,
        },
        Published {
            digest: Some(a),
            tokens: tokens([1, 5]),
            removed: true,
        },
    ];
    for (pass, remembered) in passes.iter().zip(&remembered) {
        expect_published(
            store,
            pass,
            Some(remembered),
            Rule::P5,
            "after content and a removal",
        )
        .await?;
    }
    Ok(())
}

async fn published_answers_in_order(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (_, mut passes) = new_passes(6)?;
    passes[4].type_id = new_type()?;
    passes[5] = pass_of(&passes[4].type_id, &passes[0].serial);
    let mut remembered: Vec<Option<Published>> = vec![None; passes.len()];
    for n in [4_usize, 0, 2, 5] {
        let digest = (n != 2).then(new_digest);
        let number = n as u8;
        publish(store, &passes[n], digest, [number, number + 10]).await?;
        remembered[n] = Some(Published {
            digest,
            tokens: tokens([number, number + 10]),
            removed: n == 2,
        });
    }
    // The store knows this pass, but it was never published.
    store
        .mark(&passes[1].type_id, Changed::Passes(&serials(&passes[1..2])))
        .await?;
    Device::registered_for(store, &passes[3..4]).await?;
    let orders: [&[usize]; 6] = [
        &[],
        &[0],
        &[1],
        &[0, 1, 2, 3, 4, 5],
        &[5, 4, 3, 2, 1, 0],
        &[3, 0, 5, 0, 0, 1, 3],
    ];
    for order in orders {
        let asked: Vec<_> = order.iter().map(|n| passes[*n].clone()).collect();
        let found = store.published(&asked).await?;
        let wanted: Vec<_> = order.iter().map(|n| remembered[*n].clone()).collect();
        let show = |all: &[Option<Published>]| {
            all.iter()
                .map(|one| shown(one.as_ref()))
                .collect::<Vec<_>>()
                .join("; ")
        };
        ensure(
            Rule::PUBLISHED,
            found == wanted,
            format!("for passes {order:?}: {}", show(&wanted)),
            || show(&found),
        )?;
    }
    Ok(())
}

async fn contents_keep_passes_apart(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let short = new_type()?;
    let order = TypeIdentifier::new(&short.as_str().replacen("pass.", "order.", 1))?;
    let long = TypeIdentifier::new(&format!("{short}.b"))?;
    let longest = ["x".repeat(512), format!("{}y", "x".repeat(511))];
    let odd = [
        "a", "A", "a ", " a", "a/b", "a:b", ".b", "%", "*", "0", "\"a\"", "\\", "\u{fc}",
        "u\u{308}",
    ];
    let odd: Vec<SerialNumber> = odd
        .into_iter()
        .chain(longest.iter().map(String::as_str))
        .map(serial)
        .collect::<Result<_, _>>()?;
    let mut passes = Vec::new();
    for type_id in [&short, &order, &long] {
        passes.extend(odd.iter().map(|serial| pass_of(type_id, serial)));
    }
    let mut remembered = Vec::new();
    for (n, pass) in passes.iter().enumerate() {
        expect_published(
            store,
            pass,
            None,
            Rule::NAMES,
            "before anything was published",
        )
        .await?;
        let one = Published {
            digest: Some(new_digest()),
            tokens: tokens([n as u8]),
            removed: false,
        };
        publish(store, pass, one.digest, [n as u8]).await?;
        remembered.push(one);
    }
    for (pass, one) in passes.iter().zip(&remembered) {
        expect_published(
            store,
            pass,
            Some(one),
            Rule::NAMES,
            "that only this pass has",
        )
        .await?;
    }
    // New content must mark only its own pass.
    for (n, pass) in passes.iter().enumerate() {
        let neighbour = &passes[(n + 1) % passes.len()];
        let before = [
            store.pass_state(pass).await?,
            store.pass_state(neighbour).await?,
        ];
        publish(store, pass, Some(new_digest()), []).await?;
        let after = [
            store.pass_state(pass).await?,
            store.pass_state(neighbour).await?,
        ];
        expect_marked(before[0], after[0], true, Rule::NAMES, "new content")?;
        expect_marked(
            before[1],
            after[1],
            false,
            Rule::NAMES,
            "the content of another pass",
        )?;
    }
    Ok(())
}

/// Describes a publication that has taken effect only in part. Returns `None` if the publication is
/// complete or absent.
async fn halves(
    store: &dyn RegistrationStore,
    passes: &[PassId],
    before: &[PassState],
    contents: &[Content],
) -> Result<Option<String>, Violation> {
    let after = states(store, passes).await?;
    let remembered = store.published(passes).await?;
    let (mut marked, mut published, mut torn) = (0, 0, 0);
    for (((before, after), remembered), content) in
        before.iter().zip(&after).zip(&remembered).zip(contents)
    {
        let is_marked = after.version > before.version;
        let has_digest = remembered
            .as_ref()
            .is_some_and(|one| one.digest == content.digest);
        let has_token = remembered
            .as_ref()
            .is_some_and(|one| one.tokens.last() == content.tokens.last());
        let has_state = after.published == content.digest;
        marked += usize::from(is_marked);
        published += usize::from(has_digest);
        // States and published digests are read one after the other. A difference therefore counts
        // only if it lasts.
        torn += usize::from(
            is_marked != has_digest || has_token != has_digest || has_state != has_digest,
        );
    }
    let whole = torn == 0 && (marked == 0 || marked == passes.len());
    Ok((!whole).then(|| {
        format!(
            "{marked} of {} marked, {published} with the new digest, {torn} with only some of the \
             changes",
            passes.len()
        )
    }))
}

/// Makes new content for all passes, each with a new digest and a new token.
fn new_contents(passes: &[PassId], number: u8) -> Vec<Content> {
    passes
        .iter()
        .map(|pass| content(pass, Some(new_digest()), [number]))
        .collect()
}

async fn dropped_publish_is_all_or_nothing(store: &dyn RegistrationStore) -> Result<(), Violation> {
    for polls in 0..MOST_POLLS {
        // A dropped call may still take effect much later. Each round uses a new type, so that such
        // a call does not disturb the next round.
        let (type_id, passes) = new_passes(20)?;
        let device = Device::registered_for(store, &passes).await?;
        store
            .mark(&type_id, Changed::Contents(&new_contents(&passes, 0)))
            .await?;
        let tag = device.list(store, &type_id, None).await?.tag;
        let before = states(store, &passes).await?;
        let contents = new_contents(&passes, 1);
        let done = give_up_after(polls, store.mark(&type_id, Changed::Contents(&contents))).await;
        comes_to_rest("a dropped publication", || {
            Box::pin(async { halves(store, &passes, &before, &contents).await })
        })
        .await
        .map_err(|found| found.unless_error_under(Rule::P3))?;
        // A caller would repeat the call. After the second call, each pass must have been marked by
        // one of the two calls.
        store.mark(&type_id, Changed::Contents(&contents)).await?;
        let listed = device.list(store, &type_id, Some(tag)).await?;
        listed.has(&passes, Rule::P3, "after a second publication")?;
        if done {
            break;
        }
    }
    Ok(())
}

async fn dropped_publish_and_push_is_all_or_nothing(queue: &Queue) -> Result<(), Violation> {
    for polls in 0..MOST_POLLS {
        // Each round uses a new type, as in the case above.
        let (type_id, passes) = new_passes(20)?;
        let every: Vec<_> = passes.iter().map(scope).collect();
        queue
            .mark(&type_id, Changed::Contents(&new_contents(&passes, 0)))
            .await?;
        let before = states(queue, &passes).await?;
        let contents = new_contents(&passes, 1);
        let done = give_up_after(
            polls,
            queue.mark_and_push(&type_id, Changed::Contents(&contents)),
        )
        .await;
        comes_to_rest("a dropped publication", || {
            Box::pin(async {
                if let Some(halves) = halves(queue, &passes, &before, &contents).await? {
                    return Ok(Some(halves));
                }
                let marked = states(queue, &passes[..1]).await?[0].version > before[0].version;
                let pending = pending_of(queue, &type_id).await?.len();
                let wanted = if marked { passes.len() } else { 0 };
                Ok((pending != wanted).then(|| format!("{pending} pending, and {wanted} marked")))
            })
        })
        .await
        .map_err(|found| found.unless_error_under(Rule::P3))?;
        // A caller would repeat the call. After the second call, all passes must be pending.
        queue
            .mark_and_push(&type_id, Changed::Contents(&contents))
            .await?;
        expect_pending(
            queue,
            &type_id,
            &every,
            Rule::P3,
            "after a second publication",
        )
        .await?;
        finish_all(queue, &type_id).await?;
        if done {
            break;
        }
    }
    Ok(())
}

async fn new_contents_are_pending(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(4)?;
    let [a, b] = [new_digest(), new_digest()];
    queue
        .mark_and_push(&type_id, Changed::Contents(&[]))
        .await?;
    expect_pending(queue, &type_id, [], Rule::Q1, "after an empty batch").await?;
    // Content that is published without pushes does not become pending.
    publish(queue, &passes[0], Some(a), [1]).await?;
    expect_pending(
        queue,
        &type_id,
        [],
        Rule::Q1,
        "after content was published without pushes",
    )
    .await?;
    let batch = [
        content(&passes[0], Some(a), [2]),
        content(&passes[1], Some(a), [1]),
        content(&passes[2], None, [1]),
        content(&passes[3], Some(b), [1]),
    ];
    queue
        .mark_and_push(&type_id, Changed::Contents(&batch))
        .await?;
    let new = [scope(&passes[1]), scope(&passes[3])];
    let pending = expect_pending(
        queue,
        &type_id,
        &new,
        Rule::Q1,
        "after four passes were published, two of them with new content",
    )
    .await?;
    for pass in [&passes[1], &passes[3]] {
        let (change, state) = (&pending[&scope(pass)], queue.pass_state(pass).await?);
        ensure(
            Rule::Q1,
            change.version == state.version,
            format!("the version {}", state.version),
            || change.version.to_string(),
        )?;
    }
    // Equal content changes nothing, whether the earlier change is pending or finished.
    queue
        .record_progress(&type_id, &[(new[0].clone(), end(pending[&new[0]].version))])
        .await?;
    queue
        .mark_and_push(&type_id, Changed::Contents(&batch))
        .await?;
    queue.mark(&type_id, Changed::Contents(&batch)).await?;
    let after = expect_pending(queue, &type_id, [&new[1]], Rule::Q1, "after equal content").await?;
    let same = after[&new[1]] == pending[&new[1]];
    ensure(Rule::Q1, same, "the pending change as it was", || {
        format!("{:?}", after[&new[1]])
    })?;
    // A pass comes back, and another pass is removed while its change is pending.
    let batch = [
        content(&passes[2], Some(b), []),
        content(&passes[3], None, []),
    ];
    queue
        .mark_and_push(&type_id, Changed::Contents(&batch))
        .await?;
    let both = [scope(&passes[2]), scope(&passes[3])];
    expect_pending(
        queue,
        &type_id,
        &both,
        Rule::Q1,
        "after content and a removal",
    )
    .await?;
    let remembered = Published {
        digest: Some(b),
        tokens: tokens([1]),
        removed: true,
    };
    expect_published(
        queue,
        &passes[3],
        Some(&remembered),
        Rule::P5,
        "after its removal",
    )
    .await
}

/// What one task did, and what must be there after reopening.
struct Done {
    passes: Vec<PassId>,
    states: Vec<PassState>,
    remembered: Vec<Option<Published>>,
}

async fn published_contents_survive_reopening(opened: &Opened) -> CaseResult {
    let store = opened.registrations();
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let store = store.clone();
        tasks.spawn(async move { work(&*store).await });
    }
    let done = all(tasks).await?;
    let reopened = opened.reopen().await?;
    for done in &done {
        let found = done.is_there(&**reopened.registrations()).await;
        found.map_err(|found| found.unless_error_under(Rule::P6))?;
    }
    Ok(())
}

async fn work(store: &dyn RegistrationStore) -> Result<Done, Violation> {
    let (type_id, passes) = new_passes(6)?;
    let batch = new_contents(&passes[..5], 1);
    store.mark(&type_id, Changed::Contents(&batch)).await?;
    store
        .mark(&type_id, Changed::Contents(&new_contents(&passes[..2], 2)))
        .await?;
    publish(store, &passes[2], batch[2].digest, [3, 1]).await?;
    publish(store, &passes[3], None, [4]).await?;
    publish(store, &passes[4], None, []).await?;
    publish(store, &passes[4], batch[4].digest, []).await?;
    store
        .mark(&type_id, Changed::Passes(&serials(&passes[1..2])))
        .await?;
    let remembered = store.published(&passes).await?;
    let states = states(store, &passes).await?;
    Ok(Done {
        passes,
        states,
        remembered,
    })
}

impl Done {
    async fn is_there(&self, store: &dyn RegistrationStore) -> Result<(), Violation> {
        for ((pass, state), remembered) in
            self.passes.iter().zip(&self.states).zip(&self.remembered)
        {
            expect_published(store, pass, remembered.as_ref(), Rule::P6, "as before").await?;
            let now = store.pass_state(pass).await?;
            ensure(
                Rule::P6,
                now == *state,
                format!("{} as before", shown_state(*state)),
                || shown_state(now),
            )?;
            // Publishing works as before.
            publish(store, pass, state.published, [9]).await?;
            expect_marked(
                now,
                store.pass_state(pass).await?,
                false,
                Rule::P6,
                "equal content",
            )?;
            publish(store, pass, Some(new_digest()), [9]).await?;
            expect_marked(
                now,
                store.pass_state(pass).await?,
                true,
                Rule::P6,
                "other content",
            )?;
            let tokens = published(store, pass).await?.unwrap_or_default().tokens;
            let mut wanted = remembered.clone().unwrap_or_default().tokens;
            wanted.push(token(9));
            ensure(
                Rule::P6,
                tokens == wanted,
                "the tokens as before, and a new one",
                || format!("{} of {}", tokens.len(), wanted.len()),
            )?;
        }
        Ok(())
    }
}
