//! The tables, and all statements.
//!
//! | table | one row for each | key | other columns and indexes |
//! |---|---|---|---|
//! | `clock` | type that was ever marked | type | version; version and date of the last mark of the whole type; latest date of any pass |
//! | `device` | device with registrations | device | push token, version |
//! | `registration` | registration | device, type, serial | version; an index by type, serial, device |
//! | `pass` | pass that was ever marked | type, serial | version, date, digest of the published content |
//! | `published` | pass that was ever published | type, serial | whether the pass was removed, digests of its tokens |
//! | `pending_push` | pending change | type, serial or an empty text | versions, progress; an index by type, age |
//! | `deferred_push` | deferred push | type, device | push token, times, attempts; an index by type, time |
//! | `delivery` | delivery record | kind of the subject, type, serial or device or an empty text, event | version, count, time, detail; an index by the hour of the time |
//! | `archive` | archive that was put | type, serial, digest | when it was put, its bytes |
//! | `claim` | claim, also an expired one | name | owner, time of expiry |
//! | `note` | note | name | text |
//! | `store` | store: one row | – | time of creation |
//! | `migration` | migration that was run | version | when it was run, lowest version of programs that can use the schema |
//!
//! **Locks.** A statement that writes registrations locks the rows of their devices first. A statement that writes a pass, its
//! published content or a pending push locks the row of its type in `clock` first. Devices are locked in order, and a
//! statement locks only one type. A statement that writes or forgets delivery records locks them in the order of their keys.
//! Therefore statements can't deadlock.
//!
//! If a call takes several steps, or its plan needs settings, the statement calls a function that `migrations/` defines.

/// A step from one version of the schema to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    pub(crate) version: i32,
    /// The statements. The last one inserts the version into `passkit.migration`, and the lowest version of the programs that
    /// can use the schema from then on. If this lowest version is lower than `version`, instances can be replaced one by one.
    pub(crate) sql: &'static str,
}

/// All migrations, in order. Databases have run them, so they never change. A change of the schema is a new migration.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        sql: include_str!("../migrations/0001_store.sql"),
    },
    Migration {
        version: 2,
        sql: include_str!("../migrations/0002_needs.sql"),
    },
    Migration {
        version: 3,
        sql: include_str!("../migrations/0003_archive.sql"),
    },
    Migration {
        version: 4,
        sql: include_str!("../migrations/0004_delivery.sql"),
    },
];

/// The version of the schema that the statements below need.
pub(crate) const VERSION: i32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// Takes a lock until the transaction ends. The number is specific to this crate.
pub(crate) const LOCK_MIGRATION: &str = "select pg_advisory_xact_lock(8102099357864587)";

pub(crate) const HAS_SCHEMA: &str = "select to_regclass('passkit.migration') is not null";

/// → the version, and the lowest version of the programs that can use the schema. Version 1 has no column for the latter.
pub(crate) const SCHEMA_VERSION: &str = "\
    select coalesce(max(version), 0), coalesce(max((to_jsonb(m) ->> 'needs')::integer), 0) \
    from passkit.migration m";

// The comment of a statement lists its parameters, and after an arrow the columns of its rows.

/// Device, type, serial number, push token → whether the registration is new.
pub(crate) const REGISTER: &str = "select passkit.register($1, $2, $3, $4)";

/// Four arrays with the parameters of `REGISTER` → an array with its results.
pub(crate) const REGISTER_MANY: &str = "select passkit.register_many($1, $2, $3, $4)";

/// Device, type, serial number → whether there was a registration.
pub(crate) const UNREGISTER: &str = "select passkit.unregister($1, $2, $3)";

/// Device, version → whether the device was removed.
pub(crate) const FORGET: &str = "select passkit.forget($1, $2)";

/// Type, serial number, last device or an empty text, limit → device, push token.
pub(crate) const DEVICES_OF_PASS: &str =
    "select d.device_id, d.push_token from passkit.devices_of_pass($1, $2, $3, $4) d";

/// Type, last serial number and device or empty texts, limit → device, push token, serial number.
pub(crate) const DEVICES_OF_TYPE: &str =
    "select d.device_id, d.push_token, d.serial from passkit.devices_of_type($1, $2, $3, $4) d";

/// Type, serial number, limit → count.
pub(crate) const COUNT_DEVICES: &str = "select passkit.count_devices($1, $2, $3)";

/// Type, serial numbers, whether to make their pushes pending.
pub(crate) const MARK: &str = "select passkit.mark($1, $2, null, $3)";

/// Type, serial numbers, digests or nulls, tokens, whether to make their pushes pending.
pub(crate) const PUBLISH: &str = "select passkit.publish($1, $2, $3, $4, $5)";

/// Type, whether to make a push pending.
pub(crate) const MARK_ALL: &str = "select passkit.mark_all($1, $2)";

/// A tag ahead of the clocks counts as no tag. If the tag equals the clocks, nothing changed.
///
/// "Plans" in migrations/0001 explains `offset 0` and `limit 1`.
macro_rules! changes_since {
    ($asked:literal, $order:literal) => {
        concat!(
            "\
select a.clock, a.device_clock, array(
    select r.serial from passkit.registration r
    where r.device_id = a.device_id and r.pass_type = a.pass_type
    and (a.type_part, a.device_part) is distinct from (a.clock, a.device_clock)
    and (a.type_part is null or a.type_part > a.clock or a.device_part > a.device_clock
        or a.floor > a.type_part or r.version > a.device_part
        or (select p.version from passkit.pass p where p.pass_type = r.pass_type and p.serial = r.serial limit 1)
            > a.type_part)
)
from (
    select asked.*, coalesce(c.version, 0) as clock, c.floor,
        coalesce((
            select d.version from passkit.device d where d.device_id = asked.device_id limit 1
        ), 0) as device_clock
    from ",
            $asked,
            " left join lateral (
        select c.version, c.floor from passkit.clock c where c.pass_type = asked.pass_type limit 1
    ) c on true
    offset 0
) a",
            $order
        )
    };
}

/// Device, type, both parts of the tag or nulls → both clocks, serial numbers.
pub(crate) const CHANGES_SINCE: &str = changes_since!(
    "(select $1::text as device_id, $2::text as pass_type, $3::bigint as type_part, $4::bigint as device_part
        offset 0) asked",
    ""
);

/// Four arrays with the parameters of `CHANGES_SINCE` → a row for each element.
pub(crate) const CHANGES_SINCE_MANY: &str = changes_since!(
    "(select $1::text[] as d, $2::text[] as t, $3::bigint[] as x, $4::bigint[] as y offset 0) arrays,
        unnest(d, t, x, y) with ordinality as asked(device_id, pass_type, type_part, device_part, n)",
    " order by a.n"
);

/// "Plans" in migrations/0001 explains `offset 0` and `limit 1`.
macro_rules! pass_state {
    ($asked:literal, $order:literal) => {
        concat!(
            "\
select coalesce(greatest(p.version, c.floor), 0), greatest(p.last_modified, c.floor_date, s.created), p.digest
from ",
            $asked,
            "
cross join (select s.created from passkit.store s limit 1) s
left join lateral (
    select c.floor, c.floor_date from passkit.clock c where c.pass_type = a.pass_type limit 1
) c on true
left join lateral (
    select p.version, p.last_modified, p.digest from passkit.pass p
    where p.pass_type = a.pass_type and p.serial = a.serial limit 1
) p on true",
            $order
        )
    };
}

/// Type, serial number → version, date, digest or null.
pub(crate) const PASS_STATE: &str = pass_state!(
    "(select $1::text as pass_type, $2::text as serial offset 0) a",
    ""
);

/// Two arrays with the parameters of `PASS_STATE` → a row for each element.
pub(crate) const PASS_STATES: &str = pass_state!(
    "(select $1::text[] as t, $2::text[] as s offset 0) arrays,
    unnest(t, s) with ordinality as a(pass_type, serial, n)",
    " order by a.n"
);

/// Types, serial numbers → for each pass: its digest or null; whether it was removed, or null; its tokens or null.
pub(crate) const PUBLISHED: &str = "\
select p.digest, o.removed, o.tokens
from (select $1::text[] as t, $2::text[] as s offset 0) arrays,
    unnest(t, s) with ordinality as a(pass_type, serial, n)
left join lateral (
    select o.removed, o.tokens from passkit.published o
    where o.pass_type = a.pass_type and o.serial = a.serial limit 1
) o on true
left join lateral (
    select p.digest from passkit.pass p where p.pass_type = a.pass_type and p.serial = a.serial limit 1
) p on true
order by a.n";

/// → for each type with pending changes or deferred pushes: type, number of pending changes, version of the oldest or null,
/// time of the first deferred push or null.
pub(crate) const BACKLOG: &str =
    "select b.pass_type, b.pending, b.oldest, b.first_due from passkit.backlog() b";

/// Type, limit → serial number or an empty text, version, and the version and cursor of its progress or nulls.
pub(crate) const PENDING: &str =
    "select p.serial, p.version, p.started, p.next from passkit.pending($1, $2) p";

/// Type, serial numbers or empty texts, versions, cursors or nulls.
pub(crate) const RECORD_PROGRESS: &str = "select passkit.record_progress($1, $2, $3, $4)";

/// Type, devices in order, push tokens or nulls, due times or nulls, attempts, times of a bad token or nulls.
pub(crate) const DEFER: &str = "select passkit.defer($1, $2, $3, $4, $5, $6)";

/// Type, last device or an empty text, limit → device and deferred push.
pub(crate) const DEFERRED: &str = "\
select d.device_id, d.push_token, d.due, d.attempts, d.bad_since from passkit.deferred($1, $2, $3) d";

/// Arrays of kinds, types, names, events, versions, counts, times, details. Each record must occur once, and the records must
/// be in the order of their keys.
pub(crate) const RECORD: &str = "\
insert into passkit.delivery as d (kind, pass_type, name, event, version, count, at, detail)
select a.kind, a.pass_type, a.name, a.event, a.version, a.count, a.at, a.detail
from (
    select $1::text[] as k, $2::text[] as t, $3::text[] as n, $4::text[] as e, $5::bigint[] as v, $6::bigint[] as c,
        $7::bigint[] as x, $8::text[] as y
    offset 0
) arrays, unnest(k, t, n, e, v, c, x, y) as a(kind, pass_type, name, event, version, count, at, detail)
on conflict (kind, pass_type, name, event) do update
set version = excluded.version,
    count = case when excluded.version > d.version then excluded.count
        else least(d.count + excluded.count, 9007199254740991) end,
    at = case when excluded.version > d.version then excluded.at else greatest(d.at, excluded.at) end,
    detail = case when excluded.version > d.version or (excluded.at, excluded.detail) > (d.at, d.detail)
        then excluded.detail else d.detail end
where excluded.version >= d.version";

/// Arrays of kinds, types, names → for each record: the number of the subject in the arrays, event, version, count, time,
/// detail.
///
/// "Plans" in migrations/0001 explains `offset 0` and the limit. There are fewer events than that.
pub(crate) const RECORDS: &str = "\
select a.n, d.event, d.version, d.count, d.at, d.detail
from (select $1::text[] as k, $2::text[] as t, $3::text[] as n offset 0) arrays,
    unnest(k, t, arrays.n) with ordinality as a(kind, pass_type, name, n)
cross join lateral (
    select d.event, d.version, d.count, d.at, d.detail from passkit.delivery d
    where d.kind = a.kind and d.pass_type = a.pass_type and d.name = a.name limit 1000
) d";

/// Arrays of kinds, types, names, in order.
pub(crate) const FORGET_RECORDS: &str = "select passkit.forget_deliveries($1, $2, $3)";

/// Microseconds, limit → whether no older record remains.
pub(crate) const DISCARD_RECORDS: &str = "select passkit.discard_deliveries($1, $2)";

/// Name, owner, microseconds → a row if the owner now has the claim.
pub(crate) const CLAIM: &str = "\
insert into passkit.claim as c (name, owner, until) values ($1, $2, passkit.now_micros() + $3)
on conflict (name) do update set owner = excluded.owner, until = passkit.now_micros() + $3
where c.owner = excluded.owner or c.until <= passkit.now_micros()
returning true";

/// Name, owner.
pub(crate) const RELEASE: &str = "delete from passkit.claim c where c.name = $1 and c.owner = $2";

/// Name → a row if there is a note.
pub(crate) const NOTE: &str = "select n.note from passkit.note n where n.name = $1 limit 1";

/// Name, expected note or null, new note or null → whether the note was replaced.
pub(crate) const REPLACE_NOTE: &str = "select passkit.replace_note($1, $2, $3)";

/// Last device, type and serial number or empty texts, limit → device, push token, type, serial number.
pub(crate) const REGISTRATIONS: &str = "select r.device_id, r.push_token, r.pass_type, r.serial from passkit.registrations($1, $2, $3, $4) r";

/// Last type and serial number or empty texts, limit → type, serial number of a pass that was ever published.
pub(crate) const PUBLISHED_PASSES: &str =
    "select p.pass_type, p.serial from passkit.published_passes($1, $2, $3) p";

/// Type, serial number → whether nothing of the pass is left.
pub(crate) const FORGET_PASS: &str = "select passkit.forget_pass($1, $2)";

/// Type, serial number, digest, archive.
pub(crate) const PUT_ARCHIVE: &str = "select passkit.put_archive($1, $2, $3, $4)";

/// Type, serial number, digest → archive.
pub(crate) const ARCHIVE: &str = "select a.bytes from passkit.archive($1, $2, $3) a";

/// → number of devices, bytes of all tables.
pub(crate) const SIZES: &str = "\
select (select count(*) from passkit.device),
    (select sum(pg_total_relation_size(oid))::bigint from pg_class
     where relnamespace = 'passkit'::regnamespace and relkind = 'r')";

/// → for each type: type, number of passes, number of registrations. The inner query reads only an index.
pub(crate) const COUNT_REGISTRATIONS: &str = "\
select pass_type, count(*), sum(devices)::bigint
from (select pass_type, serial, count(*) as devices from passkit.registration group by pass_type, serial) p
group by pass_type order by pass_type";

/// All statements with names, for tests and benches.
#[doc(hidden)]
pub const STATEMENTS: &[(&str, &str)] = &[
    ("lock migration", LOCK_MIGRATION),
    ("has schema", HAS_SCHEMA),
    ("schema version", SCHEMA_VERSION),
    ("register", REGISTER),
    ("register many", REGISTER_MANY),
    ("unregister", UNREGISTER),
    ("forget", FORGET),
    ("devices of pass", DEVICES_OF_PASS),
    ("devices of type", DEVICES_OF_TYPE),
    ("count devices", COUNT_DEVICES),
    ("mark", MARK),
    ("publish", PUBLISH),
    ("mark all", MARK_ALL),
    ("changes since", CHANGES_SINCE),
    ("changes since many", CHANGES_SINCE_MANY),
    ("pass state", PASS_STATE),
    ("pass states", PASS_STATES),
    ("published", PUBLISHED),
    ("backlog", BACKLOG),
    ("pending", PENDING),
    ("record progress", RECORD_PROGRESS),
    ("defer", DEFER),
    ("deferred", DEFERRED),
    ("record", RECORD),
    ("records", RECORDS),
    ("forget records", FORGET_RECORDS),
    ("discard records", DISCARD_RECORDS),
    ("claim", CLAIM),
    ("release", RELEASE),
    ("note", NOTE),
    ("replace note", REPLACE_NOTE),
    ("registrations", REGISTRATIONS),
    ("published passes", PUBLISHED_PASSES),
    ("forget pass", FORGET_PASS),
    ("put archive", PUT_ARCHIVE),
    ("archive", ARCHIVE),
    ("sizes", SIZES),
    ("count registrations", COUNT_REGISTRATIONS),
];
