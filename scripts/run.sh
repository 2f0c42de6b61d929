#!/usr/bin/env bash
# From a fresh machine to a running broker: installs what is missing, builds, starts the
# broker with its own Postgres in ./data, and shows the main job: alice sends, bob's two
# devices receive, one that was away replays on return; and is woken by a push, from a
# program that stands in for Apple. The broker stays running.
#
#   HOMING__MQTT__LISTEN, HOMING__HTTP__LISTEN, HOMING__DATA_DIR   as for `homing serve`
#   HOMING_RUN_PROFILE=dev   builds without optimisation (default: release)
#   HOMING_RUN_ONCE=1        stops the broker at the end, if this run has started it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/install.sh
. scripts/install.sh

profile=${HOMING_RUN_PROFILE:-release}
data=${HOMING__DATA_DIR:-data}
export HOMING__DATA_DIR=$data
ready_seconds_max=120
device_seconds_max=60
# push.grace_connected: after so long even a connected device is pushed, if it does not answer.
longest_grace_seconds=8
# The app that the stand-in for Apple knows.
app=com.example.chat
pid=
started=
providers_pid=

# running FIELD: of the broker that serves this data directory.
running() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" "$data/running.json"; }

is_running() {
    [ -e "$data/running.json" ] && pid=$(running pid) && [ -n "$pid" ] && [ -d "/proc/$pid" ]
}

# wait_for PATTERN FILE PID: until the file has such a line; fails if the process ends or is too slow.
wait_for() {
    for ((tenths = 0; tenths < ready_seconds_max * 10; tenths++)); do
        if grep -q "$1" "$2"; then return; fi
        if ! kill -0 "$3" 2>/dev/null; then break; fi
        sleep 0.1
    done
    return 1
}

# They stand in for Apple, Google and a browser, and print what reaches them.
start_providers() {
    mkdir -p "$data/providers"
    : >"$data/providers/out"
    setsid "$providers" "$data/providers" >"$data/providers/out" 2>&1 </dev/null &
    providers_pid=$!
    wait_for '^ready ' "$data/providers/out" "$providers_pid" ||
        die "the stand-in for Apple did not start" "see $data/providers/out"
}

start_broker() {
    mkdir -p "$data"
    : >"$data/homing.out"
    # Its own session: it outlives this script and its terminal.
    setsid "$homing" serve --config "$data/providers/push.toml" \
        >"$data/homing.out" 2>>"$data/homing.log" </dev/null &
    pid=$!
    started=yes
    wait_for '^ready ' "$data/homing.out" "$pid" && return
    tail -n 20 "$data/homing.log" >&2
    die "the broker did not start" "$homing doctor"
}

stop_broker() {
    if [ -z "$started" ] || ! kill -0 "$pid" 2>/dev/null; then return; fi
    kill "$pid"
    wait "$pid" || die "the broker ended with $?" "see $data/homing.log"
    kill "$providers_pid"
}

# device NAME COUNT: bob's device receives COUNT messages, and goes away again.
device() {
    timeout "$device_seconds_max" "$homing" tail "$cid" --user bob --client-id "$1-$run" --count "$2" |
        sed -u "s/^/    bob's $1 | /"
}

# send TEXT: alice's message; the answer comes when it is stored.
send() { echo "    alice sends     | #$("$homing" send "$cid" "$1" --user alice) $1"; }

show() {
    cid=$("$homing" conversation create alice bob)
    run=${cid: -4}
    say "alice and bob talk in conversation $cid"
    device phone 0
    device laptop 0
    echo "    bob's phone has been here once, and is away now; his laptop stays"
    device laptop 2 &
    local laptop=$!
    send 'on my way'
    send 'five minutes'
    wait "$laptop"
    say "bob's phone comes back, and replays what it missed"
    device phone 2
}

# notifications: how many have left for bob's phone.
notifications() { grep -c "$push_token" "$data/providers/out" || true; }

# Bob's phone is away and is woken; then it is there and is not.
show_push() {
    if [ ! -e "$data/providers/out" ]; then return; fi
    local before missed phone
    push_token=$(printf '%s' "$run$cid" | od -An -tx1 | tr -d ' \n' | head -c 40)
    push_token=$(printf '%064s' "$push_token" | tr ' ' 0)
    "$homing" push register bob "phone-$run" --provider apns --app "$app" --push-token "$push_token" >/dev/null
    say "bob's phone is away again, and can be woken"
    missed=$("$homing" send "$cid" 'are you there?' --user alice)
    echo "    alice sends     | #$missed are you there?"
    for ((tenths = 0; tenths < device_seconds_max * 10; tenths++)); do
        if [ "$(notifications)" -gt 0 ]; then break; fi
        sleep 0.1
    done
    echo "    the push        | $(grep -m 1 "$push_token" "$data/providers/out")"
    device phone 1
    "$homing" push explain bob "$cid" "$missed" | sed 's/^/    why             | /'
    say "bob's phone stays connected: it gets the message, and no push leaves, even after $longest_grace_seconds s"
    before=$(notifications)
    device phone 2 &
    phone=$!
    send 'good'
    sleep $((longest_grace_seconds + 1))
    echo "    pushes          | $(($(notifications) - before))"
    send 'see you'
    wait "$phone"
}

# How to go on by hand, with any MQTT client.
invite() {
    local mqtt host port flags alice bob
    mqtt=$(running mqtt)
    host=${mqtt%:*}
    port=${mqtt##*:}
    flags="-h $host -p $port -q 1"
    alice=$("$homing" token --user alice --ttl 7d)
    bob=$("$homing" token --user bob --ttl 7d)
    say "the broker is running (pid $pid); data in $data, log in $data/homing.log"
    cat <<TEXT

Try it. What bob sees, here and after every absence:

  mosquitto_sub $flags -u bob -P $bob -i phone2 -c -t 'c/#'

Alice writes; sent twice under one id, it is stored once:

  mosquitto_pub $flags -u alice -P $alice -t c/$cid/send -m '{"id":"try-1","body":"hello"}'

The same with homing itself:

  $homing tail --data-dir $data --user bob --client-id phone3
  $homing send --data-dir $data $cid hello --user alice

Wake bob's phone (what leaves stands in $data/providers/out), and ask why it was woken or not:

  $homing send --data-dir $data $cid 'wake up' --user alice
  $homing push explain --data-dir $data bob $cid SEQUENCE

Stop the broker, and what stands in for Apple: kill $pid${providers_pid:+ $providers_pid}
TEXT
}

ensure_rust
ensure_compiler
ensure_postgres
ensure_mosquitto_clients

say "building ($profile; the first time takes some minutes)"
SQLX_OFFLINE=true cargo build --quiet --locked --profile "$profile" --bin homing --example fake-providers
folder=$profile
if [ "$profile" = dev ]; then folder=debug; fi
homing=${CARGO_TARGET_DIR:-target}/$folder/homing
providers=${CARGO_TARGET_DIR:-target}/$folder/examples/fake-providers

if is_running; then
    say "a broker is running already on $data (pid $pid)"
else
    say "starting the broker, with its own Postgres in $data"
    if [ -n "${HOMING_RUN_ONCE:-}" ]; then trap stop_broker EXIT; fi
    start_providers
    start_broker
fi
show
show_push
if [ -z "${HOMING_RUN_ONCE:-}" ]; then invite; fi
