//! The layout of the data, and all statements.
//!
//! | table | key | other columns |
//! |---|---|---|
//! | `passkit_store` | | the version of this schema; when the store was made |
//! | `passkit_type` | type | its clock; version and date of the last mark of the whole type (`floor`); the latest date of any pass |
//! | `passkit_pass` | type, serial | version and date of its own last mark, 0 if there was none; digest of the published content |
//! | `passkit_published` | type, serial | the digests of its tokens, 32 bytes each; whether it is removed |
//! | `passkit_device` | device | its push token; its clock |
//! | `passkit_registration` | device, type, serial | the reading of the device's clock at the registration |
//! | `passkit_pending` | type, serial | a pending change: since when, its version, its progress. The serial is empty for a change of the whole type |
//! | `passkit_deferred` | type, device | a deferred push |
//! | `passkit_delivery` | kind, type, name, event | a delivery record: its version, count, last time (`at`) and detail. The kind of the subject is `pass`, `device` or `type`; its name is a serial, a device or empty |
//! | `passkit_archive` | type, serial, digest of its content | when the archive was put, its bytes |
//! | `passkit_claim` | name | owner, end |
//! | `passkit_note` | name | note |
//!
//! Versions and times are in microseconds since the Unix epoch, dates are in seconds. A pass that was neither marked nor
//! published has no row in `passkit_pass`. Texts are ordered by their bytes, like in Rust.
//!
//! The comment of a statement lists its parameters in their order, and the columns of its rows.

use std::str::FromStr;

use passkit_server::identifiers::InvalidIdentifier;
use rusqlite::{
    Row,
    types::{Type, ValueRef},
};

/// The version of the schema that the statements are written for.
pub(crate) const VERSION: i64 = UPGRADES[UPGRADES.len() - 1].0;

/// The versions after the first, in order, and the statements that make each of them from the version before. Stores of each
/// version exist, so these statements never change. A change of the schema is a new version.
///
/// Some earlier states of this repository made the tables of version 3 in version 1, so they may exist already.
pub(crate) const UPGRADES: &[(i64, &str)] = &[
    (
        2,
        "
create table passkit_archive (
    type text not null,
    serial text not null,
    digest blob not null,
    put_at integer not null,
    bytes blob not null,
    primary key (type, serial, digest)
) strict;
",
    ),
    (
        3,
        "
create table if not exists passkit_delivery (
    kind text not null,
    type text not null,
    name text not null,
    event text not null,
    version integer not null,
    count integer not null,
    at integer not null,
    detail text not null,
    primary key (kind, type, name, event)
) strict, without rowid;
create index if not exists passkit_delivery_by_age on passkit_delivery (at);
create view if not exists delivery_records as
select d.type, iif(d.kind = 'pass', d.name, null) as serial, iif(d.kind = 'device', d.name, null) as device,
    d.event, d.version, d.count, datetime(d.at / 1000000, 'unixepoch') as last_at, d.detail
from passkit_delivery d;
",
    ),
];

/// The tables and views of version 1. They never change either.
pub(crate) const SCHEMA: &str = "
create table passkit_store (
    version integer not null,
    created integer not null
) strict;
create table passkit_type (
    type text not null primary key,
    version integer not null,
    floor integer not null,
    floor_date integer not null,
    latest_date integer not null
) strict, without rowid;
create table passkit_pass (
    type text not null,
    serial text not null,
    version integer not null,
    last_modified integer not null,
    digest blob,
    primary key (type, serial)
) strict, without rowid;
create table passkit_published (
    type text not null,
    serial text not null,
    tokens blob not null,
    removed integer not null,
    primary key (type, serial)
) strict;
create table passkit_device (
    device text not null primary key,
    push_token text not null,
    version integer not null
) strict, without rowid;
create table passkit_registration (
    device text not null,
    type text not null,
    serial text not null,
    version integer not null,
    primary key (device, type, serial)
) strict, without rowid;
create index passkit_registration_by_pass on passkit_registration (type, serial, device);
create table passkit_pending (
    type text not null,
    serial text not null,
    since integer not null,
    version integer not null,
    progress_version integer,
    progress_next text,
    primary key (type, serial)
) strict, without rowid;
create index passkit_pending_by_age on passkit_pending (type, since);
create table passkit_deferred (
    type text not null,
    device text not null,
    push_token text not null,
    due integer,
    attempts integer not null,
    bad_since integer,
    primary key (type, device)
) strict, without rowid;
create index passkit_deferred_by_due on passkit_deferred (type, due) where due is not null;
create table passkit_claim (
    name text not null primary key,
    owner text not null,
    until integer not null
) strict, without rowid;
create table passkit_note (
    name text not null primary key,
    note text not null
) strict, without rowid;

create view passes as
select k.type, k.serial,
    max(coalesce(p.version, 0), coalesce(t.floor, 0)) as version,
    datetime(max(coalesce(p.last_modified, 0), coalesce(t.floor_date, s.created)), 'unixepoch') as last_modified,
    nullif(lower(hex(p.digest)), '') as digest,
    coalesce(c.removed, 0) as removed,
    (select count(*) from passkit_registration r where r.type = k.type and r.serial = k.serial) as devices
from (
    select type, serial from passkit_pass
    union select type, serial from passkit_published
    union select type, serial from passkit_registration
) k
cross join passkit_store s
left join passkit_type t on t.type = k.type
left join passkit_pass p on p.type = k.type and p.serial = k.serial
left join passkit_published c on c.type = k.type and c.serial = k.serial;
create view devices as
select d.device, d.push_token, datetime(d.version / 1000000, 'unixepoch') as registered_at,
    (select count(*) from passkit_registration r where r.device = d.device) as registrations
from passkit_device d;
create view registrations as
select r.device, r.type, r.serial, datetime(r.version / 1000000, 'unixepoch') as registered_at
from passkit_registration r;
create view pending_pushes as
select p.type, nullif(p.serial, '') as serial, datetime(p.since / 1000000, 'unixepoch') as pending_since,
    p.progress_version is not null as started
from passkit_pending p;
";

/// Returns the number of tables, views and other objects, and how many of them have a name that the schema needs.
pub(crate) const TABLES: &str = "\
select count(*), count(*) filter (
    where name in ('passes', 'devices', 'registrations', 'pending_pushes', 'delivery_records')
    or name like 'passkit\\_%' escape '\\'
) from sqlite_schema";

pub(crate) const HAS_STORE: &str =
    "select exists (select 1 from sqlite_schema where type = 'table' and name = 'passkit_store')";

/// Parameters: version, seconds.
pub(crate) const MAKE_STORE: &str = "insert into passkit_store (version, created) values (?1, ?2)";

pub(crate) const SCHEMA_VERSION: &str = "select version from passkit_store";

/// Parameters: version.
pub(crate) const SET_SCHEMA_VERSION: &str = "update passkit_store set version = ?1";

/// Parameters: device, push token, microseconds. Returns the device's version.
pub(crate) const REGISTER_DEVICE: &str = "\
insert into passkit_device as d (device, push_token, version) values (?1, ?2, ?3)
on conflict (device) do update
set push_token = excluded.push_token, version = max(d.version + 1, excluded.version)
returning version";

/// Parameters: device, type, serial, version. Changes a row if the registration is new.
pub(crate) const REGISTER: &str = "\
insert into passkit_registration (device, type, serial, version) values (?1, ?2, ?3, ?4) on conflict do nothing";

/// Parameters: device, type, serial, version. Changes the version of an existing registration.
pub(crate) const REGISTER_AGAIN: &str =
    "update passkit_registration set version = ?4 where device = ?1 and type = ?2 and serial = ?3";

/// Parameters: device, type, serial.
pub(crate) const UNREGISTER: &str =
    "delete from passkit_registration where device = ?1 and type = ?2 and serial = ?3";

/// Parameters: device.
pub(crate) const REMOVE_DEVICE_WITHOUT_PASSES: &str = "\
delete from passkit_device
where device = ?1 and not exists (select 1 from passkit_registration r where r.device = ?1)";

/// Parameters: device, microseconds.
pub(crate) const FORGET_DEVICE: &str =
    "delete from passkit_device where device = ?1 and version <= ?2";

/// Parameters: device.
pub(crate) const FORGET_REGISTRATIONS: &str = "delete from passkit_registration where device = ?1";

/// Parameters: type, serial, the device to start after or an empty text, limit. Returns devices and push tokens.
pub(crate) const DEVICES_OF_PASS: &str = "\
select r.device, (select d.push_token from passkit_device d where d.device = r.device)
from passkit_registration r indexed by passkit_registration_by_pass
where r.type = ?1 and r.serial = ?2 and r.device > ?3
order by r.device limit ?4";

/// Parameters: type, serial, device, limit. The rows start after this pass and device, or with the first if both are empty.
/// Returns devices, push tokens and serials.
pub(crate) const DEVICES_OF_TYPE: &str = "\
select r.device, (select d.push_token from passkit_device d where d.device = r.device), r.serial
from passkit_registration r indexed by passkit_registration_by_pass
where r.type = ?1 and (r.serial, r.device) > (?2, ?3)
order by r.serial, r.device limit ?4";

/// Parameters: type, serial, the highest count.
pub(crate) const COUNT_DEVICES: &str = "\
select count(*) from (
    select 1 from passkit_registration r indexed by passkit_registration_by_pass
    where r.type = ?1 and r.serial = ?2 limit ?3
)";

/// Parameters: type, microseconds. Advances the clock. Returns the version, the date of the floor and the latest date.
pub(crate) const TICK: &str = "\
insert into passkit_type as t (type, version, floor, floor_date, latest_date)
select ?1, ?2, 0, s.created, s.created from passkit_store s where true
on conflict (type) do update set version = max(t.version + 1, excluded.version)
returning version, floor_date, latest_date";

/// Parameters: type, serial, version, seconds, date of the floor. Returns the date.
pub(crate) const MARK_PASS: &str = "\
insert into passkit_pass as p (type, serial, version, last_modified) values (?1, ?2, ?3, max(?4, ?5 + 1))
on conflict (type, serial) do update
set version = excluded.version, last_modified = max(?4, max(p.last_modified, ?5) + 1)
returning last_modified";

/// Parameters: type, date.
pub(crate) const SET_LATEST_DATE: &str = "update passkit_type set latest_date = ?2 where type = ?1";

/// Parameters: type, date. The version is the current reading of the clock.
pub(crate) const MARK_TYPE: &str = "\
update passkit_type set floor = version, floor_date = ?2, latest_date = ?2 where type = ?1";

/// Parameters: type, serial. Returns digest, tokens, and whether it is removed.
pub(crate) const PUBLISHED: &str = "\
select p.digest, c.tokens, c.removed
from passkit_published c left join passkit_pass p on p.type = c.type and p.serial = c.serial
where c.type = ?1 and c.serial = ?2";

/// Parameters: type, serial, tokens, whether it is removed.
pub(crate) const SET_PUBLISHED: &str = "\
insert into passkit_published (type, serial, tokens, removed) values (?1, ?2, ?3, ?4)
on conflict (type, serial) do update set tokens = excluded.tokens, removed = excluded.removed";

/// Parameters: type, serial, digest.
pub(crate) const SET_DIGEST: &str = "\
insert into passkit_pass (type, serial, version, last_modified, digest) values (?1, ?2, 0, 0, ?3)
on conflict (type, serial) do update set digest = excluded.digest";

/// Parameters: type, serial, seconds. Removes a row whose date is past.
pub(crate) const FORGET_PASS: &str =
    "delete from passkit_pass where type = ?1 and serial = ?2 and last_modified < ?3";

/// Parameters: type, serial.
pub(crate) const HAS_PASS: &str =
    "select exists (select 1 from passkit_pass where type = ?1 and serial = ?2)";

/// Parameters: type, serial.
pub(crate) const FORGET_PUBLISHED: &str =
    "delete from passkit_published where type = ?1 and serial = ?2";

/// Parameters: type, serial.
pub(crate) const FORGET_PENDING: &str =
    "delete from passkit_pending where type = ?1 and serial = ?2";

/// Parameters: type, serial.
pub(crate) const FORGET_ARCHIVES: &str =
    "delete from passkit_archive where type = ?1 and serial = ?2";

/// Parameters: type, serial, digest, microseconds, archive.
pub(crate) const PUT_ARCHIVE: &str = "\
insert into passkit_archive (type, serial, digest, put_at, bytes) values (?1, ?2, ?3, ?4, ?5)
on conflict (type, serial, digest) do update set put_at = excluded.put_at, bytes = excluded.bytes";

/// Parameters: type, serial, microseconds. Removes the archives that were put before this time, except the one that was
/// published last.
pub(crate) const REMOVE_OLD_ARCHIVES: &str = "\
delete from passkit_archive where type = ?1 and serial = ?2 and put_at < ?3
and digest is not (select digest from passkit_pass where type = ?1 and serial = ?2)";

/// Parameters: type, serial, digest. Returns the archive.
pub(crate) const ARCHIVE: &str =
    "select bytes from passkit_archive where type = ?1 and serial = ?2 and digest = ?3";

/// Parameters: device, type, both parts of the tag or nulls. Returns the clocks, and a serial or null in each row.
///
/// A tag ahead of the clocks counts as no tag. If the tag equals the clocks, the statement searches for a null, and so reads
/// no registration.
pub(crate) const CHANGES_SINCE: &str = "\
select coalesce(t.version, 0), coalesce(d.version, 0), r.serial
from (select 1)
left join passkit_type t on t.type = ?2
left join passkit_device d on d.device = ?1
left join passkit_registration r
on r.device = case when ?3 = t.version and ?4 = d.version then null else ?1 end and r.type = ?2
and (?3 is null or ?3 > coalesce(t.version, 0) or ?4 > coalesce(d.version, 0) or t.floor > ?3 or r.version > ?4
    or (select p.version from passkit_pass p where p.type = ?2 and p.serial = r.serial) > ?3)";

/// Parameters: type, serial. Returns version, date and digest.
pub(crate) const PASS_STATE: &str = "\
select max(coalesce(p.version, 0), coalesce(t.floor, 0)),
    max(coalesce(p.last_modified, 0), coalesce(t.floor_date, s.created)),
    p.digest
from passkit_store s
left join passkit_type t on t.type = ?1
left join passkit_pass p on p.type = ?1 and p.serial = ?2";

/// Parameters: type, serial or an empty text, version.
pub(crate) const ADD_PENDING: &str = "\
insert into passkit_pending (type, serial, since, version) values (?1, ?2, ?3, ?3)
on conflict (type, serial) do update set version = excluded.version";

/// Returns a row for each type with pending changes or deferred pushes: the number of changes, the time of the oldest,
/// the first due time.
///
/// The statement jumps from type to type in the index, because there are few types but perhaps millions of rows.
pub(crate) const BACKLOG: &str = "\
with recursive pending (type) as (
    select min(type) from passkit_pending
    union all
    select (select min(p.type) from passkit_pending p where p.type > pending.type)
    from pending where pending.type is not null
), deferred (type) as (
    select min(type) from passkit_deferred
    union all
    select (select min(d.type) from passkit_deferred d where d.type > deferred.type)
    from deferred where deferred.type is not null
)
select t.type,
    (select count(*) from (select 1 from passkit_pending p where p.type = t.type limit 10000)),
    (select min(p.since) from passkit_pending p where p.type = t.type),
    (select min(d.due) from passkit_deferred d where d.type = t.type and d.due is not null)
from (select type from pending union select type from deferred) t
where t.type is not null";

/// Parameters: type, limit. Returns serial or an empty text, version, and the version and cursor of the progress or nulls.
pub(crate) const PENDING: &str = "\
select serial, version, progress_version, progress_next
from passkit_pending where type = ?1 order by since limit ?2";

/// Parameters: type, serial or an empty text, version, cursor.
pub(crate) const SET_PROGRESS: &str = "\
update passkit_pending set progress_version = ?3, progress_next = ?4 where type = ?1 and serial = ?2";

/// Parameters: type, serial or an empty text, version.
pub(crate) const REMOVE_PENDING: &str =
    "delete from passkit_pending where type = ?1 and serial = ?2 and version = ?3";

/// Parameters: type, serial or an empty text.
pub(crate) const RESTART_PENDING: &str = "\
update passkit_pending set since = version, progress_version = null, progress_next = null
where type = ?1 and serial = ?2";

/// Parameters: type, device, push token, due time or null, attempts, time or null.
pub(crate) const DEFER: &str = "\
insert or replace into passkit_deferred (type, device, push_token, due, attempts, bad_since)
values (?1, ?2, ?3, ?4, ?5, ?6)";

/// Parameters: type, device.
pub(crate) const REMOVE_DEFERRED: &str =
    "delete from passkit_deferred where type = ?1 and device = ?2";

/// Parameters: type, the device to start after or an empty text, limit. Returns deferred pushes.
pub(crate) const DEFERRED: &str = "\
select device, push_token, due, attempts, bad_since
from passkit_deferred where type = ?1 and device > ?2 order by device limit ?3";

/// Parameters: kind, type, name, event, version, count, time, detail. Merges the record into a stored one, as
/// [`Record::merge`](passkit_server::delivery::Record::merge) describes.
pub(crate) const RECORD: &str = "\
insert into passkit_delivery as d (kind, type, name, event, version, count, at, detail)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
on conflict (kind, type, name, event) do update
set version = excluded.version,
    count = iif(excluded.version > d.version, excluded.count, min(d.count + excluded.count, 9007199254740991)),
    at = iif(excluded.version > d.version, excluded.at, max(excluded.at, d.at)),
    detail = iif(excluded.version > d.version or (excluded.at, excluded.detail) > (d.at, d.detail),
        excluded.detail, d.detail)
where excluded.version >= d.version";

/// Parameters: kind, type, name. Returns event, version, count, time and detail.
pub(crate) const RECORDS: &str = "\
select event, version, count, at, detail from passkit_delivery where kind = ?1 and type = ?2 and name = ?3";

/// Parameters: kind, type, name.
pub(crate) const FORGET_RECORDS: &str =
    "delete from passkit_delivery where kind = ?1 and type = ?2 and name = ?3";

/// Parameters: microseconds, limit.
pub(crate) const DISCARD_RECORDS: &str = "\
delete from passkit_delivery where (kind, type, name, event) in (
    select kind, type, name, event from passkit_delivery where at < ?1 order by at limit ?2
)";

/// Parameters: microseconds.
pub(crate) const END_CLAIMS: &str = "delete from passkit_claim where until <= ?1";

/// Parameters: name, owner, end. Changes a row if the owner has the claim.
pub(crate) const CLAIM: &str = "\
insert into passkit_claim as c (name, owner, until) values (?1, ?2, ?3)
on conflict (name) do update set until = excluded.until where c.owner = excluded.owner";

/// Parameters: name, owner.
pub(crate) const RELEASE: &str = "delete from passkit_claim where name = ?1 and owner = ?2";

/// Parameters: name.
pub(crate) const NOTE: &str = "select note from passkit_note where name = ?1";

/// Parameters: name, note.
pub(crate) const ADD_NOTE: &str =
    "insert into passkit_note (name, note) values (?1, ?2) on conflict do nothing";

/// Parameters: name, expected note, new note.
pub(crate) const REPLACE_NOTE: &str =
    "update passkit_note set note = ?3 where name = ?1 and note = ?2";

/// Parameters: name, expected note.
pub(crate) const REMOVE_NOTE: &str = "delete from passkit_note where name = ?1 and note = ?2";

/// Parameters: device, type, serial, limit. The rows start after this registration, or with the first if the texts are empty.
/// Returns registrations and push tokens.
pub(crate) const REGISTRATIONS: &str = "\
select r.device, (select d.push_token from passkit_device d where d.device = r.device), r.type, r.serial
from passkit_registration r
where (r.device, r.type, r.serial) > (?1, ?2, ?3)
order by r.device, r.type, r.serial limit ?4";

/// Parameters: type, serial, limit. The rows start after this pass, or with the first if both texts are
/// empty. Returns passes that were ever published.
pub(crate) const PUBLISHED_PASSES: &str = "\
select type, serial from passkit_published where (type, serial) > (?1, ?2) order by type, serial limit ?3";

/// Returns the number of devices, and the size of the database in bytes.
pub(crate) const STORE_STATS: &str = "\
select (select count(*) from passkit_device), page_count * page_size from pragma_page_count, pragma_page_size";

/// Returns a row for each pass, ordered by type: its type, and the number of devices that are registered for it.
pub(crate) const PASS_STATS: &str = "\
select type, count(*) from passkit_registration indexed by passkit_registration_by_pass group by type, serial";

/// Statements with names, for benches.
#[doc(hidden)]
pub const STATEMENTS: &[(&str, &str)] = &[
    ("register device", REGISTER_DEVICE),
    ("register", REGISTER),
    ("devices of pass", DEVICES_OF_PASS),
    ("tick", TICK),
    ("mark pass", MARK_PASS),
    ("set latest date", SET_LATEST_DATE),
    ("changes since", CHANGES_SINCE),
];

/// Reads a column as an identifier.
pub(crate) fn identifier<T: FromStr<Err = InvalidIdentifier>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let failed = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error);
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(|error| failed(error.into()))?;
    text.parse()
        .map_err(|error: InvalidIdentifier| failed(error.into()))
}

/// Reads a column as a number that is never negative.
pub(crate) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// Reads a column that is null or a number that is never negative.
pub(crate) fn optional_number(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        _ => number(row, column).map(Some),
    }
}

/// Converts a number for a column. A larger number becomes the largest possible, which no clock reaches.
pub(crate) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts a limit into a number of rows. It is at least 1, so that every page advances.
pub(crate) fn rows(limit: usize) -> i64 {
    i64::try_from(limit.max(1)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, params_from_iter};

    use super::*;

    /// The statements that the service and the publisher run all the time.
    const HOT: &[&str] = &[
        SCHEMA_VERSION,
        REGISTER_DEVICE,
        REGISTER,
        REGISTER_AGAIN,
        UNREGISTER,
        REMOVE_DEVICE_WITHOUT_PASSES,
        FORGET_DEVICE,
        FORGET_REGISTRATIONS,
        DEVICES_OF_PASS,
        DEVICES_OF_TYPE,
        COUNT_DEVICES,
        TICK,
        MARK_PASS,
        SET_LATEST_DATE,
        MARK_TYPE,
        PUBLISHED,
        SET_PUBLISHED,
        SET_DIGEST,
        CHANGES_SINCE,
        PASS_STATE,
        ADD_PENDING,
        BACKLOG,
        PENDING,
        SET_PROGRESS,
        REMOVE_PENDING,
        RESTART_PENDING,
        DEFER,
        REMOVE_DEFERRED,
        DEFERRED,
        RECORD,
        RECORDS,
        FORGET_RECORDS,
        DISCARD_RECORDS,
        CLAIM,
        RELEASE,
        NOTE,
        ADD_NOTE,
        REPLACE_NOTE,
        REMOVE_NOTE,
        REGISTRATIONS,
    ];

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        for (_, statements) in UPGRADES {
            connection.execute_batch(statements).unwrap();
        }
        connection.execute(MAKE_STORE, [VERSION, 1]).unwrap();
        connection
    }

    fn plan(connection: &Connection, sql: &str) -> Vec<String> {
        let mut statement = connection
            .prepare(&format!("explain query plan {sql}"))
            .unwrap();
        let nulls = params_from_iter(vec![None::<i64>; statement.parameter_count()]);
        let steps = statement.query_map(nulls, |row| row.get(3));
        steps.unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// Each step finds its rows by a key and in order, with any data, and with or without `analyze`.
    #[test]
    fn hot_statements_find_their_rows_by_a_key() {
        let connection = database();
        for analyzed in [false, true] {
            if analyzed {
                connection
                    .execute_batch(
                        "with recursive n (i) as (select 1 union all select i + 1 from n where i < 3000)
                        insert into passkit_registration select 'd' || i % 1000, 't', 's' || i % 7, i from n where true
                            on conflict do nothing;
                        insert into passkit_device select distinct device, 'ab', 1 from passkit_registration;
                        insert into passkit_pass select distinct type, serial, 1, 1, null from passkit_registration;
                        insert into passkit_pending select type, serial, 1, 1, null, null from passkit_pass;
                        insert into passkit_delivery select 'pass', type, serial, 'asked', 1, 1, 1, '' from passkit_pass;
                        insert into passkit_type values ('t', 1, 0, 1, 1);
                        analyze;",
                    )
                    .unwrap();
            }
            for sql in HOT {
                for step in plan(&connection, sql) {
                    // These tables and subqueries are small: one row, or the few types that `BACKLOG` has found.
                    let is_small = step.starts_with("SCAN (subquery")
                        || [
                            "passkit_store",
                            "s",
                            "t",
                            "c",
                            "pending",
                            "deferred",
                            "CONSTANT",
                        ]
                        .iter()
                        .any(|name| {
                            step.starts_with("SCAN ") && step[5..].split(' ').next() == Some(name)
                        });
                    let is_bad = step.contains("SCAN") && !is_small
                        || step.contains("TEMP B-TREE FOR") && !sql.contains("recursive")
                        || step.contains("AUTOMATIC");
                    assert!(!is_bad, "{step:?} in the plan of {sql}");
                }
            }
        }
    }

    #[test]
    fn all_statements_can_be_prepared() {
        let connection = database();
        for sql in [
            TABLES,
            HAS_STORE,
            MAKE_STORE,
            END_CLAIMS,
            STORE_STATS,
            PASS_STATS,
        ] {
            connection.prepare(sql).unwrap();
        }
        let indexed = plan(&connection, PASS_STATS);
        assert!(
            indexed
                .iter()
                .any(|step| step.contains("COVERING INDEX passkit_registration_by_pass"))
        );
        assert!(
            !indexed.iter().any(|step| step.contains("TEMP B-TREE")),
            "{indexed:?}"
        );
    }
}
