#!/usr/bin/env bash
# Refreshes .sqlx/, by which the code builds without a database.
#
#   DATABASE_URL=postgres://… scripts/prepare-sqlx.sh            writes .sqlx/
#   DATABASE_URL=postgres://… scripts/prepare-sqlx.sh --check    fails if .sqlx/ is not up to date
#
# DATABASE_URL names any database of a Postgres server where this user may create another
# one: a scratch database is made, migrated, described and dropped.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1-}" in
    "" | --check) ;;
    *)
        echo "usage: DATABASE_URL=postgres://… $0 [--check]" >&2
        exit 2
        ;;
esac
server_url=${DATABASE_URL:?set DATABASE_URL to a database of the server to use}

described=$(mktemp -d)
scratch=homing_prepare_$$
cleanup() {
    rm -rf "$described"
    psql -X -q -d "$server_url" -c "drop database if exists $scratch" 2>/dev/null || true
}
trap cleanup EXIT

psql -X -q -d "$server_url" -c "create database $scratch"
# The same server, another database: the path of the URL ends before its query.
without_query=${server_url%%\?*}
scratch_url=${without_query%/*}/$scratch${server_url#"$without_query"}
for migration in migrations/*.sql; do
    psql -X -q -v ON_ERROR_STOP=1 -d "$scratch_url" -f "$migration"
done

# The macros write only while the crate is compiled.
touch src/lib.rs
DATABASE_URL=$scratch_url SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$described cargo check --quiet --lib

if [[ ${1-} == --check ]]; then
    if ! diff -r .sqlx "$described"; then
        echo ".sqlx/ is not what the queries and the migrations say: run scripts/prepare-sqlx.sh" >&2
        exit 1
    fi
else
    mkdir -p .sqlx
    rm -f .sqlx/*.json
    cp "$described"/*.json .sqlx/
fi
