-- A migration says which programs can use the schema after it. So instances of an older version can go on, and start again,
-- while the instances are replaced one by one.
alter table passkit.migration add column needs integer;
update passkit.migration set needs = version;
alter table passkit.migration alter column needs set not null;
comment on column passkit.migration.needs is
    'The lowest version of the schema whose programs can use the schema after this migration';

insert into passkit.migration (version, needs) values (2, 1);
