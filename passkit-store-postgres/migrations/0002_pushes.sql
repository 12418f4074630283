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

-- Who sends the pushes of a type.
create table passkit.lease (
    pass_type text   collate "C" primary key,
    worker    text   not null,
    until     bigint not null
) with (fillfactor = 10);

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
        select p.content from passkit.pass p where p.pass_type = published_type and p.serial = u.serial
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
        select p.content from passkit.pass p where p.pass_type = published_type and p.serial = u.serial
    )
    on conflict (pass_type, serial) do update set content = excluded.content;
    return cardinality(news);
end
$$;

insert into passkit.migration (version) values (2);
