//! Commands and scripts, each with the node that must run it.

use std::hash::{BuildHasher as _, RandomState};

use passkit_server::store::clock;
use redis::{Arg, Cmd};

use super::scripts::Script;

/// The node that must run a command.
#[derive(Clone, Debug)]
pub(super) enum Route {
    Key(String),
    Slot(u16),
    Any,
}

/// A command that does no harm when it runs twice.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(super) route: Route,
    pub(super) cmd: Cmd,
    script: Option<&'static Script>,
    /// The position of the current time among the arguments, if the script gets the time.
    time: Option<usize>,
}

/// The positions of a script and of its first key among the arguments.
const SCRIPT: usize = 1;
const KEYS: usize = 3;

impl Command {
    pub(crate) fn plain(name: &str, key: String) -> Self {
        let mut cmd = redis::cmd(name);
        cmd.arg(&key);
        Self {
            route: Route::Key(key),
            cmd,
            script: None,
            time: None,
        }
    }

    /// Makes a command whose name has two words. The key follows the name.
    pub(crate) fn keyed(name: &str, second: &str, key: String) -> Self {
        let mut cmd = redis::cmd(name);
        cmd.arg(second).arg(&key);
        Self {
            route: Route::Key(key),
            cmd,
            script: None,
            time: None,
        }
    }

    pub(crate) fn script(script: &'static Script, key: String) -> Self {
        Self::script_on(script, vec![key])
    }

    /// Makes a call of a script with several keys of one slot.
    pub(crate) fn script_on(script: &'static Script, keys: impl Into<Vec<String>>) -> Self {
        let mut keys = keys.into();
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&script.hash).arg(keys.len()).arg(&keys);
        Self {
            route: Route::Key(keys.swap_remove(0)),
            cmd,
            script: Some(script),
            time: None,
        }
    }

    /// Makes a call of a script whose first argument is the current time.
    pub(crate) fn timed(script: &'static Script, keys: impl Into<Vec<String>>) -> Self {
        Self::timed_at(script, keys, clock::now_micros())
    }

    /// Makes a call of a script whose first argument is this time. Several scripts can share a time. If a script is repeated,
    /// it gets a new time.
    pub(crate) fn timed_at(
        script: &'static Script,
        keys: impl Into<Vec<String>>,
        now: u64,
    ) -> Self {
        let keys = keys.into();
        Self {
            time: Some(KEYS + keys.len()),
            ..Self::script_on(script, keys).arg(now)
        }
    }

    pub(crate) fn on_slot(slot: u16, cmd: Cmd) -> Self {
        Self {
            route: Route::Slot(slot),
            cmd,
            script: None,
            time: None,
        }
    }

    pub(crate) fn anywhere(cmd: Cmd) -> Self {
        Self {
            route: Route::Any,
            cmd,
            script: None,
            time: None,
        }
    }

    pub(crate) fn arg(mut self, arg: impl redis::ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }

    /// Replaces the hash of a script with its text, so that the server stores the script. Returns whether there was a hash.
    pub(super) fn spell_out(&mut self) -> bool {
        let Some(script) = self.script.take() else {
            return false;
        };
        self.replace(0, b"EVAL");
        self.replace(SCRIPT, script.source.as_bytes());
        true
    }

    /// Replaces the time among the arguments with the current time. A new master may have lost changes that devices have
    /// seen. A new change must not get the time of a lost one.
    pub(super) fn renew(&mut self) {
        if let Some(at) = self.time {
            self.replace(at, clock::now_micros().to_string().as_bytes());
        }
    }

    fn replace(&mut self, at: usize, new: &[u8]) {
        let mut cmd = Cmd::new();
        for (n, arg) in self.cmd.args_iter().enumerate() {
            if let Arg::Simple(arg) = arg {
                cmd.arg(if n == at { new } else { arg });
            }
        }
        self.cmd = cmd;
    }
}

/// Returns a unique name for a call. A script recognises a repeated call by its name.
pub(crate) fn name_of_call() -> String {
    format!("{:x}", RandomState::new().hash_one(0))
}
