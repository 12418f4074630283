-- What pushes are owed: one row for a pass, or for all passes of a type. Whatever writes here has locked the row of the
-- type before, as a mark does.
create table passkit.owed (
    pass_type text   collate "C" not null,
    -- Empty for the type: no serial number is.
    serial    text   collate "C" not null,
    -- The version of the first mark that is not settled.
    since     bigint not null,
    version   bigint not null,
    -- How far a worker came, and with which version it began.
    begun     bigint,
    next      text,
    primary key (pass_type, serial)
) with (fillfactor = 70);

-- Not the version, so that owing again touches no index.
create index owed_by_age on passkit.owed (pass_type, since);

-- Pushes that are not sent now. Times are microseconds since the Unix epoch.
create table passkit.held (
    pass_type  text   collate "C" not null,
    device_id  text   collate "C" not null,
    push_token text   not null,
    due        bigint,
    attempts   bigint not null,
    bad_since  bigint,
    primary key (pass_type, device_id)
);

create index held_by_time on passkit.held (pass_type, due) where due is not null;

-- Any type may soon owe most of it. A type that ANALYZE did not see must not look rare: its rows would be read one by one
-- for a serial number.
alter table passkit.owed alter column pass_type set statistics 0;

-- Who sends the pushes of a type.
create table passkit.lease (
    pass_type text   collate "C" primary key,
    worker    text   not null,
    until     bigint not null
) with (fillfactor = 10);

-- What waits for the workers, by type: how many debts, the version of the oldest, when the first deferred push is due.
--
-- Goes from type to type in the indexes, however much each of them owes; only the count reads more, at most
-- 10,000 of a type: a bitmap would hold all of them first.
create function passkit.backlog()
returns table (pass_type text, pending bigint, oldest bigint, first_due bigint) language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_column
begin
    return query
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
    where t.pass_type is not null;
end
$$;

-- A page of what a type owes, the oldest first.
create function passkit.pending(asked_type text, most bigint)
returns table (serial text, version bigint, begun bigint, next text) language plpgsql stable
set enable_sort = off set jit = off as $$
#variable_conflict use_column
begin
    return query
    select o.serial, o.version, o.begun, o.next
    from passkit.owed o where o.pass_type = asked_type order by o.since limit most;
end
$$;

-- A page of the deferred pushes of a type, in the order of their devices.
create function passkit.deferred(asked_type text, after text, most bigint)
returns table (device_id text, push_token text, due bigint, attempts bigint, bad_since bigint) language plpgsql stable
set enable_sort = off set jit = off as $$
#variable_conflict use_column
begin
    return query
    select h.device_id, h.push_token, h.due, h.attempts, h.bad_since
    from passkit.held h where h.pass_type = asked_type and h.device_id > after order by h.device_id limit most;
end
$$;

-- Removes the deferred pushes of these devices, one by one: "any" of many devices could read all those of the type.
create function passkit.undefer(deferred_type text, devices text[])
returns void language plpgsql volatile as $$
declare
    device text;
begin
    -- In the order in which deferring locks them.
    for device in select u.device_id from unnest(devices) as u(device_id) order by u.device_id collate "C" loop
        delete from passkit.held h where h.pass_type = deferred_type and h.device_id = device;
    end loop;
end
$$;

-- Marks, and owes the pushes. Returns the version that the passes have now.
create function passkit.mark_and_owe(marked_type text, serials text[])
returns bigint language plpgsql volatile as $$
declare
    -- Locks the type.
    marked bigint := passkit.mark(marked_type, serials);
begin
    insert into passkit.owed as o (pass_type, serial, since, version)
    select marked_type, s.serial, marked, marked
    from (
        select distinct u.serial collate "C" as serial
        from (select serials as all_of_them offset 0) a, unnest(a.all_of_them) as u(serial)
    ) s
    on conflict (pass_type, serial) do update set version = excluded.version;
    return marked;
end
$$;

-- Notes that the debt of serials[n], begun with at versions[n], was worked off up to nexts[n], or to the end.
create function passkit.advance(owed_type text, serials text[], versions bigint[], nexts text[])
returns void language plpgsql volatile as $$
begin
    perform 1 from passkit.clock c where c.pass_type = owed_type for update;
    for n in 1 .. cardinality(serials) loop
        if nexts[n] is not null then
            update passkit.owed o set begun = versions[n], next = nexts[n]
            where o.pass_type = owed_type and o.serial = serials[n];
            continue;
        end if;
        delete from passkit.owed o
        where o.pass_type = owed_type and o.serial = serials[n] and o.version = versions[n];
        if not found then
            update passkit.owed o set since = o.version, begun = null, next = null
            where o.pass_type = owed_type and o.serial = serials[n];
        end if;
    end loop;
end
$$;

-- As before, and owes the pushes of what it marks.
create or replace function passkit.publish(published_type text, serials text[], contents bytea[])
returns integer language plpgsql volatile as $$
#variable_conflict use_column
declare
    news text[];
begin
    -- Locks the type, as a mark does, so that what is compared stays so.
    insert into passkit.clock as c (pass_type, version, floor, floor_date, latest_date)
    select published_type, 0, 0, s.created, s.created from passkit.store s
    on conflict (pass_type) do update set version = c.version;

    select array_agg(u.serial) into news
    from (select serials as s, contents as c offset 0) arrays, unnest(s, c) as u(serial, content)
    where u.content is distinct from (
        select p.content from passkit.pass p where p.pass_type = published_type and p.serial = u.serial limit 1
    );
    if news is null then
        return 0;
    end if;

    perform passkit.mark_and_owe(published_type, news);
    -- Those rows are there now.
    insert into passkit.pass as p (pass_type, serial, version, last_modified, content)
    select published_type, u.serial, 0, 0, u.content
    from (select serials as s, contents as c offset 0) arrays, unnest(s, c) as u(serial, content)
    where u.content is distinct from (
        select p.content from passkit.pass p where p.pass_type = published_type and p.serial = u.serial limit 1
    )
    on conflict (pass_type, serial) do update set content = excluded.content;
    return cardinality(news);
end
$$;

insert into passkit.migration (version) values (2);
