-- Versions are microseconds since the Unix epoch; a new one is max(last + 1, now). Dates are whole seconds since the epoch.
-- Text is compared byte by byte.

do $$
begin
    -- "create schema if not exists" needs the right to create a schema even if it exists.
    if to_regnamespace('passkit') is null then
        create schema passkit;
    end if;
end
$$;

create table passkit.migration (
    version    integer     primary key,
    applied_at timestamptz not null default now()
);

-- One row. A pass that was never marked has the store's creation as its date.
create table passkit.store (
    only_row boolean primary key default true check (only_row),
    created  bigint  not null
);

-- Without floor, the cast would round, and could give a time in the future.
insert into passkit.store (created) values (floor(extract(epoch from clock_timestamp()))::bigint);

-- The clock of a type. A mark writes this row first, which locks the row until the commit. So if a version can be read, its
-- mark and all marks with lower versions are committed.
create table passkit.clock (
    pass_type   text collate "C" primary key,
    version     bigint not null,
    -- Version and date of the last mark of the whole type. They apply to each pass whose own version is older.
    floor       bigint not null,
    floor_date  bigint not null,
    -- The latest date that any pass of the type has.
    latest_date bigint not null
) with (fillfactor = 10);

create table passkit.device (
    device_id  text collate "C" primary key,
    push_token text   not null,
    version    bigint not null
);

-- There is no index on the version, so that marking a pass again changes no index.
create table passkit.pass (
    pass_type     text collate "C" not null,
    serial        text collate "C" not null,
    version       bigint not null,
    last_modified bigint not null,
    -- The digest of the content published last. Null if none was published.
    digest        bytea,
    primary key (pass_type, serial)
) with (fillfactor = 85);

-- What else is known about a published pass. It is in a separate table, because phones often read the rows of passkit.pass,
-- which should be small.
create table passkit.published (
    pass_type text collate "C" not null,
    serial    text collate "C" not null,
    removed   boolean not null,
    -- The digests of the authentication tokens: 32 bytes each, the newest last.
    tokens    bytea   not null,
    primary key (pass_type, serial)
);

-- A statement writes here only after it has locked the row of the device, and only while that row exists.
create table passkit.registration (
    device_id text collate "C" not null,
    pass_type text collate "C" not null,
    serial    text collate "C" not null,
    version   bigint not null,
    primary key (device_id, pass_type, serial)
);

create index registration_by_pass on passkit.registration (pass_type, serial, device_id);

-- Pending changes: one row for a pass, or for a whole type. A statement that writes here locks the row of the type first,
-- like a mark.
create table passkit.pending_push (
    pass_type text collate "C" not null,
    -- Empty for the whole type. No serial number is empty.
    serial    text collate "C" not null,
    -- The version of the first mark whose pushes are pending.
    since     bigint not null,
    version   bigint not null,
    -- The progress: the version that a worker started with, and the cursor of the next page.
    started   bigint,
    next      text,
    primary key (pass_type, serial)
) with (fillfactor = 70);

-- The index does not contain the version, so that marking a pass again changes no index.
create index pending_push_by_age on passkit.pending_push (pass_type, since);

-- Deferred pushes. Times are microseconds since the Unix epoch.
create table passkit.deferred_push (
    pass_type  text collate "C" not null,
    device_id  text collate "C" not null,
    push_token text   not null,
    due        bigint,
    attempts   bigint not null,
    bad_since  bigint,
    primary key (pass_type, device_id)
);

create index deferred_push_by_time on passkit.deferred_push (pass_type, due) where due is not null;

-- Claims: who has one, and until when.
create table passkit.claim (
    name  text   collate "C" primary key,
    owner text   collate "C" not null,
    until bigint not null
) with (fillfactor = 10);

create table passkit.note (
    name text collate "C" primary key,
    note text collate "C" not null
);

-- See "Plans" below. ANALYZE may run while one device has all registrations, so the number of devices is set by hand. ANALYZE
-- may also run while every device has the same pass. If other passes are added later, PostgreSQL would still expect that most
-- devices have the first pass, and a plan would read the devices of all passes. So there are no statistics about serial
-- numbers.
alter table passkit.registration alter column device_id set (n_distinct = -0.3),
    alter column serial set statistics 0;

-- Any type may soon have most of the pending pushes. A type that ANALYZE did not see would look rare, and a plan would read
-- all its rows to find one serial number. So there are no statistics about the type.
alter table passkit.pending_push alter column pass_type set statistics 0;

create function passkit.now_micros() returns bigint language sql volatile
as $$ select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::bigint $$;

-- Snapshots. Each statement in the functions below has its own snapshot, because the functions are volatile and the isolation
-- level is "read committed". After a statement has locked a row, the next one sees all changes made under earlier locks of
-- that row. With a stricter isolation level, the loser of a race gets a serialization failure, and the store retries.
--
-- Plans. Statistics may be missing or old. Autovacuum never analyzes a table of one row, and a table can grow a thousandfold
-- before the next analyze. So every plan must be good with any statistics:
-- * An array passes through a subquery with "offset 0", which hides its length. Otherwise PostgreSQL prefers a plan for this
--   length, and makes a new plan for each call.
-- * A row is found by its whole primary key, in a subquery with "limit 1" instead of a join. PostgreSQL then expects at most
--   one row and uses the index. "limit 1" is used only with a whole primary key.
-- * A function that returns a page disables sorting. PostgreSQL then reads the index in order, and stops after the page. JIT
--   is off there, because compiling the statement takes longer than running it.
-- * If nothing else helps, the statistics of a column are set by hand.

-- Registers a device for a pass. Returns whether the registration is new.
create function passkit.register(device text, pass_type text, serial text, push_token text)
returns boolean language plpgsql volatile as $$
#variable_conflict use_column
declare
    registered bigint;
begin
    -- Locks the device, so that no other statement writes its registrations.
    insert into passkit.device as d (device_id, push_token, version) values ($1, $4, 0)
    on conflict (device_id) do update
    set push_token = excluded.push_token, version = greatest(d.version + 1, passkit.now_micros())
    returning d.version into registered;
    -- A new device gets its version only now. While the insert waited, the device may have been registered with later
    -- versions, and removed.
    if registered = 0 then
        update passkit.device d set version = passkit.now_micros() where d.device_id = $1
        returning d.version into registered;
    end if;

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

-- For each n, registers devices[n] for the pass (pass_types[n], serials[n]). Returns which registrations are new.
--
-- Sequential scans are off. Otherwise a plan that was made for few devices would read all devices, instead of the new ones by
-- their ctid.
create function passkit.register_many(devices text[], pass_types text[], serials text[], push_tokens text[])
returns boolean[] language plpgsql volatile set enable_seqscan = off as $$
#variable_conflict use_column
declare
    at          bigint := passkit.now_micros();
    new_devices tid[];
    added       integer;
    created     boolean[];
begin
    -- Locks the devices in order, so that two calls can't deadlock.
    with locked as (
        insert into passkit.device as d (device_id, push_token, version)
        select a.device_id, a.push_token, 0
        from (
            select distinct on (u.device_id collate "C") u.device_id collate "C" as device_id, u.push_token
            from (select devices as d, push_tokens as p offset 0) arrays,
                unnest(d, p) with ordinality as u(device_id, push_token, n)
            order by u.device_id collate "C", u.n desc
        ) a
        order by a.device_id
        on conflict (device_id) do update
        set push_token = excluded.push_token, version = greatest(d.version + 1, at)
        returning d.ctid, d.version
    )
    select array_agg(l.ctid) into new_devices from locked l where l.version = 0;
    -- New devices get their version only now, as in passkit.register.
    if new_devices is not null then
        at := passkit.now_micros();
        update passkit.device d set version = at where d.ctid = any(new_devices);
    end if;

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

    -- Some registrations existed before. Their version is older than the one that their device has now. Or some occur twice
    -- in the arrays.
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

-- Removes a registration. If it was the device's last one, removes the device too. Returns whether there was a registration.
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

-- Removes the device if its version is not later than the given one. Returns whether the device was removed.
--
-- JIT is off. Without statistics, PostgreSQL expects that one in 200 registrations belongs to the device. With 10 million
-- registrations, it would compile the delete.
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

-- Returns a page of the devices of a pass, in order.
create function passkit.devices_of_pass(asked_type text, asked_serial text, after text, most bigint)
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

-- Returns a page of the registrations of a type, ordered by serial number and device.
create function passkit.devices_of_type(asked_type text, after_serial text, after_device text, most bigint)
returns table (serial text, device_id text, push_token text) language plpgsql stable
set enable_sort = off set jit = off as $$
#variable_conflict use_column
begin
    return query
    select r.serial, r.device_id,
        (select d.push_token from passkit.device d where d.device_id = r.device_id limit 1)
    from passkit.registration r
    where r.pass_type = asked_type and (r.serial, r.device_id) > (after_serial, after_device)
    order by r.serial, r.device_id limit most;
end
$$;

-- Counts the devices of a pass, and stops at "most". Bitmap scans are off, because they would first read all devices.
create function passkit.count_devices(asked_type text, asked_serial text, most bigint)
returns bigint language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
begin
    return (
        select count(*) from (
            select from passkit.registration r
            where r.pass_type = asked_type and r.serial = asked_serial limit most
        ) counted
    );
end
$$;

-- Returns a page of all registrations, in order.
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

create function passkit.published_passes(after_type text, after_serial text, most bigint)
returns table (pass_type text, serial text) language plpgsql stable
set enable_sort = off set jit = off as $$
#variable_conflict use_column
begin
    return query
    select p.pass_type, p.serial from passkit.published p
    where (p.pass_type, p.serial) > (after_type, after_serial)
    order by p.pass_type, p.serial limit most;
end
$$;

-- Marks these passes, and makes their pushes pending if "push" is true. Stores digests[n] for serials[n], unless digests[n]
-- is null.
create function passkit.mark(marked_type text, serials text[], digests bytea[], push boolean)
returns void language plpgsql volatile as $$
#variable_conflict use_column
declare
    at     bigint := passkit.now_micros();
    clock  passkit.clock;
    latest bigint;
begin
    -- Locks the type.
    insert into passkit.clock as c (pass_type, version, floor, floor_date, latest_date)
    select marked_type, at, 0, s.created, greatest(s.created, at / 1000000) from passkit.store s
    on conflict (pass_type) do update
    set version = greatest(c.version + 1, excluded.version),
        latest_date = greatest(c.latest_date, excluded.latest_date)
    returning c.* into clock;

    with put as (
        insert into passkit.pass as p (pass_type, serial, version, last_modified, digest)
        select marked_type, m.serial, clock.version, greatest(at / 1000000, clock.floor_date + 1), m.digest
        from (
            select distinct on (u.serial collate "C") u.serial collate "C" as serial, u.digest
            from (select serials as s, digests as d offset 0) arrays, unnest(s, d) as u(serial, digest)
            order by u.serial collate "C"
        ) m
        on conflict (pass_type, serial) do update
        set version = excluded.version, last_modified = greatest(excluded.last_modified, p.last_modified + 1),
            digest = coalesce(excluded.digest, p.digest)
        returning p.last_modified
    )
    select max(put.last_modified) into latest from put;

    if latest > clock.latest_date then
        update passkit.clock c set latest_date = latest where c.pass_type = marked_type;
    end if;

    if push then
        insert into passkit.pending_push as q (pass_type, serial, since, version)
        select marked_type, m.serial, clock.version, clock.version
        from (
            select distinct u.serial collate "C" as serial
            from (select serials as s offset 0) arrays, unnest(s) as u(serial)
        ) m
        on conflict (pass_type, serial) do update set version = excluded.version;
    end if;
end
$$;

-- Marks all passes of the type, and makes one change of the whole type pending if "push" is true.
create function passkit.mark_all(marked_type text, push boolean)
returns void language plpgsql volatile as $$
#variable_conflict use_column
declare
    at     bigint := passkit.now_micros();
    marked bigint;
begin
    insert into passkit.clock as c (pass_type, version, floor, floor_date, latest_date)
    select marked_type, at, at, n.date, n.date
    from (select greatest(at / 1000000, s.created + 1) as date from passkit.store s) n
    on conflict (pass_type) do update
    set version = greatest(c.version + 1, excluded.version),
        floor = greatest(c.version + 1, excluded.version),
        floor_date = greatest(c.latest_date + 1, excluded.floor_date),
        latest_date = greatest(c.latest_date + 1, excluded.floor_date)
    returning c.version into marked;

    if push then
        insert into passkit.pending_push as q (pass_type, serial, since, version)
        values (marked_type, '', marked, marked)
        on conflict (pass_type, serial) do update set version = excluded.version;
    end if;
end
$$;

-- Appends the new tokens to the known ones, and returns the last 16. If a token occurs twice, its last place counts.
create function passkit.unite_tokens(known bytea, new_tokens bytea)
returns bytea language sql immutable as $$
    select coalesce(string_agg(kept.token, ''::bytea order by kept.place), ''::bytea)
    from (
        select named.token, max(named.place) as place
        from (
            select substr(known || new_tokens, 32 * place + 1, 32) as token, place
            from generate_series(0, octet_length(known || new_tokens) / 32 - 1) as place
        ) named
        group by named.token order by 2 desc limit 16
    ) kept
$$;

-- Publishes content. For each n, the pass serials[n] now has content with the digest digests[n], or is removed if digests[n]
-- is null. Its tokens are new_tokens[n], each once. Marks the passes whose digest differs from the one published last.
create function passkit.publish(
    published_type text, serials text[], digests bytea[], new_tokens bytea[], push boolean
) returns void language plpgsql volatile as $$
#variable_conflict use_column
declare
    changed         text[];
    changed_digests bytea[];
begin
    -- Locks the type, like a mark. So the rows that are compared below can't change.
    insert into passkit.clock as c (pass_type, version, floor, floor_date, latest_date)
    select published_type, 0, 0, s.created, s.created from passkit.store s
    on conflict (pass_type) do update set version = c.version;

    -- Tokens seldom change. If neither the tokens nor the removal changed, nothing is written.
    insert into passkit.published (pass_type, serial, removed, tokens)
    select published_type, n.serial, n.removed, n.tokens
    from (
        select u.serial, u.digest is null as removed, k.removed as was_removed, k.tokens as known,
            case
                when k.tokens is null then u.tokens
                when substr(k.tokens, octet_length(k.tokens) - octet_length(u.tokens) + 1) = u.tokens
                    then k.tokens
                else passkit.unite_tokens(k.tokens, u.tokens)
            end as tokens
        from (select serials as s, digests as d, new_tokens as t offset 0) arrays,
            unnest(s, d, t) as u(serial, digest, tokens)
            left join lateral (
                select o.removed, o.tokens from passkit.published o
                where o.pass_type = published_type and o.serial = u.serial limit 1
            ) k on true
        offset 0
    ) n
    where (n.removed, n.tokens) is distinct from (n.was_removed, n.known)
    on conflict (pass_type, serial) do update set removed = excluded.removed, tokens = excluded.tokens;

    select array_agg(u.serial), array_agg(u.digest) into changed, changed_digests
    from (select serials as s, digests as d offset 0) arrays, unnest(s, d) as u(serial, digest)
    where u.digest is not null and u.digest is distinct from (
        select p.digest from passkit.pass p where p.pass_type = published_type and p.serial = u.serial limit 1
    );
    if changed is not null then
        perform passkit.mark(published_type, changed, changed_digests, push);
    end if;
end
$$;

-- Removes the mark, the published content and the pending push of a pass. If the date of the pass is not past, changes nothing
-- and returns false.
create function passkit.forget_pass(forgotten_type text, forgotten_serial text)
returns boolean language plpgsql volatile as $$
#variable_conflict use_column
declare
    seconds bigint;
begin
    -- Locks the type. A type without this row has no marked and no published passes.
    perform 1 from passkit.clock c where c.pass_type = forgotten_type for update;
    seconds := passkit.now_micros() / 1000000;
    delete from passkit.pass p
    where (p.pass_type, p.serial) = (forgotten_type, forgotten_serial) and p.last_modified < seconds;
    if exists (select from passkit.pass p where (p.pass_type, p.serial) = (forgotten_type, forgotten_serial)) then
        return false;
    end if;
    delete from passkit.published o where (o.pass_type, o.serial) = (forgotten_type, forgotten_serial);
    delete from passkit.pending_push q where (q.pass_type, q.serial) = (forgotten_type, forgotten_serial);
    return true;
end
$$;

-- Returns for each type the number of pending changes, the version of the oldest, and when the first deferred push is due.
--
-- The query jumps from type to type in the indexes. Only the count reads more: at most 10,000 rows of a type. Bitmap scans
-- are off, because they would first read all rows.
create function passkit.backlog()
returns table (pass_type text, pending bigint, oldest bigint, first_due bigint) language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_column
begin
    return query
    with recursive with_pending as (
        (select p.pass_type from passkit.pending_push p order by p.pass_type limit 1)
        union all
        select (
            select p.pass_type from passkit.pending_push p where p.pass_type > t.pass_type order by p.pass_type limit 1
        )
        from with_pending t where t.pass_type is not null
    ), with_deferred as (
        (select d.pass_type from passkit.deferred_push d order by d.pass_type limit 1)
        union all
        select (
            select d.pass_type from passkit.deferred_push d where d.pass_type > t.pass_type order by d.pass_type limit 1
        )
        from with_deferred t where t.pass_type is not null
    )
    select t.pass_type,
        (select count(*) from (select from passkit.pending_push p where p.pass_type = t.pass_type limit 10000) p),
        (select p.since from passkit.pending_push p where p.pass_type = t.pass_type order by p.since limit 1),
        (
            select d.due from passkit.deferred_push d
            where d.pass_type = t.pass_type and d.due is not null order by d.due limit 1
        )
    from (select p.pass_type from with_pending p union select d.pass_type from with_deferred d) t
    where t.pass_type is not null;
end
$$;

-- Returns the oldest pending changes of a type.
create function passkit.pending(asked_type text, most bigint)
returns table (serial text, version bigint, started bigint, next text) language plpgsql stable
set enable_sort = off set jit = off as $$
#variable_conflict use_column
begin
    return query
    select p.serial, p.version, p.started, p.next
    from passkit.pending_push p where p.pass_type = asked_type order by p.since limit most;
end
$$;

-- For each n, records the progress of the change of serials[n]. A worker that started with versions[n] has sent pushes to all
-- devices before the cursor nexts[n], or to all devices if nexts[n] is null.
create function passkit.record_progress(pushed_type text, serials text[], versions bigint[], nexts text[])
returns void language plpgsql volatile as $$
begin
    perform 1 from passkit.clock c where c.pass_type = pushed_type for update;
    for n in 1 .. cardinality(serials) loop
        if nexts[n] is not null then
            update passkit.pending_push p set started = versions[n], next = nexts[n]
            where p.pass_type = pushed_type and p.serial = serials[n];
            continue;
        end if;
        delete from passkit.pending_push p
        where p.pass_type = pushed_type and p.serial = serials[n] and p.version = versions[n];
        if not found then
            update passkit.pending_push p set since = p.version, started = null, next = null
            where p.pass_type = pushed_type and p.serial = serials[n];
        end if;
    end loop;
end
$$;

-- Sets the deferred push of each device, or removes it if push_tokens[n] is null. Each device must occur once, and the
-- devices must be in order, so that two calls can't deadlock.
--
-- The function treats one device at a time, because with "any" a plan could read all rows of the type.
create function passkit.defer(
    deferred_type text, devices text[], push_tokens text[], due_times bigint[], tries bigint[], bad_times bigint[]
) returns void language plpgsql volatile as $$
begin
    for n in 1 .. cardinality(devices) loop
        if push_tokens[n] is null then
            delete from passkit.deferred_push d where d.pass_type = deferred_type and d.device_id = devices[n];
        else
            insert into passkit.deferred_push as d (pass_type, device_id, push_token, due, attempts, bad_since)
            values (deferred_type, devices[n], push_tokens[n], due_times[n], tries[n], bad_times[n])
            on conflict (pass_type, device_id) do update
            set push_token = excluded.push_token, due = excluded.due, attempts = excluded.attempts,
                bad_since = excluded.bad_since;
        end if;
    end loop;
end
$$;

-- Returns a page of the deferred pushes of a type, ordered by device.
create function passkit.deferred(asked_type text, after text, most bigint)
returns table (device_id text, push_token text, due bigint, attempts bigint, bad_since bigint) language plpgsql stable
set enable_sort = off set jit = off as $$
#variable_conflict use_column
begin
    return query
    select d.device_id, d.push_token, d.due, d.attempts, d.bad_since
    from passkit.deferred_push d
    where d.pass_type = asked_type and d.device_id > after order by d.device_id limit most;
end
$$;

-- Sets or removes a note if the current one is the expected one. Null stands for no note. Returns whether the current note
-- was the expected one.
create function passkit.replace_note(replaced_name text, expected text, replacement text)
returns boolean language plpgsql volatile as $$
begin
    if expected is null and replacement is null then
        return not exists (select from passkit.note n where n.name = replaced_name);
    elsif expected is null then
        insert into passkit.note (name, note) values (replaced_name, replacement) on conflict do nothing;
    elsif replacement is null then
        delete from passkit.note n where n.name = replaced_name and n.note = expected;
    else
        update passkit.note n set note = replacement where n.name = replaced_name and n.note = expected;
    end if;
    return found;
end
$$;

insert into passkit.migration (version) values (1);
