# shellcheck shell=bash disable=SC2154 # work, homing, password and the ports are of scripts/peers.sh
# The servers that scripts/peers.sh measures: each a scratch instance below $work, on loopback.
# start_NAME sets `pid` (what is killed) and `pids` (what is measured, descendants included), and
# starts on the data that is there, so that it restarts too. To be sourced.

ready_seconds_max=90
pid=
pids=()
# Of what is started once and serves several starts: epmd, the Postgres of ejabberd.
helper_pids=()

# free_port: prints a port that nobody listens on, below those that outgoing connections use.
free_port() {
    local port
    while port=$((10000 + RANDOM % 20000)); do
        if ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    done
    echo "$port"
}

# wait_for_port PORT LOG
wait_for_port() {
    local tenths
    for ((tenths = 0; tenths < ready_seconds_max * 10; tenths++)); do
        if (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        if ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.1
    done
    tail -n 20 "$2" >&2
    die "a server did not start" "see $2"
}

# start_mosquitto FOLDER CONFIGURATION-LINE...
start_mosquitto() {
    local folder=$work/$1
    shift
    mkdir -p "$folder"
    {
        printf '%s\n' "listener $mqtt_port 127.0.0.1" "allow_anonymous true" \
            "user $(id -un)" "persistence_location $folder/" "$@"
    } >"$folder/mosquitto.conf"
    mosquitto -c "$folder/mosquitto.conf" >>"$folder/log" 2>&1 &
    pid=$!
    pids=("$pid")
    wait_for_port "$mqtt_port" "$folder/log"
}

start_mosquitto_memory() { start_mosquitto mosquitto-memory "persistence false"; }

# Saved every 30 minutes and at the end: the documented default.
start_mosquitto_persistent() { start_mosquitto mosquitto-persistent "persistence true"; }

# Saved after each change: as durable as its documentation allows.
start_mosquitto_saving() {
    start_mosquitto mosquitto-saving "persistence true" "autosave_on_changes true" "autosave_interval 1"
}

# Erlang nodes find each other through epmd: one of our own, on a port of its own.
start_epmd() {
    if [ -n "${ERL_EPMD_PORT:-}" ]; then return; fi
    ERL_EPMD_PORT=$(free_port)
    export ERL_EPMD_PORT ERL_EPMD_ADDRESS=127.0.0.1
    epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 >"$work/epmd.log" 2>&1 &
    helper_pids+=($!)
}

# start_rabbitmq FOLDER CONFIGURATION-LINE...: durable queues for persistent sessions, and a PUBACK
# once the message is on disk or acknowledged by all receivers, are the plugin's defaults.
start_rabbitmq() {
    local folder=$work/$1
    shift
    mkdir -p "$folder"
    start_epmd
    printf '%s\n' "listeners.tcp.1 = 127.0.0.1:$other_port" "mqtt.listeners.tcp.1 = 127.0.0.1:$mqtt_port" \
        "$@" >"$folder/rabbitmq.conf"
    echo '[rabbitmq_mqtt].' >"$folder/plugins"
    # It would start a shell as its parent otherwise, which survives it.
    RUNNING_UNDER_SYSTEMD=true HOME=$folder RABBITMQ_CONF_ENV_FILE=$folder/none \
        RABBITMQ_NODENAME=homing-peers@localhost RABBITMQ_DIST_PORT=$dist_port \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \
        RABBITMQ_CONFIG_FILE=$folder/rabbitmq.conf RABBITMQ_ENABLED_PLUGINS_FILE=$folder/plugins \
        RABBITMQ_MNESIA_BASE=$folder/mnesia RABBITMQ_LOG_BASE=$folder RABBITMQ_PID_FILE=$folder/pid \
        /usr/lib/rabbitmq/bin/rabbitmq-server >>"$folder/out" 2>&1 </dev/null &
    pid=$!
    pids=("$pid")
    wait_for_port "$mqtt_port" "$folder/out"
}

start_rabbitmq_classic() { start_rabbitmq rabbitmq-classic; }

start_rabbitmq_quorum() { start_rabbitmq rabbitmq-quorum "mqtt.durable_queue_type = quorum"; }

ejabberd_libraries() { dirname "$(find /usr/lib -maxdepth 3 -name 'ejabberd-[0-9]*' | head -n 1)"; }

# start_ejabberd FOLDER PORT: with the ejabberd.yml that is there, and as its ejabberdctl starts it, which
# would become another user.
start_ejabberd() {
    local folder=$work/$1
    start_epmd
    (
        cd "$folder" || exit
        HOME=$folder ERL_LIBS=$(ejabberd_libraries) \
            EJABBERD_CONFIG_PATH=$folder/ejabberd.yml EJABBERD_LOG_PATH=$folder/ejabberd.log \
            ERL_CRASH_DUMP=$folder/crash.dump ERL_MAX_PORTS=32000 \
            exec erl -sname homing-peers@localhost +K true +P 250000 -mnesia dir "\"$folder/mnesia\"" \
            -kernel inet_dist_use_interface '{127,0,0,1}' -s ejabberd -noinput
    ) >>"$folder/out" 2>&1 </dev/null &
    pid=$!
    pids=("$pid")
    wait_for_port "$2" "$folder/out"
}

# ejabberdctl_of FOLDER WORD...: what ejabberdctl does, without becoming the package's user.
ejabberdctl_of() {
    local folder=$work/$1
    shift
    HOME=$folder ERL_LIBS=$(ejabberd_libraries) erl -sname "homing-peers-ctl-$$@localhost" -hidden -noinput \
        -s ejabberd_ctl -extra homing-peers@localhost "$@" >>"$folder/out" 2>&1
}

# Sessions and what waits in them are in memory; its documentation names no other way.
start_ejabberd_mqtt() {
    local folder=$work/ejabberd-mqtt
    if ! [ -e "$folder" ]; then
        mkdir -p "$folder"
        cat >"$folder/ejabberd.yml" <<YAML
hosts: [localhost]
loglevel: warning
listen:
  - port: $mqtt_port
    ip: 127.0.0.1
    module: mod_mqtt
    backlog: 1000
modules:
  mod_mqtt: {}
YAML
    fi
    start_ejabberd ejabberd-mqtt "$mqtt_port"
    ejabberdctl_of ejabberd-mqtt register load localhost "$password" || true # a restart finds it registered
}

# Makes the cluster in which ejabberd stores: as Postgres is set up by default, fsync included.
make_cluster() {
    local bin=$1 data=$2
    mkdir -p "$data"
    if [ "$(id -u)" -eq 0 ]; then chown "$(as_postgres id -u):$(as_postgres id -g)" "$data"; fi
    (cd / && as_postgres "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C) >/dev/null
}

# ejabberd, with its users, rosters and archives in a Postgres beside it, and every message archived.
start_ejabberd_mam() {
    local folder=$work/ejabberd-mam bin is_new='' postmaster
    bin=$(find_postgres)
    database=postgres://postgres@127.0.0.1:$other_port/postgres
    if ! [ -e "$folder" ]; then
        is_new=yes
        mkdir -p "$folder"
        make_cluster "$bin" "$folder/postgres"
    fi
    (cd / && as_postgres "$bin/postgres" -D "$folder/postgres" -p "$other_port" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories='') >>"$folder/postgres.log" 2>&1 &
    pid=$!
    wait_for_port "$other_port" "$folder/postgres.log"
    postmaster=$(head -n 1 "$folder/postgres/postmaster.pid")
    until psql -XAtqc 'select 1' -d "$database" >/dev/null 2>&1 || ! kill -0 "$pid"; do sleep 0.1; done
    if [ -n "$is_new" ]; then
        psql -X -q -v ON_ERROR_STOP=1 -d "$database" -f /usr/share/ejabberd/sql/pg.sql
        psql -X -q -v ON_ERROR_STOP=1 -v password="$password" -d "$database" -f tests/peers/ejabberd.sql
        cat >"$folder/ejabberd.yml" <<YAML
hosts: [localhost]
loglevel: warning
default_db: sql
sql_type: pgsql
sql_server: 127.0.0.1
sql_port: $other_port
sql_database: postgres
sql_username: postgres
auth_method: [sql]
listen:
  - port: $mqtt_port
    ip: 127.0.0.1
    module: ejabberd_c2s
modules:
  mod_disco: {}
  mod_mam: {default: always, assume_mam_usage: true}
  mod_offline: {}
  mod_roster: {}
  mod_stream_mgmt: {resend_on_timeout: if_offline}
YAML
    fi
    start_ejabberd ejabberd-mam "$mqtt_port"
    pids+=("$postmaster")
}

start_homing() {
    local folder=$work/homing
    mkdir -p "$folder"
    HOMING__DATA_DIR=$folder HOMING__MQTT__LISTEN=127.0.0.1:$mqtt_port \
        HOMING__HTTP__LISTEN=127.0.0.1:$other_port "$homing" serve >>"$folder/out" 2>>"$folder/log" </dev/null &
    pid=$!
    wait_for_port "$other_port" "$folder/log"
    wait_for_port "$mqtt_port" "$folder/log"
    pids=("$pid" "$(head -n 1 "$(find "$folder" -name postmaster.pid)")")
}

# Ends the server with all that belongs to it: politely, or with -KILL.
stop_server() {
    local signal=${1:--TERM} one
    if [ "$signal" = -KILL ]; then
        kill -KILL "${pids[@]}" 2>/dev/null || true
    else
        kill -TERM "$pid" 2>/dev/null || true
    fi
    wait "$pid" 2>/dev/null || true
    kill -INT "${pids[@]}" 2>/dev/null || true # a Postgres that does not end with its server
    # A Postgres is no child of this shell.
    for one in "${pids[@]}"; do tail --pid="$one" -f /dev/null; done
    pid=
    pids=()
}
