#!/usr/bin/env bash
# Many clients on few connections: PgBouncer in transaction mode and HeliosProxy in mode auto, 20 upstream connections each, two worker
# threads for the proxy, interleaved. All over TCP on the loopback interface, one throw-away cluster.
#   benches/pooling.sh [OUTPUT_FILE]
# ROUNDS (3), CELL_SECONDS (2), SCALE (10), CLIENTS ("1 32 256"), CACHE ("off on"). Takes about three minutes. Leaves nothing behind.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

ROUNDS=${ROUNDS:-3} CELL_SECONDS=${CELL_SECONDS:-2} SCALE=${SCALE:-10} CLIENTS=${CLIENTS:-1 32 256} CACHE=${CACHE:-off on}
CONNECTIONS=20
OUTPUT=${1:-}

leave_nothing_behind
need_postgres
need_proxy
need_pgbouncer

DIR=$(mktemp -d "${TMPDIR:-/tmp}/heliosproxy-pooling-XXXXXX")
chmod 755 "$DIR"
cluster_start "$DIR" 'fsync = off' 'max_connections = 100' 'shared_buffers = 512MB' 'max_wal_size = 4GB' 'autovacuum = off'
psql -Xqh 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -d postgres -c 'CREATE DATABASE bench'
say "loading pgbench's tables, scale $SCALE"
pgbench -i -q -s "$SCALE" -h 127.0.0.1 -p "$CLUSTER_PORT" -U postgres bench >/dev/null 2>&1
psql -Xqh 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -d bench -c 'VACUUM ANALYZE' -c 'CHECKPOINT'

declare -A PORT
PORT[pgbouncer]=$(free_port)
cat > "$DIR/pgbouncer.ini" <<INI
[databases]
bench = host=127.0.0.1 port=$CLUSTER_PORT dbname=bench user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${PORT[pgbouncer]}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 1000
default_pool_size = $CONNECTIONS
log_connections = 0
log_disconnections = 0
pidfile = $DIR/pgbouncer.pid
logfile = $DIR/pgbouncer.log
INI
# It does not know prepared statements in transaction mode before 1.21.
MODES="simple extended"
if "$BOUNCER" --version | awk 'NR == 1 { split($2, v, "."); exit !(v[1] > 1 || v[2] >= 21) }'; then
  MODES="$MODES prepared"
  echo 'max_prepared_statements = 200' >> "$DIR/pgbouncer.ini"
fi
chmod 644 "$DIR/pgbouncer.ini"
as_owner "$BOUNCER" -q -d "$DIR/pgbouncer.ini" >/dev/null 2>&1

export HELIOSPROXY_POOL_MODE=auto HELIOSPROXY_POOL_MAX_UPSTREAM_CONNECTIONS=$CONNECTIONS HELIOSPROXY_SERVER_WORKER_THREADS=2
proxy_start "$DIR/off.log" bench --auth trust --no-cache
PORT[off]=$PROXY_PORT
proxy_start "$DIR/on.log" bench --auth trust
PORT[on]=$PROXY_PORT ON_HTTP=$PROXY_HTTP
unset HELIOSPROXY_POOL_MODE HELIOSPROXY_POOL_MAX_UPSTREAM_CONNECTIONS HELIOSPROXY_SERVER_WORKER_THREADS
VARIANTS="pgbouncer $CACHE"

# bench VARIANT [ARGUMENT...]: transactions a second.
bench() {
  local variant=$1; shift
  local said
  said=$(timeout $((CELL_SECONDS + 60)) pgbench -n -h 127.0.0.1 -p "${PORT[$variant]}" -U postgres "$@" bench 2>&1) \
    || { say "$said"; tail -n 5 "$DIR"/*.log >&2; die "pgbench on $variant failed: $*"; }
  sed -n 's/^tps = \([0-9.]*\).*/\1/p' <<<"$said"
}
threads() { [ "$1" -lt 2 ] && echo 1 || echo 2; }

# cell NAME ROUND ARGUMENT...: every variant once, another one first in every round.
cell() {
  local name=$1 round=$2; shift 2
  local order
  order=$(tr ' ' '\n' <<<"$VARIANTS" | awk -v r="$round" '{ v[NR] = $0 } END { for (i = 0; i < NR; i++) printf "%s ", v[(i + r) % NR + 1] }')
  for variant in $order; do
    bench "$variant" "$@" -T "$CELL_SECONDS" >> "$DIR/tps.$name.$variant"
  done
}

CELLS=()
for round in $(seq "$ROUNDS"); do
  say "round $round of $ROUNDS"
  for clients in $CLIENTS; do
    for mode in $MODES; do
      cell "S-$mode-$clients" "$round" -S -M "$mode" -c "$clients" -j "$(threads "$clients")"
      [ "$round" -gt 1 ] || CELLS+=("S-$mode-$clients")
    done
    cell "TPCB-simple-$clients" "$round" -M simple -c "$clients" -j "$(threads "$clients")"
    [ "$round" -gt 1 ] || CELLS+=("TPCB-simple-$clients")
  done
  cell "connect-simple-8" "$round" -S -C -c 8 -j 2
  [ "$round" -gt 1 ] || CELLS+=("connect-simple-8")
done

{
  echo "HeliosProxy, mode auto, and PgBouncer, transaction mode: $(nproc) cores, $("$PGBIN/postgres" --version), $("$BOUNCER" --version | head -1)"
  echo "$CONNECTIONS upstream connections, pgbench scale $SCALE, medians of $ROUNDS rounds of $CELL_SECONDS s; ratios to PgBouncer"
  echo
  printf '%-20s %14s' cell 'pgbouncer tps'
  for variant in $CACHE; do printf ' %12s' "cache $variant"; done
  echo
  for name in "${CELLS[@]}"; do
    bouncer=$(median < "$DIR/tps.$name.pgbouncer")
    printf '%-20s %14.0f' "$name" "$bouncer"
    for variant in $CACHE; do
      printf ' %12s' "$(awk -v a="$(median < "$DIR/tps.$name.$variant")" -v b="$bouncer" 'BEGIN { printf "%.2f", a / b }')"
    done
    echo
  done
  echo
  echo "of the caching proxy:"
  http_get "$ON_HTTP" /metrics | awk '/^heliosdb_(pins_total|cache_accesses_total)/ || /duration_seconds_count[{]operation="handover"/'
} > "$DIR/table"
cat "$DIR/table"
[ -z "$OUTPUT" ] || cp "$DIR/table" "$OUTPUT"
