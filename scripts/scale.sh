#!/usr/bin/env bash
# Shows what inboxes, threads, resuming and reconciling cost in a large database: plans, times
# and buffers of the statements in src/store. It takes minutes and some gigabytes.
#
#   DATABASE_URL=postgres://… scripts/scale.sh [MESSAGES [CONVERSATIONS [MINE]]]
#
# DATABASE_URL names any database of a Postgres server where this user may create another one:
# a scratch database is made, filled and dropped. Needs psql and python3.
set -euo pipefail
cd "$(dirname "$0")/.."
server_url=${DATABASE_URL:?set DATABASE_URL to a database of the server to use}
messages=${1:-5000000} conversations=${2:-100000} mine=${3:-10000}

scratch=homing_scale_$$
cleanup() { psql -X -q -d "$server_url" -c "drop database if exists $scratch" 2>/dev/null || true; }
trap cleanup EXIT
psql -X -q -d "$server_url" -c "create database $scratch"
without_query=${server_url%%\?*}
scratch_url=${without_query%/*}/$scratch${server_url#"$without_query"}
for migration in migrations/*.sql; do
    psql -X -q -v ON_ERROR_STOP=1 -d "$scratch_url" -f "$migration"
done
psql -X -q -v ON_ERROR_STOP=1 -v messages="$messages" -v conversations="$conversations" -v mine="$mine" \
    -d "$scratch_url" -f tests/scale/seed.sql
python3 tests/scale/plans.py | psql -X -q -v ON_ERROR_STOP=1 -d "$scratch_url"
