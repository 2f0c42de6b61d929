# shellcheck shell=bash
# What run.sh and test.sh share: installing what is missing, and only that. To be sourced.

say() { printf '==> %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$1" >&2
    if [ -n "${2:-}" ]; then printf 'hint: %s\n' "$2" >&2; fi
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        die "this needs root: $*" "run it as root, or install sudo"
    fi
}

# install_packages NAME...: from the distribution; says what it installs, hides the chatter.
install_packages() {
    has apt-get || die "missing: $*" "this machine has no apt-get; install them in its own way"
    say "installing $* (apt-get)"
    local log
    log=$(mktemp)
    if ! {
        as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
                --no-install-recommends -o Dpkg::Options::=--force-confold "$@"
    } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "apt-get could not install $*"
    fi
    rm -f "$log"
}

# version_at_least WANTED FOUND
version_at_least() {
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

cargo_version() { cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p'; }

# The Rust of Cargo.toml's rust-version, or a newer one.
ensure_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    has cargo || ! [ -x "$HOME/.cargo/bin/cargo" ] || PATH="$HOME/.cargo/bin:$PATH"
    found=$(cargo_version || true)
    if [ -n "$found" ] && version_at_least "$wanted" "$found"; then return; fi
    # Distributions carry an older Rust than this; some carry rustup, which fetches any.
    if ! has rustup && has apt-cache && [ -n "$(apt-cache search --names-only '^rustup$')" ]; then
        install_packages rustup
    fi
    has rustup || die "Rust $wanted or newer is needed (found: ${found:-none})" \
        "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --default-toolchain $wanted"
    say "installing Rust $wanted (rustup)"
    rustup toolchain install "$wanted" --profile minimal -c clippy -c rustfmt
    export RUSTUP_TOOLCHAIN=$wanted
}

ensure_compiler() {
    if ! has cc || ! has make; then install_packages build-essential; fi
}

# Prints the folder of initdb and postgres, the newest of version 15 or later.
find_postgres() {
    local folder version
    for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV) \
        "$(dirname "$(command -v postgres 2>/dev/null || echo /nowhere/postgres)")"; do
        if ! [ -x "$folder/postgres" ] || ! [ -x "$folder/initdb" ]; then continue; fi
        version=$("$folder/postgres" --version | sed -n 's/.*) \([0-9]*\).*/\1/p')
        if [ "${version:-0}" -ge 15 ]; then
            echo "$folder"
            return
        fi
    done
    return 1
}

# The programs of Postgres; not the cluster that Debian would start beside them.
ensure_postgres() {
    if find_postgres >/dev/null; then return; fi
    local settings=/etc/postgresql-common/createcluster.conf
    if has apt-get && ! [ -e "$settings" ]; then
        as_root mkdir -p "$(dirname "$settings")"
        echo 'create_main_cluster = false' | as_root tee "$settings" >/dev/null
    fi
    install_packages postgresql
    find_postgres >/dev/null || die "the distribution's Postgres is older than 15" \
        "see https://www.postgresql.org/download/ for a newer one, or give homing --database-url"
}

# postgres does not run as root: lend it another user then.
as_postgres() {
    if [ "$(id -u)" -ne 0 ]; then
        "$@"
    elif id postgres >/dev/null 2>&1; then
        setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"
    else
        setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups -- "$@"
    fi
}

ensure_mosquitto_clients() {
    if ! has mosquitto_sub || ! has mosquitto_pub; then install_packages mosquitto-clients; fi
}
