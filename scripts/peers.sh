#!/usr/bin/env bash
# Measures Homing and its peers one after another, under the same load on the same machine, and
# prints tables (Markdown); ten minutes. Each server is a scratch instance of its own, on loopback
# and in a temporary folder; what is missing comes from the system's packages (Debian's names).
#
#   scripts/peers.sh [SERVER...]     some of `servers_default` below, or rabbitmq_quorum; default: all
#   HOMING_PEERS_TARGET=DIR          the folder of `homing` and `homing-load`; default: builds them
#   HOMING_PEERS_SECONDS=N           how long each load lasts (8)
#   HOMING_PEERS_IDLE=N              idle connections (10000; mind `ulimit -n`)
#   HOMING_PEERS_KEEP=1              keeps the folder, with the reports and the servers' logs
#   TMPDIR                           on a disk, not in memory: what is durable is written there
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/install.sh
. scripts/install.sh
# shellcheck source=tests/peers/servers.sh
. tests/peers/servers.sh

servers_default=(homing mosquitto_memory mosquitto_persistent mosquitto_saving rabbitmq_classic ejabberd_mqtt ejabberd_mam)
seconds=${HOMING_PEERS_SECONDS:-8}
idle=${HOMING_PEERS_IDLE:-10000}
# Of the accounts that the peers want; nobody but this machine reaches them.
password=peers
# No message for so long is one that will not come.
patience_seconds=5
# A scenario that takes longer is given up.
scenario_seconds_max=120
work=

# Debian starts what it installs, unless a policy forbids it.
install_servers() {
    local policy=/usr/sbin/policy-rc.d made=
    local pgsql_client
    pgsql_client=$(dpkg-query -W erlang-p1-pgsql 2>/dev/null || true)
    if has mosquitto && has rabbitmq-server && has ejabberdctl && [ -n "$pgsql_client" ]; then return; fi
    if ! [ -e "$policy" ]; then
        made=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod +x "$policy"
    fi
    (install_packages mosquitto rabbitmq-server ejabberd erlang-p1-pgsql) || failed=$?
    if [ -n "$made" ]; then as_root rm -f "$policy"; fi
    return "${failed:-0}"
}

# load NAME SCENARIO-WORD...: one report in $work/reports/$server/NAME.json, or why there is none.
load() {
    local name=$1 one arguments=() out
    shift
    out=$work/reports/$server/$name
    for one in "${pids[@]}"; do arguments+=(--server-pid "$one"); done
    case $server in
    homing) arguments+=(--data-dir "$work/homing") ;;
    rabbitmq*) arguments+=(--target plain --mqtt "127.0.0.1:$mqtt_port" --username guest --password guest) ;;
    *) arguments+=(--target plain --mqtt "127.0.0.1:$mqtt_port" --username load@localhost --password "$password") ;;
    esac
    # Its status says that something was lost, which is a result.
    timeout "$scenario_seconds_max" "$load" --json --patience "$patience_seconds" "${arguments[@]}" "$@" \
        >"$out.json" 2>"$out.error" || [ -s "$out.json" ] || [ -s "$out.error" ] ||
        echo "gave up after $scenario_seconds_max s" >"$out.error"
}

# The server dies while its devices are away and all that was sent to them is acknowledged.
crash() { kill_during load crash offline --meanwhile "touch '$away'; until [ -e '$back' ]; do sleep 0.1; done"; }

# kill_during COMMAND...: kills the server when there is $away, and starts it again before $back.
kill_during() {
    local loading
    rm -f "$away" "$back"
    "$@" &
    loading=$!
    until [ -e "$away" ] || ! kill -0 "$loading" 2>/dev/null; do sleep 0.1; done
    stop_server -KILL
    "start_$server"
    touch "$back"
    wait "$loading"
}

# archive NAME SCENARIO-WORD...: the same over XMPP; the words are those of tests/peers/xmpp.py.
archive() {
    local out=$work/reports/$server/$1
    shift
    timeout "$scenario_seconds_max" python3 tests/peers/xmpp.py "$mqtt_port" "$@" >"$out.json" 2>"$out.error" || true
}

measure_archive() {
    archive fresh fresh
    archive pairs pairs "$seconds" 0 "${pids[@]}"
    archive paced pairs "$seconds" 500 "${pids[@]}"
    kill_during archive crash crash "$away" "$back" "$database"
}

measure_mqtt() {
    load warm-up pairs --seconds 1
    load pairs pairs --persistent --seconds "$seconds"
    load paced pairs --persistent --pairs 100 --rate 500 --seconds "$seconds"
    load fanout fanout --persistent --seconds "$seconds"
    load offline offline
    load storm connect-storm
    crash
    # The crash has left a fresh server. Fifty connections touch the code once.
    load warm-up idle --connections 50 --seconds 1
    case $server in
    # RabbitMQ takes two minutes for the others' number, and it is thirty times as much memory.
    rabbitmq*) load idle idle --connections $((idle / 5)) --seconds 1 ;;
    *) load idle idle --connections "$idle" --seconds 1 ;;
    esac
}

measure() {
    server=$1
    local began=$SECONDS
    mqtt_port=$(free_port) other_port=$(free_port) dist_port=$(free_port)
    mkdir -p "$work/reports/$server"
    "start_$server"
    if [ "$server" = ejabberd_mam ]; then measure_archive; else measure_mqtt; fi
    # Nothing of it is needed any more, and some take minutes to say good-bye.
    stop_server -KILL
    say "measured $server ($((SECONDS - began)) s)" >&2
}

# What stood against what: versions, and the machine.
versions() {
    printf '\n%s%s; %s cores, Linux %s; %s\n' \
        "$(dpkg-query -W -f '${Package} ${Version}, ' mosquitto rabbitmq-server ejabberd erlang-base)" \
        "$("$(find_postgres)/postgres" --version)" "$(nproc)" "$(uname -r)" "$(date -u +%F)"
}

clean_up() {
    local result=$? one
    trap - EXIT
    if [ -n "$pid" ]; then stop_server -KILL; fi
    for one in "${helper_pids[@]}"; do kill "$one" 2>/dev/null || true; done
    if [ -n "${HOMING_PEERS_KEEP:-}" ]; then say "all is in $work" >&2; else rm -rf ${work:+"$work"}; fi
    exit "$result"
}

install_servers >&2
ensure_postgres >&2
has python3 || install_packages python3 >&2
binaries=${HOMING_PEERS_TARGET:-}
if [ -z "$binaries" ]; then
    ensure_rust >&2
    ensure_compiler >&2
    SQLX_OFFLINE=true cargo build --quiet --locked --release --bin homing --bin homing-load
    binaries=${CARGO_TARGET_DIR:-target}/release
fi
homing=$binaries/homing load=$binaries/homing-load

trap clean_up EXIT
work=$(mktemp -d "${TMPDIR:-/tmp}/homing-peers-XXXXXX")
chmod 711 "$work"
(cd / && as_postgres test -x "$work") || die "the user of Postgres cannot reach $work" "set TMPDIR to a folder that all may enter"
away=$work/away back=$work/back
ulimit -n "$(ulimit -Hn)"
servers=("$@")
if [ $# -eq 0 ]; then servers=("${servers_default[@]}"); fi
for server in "${servers[@]}"; do measure "$server"; done
python3 tests/peers/table.py "$work/reports" "${servers[@]}"
versions
