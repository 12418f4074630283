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

/// Devices, types, serial numbers, push tokens; gives which registrations are new.
pub(crate) const REGISTER: &str = "select passkit.register($1, $2, $3, $4)";

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

/// Devices, types, and both parts of the tags or null; gives for each the clocks and the serial numbers.
///
/// A tag that is ahead of the clocks counts as none. One that equals them has nothing behind it.
pub(crate) const UPDATED_SINCE: &str = "\
select coalesce(c.version, 0), coalesce(d.version, 0), found.serials
from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) with ordinality
    as a(device_id, pass_type, type_part, device_part, n)
left join passkit.clock c on c.pass_type = a.pass_type
left join passkit.device d on d.device_id = a.device_id
left join lateral (
    select array_agg(r.serial) as serials
    from passkit.registration r
    left join passkit.pass p on p.pass_type = r.pass_type and p.serial = r.serial
    where r.device_id = a.device_id and r.pass_type = a.pass_type
    and (a.type_part, a.device_part) is distinct from (coalesce(c.version, 0), coalesce(d.version, 0))
    and (a.type_part is null or a.type_part > coalesce(c.version, 0) or a.device_part > coalesce(d.version, 0)
        or greatest(p.version, c.floor) > a.type_part or r.version > a.device_part)
) found on true
order by a.n";

/// Types, serial numbers; gives for each version and date.
pub(crate) const PASS_STATE: &str = "\
select coalesce(greatest(p.version, c.floor), 0), greatest(p.last_modified, c.floor_date, s.created)
from unnest($1::text[], $2::text[]) with ordinality as a(pass_type, serial, n)
cross join passkit.store s
left join passkit.clock c on c.pass_type = a.pass_type
left join passkit.pass p on p.pass_type = a.pass_type and p.serial = a.serial
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
    UNREGISTER,
    FORGET,
    MARK,
    PUBLISH,
    PUBLISHED,
    MARK_ALL,
    UPDATED_SINCE,
    PASS_STATE,
    DEVICES_OF,
    REGISTRATIONS,
    COUNT_DEVICES,
    COUNT_REGISTRATIONS,
];
