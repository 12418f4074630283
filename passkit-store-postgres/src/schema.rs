//! The layout of the data, in `migrations/`, and every statement.
//!
//! Whatever writes a registration locks the row of its device first; whatever marks a pass locks the row of its type
//! first. A statement locks devices in their order, and one type only: so no two of them wait for each other.

/// A step from one version of the schema to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    pub(crate) version: i32,
    /// Ends with noting its version.
    pub(crate) sql: &'static str,
}

/// All steps, in their order.
pub(crate) const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, sql: include_str!("../migrations/0001_registrations.sql") }];

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

/// Type, serial numbers, digests; gives how many were marked.
pub(crate) const PUBLISH: &str = "select passkit.publish($1, $2, $3)";

/// Type, serial number; gives a digest or null.
pub(crate) const PUBLISHED: &str = "select content from passkit.pass where pass_type = $1 and serial = $2";

/// Type; gives the version.
pub(crate) const MARK_ALL: &str = "\
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
returning c.version";

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
    PUBLISH,
    PUBLISHED,
    MARK_ALL,
    UPDATED_SINCE,
    UPDATED_SINCE_MANY,
    PASS_STATE,
    PASS_STATES,
    DEVICES_OF,
    REGISTRATIONS,
    COUNT_DEVICES,
    COUNT_REGISTRATIONS,
];
