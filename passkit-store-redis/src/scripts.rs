//! The scripts. Each touches the keys that it is given, which are in one slot, and may run twice with no harm.

use std::sync::LazyLock;

#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) source: &'static str,
    pub(crate) hash: String,
}

macro_rules! scripts {
    ($($name:ident = $file:literal;)+) => {
        $(pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| {
            let source = include_str!($file);
            Script { source, hash: redis::Script::new(source).get_hash().to_owned() }
        });)+
    };
}

scripts! {
    HINT = "scripts/hint.lua";
    REGISTER = "scripts/register.lua";
    UNREGISTER = "scripts/unregister.lua";
    CONDEMN = "scripts/condemn.lua";
    FORGET = "scripts/forget.lua";
    UNHINT = "scripts/unhint.lua";
    CONFIRM = "scripts/confirm.lua";
    MARK = "scripts/mark.lua";
    PUBLISH = "scripts/publish.lua";
    MARK_ALL = "scripts/mark_all.lua";
    RAISE = "scripts/raise.lua";
    ADVANCE = "scripts/advance.lua";
    NOTE = "scripts/note.lua";
    UNNOTE = "scripts/unnote.lua";
    HOLD = "scripts/hold.lua";
    LEASE = "scripts/lease.lua";
    RELEASE = "scripts/release.lua";
}
