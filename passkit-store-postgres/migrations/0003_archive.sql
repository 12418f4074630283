-- Some earlier states of this repository made archives in version 2. So they may exist already, and this column may not.
alter table passkit.migration add column if not exists needs integer;
update passkit.migration set needs = version where needs is null;
alter table passkit.migration alter column needs set not null;

-- Archives that were handed to an instance, for all instances. Most passes have one row, and a pass has another one for each
-- version of the last hour.
create table if not exists passkit.archive (
    pass_type text collate "C" not null,
    serial    text collate "C" not null,
    -- The digest of the content.
    digest    bytea  not null,
    put_at    bigint not null,
    bytes     bytea  not null,
    primary key (pass_type, serial, digest)
);

-- Archives are compressed already.
alter table passkit.archive alter column bytes set storage external;

-- Returns the archive with a digest.
create or replace function passkit.archive(asked_type text, asked_serial text, asked_digest bytea)
returns table (bytes bytea) language plpgsql stable set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
begin
    return query
    select a.bytes from passkit.archive a
    where a.pass_type = asked_type and a.serial = asked_serial and a.digest = asked_digest;
end
$$;

-- Keeps an archive. Removes the archives of the pass that were put more than an hour ago, except the one published last.
--
-- The function skips archives that another call is putting again. Otherwise two calls could deadlock.
create or replace function passkit.put_archive(put_type text, put_serial text, put_digest bytea, archive bytea)
returns void language plpgsql volatile set enable_seqscan = off set jit = off as $$
declare
    micros bigint := passkit.now_micros();
begin
    insert into passkit.archive as a (pass_type, serial, digest, put_at, bytes)
    values (put_type, put_serial, put_digest, micros, archive)
    on conflict (pass_type, serial, digest) do update set put_at = excluded.put_at, bytes = excluded.bytes;
    delete from passkit.archive d
    where (d.pass_type, d.serial) = (put_type, put_serial) and d.digest in (
        select a.digest from passkit.archive a
        where (a.pass_type, a.serial) = (put_type, put_serial) and a.digest <> put_digest and a.put_at < micros - 3600000000
        and a.digest is distinct from (
            select p.digest from passkit.pass p where (p.pass_type, p.serial) = (put_type, put_serial) limit 1
        )
        for update skip locked
    );
end
$$;

-- As before, and removes the archives too.
create or replace function passkit.forget_pass(forgotten_type text, forgotten_serial text)
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
    delete from passkit.archive a where (a.pass_type, a.serial) = (forgotten_type, forgotten_serial);
    return true;
end
$$;

insert into passkit.migration (version, needs) values (3, 1);
