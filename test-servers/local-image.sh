# !/bin/sh Makes an image of Debian's PostgreSQL in place of the official one, for machines that can
# reach a Debian mirror but no image registry. Run it as root. It needs debootstrap and a Docker
# engine.
set -eu
name=${1:-passkit-postgres:local}
mirror=${2:-http://deb.debian.org/debian}
root=$(mktemp -d)
chmod 755 "$root"
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=postgresql bookworm "$root" "$mirror"
rm -rf "$root"/var/cache/apt "$root"/var/lib/apt/lists
cat > "$root/entrypoint" <<'ENTRYPOINT'
#!/bin/sh
# Like the official image, sets the password from the environment or a file, and lets in everyone who knows it. Keeps the
# database of an earlier start.
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
export PGDATA=/var/lib/postgresql/data
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chown postgres:postgres "$PGDATA"
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
    fi
    echo "$POSTGRES_PASSWORD" > /tmp/password
    runuser -u postgres -- initdb -U postgres -E UTF8 --locale=C.UTF-8 --auth=scram-sha-256 --pwfile=/tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups "$@" -c listen_addresses='*'
ENTRYPOINT
chmod 755 "$root/entrypoint"
tar -C "$root" --numeric-owner -c . |
    docker import --change 'ENTRYPOINT ["/entrypoint"]' --change 'CMD ["postgres"]' --change 'EXPOSE 5432' - "$name"
