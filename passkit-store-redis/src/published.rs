//! Which content was published last: it stands in the bucket, beside the mark, so that one script changes both; the pushes
//! that the mark owes stand in the same slot.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use passkit_server::{ContentDigest, PassId, PublishedContent, SerialNumber, StoreError, TypeIdentifier};
use redis::Value;

use crate::{
    connection::Call,
    error::Failure,
    index::one,
    keys,
    query::{AT_ONCE, MARKS_AND_DEBTS},
    scripts,
    store::{Inner, RedisStore},
};

/// A [`publish`](PublishedContent::publish) that failed may have marked some of its passes; repeated, it marks the others.
#[async_trait]
impl PublishedContent for RedisStore {
    async fn publish(
        &self,
        type_id: &TypeIdentifier,
        contents: &[(SerialNumber, ContentDigest)],
    ) -> Result<(), StoreError> {
        if contents.is_empty() {
            return Ok(());
        }
        let (type_id, contents) = (type_id.clone(), contents.to_vec());
        let publishing = |inner: Arc<Inner>| async move {
            for contents in contents.chunks(AT_ONCE) {
                inner.publish(&type_id, contents).await?;
            }
            Ok(())
        };
        self.whole(publishing).await
    }

    async fn published(&self, pass: &PassId) -> Result<Option<ContentDigest>, StoreError> {
        Ok(self.inner().published(pass).await?)
    }
}

impl Inner {
    async fn publish(
        &self,
        type_id: &TypeIdentifier,
        contents: &[(SerialNumber, ContentDigest)],
    ) -> Result<(), Failure> {
        let mut buckets: BTreeMap<u64, Vec<&(SerialNumber, ContentDigest)>> = BTreeMap::new();
        for one in contents {
            buckets.entry(self.keys.bucket_of(one.0.as_str())).or_default().push(one);
        }
        self.note(type_id, buckets.keys().copied()).await?;
        let mut calls = Vec::new();
        for (bucket, contents) in buckets {
            for contents in contents.chunks(MARKS_AND_DEBTS) {
                let keys = self.keys.bucket_and_debts(type_id, bucket);
                let call = Call::timed(&scripts::PUBLISH, keys).arg(self.created);
                calls.push(
                    contents
                        .iter()
                        .fold(call, |call, (serial, content)| call.arg(serial.as_str()).arg(&content[..])),
                );
            }
        }
        self.runner.write(calls).await.map(drop)
    }

    async fn published(&self, pass: &PassId) -> Result<Option<ContentDigest>, Failure> {
        let call = Call::plain("HGET", self.keys.bucket_with(pass)).arg(keys::content_field(&pass.serial));
        let content = match one(self.runner.read(vec![call]).await?) {
            Value::Nil => return Ok(None),
            Value::BulkString(content) => ContentDigest::try_from(content).ok(),
            _ => None,
        };
        content.map(Some).ok_or_else(|| Failure::unreadable("content's digest"))
    }
}
