//! The layout of the data, in `migrations/`, and every statement.
//!
//! Whatever writes a registration locks the row of its device first; whatever marks a pass, or changes what is owed,
//! locks the row of its type first. A statement locks devices in their order, and one type only: so no two of them wait for each other.

/// A step from one version of the schema to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    pub(crate) version: i32,
    /// Ends with noting its version.
    pub(crate) sql: &'static str,
}

/// All steps, in their order.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, sql: include_str!("../migrations/0001_registrations.sql") },
    Migration { version: 2, sql: include_str!("../migrations/0002_pushes.sql") },
];

/// The version that the statements below are written for.
pub(crate) const VERSION: i32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// Held to the end of the transaction. The number is this crate's own.
pub(crate) const LOCK_MIGRATION: &str = "select pg_advisory_xact_lock(8102099357864587)";

pub(crate) const HAS_SCHEMA: &str = "select to_regclass('passkit.migration') is not null";

pub(crate) const SCHEMA_VERSION: &str = "select coalesce(max(version), 0) from passkit.migration";

/// Device, type, serial number, push token; gives whether the registration is new.
pub(crate) const REGISTER: &str = "select passkit.register($1, $2, $3, $4)";

/// The same in arrays; gives an array.
pub(crate) const REGISTER_MANY: &str = "select passkit.register_many($1, $2, $3, $4)";

/// Device, type, serial number; gives whether there was a registration.
pub(crate) const UNREGISTER: &str = "select passkit.unregister($1, $2, $3)";

/// Device, version; gives whether it was removed.
pub(crate) const FORGET: &str = "select passkit.forget($1, $2)";

/// Type, serial numbers; gives the version.
pub(crate) const MARK: &str = "select passkit.mark($1, $2)";

/// The same, and owes the pushes.
pub(crate) const MARK_AND_OWE: &str = "select passkit.mark_and_owe($1, $2)";

/// Type, serial numbers, digests; gives how many were marked.
pub(crate) const PUBLISH: &str = "select passkit.publish($1, $2, $3)";

/// Type, serial number; gives a digest or null.
pub(crate) const PUBLISHED: &str =
    "select content from passkit.pass where pass_type = $1 and serial = $2 limit 1";

macro_rules! mark_all {
    () => {
        "\
insert into passkit.clock as c (pass_type, version, floor, floor_date, latest_date)
select $1, n.at, n.at, n.date, n.date
from (
    select m.at, greatest(m.at / 1000000, s.created + 1) as date
    from passkit.store s, (select passkit.now_micros() as at) m
) n
on conflict (pass_type) do update
set version = greatest(c.version + 1, excluded.version),
    floor = greatest(c.version + 1, excluded.version),
    floor_date = greatest(c.latest_date + 1, excluded.floor_date),
    latest_date = greatest(c.latest_date + 1, excluded.floor_date)
returning c.version"
    };
}

/// Type; gives the version.
pub(crate) const MARK_ALL: &str = mark_all!();

/// The same, and owes the pushes.
pub(crate) const MARK_ALL_AND_OWE: &str = concat!(
    "with marked as (",
    mark_all!(),
    ")
insert into passkit.owed as o (pass_type, serial, since, version)
select $1, '', m.version, m.version from marked m
on conflict (pass_type, serial) do update set version = excluded.version
returning o.version"
);

/// A tag that is ahead of the clocks counts as none. One that equals them has nothing behind it.
///
/// `offset 0` and `limit 1` are for its plan: see "Plans" in `migrations/`.
macro_rules! updated_since {
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

/// Device, type, and both parts of the tag or null; gives the clocks and the serial numbers.
pub(crate) const UPDATED_SINCE: &str = updated_since!(
    "(select $1::text as device_id, $2::text as pass_type, $3::bigint as type_part, $4::bigint as device_part
        offset 0) asked",
    ""
);

/// The same in arrays; gives a row for each.
pub(crate) const UPDATED_SINCE_MANY: &str = updated_since!(
    "(select $1::text[] as d, $2::text[] as t, $3::bigint[] as x, $4::bigint[] as y offset 0) arrays,
        unnest(d, t, x, y) with ordinality as asked(device_id, pass_type, type_part, device_part, n)",
    " order by a.n"
);

/// See "Plans" in `migrations/`.
macro_rules! pass_state {
    ($asked:literal, $order:literal) => {
        concat!(
            "\
select coalesce(greatest(p.version, c.floor), 0), greatest(p.last_modified, c.floor_date, s.created)
from ",
            $asked,
            "
cross join (select s.created from passkit.store s limit 1) s
left join lateral (
    select c.floor, c.floor_date from passkit.clock c where c.pass_type = a.pass_type limit 1
) c on true
left join lateral (
    select p.version, p.last_modified from passkit.pass p
    where p.pass_type = a.pass_type and p.serial = a.serial limit 1
) p on true",
            $order
        )
    };
}

/// Type, serial number; gives version and date.
pub(crate) const PASS_STATE: &str =
    pass_state!("(select $1::text as pass_type, $2::text as serial offset 0) a", "");

/// The same in arrays; gives a row for each.
pub(crate) const PASS_STATES: &str = pass_state!(
    "(select $1::text[] as t, $2::text[] as s offset 0) arrays,
    unnest(t, s) with ordinality as a(pass_type, serial, n)",
    " order by a.n"
);

/// Type, serial number, the device to start behind or an empty text, limit; gives devices and push tokens.
pub(crate) const DEVICES_OF: &str = "select d.device_id, d.push_token from passkit.devices($1, $2, $3, $4) d";

/// Device, type and serial number to start behind, or empty texts, limit; gives registrations and push tokens.
pub(crate) const REGISTRATIONS: &str =
    "select r.device_id, r.push_token, r.pass_type, r.serial from passkit.registrations($1, $2, $3, $4) r";

/// Gives for each type with debts or held pushes: how many debts, the version of the oldest, the time of the first
/// held push.
pub(crate) const OWING: &str =
    "select b.pass_type, b.pending, b.oldest, b.first_due from passkit.backlog() b";

/// Type, worker, microseconds; gives a row if the worker has the lease now.
pub(crate) const LEASE: &str = "\
insert into passkit.lease as l (pass_type, worker, until) values ($1, $2, passkit.now_micros() + $3)
on conflict (pass_type) do update set worker = excluded.worker, until = passkit.now_micros() + $3
where l.worker = excluded.worker or l.until <= passkit.now_micros()
returning true";

/// Type, worker.
pub(crate) const RELEASE: &str = "delete from passkit.lease l where l.pass_type = $1 and l.worker = $2";

/// Type, limit; gives serial number or an empty text, version, and the version begun with and the cursor or nulls.
pub(crate) const DEBTS: &str = "select p.serial, p.version, p.begun, p.next from passkit.pending($1, $2) p";

/// Type, serial numbers or empty texts, versions, cursors or nulls.
pub(crate) const ADVANCE: &str = "select passkit.advance($1, $2, $3, $4)";

/// Type, devices in their order, push tokens, times or nulls, attempts, times or nulls.
pub(crate) const HOLD: &str = "\
insert into passkit.held as h (pass_type, device_id, push_token, due, attempts, bad_since)
select $1, u.*
from (select $2::text[] as d, $3::text[] as t, $4::bigint[] as x, $5::bigint[] as n, $6::bigint[] as b offset 0) arrays,
    unnest(d, t, x, n, b) as u(device_id, push_token, due, attempts, bad_since)
on conflict (pass_type, device_id) do update
set push_token = excluded.push_token, due = excluded.due, attempts = excluded.attempts,
    bad_since = excluded.bad_since";

/// Type, devices.
pub(crate) const UNHOLD: &str = "select passkit.undefer($1, $2)";

/// Type, the device to start behind or an empty text, limit; gives held pushes.
pub(crate) const HELD: &str = "\
select d.device_id, d.push_token, d.due, d.attempts, d.bad_since from passkit.deferred($1, $2, $3) d";

/// Gives how many devices there are, and how many bytes the tables take.
pub(crate) const COUNT_DEVICES: &str = "\
select (select count(*) from passkit.device),
    (select sum(pg_total_relation_size(oid))::bigint from pg_class
     where relnamespace = 'passkit'::regnamespace and relkind = 'r')";

/// Gives for each type its passes and registrations. In two steps, so that reading the index is enough.
pub(crate) const COUNT_REGISTRATIONS: &str = "\
select pass_type, count(*), sum(devices)::bigint
from (select pass_type, serial, count(*) as devices from passkit.registration group by pass_type, serial) p
group by pass_type order by pass_type";

/// For the test that prepares them all.
#[doc(hidden)]
pub const STATEMENTS: &[&str] = &[
    LOCK_MIGRATION,
    HAS_SCHEMA,
    SCHEMA_VERSION,
    REGISTER,
    REGISTER_MANY,
    UNREGISTER,
    FORGET,
    MARK,
    MARK_AND_OWE,
    PUBLISH,
    PUBLISHED,
    MARK_ALL,
    MARK_ALL_AND_OWE,
    UPDATED_SINCE,
    UPDATED_SINCE_MANY,
    PASS_STATE,
    PASS_STATES,
    DEVICES_OF,
    REGISTRATIONS,
    OWING,
    LEASE,
    RELEASE,
    DEBTS,
    ADVANCE,
    HOLD,
    UNHOLD,
    HELD,
    COUNT_DEVICES,
    COUNT_REGISTRATIONS,
];
