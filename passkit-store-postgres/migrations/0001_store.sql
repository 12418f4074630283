-- Versions are microseconds since the Unix epoch, advanced by max(last + 1, now). Dates are whole seconds since then.
-- Text is compared byte for byte.

do $$
begin
    -- Not "create schema if not exists": that needs the right to create a schema even if it exists.
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

-- A cast would round, and could give a time that is yet to come.
insert into passkit.store (created) values (floor(extract(epoch from clock_timestamp()))::bigint);

-- A mark writes the row of its type first, and so has it locked until it commits. Therefore a version that can be read is
-- committed, and all lower ones are as well.
create table passkit.clock (
    pass_type   text collate "C" primary key,
    version     bigint not null,
    -- What the last mark of the whole type left. It counts for each pass whose own row is older.
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

-- There is no index on version, so that a mark touches no index.
create table passkit.pass (
    pass_type     text collate "C" not null,
    serial        text collate "C" not null,
    version       bigint not null,
    last_modified bigint not null,
    -- The content that was published last, if any ever was.
    digest        bytea,
    primary key (pass_type, serial)
) with (fillfactor = 85);

-- What else is remembered of a pass that was published. Apart from passkit.pass, whose rows phones read all the time.
create table passkit.published (
    pass_type text collate "C" not null,
    serial    text collate "C" not null,
    removed   boolean not null,
    -- Digests of 32 bytes each, one after the other, the newest last.
    tokens    bytea   not null,
    primary key (pass_type, serial)
);

-- Only those who have locked the row of the device write here, and only while that row exists.
create table passkit.registration (
    device_id text collate "C" not null,
    pass_type text collate "C" not null,
    serial    text collate "C" not null,
    version   bigint not null,
    primary key (device_id, pass_type, serial)
);

create index registration_by_pass on passkit.registration (pass_type, serial, device_id);

-- Changes whose pushes are pending: one row for a pass, or for a whole type. Whoever writes here has locked the row of the
-- type, as a mark does.
create table passkit.pending_push (
    pass_type text collate "C" not null,
    -- Empty for the whole type: no serial number is.
    serial    text collate "C" not null,
    -- The version of the first mark whose pushes are not done.
    since     bigint not null,
    version   bigint not null,
    -- How far a worker came, and the version with which it started.
    started   bigint,
    next      text,
    primary key (pass_type, serial)
) with (fillfactor = 70);

-- Not on the version, so that marking again touches no index.
create index pending_push_by_age on passkit.pending_push (pass_type, since);

-- Pushes that are not sent now. Times are microseconds since the Unix epoch.
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

-- Who does a job, until when.
create table passkit.claim (
    name  text   collate "C" primary key,
    owner text   collate "C" not null,
    until bigint not null
) with (fillfactor = 10);

create table passkit.note (
    name text collate "C" primary key,
    note text collate "C" not null
);

-- Devices are many, even if one of them had everything when ANALYZE looked: see "Plans" below. A pass that every device had
-- then is rare when others came: its devices would be looked for among those of all passes.
alter table passkit.registration alter column device_id set (n_distinct = -0.3),
    alter column serial set statistics 0;

-- Any type may soon have most of the pending pushes. A type that ANALYZE did not see must not look rare: its rows would be
-- read one by one for a serial number.
alter table passkit.pending_push alter column pass_type set statistics 0;

create function passkit.now_micros() returns bigint language sql volatile
as $$ select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::bigint $$;

-- In the functions below each statement has a snapshot of its own (they are volatile, and the isolation is "read
-- committed"). A statement that follows the locking of a row therefore sees all that earlier holders of the lock did. If
-- the isolation is stricter, the loser of a race gets a serialization failure and tries again.
--
-- Plans. Statistics may be missing or old: autovacuum never analyzes a table of one row, and a table can grow a
-- thousandfold before the next analyze. So every plan must be good whatever they say:
-- * An array goes through a subquery with "offset 0", behind which its length is unknown. Otherwise PostgreSQL prefers a
--   plan for this one length, and plans anew each time.
-- * A row is looked up by its whole key, in a subquery with "limit 1" and not in a join. PostgreSQL then expects one row at
--   most and uses the index. Only a whole primary key has "limit 1".
-- * A page of rows comes from a function that forbids sorting: PostgreSQL then reads the index in its order, and stops
--   after the page. JIT is off there, because compiling takes longer than the statement.
-- * If nothing else helps, ANALYZE is told what to say of a column.

-- Registers. Returns whether the registration is new.
create function passkit.register(device text, pass_type text, serial text, push_token text)
returns boolean language plpgsql volatile as $$
#variable_conflict use_column
declare
    registered bigint;
begin
    -- Locks the device: nobody else can write its registrations now.
    insert into passkit.device as d (device_id, push_token, version) values ($1, $4, 0)
    on conflict (device_id) do update
    set push_token = excluded.push_token, version = greatest(d.version + 1, passkit.now_micros())
    returning d.version into registered;
    -- A new device gets its version after that. While the insert waited, others may have given the device greater versions
    -- than the time when it began, and removed it.
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

-- Registers, for each n, devices[n] for the pass (pass_types[n], serials[n]). Returns which registrations are new.
--
-- A plan made while there were few devices would read all of them, not the new ones by their places.
create function passkit.register_many(devices text[], pass_types text[], serials text[], push_tokens text[])
returns boolean[] language plpgsql volatile set enable_seqscan = off as $$
#variable_conflict use_column
declare
    at          bigint := passkit.now_micros();
    new_devices tid[];
    added       integer;
    created     boolean[];
begin
    -- Locks the devices in their order, so that two calls never wait for each other.
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
    -- New devices get their version after that, as in passkit.register.
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

    -- Some existed, and have an older version than their device has now. Or some occur twice in the arrays.
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

-- Returns whether there was a registration. The device goes with its last one.
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

-- Removes the device if it last registered at that version or before. Returns whether it did.
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

-- A page of the devices of a pass, in their order.
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

-- A page of the registrations of a type, by serial number and device.
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

-- How many devices a pass has. Stops counting at that many; a bitmap would hold all of them first.
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

-- Marks these passes, and makes their pushes pending if asked to. Stores digests[n] for serials[n], unless it is null.
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

-- Marks all passes of the type, and makes one push pending for all if asked to.
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

-- The tokens to keep when new ones join the known ones: each once, those named last at the end, the last 16 of them.
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

-- Publishes contents: for each n, serials[n] has digests[n] now, or is no longer offered if that is null, and is opened by
-- new_tokens[n], in which no token occurs twice. Marks the passes whose digest is not the one published last.
create function passkit.publish(
    published_type text, serials text[], digests bytea[], new_tokens bytea[], push boolean
) returns void language plpgsql volatile as $$
#variable_conflict use_column
declare
    changed         text[];
    changed_digests bytea[];
begin
    -- Locks the type, as a mark does. What is compared below stays so.
    insert into passkit.clock as c (pass_type, version, floor, floor_date, latest_date)
    select published_type, 0, 0, s.created, s.created from passkit.store s
    on conflict (pass_type) do update set version = c.version;

    -- Tokens seldom change: nothing is written then.
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

-- What waits for the workers, by type: how many changes are pending, the version of the oldest, and when the first deferred
-- push is due.
--
-- Goes from type to type in the indexes, however much is pending of each; only the count reads more, at most 10,000 of a
-- type: a bitmap would hold all of them first.
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

-- A page of the pending changes of a type, the oldest first.
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

-- For each n, the devices of the change of serials[n] were pushed up to nexts[n], or to the end if that is null, starting
-- when the change had versions[n].
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

-- Sets the deferred push of each device, or removes it if push_tokens[n] is null. The devices come in their order, each
-- once, so that two calls never wait for each other.
--
-- One by one: "any" of many devices could read all rows of the type.
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

-- A page of the deferred pushes of a type, in the order of their devices.
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

-- Sets the note, or removes it, if it is the expected one now. A null stands for no note. Returns whether it was.
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
