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
