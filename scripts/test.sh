#!/usr/bin/env bash
# Everything that must hold before a change goes in; CI runs this and nothing else.
# Installs what the tests need, starts a Postgres for them that is thrown away afterwards,
# and prints one line per step. The full output of a step is shown if it fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/install.sh
. scripts/install.sh

python_packages=(paho-mqtt==2.1.0 cbor2==6.3.0 firebase-admin==7.7.0 schemathesis==4.32.5)
node_packages=(mqtt@5.14.1 @parse/node-apn@8.1.0 web-push@3.6.7 web-push-testing@1.2.2)
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
logs=$target/test-logs
interop=$target/interop
postgres_dir=
postgres_pid=
smoke_dir=
failed=()

export SQLX_OFFLINE=true
if ! [ -t 1 ]; then export CARGO_TERM_COLOR=never; fi

# step NAME COMMAND...: runs it and says how it went; a failure does not hide the next one.
step() {
    local name=$1 log="$logs/${1//[^a-z]/-}.log" began=$SECONDS
    shift
    if "$@" >"$log" 2>&1; then
        printf 'ok    %s (%d s)\n' "$name" $((SECONDS - began))
    else
        cat "$log" >&2
        printf 'FAIL  %s (%d s); its output is in %s\n' "$name" $((SECONDS - began)) "$log"
        failed+=("$name")
    fi
}

clean_up() {
    local result=$?
    trap - EXIT
    if [ -n "$postgres_pid" ] && kill -INT "$postgres_pid" 2>/dev/null; then
        tail --pid="$postgres_pid" -f /dev/null
    fi
    rm -rf ${postgres_dir:+"$postgres_dir"} ${smoke_dir:+"$smoke_dir"}
    exit "$result"
}

# Makes the folder of the cluster; in /tmp if its user cannot reach target/.
make_postgres_dir() {
    postgres_dir=$target/test-postgres
    rm -rf "$postgres_dir"
    mkdir -p "$postgres_dir"
    if [ "$(id -u)" -eq 0 ]; then
        chown "$(as_postgres id -u):$(as_postgres id -g)" "$postgres_dir"
        if ! as_postgres test -w "$postgres_dir"; then
            rmdir "$postgres_dir"
            postgres_dir=$(as_postgres mktemp -d /tmp/homing-test-postgres-XXXXXX)
        fi
    fi
}

# A cluster that may lose everything, for the tests alone: fast, on loopback, own port.
start_postgres() {
    local bin port attempt
    bin=$(find_postgres)
    make_postgres_dir
    (cd / && as_postgres "$bin/initdb" -D "$postgres_dir/data" -U postgres -A trust \
        --no-sync --no-instructions -E UTF8 --locale=C) >/dev/null
    for attempt in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 12000)) # below the ports that connections use
        if (cd / && as_postgres "$bin/pg_ctl" -D "$postgres_dir/data" -w -t 60 -s \
            -l "$postgres_dir/log" -o "-p $port -c listen_addresses=127.0.0.1 \
            -c unix_socket_directories= -c fsync=off \
            -c full_page_writes=off -c max_connections=500 -c shared_buffers=128MB" start); then
            postgres_pid=$(head -n 1 "$postgres_dir/data/postmaster.pid")
            export DATABASE_URL=postgres://postgres@127.0.0.1:$port/postgres
            return
        fi
    done
    cat "$postgres_dir/log" >&2
    die "no Postgres for the tests after $attempt attempts"
}

# Clients by other people, each in its own ecosystem's way, once. npm removes what it is not
# asked for, so that it is asked for everything.
install_interop() {
    mkdir -p "$interop"
    if [ "$(cat "$interop/python-packages" 2>/dev/null)" != "${python_packages[*]}" ]; then
        say "installing ${python_packages[*]} (pip)"
        if ! python3 -c 'import ensurepip' 2>/dev/null; then install_packages python3-venv; fi
        rm -rf "$interop/venv"
        python3 -m venv "$interop/venv"
        "$interop/venv/bin/python" -m pip install -q --disable-pip-version-check "${python_packages[@]}"
        echo "${python_packages[*]}" >"$interop/python-packages"
    fi
    if [ "$(cat "$interop/node-packages" 2>/dev/null)" != "${node_packages[*]}" ]; then
        if ! has node || ! has npm; then install_packages nodejs npm; fi
        say "installing ${node_packages[*]} (npm)"
        npm install --silent --no-save --no-audit --no-fund --prefix "$interop" "${node_packages[@]}"
        echo "${node_packages[*]}" >"$interop/node-packages"
    fi
}

run_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run
    else
        echo "cargo nextest is not installed (cargo install cargo-nextest --locked); using cargo test"
        cargo test --lib --bins --tests
    fi
}

# The first command of the README, on free ports and a folder of its own.
smoke() {
    smoke_dir=$(mktemp -d)
    chmod 755 "$smoke_dir" # for the user that Postgres runs as
    HOMING_RUN_ONCE=1 HOMING_RUN_PROFILE=dev HOMING__DATA_DIR=$smoke_dir/data \
        HOMING__MQTT__LISTEN=127.0.0.1:0 HOMING__HTTP__LISTEN=127.0.0.1:0 scripts/run.sh
}

mkdir -p "$logs"
ensure_rust
ensure_compiler
ensure_postgres
ensure_mosquitto_clients
has python3 || install_packages python3 python3-venv
install_interop
trap clean_up EXIT
start_postgres

step "format" cargo fmt --check
step "lints" cargo clippy --quiet --locked --all-targets -- -D warnings
step "client alone" cargo check --quiet --locked --no-default-features
step "queries" scripts/prepare-sqlx.sh --check
step "tests" run_tests
step "doc tests" cargo test --quiet --locked --doc
step "scripts/run.sh" smoke

if [ "${#failed[@]}" -gt 0 ]; then die "${#failed[@]} steps failed: ${failed[*]}"; fi
say "everything holds"
