-- Delivery records. Some earlier states of this repository made them in version 1, so they may exist already.
--
-- The subject is a pass, a device or a type. Times are microseconds since the Unix epoch.
create table if not exists passkit.delivery (
    kind      text collate "C" not null,
    pass_type text collate "C" not null,
    -- A serial number or a device. Empty for a type.
    name      text collate "C" not null,
    event     text collate "C" not null,
    version   bigint not null,
    count     bigint not null,
    at        bigint not null,
    -- The index contains whole hours, so that most new times change no index.
    hour      bigint not null generated always as (at / 3600000000) stored,
    detail    text collate "C" not null,
    primary key (kind, pass_type, name, event)
) with (fillfactor = 70);

create index if not exists delivery_by_age on passkit.delivery (hour);

-- Removes the delivery records of each subject. The subjects must be in order, so that two calls can't deadlock.
create or replace function passkit.forget_deliveries(kinds text[], types text[], names text[])
returns void language plpgsql volatile
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
begin
    for n in 1 .. cardinality(kinds) loop
        delete from passkit.delivery d where d.kind = kinds[n] and d.pass_type = types[n] and d.name = names[n];
    end loop;
end
$$;

-- Removes delivery records whose time is before the given one, at most so many. Returns whether none remains. Skips locked
-- rows, because it would lock rows in another order than a call that writes records.
create or replace function passkit.discard_deliveries(before bigint, most bigint)
returns boolean language plpgsql volatile
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off as $$
begin
    delete from passkit.delivery d where d.ctid = any (array(
        select o.ctid from passkit.delivery o
        where o.hour <= before / 3600000000 and o.at < before order by o.hour limit most
        for update skip locked
    ));
    return not exists (
        select from passkit.delivery o
        where o.hour <= before / 3600000000 and o.at < before order by o.hour limit 1
    );
end
$$;

insert into passkit.migration (version, needs) values (4, 1);
