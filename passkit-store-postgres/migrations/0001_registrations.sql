-- Versions are microseconds since the Unix epoch, advanced by max(last + 1, now). Dates are whole seconds since then.
-- Text is compared byte for byte.

do $$
begin
    -- Not "create schema if not exists", which asks for the right to create one even where it exists.
    if to_regnamespace('passkit') is null then
        create schema passkit;
    end if;
end
$$;

create table passkit.migration (
    version    integer     primary key,
    applied_at timestamptz not null default now()
);

-- One row: the date of every pass that was never marked.
create table passkit.store (
    only_row boolean primary key default true check (only_row),
    created  bigint  not null
);

-- A cast would round, to a time that is yet to come.
insert into passkit.store (created) values (floor(extract(epoch from clock_timestamp()))::bigint);

-- The row of a type is the first thing that a mark writes, and so is held until it commits: a version that can be
-- read has been committed, and so have all lower ones.
create table passkit.clock (
    pass_type   text collate "C" primary key,
    version     bigint not null,
    -- What the last "every pass has changed" left: counts for a pass whose own row is older.
    floor       bigint not null,
    floor_date  bigint not null,
    -- No pass of the type has a later date.
    latest_date bigint not null
) with (fillfactor = 10);

create table passkit.device (
    device_id  text collate "C" primary key,
    push_token text   not null,
    version    bigint not null
);

-- No index on version: a mark then touches no index.
create table passkit.pass (
    pass_type     text collate "C" not null,
    serial        text collate "C" not null,
    version       bigint not null,
    last_modified bigint not null,
    -- The digest of what was published last, where several instances publish.
    content       bytea,
    primary key (pass_type, serial)
) with (fillfactor = 85);

-- Written only by those who hold the lock of the device's row, and there only where that row is.
create table passkit.registration (
    device_id text collate "C" not null,
    pass_type text collate "C" not null,
    serial    text collate "C" not null,
    version   bigint not null,
    primary key (device_id, pass_type, serial)
);

create index registration_by_pass on passkit.registration (pass_type, serial, device_id);

-- Devices are many, even if one of them had everything when ANALYZE looked: see "Plans" below.
alter table passkit.registration alter column device_id set (n_distinct = -0.3);

create function passkit.now_micros() returns bigint language sql volatile
as $$ select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::bigint $$;

-- In the functions below each statement has a snapshot of its own (they are volatile, and the isolation is "read
-- committed"), so a statement that follows the locking of a row sees all that former holders of the lock did. Where the
-- isolation is stricter, the loser of a race gets a serialization failure and tries again.
--
-- Plans. Statistics may be missing or old: autovacuum never analyzes a table of one row, and a table can grow a thousandfold
-- before the next analyze. So every plan must be good whatever they say:
-- * An array goes through a subquery with "offset 0", behind which its length is unknown. Otherwise PostgreSQL prefers a
--   plan for this one length, and plans anew each time.
-- * A row is looked up by its whole key, in a subquery with "limit 1" and not in a join. PostgreSQL then expects one row at
--   most and uses the index. Only a whole primary key has "limit 1".
-- * A page of rows comes from a function that forbids sorting: PostgreSQL then reads the index in its order, and stops
--   after the page. JIT is off there, because compiling takes longer than the statement.
-- * Where nothing else helps, ANALYZE is told what to say of a column.

-- A page of the devices of a pass, in their order.
create function passkit.devices(asked_type text, asked_serial text, after text, most bigint)
returns table (device_id text, push_token text) language plpgsql stable
set enable_sort = off set jit = off as $$
#variable_conflict use_column
begin
    return query
    select r.device_id, (select d.push_token from passkit.device d where d.device_id = r.device_id limit 1)
    from passkit.registration r
    where r.pass_type = asked_type and r.serial = asked_serial and r.device_id > after
    order by r.device_id limit most;
end
$$;

-- A page of all registrations, in their order.
create function passkit.registrations(after_device text, after_type text, after_serial text, most bigint)
returns table (device_id text, push_token text, pass_type text, serial text) language plpgsql stable
set enable_sort = off set jit = off as $$
#variable_conflict use_column
begin
    return query
    select r.device_id, (select d.push_token from passkit.device d where d.device_id = r.device_id limit 1),
        r.pass_type, r.serial
    from passkit.registration r
    where (r.device_id, r.pass_type, r.serial) > (after_device, after_type, after_serial)
    order by r.device_id, r.pass_type, r.serial limit most;
end
$$;

-- Registers. Says whether the registration is new.
create function passkit.register(device text, pass_type text, serial text, push_token text)
returns boolean language plpgsql volatile as $$
#variable_conflict use_column
declare
    registered bigint;
begin
    -- Locks the device: nobody else can write its registrations now.
    insert into passkit.device as d (device_id, push_token, version)
    values ($1, $4, passkit.now_micros())
    on conflict (device_id) do update
    set push_token = excluded.push_token, version = greatest(d.version + 1, excluded.version)
    returning d.version into registered;

    insert into passkit.registration (device_id, pass_type, serial, version)
    values ($1, $2, $3, registered)
    on conflict (device_id, pass_type, serial) do nothing;
    if found then
        return true;
    end if;
    update passkit.registration r set version = registered
    where (r.device_id, r.pass_type, r.serial) = ($1, $2, $3);
    return false;
end
$$;

-- Registers, for each n, devices[n] for the pass (pass_types[n], serials[n]). Says which registrations are new.
create function passkit.register_many(devices text[], pass_types text[], serials text[], push_tokens text[])
returns boolean[] language plpgsql volatile as $$
#variable_conflict use_column
declare
    at      bigint := passkit.now_micros();
    added   integer;
    created boolean[];
begin
    -- Locks the devices, in their order, so that two calls never wait for each other.
    insert into passkit.device as d (device_id, push_token, version)
    select a.device_id, a.push_token, at
    from (
        select distinct on (u.device_id collate "C") u.device_id collate "C" as device_id, u.push_token
        from (select devices as d, push_tokens as p offset 0) arrays,
            unnest(d, p) with ordinality as u(device_id, push_token, n)
        order by u.device_id collate "C", u.n desc
    ) a
    order by a.device_id
    on conflict (device_id) do update
    set push_token = excluded.push_token, version = greatest(d.version + 1, excluded.version);

    insert into passkit.registration (device_id, pass_type, serial, version)
    select u.device_id, u.pass_type, u.serial,
        (select d.version from passkit.device d where d.device_id = u.device_id limit 1)
    from (select devices as d, pass_types as t, serials as s offset 0) arrays,
        unnest(d, t, s) as u(device_id, pass_type, serial)
    on conflict (device_id, pass_type, serial) do nothing;
    get diagnostics added = row_count;
    if added = cardinality(devices) then
        return array_fill(true, array[added]);
    end if;

    -- Some were there before, and so have an older version than their device has now; or some stand here twice.
    with asked as (
        select u.*, (select d.version from passkit.device d where d.device_id = u.device_id limit 1) as version,
            row_number() over (
                partition by u.device_id collate "C", u.pass_type collate "C", u.serial collate "C" order by u.n
            ) = 1 as first
        from (select devices as d, pass_types as t, serials as s offset 0) arrays,
            unnest(d, t, s) with ordinality as u(device_id, pass_type, serial, n)
    ), known as (
        select a.*, a.version > (
            select r.version from passkit.registration r
            where (r.device_id, r.pass_type, r.serial) = (a.device_id, a.pass_type, a.serial) limit 1
        ) as known
        from asked a
    ), put as (
        insert into passkit.registration as r (device_id, pass_type, serial, version)
        select k.device_id, k.pass_type, k.serial, k.version from known k where k.first and k.known
        on conflict (device_id, pass_type, serial) do update set version = excluded.version
    )
    select array_agg(k.first and not k.known order by k.n) into created from known k;
    return created;
end
$$;

-- Says whether there was a registration. The device goes with its last one.
create function passkit.unregister(device text, pass_type text, serial text)
returns boolean language plpgsql volatile as $$
#variable_conflict use_column
begin
    perform 1 from passkit.device d where d.device_id = $1 for update;
    if not found then
        return false;
    end if;
    delete from passkit.registration r where (r.device_id, r.pass_type, r.serial) = ($1, $2, $3);
    if not found then
        return false;
    end if;
    delete from passkit.device d where d.device_id = $1
    and not exists (select from passkit.registration r where r.device_id = $1);
    return true;
end
$$;

-- Removes the device, if it last registered at that version or before. Says whether it did.
--
-- Without statistics PostgreSQL takes one device for a two-hundredth of all registrations, and would compile the delete
-- where there are 10 million.
create function passkit.forget(device text, unregistered_at bigint)
returns boolean language plpgsql volatile set jit = off as $$
#variable_conflict use_column
begin
    perform 1 from passkit.device d where d.device_id = $1 and d.version <= $2 for update;
    if not found then
        return false;
    end if;
    delete from passkit.registration r where r.device_id = $1;
    delete from passkit.device d where d.device_id = $1;
    return true;
end
$$;

-- Says that these passes have changed. Returns the version they have now.
create function passkit.mark(marked_type text, serials text[])
returns bigint language plpgsql volatile as $$
#variable_conflict use_column
declare
    at     bigint := passkit.now_micros();
    clock  passkit.clock;
    latest bigint;
begin
    insert into passkit.clock as c (pass_type, version, floor, floor_date, latest_date)
    select marked_type, at, 0, s.created, greatest(s.created, at / 1000000) from passkit.store s
    on conflict (pass_type) do update
    set version = greatest(c.version + 1, excluded.version),
        latest_date = greatest(c.latest_date, excluded.latest_date)
    returning c.* into clock;

    with put as (
        insert into passkit.pass as p (pass_type, serial, version, last_modified)
        select marked_type, s.serial, clock.version, greatest(at / 1000000, clock.floor_date + 1)
        from (
            select distinct u.serial collate "C" as serial
            from (select serials as all_of_them offset 0) a, unnest(a.all_of_them) as u(serial)
        ) s
        on conflict (pass_type, serial) do update
        set version = excluded.version, last_modified = greatest(excluded.last_modified, p.last_modified + 1)
        returning p.last_modified
    )
    select max(put.last_modified) into latest from put;

    if latest > clock.latest_date then
        update passkit.clock c set latest_date = latest where c.pass_type = marked_type;
    end if;
    return clock.version;
end
$$;

-- Marks the passes whose content is not the one published last, and keeps that. Returns how many those are.
create function passkit.publish(published_type text, serials text[], contents bytea[])
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

    perform passkit.mark(published_type, news);
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

insert into passkit.migration (version) values (1);
