//! Claims and notes.
//!
//! A claim is a key that expires, so the clock of the server decides when the claim ends. A script compares and sets a note.
//! If a connection breaks before the answer, the store may run the script twice, and another call may replace the note in
//! between. So each call has a name, and the script remembers the names of the calls that recently replaced the note. A
//! repeated call gets the same answer again.

use std::time::Duration;

use async_trait::async_trait;
use passkit_server::store::{Coordination, StoreError};
use redis::Value;

use crate::{
    engine::{Command, name_of_call, one, read, scripts},
    layout::NOTE,
    store::RedisStore,
};

/// The longest claim, in milliseconds.
const YEAR: u64 = 365 * 86_400_000;

#[async_trait]
impl Coordination for RedisStore {
    /// If [`min_replicas`](crate::Config::min_replicas) is 0, a failover may lose a claim.
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError> {
        let shared = self.shared();
        // The server does not accept 0 milliseconds.
        let millis = u64::try_from(time.as_millis())
            .unwrap_or(YEAR)
            .clamp(1, YEAR);
        let call = Command::script(&scripts::CLAIM, shared.keys.claim(name))
            .arg(owner)
            .arg(millis);
        Ok(one(shared.runner.write(vec![call]).await?) == Value::Int(1))
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        let shared = self.shared();
        let call = Command::script(&scripts::RELEASE, shared.keys.claim(name)).arg(owner);
        shared.runner.write(vec![call]).await?;
        Ok(())
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        let shared = self.shared();
        let answer = shared
            .runner
            .read_confirmed(shared.keys.note(name), NOTE, &[NOTE])
            .await?;
        let [note]: [Option<String>; 1] = read(answer, "note")?;
        Ok(note)
    }

    async fn replace_note(
        &self,
        name: &str,
        expected: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, StoreError> {
        let shared = self.shared();
        let argument = |note: Option<&str>| note.map(|note| format!("={note}")).unwrap_or_default();
        let call = Command::script_on(
            &scripts::REPLACE_NOTE,
            [shared.keys.note(name), shared.keys.note_calls(name)],
        )
        .arg(name_of_call())
        .arg(argument(expected))
        .arg(argument(new))
        .arg(shared.runner.longest_call().as_secs());
        Ok(one(shared.runner.write(vec![call]).await?) == Value::Int(1))
    }
}
