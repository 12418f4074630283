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
pub(crate) const PUBLISHED: &str = "select content from passkit.pass where pass_type = $1 and serial = $2";

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
/// In subqueries and behind `offset 0` for the sake of its plan, as `migrations/` says.
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
        or (select p.version from passkit.pass p where p.pass_type = r.pass_type and p.serial = r.serial)
            > a.type_part)
)
from (
    select asked.*, coalesce(c.version, 0) as clock, c.floor,
        coalesce((select d.version from passkit.device d where d.device_id = asked.device_id), 0) as device_clock
    from ",
            $asked,
            " left join passkit.clock c on c.pass_type = asked.pass_type
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

/// Type, serial number; gives version and date.
pub(crate) const PASS_STATE: &str = "\
select coalesce(greatest(p.version, c.floor), 0), greatest(p.last_modified, c.floor_date, s.created)
from passkit.store s
left join passkit.clock c on c.pass_type = $1
left join passkit.pass p on p.pass_type = $1 and p.serial = $2";

/// The same in arrays; gives a row for each.
pub(crate) const PASS_STATES: &str = "\
select coalesce(greatest(c.floor, (
        select p.version from passkit.pass p where p.pass_type = a.pass_type and p.serial = a.serial
    )), 0),
    greatest(c.floor_date, s.created, (
        select p.last_modified from passkit.pass p where p.pass_type = a.pass_type and p.serial = a.serial
    ))
from (select $1::text[] as t, $2::text[] as s offset 0) arrays,
    unnest(t, s) with ordinality as a(pass_type, serial, n)
cross join passkit.store s
left join passkit.clock c on c.pass_type = a.pass_type
order by a.n";

/// Type, serial number, the device to start behind or an empty text, limit; gives devices and push tokens.
///
/// A subquery where a join would say the same: the planner can but look each token up, and not read all devices.
pub(crate) const DEVICES_OF: &str = "\
select r.device_id, (select d.push_token from passkit.device d where d.device_id = r.device_id)
from passkit.registration r
where r.pass_type = $1 and r.serial = $2 and r.device_id > $3
order by r.device_id limit $4";

/// Device, type and serial number to start behind, or empty texts, limit; gives registrations and push tokens.
pub(crate) const REGISTRATIONS: &str = "\
select r.device_id, (select d.push_token from passkit.device d where d.device_id = r.device_id),
    r.pass_type, r.serial
from passkit.registration r
where (r.device_id, r.pass_type, r.serial) > ($1, $2, $3)
order by r.device_id, r.pass_type, r.serial limit $4";

/// Gives for each type with debts or held pushes: how many debts, the version of the oldest, the time of the first
/// held push.
///
/// Goes from type to type in the indexes, which are few, however much each of them owes; only the count reads more.
pub(crate) const OWING: &str = "\
with recursive debtor as (
    (select o.pass_type from passkit.owed o order by o.pass_type limit 1)
    union all
    select (select o.pass_type from passkit.owed o where o.pass_type > d.pass_type order by o.pass_type limit 1)
    from debtor d where d.pass_type is not null
), holder as (
    (select h.pass_type from passkit.held h order by h.pass_type limit 1)
    union all
    select (select h.pass_type from passkit.held h where h.pass_type > d.pass_type order by h.pass_type limit 1)
    from holder d where d.pass_type is not null
)
select t.pass_type,
    (select count(*) from (select from passkit.owed o where o.pass_type = t.pass_type limit 10000) o),
    (select o.since from passkit.owed o where o.pass_type = t.pass_type order by o.since limit 1),
    (select h.due from passkit.held h where h.pass_type = t.pass_type and h.due is not null order by h.due limit 1)
from (select d.pass_type from debtor d union select h.pass_type from holder h) t
where t.pass_type is not null";

/// Type, worker, microseconds; gives a row if the worker has the lease now.
pub(crate) const LEASE: &str = "\
insert into passkit.lease as l (pass_type, worker, until) values ($1, $2, passkit.now_micros() + $3)
on conflict (pass_type) do update set worker = excluded.worker, until = passkit.now_micros() + $3
where l.worker = excluded.worker or l.until <= passkit.now_micros()
returning true";

/// Type, worker.
pub(crate) const RELEASE: &str = "delete from passkit.lease l where l.pass_type = $1 and l.worker = $2";

/// Type, limit; gives serial number or an empty text, version, and the version begun with and the cursor or nulls.
pub(crate) const DEBTS: &str = "\
select o.serial, o.version, o.begun, o.next from passkit.owed o where o.pass_type = $1 order by o.since limit $2";

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

/// Type, devices. Locks them in their order, as holding does.
pub(crate) const UNHOLD: &str = "\
with locked as (
    select h.device_id from passkit.held h where h.pass_type = $1 and h.device_id = any($2)
    order by h.device_id for update
)
delete from passkit.held h
where h.pass_type = $1 and h.device_id = any(array(select l.device_id from locked l))";

/// Type, the device to start behind or an empty text, limit; gives held pushes.
pub(crate) const HELD: &str = "\
select h.device_id, h.push_token, h.due, h.attempts, h.bad_since
from passkit.held h where h.pass_type = $1 and h.device_id > $2 order by h.device_id limit $3";

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
