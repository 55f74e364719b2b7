# Shared by the scripts: what is missing gets installed, and a throw-away PostgreSQL cluster. Source it from bash.
#   . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LC_ALL=C.UTF-8
# libpq's own variables would lead the tools to somebody else's server.
unset "${!PG@}" 2>/dev/null || true

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# privileged COMMAND...: as root, by sudo if need be.
privileged() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "not root and no sudo; please run as root: $*"; fi
}

# install_packages PACKAGE...: from the distribution.
install_packages() {
  command -v apt-get >/dev/null || die "please install by hand (this is no Debian or Ubuntu): $*"
  say "installing from the distribution: $*"
  privileged apt-get update -qq
  privileged env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The directory with initdb, pg_ctl, psql and pgbench; empty if PostgreSQL is not installed.
postgres_bin() {
  local dir
  for dir in "$(pg_config --bindir 2>/dev/null)" $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -rn); do
    if [ -x "$dir/initdb" ] && [ -x "$dir/pgbench" ] && [ -x "$dir/psql" ]; then echo "$dir"; return; fi
  done
}

# Sets PGBIN; installs PostgreSQL first if it is missing, without the server that the package would start.
need_postgres() {
  PGBIN=$(postgres_bin)
  if [ -z "$PGBIN" ]; then
    install_packages postgresql-common
    local setting=/etc/postgresql-common/createcluster.d/zz-no-main-cluster.conf
    privileged mkdir -p "${setting%/*}"
    echo 'create_main_cluster = false' | privileged tee "$setting" >/dev/null
    install_packages postgresql postgresql-client
    privileged rm -f "$setting"
    PGBIN=$(postgres_bin)
  fi
  [ -n "$PGBIN" ] || die "PostgreSQL is installed, but initdb, psql and pgbench are nowhere to be found"
  PATH=$PGBIN:$PATH
}

# Puts promtool on the PATH: Debian's, unpacked below target/ if it is not installed, since the package would start a server.
need_promtool() {
  local tools=${CARGO_TARGET_DIR:-$ROOT/target}/tools dir
  PATH=$PATH:$tools
  if command -v promtool >/dev/null; then return; fi
  command -v apt-get >/dev/null || die "promtool is needed (this is no Debian or Ubuntu): https://prometheus.io/download"
  say "unpacking promtool of the distribution's prometheus package"
  privileged apt-get update -qq
  dir=$(mktemp -d)
  (cd "$dir" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb .)
  mkdir -p "$tools"
  cp "$dir/usr/bin/promtool" "$tools/"
  rm -rf "$dir"
}

# as_owner COMMAND...: as the user who owns the cluster. PostgreSQL refuses to run as root.
as_owner() {
  if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

# A TCP port of the loopback interface on which nobody listens.
free_port() {
  local port
  for _ in $(seq 100); do
    port=$((12000 + (RANDOM * 32768 + RANDOM) % 20000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return; fi
  done
  die "no free port"
}

# cluster_start DIR [SETTING...]: a fresh cluster in DIR/data on the free port CLUSTER_PORT, superuser postgres, no password.
cluster_start() {
  local dir=$1 setting; shift
  CLUSTER_DIR=$dir CLUSTER_PORT=$(free_port)
  [ "$(id -u)" != 0 ] || chown postgres "$dir"
  (cd "$dir" && as_owner "$PGBIN/initdb" --no-sync -A trust -U postgres -E UTF8 --locale=C.UTF-8 -D "$dir/data" >/dev/null)
  {
    echo "port = $CLUSTER_PORT"
    echo "listen_addresses = '127.0.0.1'"
    echo "unix_socket_directories = '$dir'"
    for setting in "$@"; do echo "$setting"; done
  } >> "$dir/data/postgresql.conf"
  (cd "$dir" && as_owner "$PGBIN/pg_ctl" -w -D "$dir/data" -l "$dir/postgresql.log" start >/dev/null) \
    || { cat "$dir/postgresql.log" >&2; die "PostgreSQL does not start"; }
}

cluster_stop() {
  [ -n "${CLUSTER_DIR:-}" ] && [ -d "$CLUSTER_DIR/data" ] || return 0
  (cd "$CLUSTER_DIR" && as_owner "$PGBIN/pg_ctl" -D "$CLUSTER_DIR/data" -m immediate stop >/dev/null 2>&1) || true
}

# http_get PORT PATH: the body; fails unless the status is 200. In a shell of its own, which may end by a broken pipe.
http_get() (
  exec 9<>"/dev/tcp/127.0.0.1/$1" || exit 1
  printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&9
  answer=$(cat <&9)
  case $answer in 'HTTP/1.1 200'*) ;; *) exit 1 ;; esac
  printf '%s\n' "${answer#*$'\r\n\r\n'}"
)

# Sets PROXY: what HELIOSPROXY_BIN names, else the release build of this tree, built if need be.
need_proxy() {
  PROXY=${HELIOSPROXY_BIN:-}
  if [ -z "$PROXY" ]; then
    PROXY=${CARGO_TARGET_DIR:-$ROOT/target}/release/heliosproxy
    if [ ! -x "$PROXY" ]; then
      command -v cargo >/dev/null || die "a Rust toolchain is needed to build the proxy: https://rustup.rs"
      command -v cc >/dev/null || install_packages build-essential
      say "building the proxy (once)"
      (cd "$ROOT" && cargo build --release --locked --bin heliosproxy >&2)
    fi
  fi
  [ -x "$PROXY" ] || die "there is no proxy at $PROXY"
  # HELIOSPROXY_BIN is ours; the proxy would take it for a misspelt key.
  unset HELIOSPROXY_BIN
}

# Every proxy that was started; proxies_stop ends them.
PROXY_PIDS=()

# proxy_start LOG DATABASE [ARGUMENT...]: on PROXY_PORT, HTTP on PROXY_HTTP, process PROXY_PID.
# In a session of its own, as a service manager starts it and as PostgreSQL's and PgBouncer's daemons make one: Linux shares out the
# cores among sessions first (autogroups), and a measured proxy must not share its part with the client that measures it.
proxy_start() {
  local log=$1 database=$2; shift 2
  PROXY_PORT=$(free_port) PROXY_HTTP=$(free_port)
  setsid "$PROXY" --upstream "postgres://postgres@127.0.0.1:$CLUSTER_PORT/$database" --listen "127.0.0.1:$PROXY_PORT" \
    --http "127.0.0.1:$PROXY_HTTP" "$@" >"$log" 2>&1 </dev/null &
  PROXY_PID=$!
  PROXY_PIDS+=("$PROXY_PID")
  for _ in $(seq 200); do
    if http_get "$PROXY_HTTP" /health/ready >/dev/null 2>&1; then return; fi
    kill -0 "$PROXY_PID" 2>/dev/null || break
    sleep 0.05
  done
  cat "$log" >&2
  die "the proxy does not become ready"
}

# proxy_stop PID: asks, and insists after five seconds.
proxy_stop() {
  kill -TERM "$1" 2>/dev/null || return 0
  for _ in $(seq 100); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.05
  done
  kill -KILL "$1" 2>/dev/null || true
}

proxies_stop() {
  local pid
  for pid in "${PROXY_PIDS[@]}"; do proxy_stop "$pid"; done
}

# leave_nothing_behind: from here on, however the script ends, its proxies, the PgBouncer of $DIR and the cluster end, and $DIR, which
# is to be made after this, is removed.
leave_nothing_behind() {
  DIR=
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

clean_up() {
  trap - EXIT INT TERM
  proxies_stop
  [ ! -f "$DIR/pgbouncer.pid" ] || proxy_stop "$(cat "$DIR/pgbouncer.pid")"
  cluster_stop
  [ -z "$DIR" ] || rm -rf "$DIR"
}

# bench_cluster ROWS [SETTING...]: a cluster for measurements in $DIR, which clean_up removes, with a table "big" of so many rows.
bench_cluster() {
  local rows=$1; shift
  DIR=$(mktemp -d "${TMPDIR:-/tmp}/heliosproxy-bench-XXXXXX")
  chmod 755 "$DIR"
  cluster_start "$DIR" 'shared_buffers = 1GB' 'fsync = off' 'max_wal_size = 4GB' 'autovacuum = off' "$@"
  psql -qXh 127.0.0.1 -p "$CLUSTER_PORT" -U postgres <<SQL
CREATE TABLE big AS SELECT n AS id, n::int8 * 7 AS a, n / 3.0::float8 AS f, (n % 1000) / 10.0 AS num, md5(n::text) AS t,
  timestamptz '2020-01-01' + n * interval '1 second' AS at, n % 2 = 0 AS b, 'row ' || n AS label FROM generate_series(1, $rows) n;
VACUUM (FREEZE, ANALYZE) big;
SQL
}

# need_pgbouncer: installs it if it is missing; BOUNCER is its path.
need_pgbouncer() {
  BOUNCER=$(PATH=$PATH:/usr/sbin:/usr/local/sbin command -v pgbouncer || true)
  [ -n "$BOUNCER" ] || { install_packages pgbouncer; BOUNCER=$(PATH=$PATH:/usr/sbin command -v pgbouncer); }
}

# median: of the numbers on standard input, one a line.
median() { sort -n | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
