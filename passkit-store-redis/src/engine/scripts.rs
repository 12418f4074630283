//! The Lua scripts. A script uses only the keys that it gets, which are in one slot. If a script runs twice, it gives the
//! same answer again.

use std::sync::LazyLock;

#[derive(Debug)]
pub(crate) struct Script {
    pub(super) source: &'static str,
    pub(super) hash: String,
}

macro_rules! scripts {
    ($($name:ident = $file:literal;)+) => {
        $(pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| {
            let source = include_str!(concat!("scripts/", $file, ".lua"));
            Script { source, hash: redis::Script::new(source).get_hash().to_owned() }
        });)+

        /// All scripts with their names, for the benches.
        #[doc(hidden)]
        pub const SCRIPTS: &[(&str, &str)] = &[$(($file, include_str!(concat!("scripts/", $file, ".lua")))),+];
    };
}

scripts! {
    ADVANCE_CLOCK = "advance_clock";
    CLAIM = "claim";
    CLEAR_DIRTY = "clear_dirty";
    CONFIRM = "confirm";
    DEFER = "defer";
    DELIVERY_DISCARD = "delivery_discard";
    DELIVERY_RECORD = "delivery_record";
    DELIVERY_UNINDEX = "delivery_unindex";
    FORGET = "forget";
    FORGET_PASS = "forget_pass";
    INDEX_ADD = "index_add";
    INDEX_REMOVE = "index_remove";
    MARK = "mark";
    MARK_ALL = "mark_all";
    MARK_DIRTY = "mark_dirty";
    PUBLISHED = "published";
    RECORD_PROGRESS = "record_progress";
    REGISTER = "register";
    RELEASE = "release";
    REPLACE_NOTE = "replace_note";
    TOMBSTONE = "tombstone";
    UNREGISTER = "unregister";
}
