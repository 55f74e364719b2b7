#!/usr/bin/env bash
# One interleaved comparison on this machine: PostgreSQL directly, PgBouncer (session mode), HeliosProxy with the cache off and on.
# All over TCP on the loopback interface, one throw-away cluster. Figures are medians over rounds, as ratios to direct.
#   benches/compare.sh [OUTPUT_FILE]     writes the table there, too, and beside it a plot as OUTPUT_FILE.svg (by plot.py)
# ROUNDS (3), CELL_SECONDS (2), SCALE (10), CLIENTS ("1 8 32"), REPEATS (5000). With the defaults it takes about six minutes. Leaves nothing behind.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

ROUNDS=${ROUNDS:-3} CELL_SECONDS=${CELL_SECONDS:-2} SCALE=${SCALE:-10} CLIENTS=${CLIENTS:-1 8 32} REPEATS=${REPEATS:-5000}
MODES="simple extended prepared"
OUTPUT=${1:-}

leave_nothing_behind
need_postgres
need_proxy
need_pgbouncer

DIR=$(mktemp -d "${TMPDIR:-/tmp}/heliosproxy-compare-XXXXXX")
chmod 755 "$DIR"
cluster_start "$DIR" 'fsync = off' 'max_connections = 200' 'shared_buffers = 512MB' 'max_wal_size = 4GB' 'autovacuum = off'
declare -A PORT
PORT[direct]=$CLUSTER_PORT
psql -Xqh 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -d postgres -c 'CREATE DATABASE bench'
say "loading pgbench's tables, scale $SCALE"
pgbench -i -q -s "$SCALE" -h 127.0.0.1 -p "$CLUSTER_PORT" -U postgres bench >/dev/null 2>&1
psql -Xqh 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -d bench -c 'VACUUM ANALYZE' -c 'CHECKPOINT'

PORT[pgbouncer]=$(free_port)
cat > "$DIR/pgbouncer.ini" <<INI
[databases]
bench = host=127.0.0.1 port=$CLUSTER_PORT dbname=bench user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${PORT[pgbouncer]}
unix_socket_dir =
auth_type = any
pool_mode = session
max_client_conn = 300
default_pool_size = 100
log_connections = 0
log_disconnections = 0
pidfile = $DIR/pgbouncer.pid
logfile = $DIR/pgbouncer.log
INI
chmod 644 "$DIR/pgbouncer.ini"
as_owner "$BOUNCER" -q -d "$DIR/pgbouncer.ini" >/dev/null 2>&1

# As PgBouncer they keep the connections of clients who have left: a cell begins with backends that are warm.
export HELIOSPROXY_POOL_MODE=session HELIOSPROXY_POOL_MAX_IDLE=100
proxy_start "$DIR/off.log" bench --auth trust --no-cache
PORT[off]=$PROXY_PORT OFF_PID=$PROXY_PID
proxy_start "$DIR/on.log" bench --auth trust
PORT[on]=$PROXY_PORT ON_PID=$PROXY_PID ON_HTTP=$PROXY_HTTP
VARIANTS="direct pgbouncer off on"

# bench VARIANT [ARGUMENT...]: transactions a second, without the time to connect.
bench() {
  local variant=$1; shift
  local said
  said=$(timeout $((CELL_SECONDS + 60)) pgbench -n -h 127.0.0.1 -p "${PORT[$variant]}" -U postgres "$@" bench 2>&1) \
    || { say "$said"; tail -n 5 "$DIR"/*.log >&2; die "pgbench on $variant failed: $*"; }
  sed -n 's/^tps = \([0-9.]*\).*/\1/p' <<<"$said"
}
threads() { [ "$1" -lt 2 ] && echo 1 || echo 2; }
cpu_ticks() { awk '{ sub(/^.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }

HOT="$DIR/hot.sql"
printf '\\set aid random(1, 1000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n' > "$HOT"
cores_off=0
for round in $(seq "$ROUNDS"); do
  say "round $round of $ROUNDS"
  for mode in $MODES; do
    for clients in $CLIENTS; do
      # Another first one in every round, so that no variant always follows the same.
      order=$(tr ' ' '\n' <<<"$VARIANTS" | awk -v r="$round" '{ v[NR] = $0 } END { for (i = 0; i < NR; i++) printf "%s ", v[(i + r) % NR + 1] }')
      for variant in $order; do
        ticks=$(cpu_ticks "$OFF_PID")
        bench "$variant" -S -M "$mode" -c "$clients" -j "$(threads "$clients")" -T "$CELL_SECONDS" >> "$DIR/tps.$mode.$clients.$variant"
        if [ "$variant" = off ]; then
          cores_off=$(awk -v a="$ticks" -v b="$(cpu_ticks "$OFF_PID")" -v t="$CELL_SECONDS" -v h="$(getconf CLK_TCK)" -v m="$cores_off" \
            'BEGIN { c = (b - a) / h / t; printf "%.2f", (c > m ? c : m) }')
        fi
      done
    done
  done
  for mode in prepared simple; do
    # Every key once or more before the measurement: 20,000 draws from 1,000 keys.
    [ "$round" -gt 1 ] || bench on -M "$mode" -c 8 -j 2 -t 2500 -f "$HOT" > /dev/null
    for variant in direct on; do
      bench "$variant" -M "$mode" -c 8 -j 2 -T "$CELL_SECONDS" -f "$HOT" >> "$DIR/tps.hot-$mode.8.$variant"
    done
  done
done

# latency VARIANT MODE TRANSACTIONS: median in microseconds of the aggregate, one client.
AGGREGATE="$DIR/aggregate.sql"
echo 'SELECT count(*), sum(abalance::numeric), avg(aid), max(length(filler)) FROM pgbench_accounts;' > "$AGGREGATE"
latency() {
  rm -f "$DIR"/latency.*
  bench "$1" -M "$2" -c 1 -t "$3" -f "$AGGREGATE" -l --log-prefix="$DIR/latency" >/dev/null
  awk '{ print $3 }' "$DIR"/latency.* | median
}
say "a repeated aggregate"
export PGOPTIONS='-c max_parallel_workers_per_gather=0'
for mode in simple extended prepared; do
  latency direct "$mode" 5 > "$DIR/aggregate.$mode.direct"
  latency on "$mode" 20 > /dev/null
  latency on "$mode" "$REPEATS" > "$DIR/aggregate.$mode.on"
done
unset PGOPTIONS

say "a result of 500 MB"
LARGE="SELECT a.aid, a.filler, a.abalance FROM pgbench_accounts a, generate_series(1, $((52 / SCALE + (52 % SCALE > 0)))) i"
memory() { awk -v f="$2:" '$1 == f { print $2 }' "/proc/$1/status"; }
peak_before=$(memory "$ON_PID" VmHWM)
# A proxy of its own: the one above holds the entries of all the cells.
proxy_start "$DIR/large.log" bench
large_bytes=$(timeout 300 psql -XAtq -h 127.0.0.1 -p "$PROXY_PORT" -U postgres -d bench -c "$LARGE" | wc -c)
peak_large=$(memory "$PROXY_PID" VmHWM)

of() { median < "$DIR/tps.$1.$2.$3"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
{
  echo "HeliosProxy comparison: $(nproc) cores, $("$PGBIN/postgres" --version), $("$BOUNCER" --version | head -1)"
  echo "pgbench -S, scale $SCALE, medians of $ROUNDS rounds of $CELL_SECONDS s; ratios to direct"
  echo
  printf '%-10s %8s %12s %11s %16s %15s %18s\n' mode clients 'direct tps' pgbouncer 'helios, no cache' 'helios, cached' 'relay/pgbouncer'
  for mode in $MODES; do
    for clients in $CLIENTS; do
      direct=$(of "$mode" "$clients" direct) bouncer=$(of "$mode" "$clients" pgbouncer)
      off=$(of "$mode" "$clients" off) on=$(of "$mode" "$clients" on)
      printf '%-10s %8s %12.0f %11s %16s %15s %18s\n' "$mode" "$clients" "$direct" "$(ratio "$bouncer" "$direct")" \
        "$(ratio "$off" "$direct")" "$(ratio "$on" "$direct")" "$(ratio "$off" "$bouncer")"
    done
  done
  echo
  echo "1,000 hot point reads from the cache, 8 clients"
  for mode in prepared simple; do
    direct=$(of "hot-$mode" 8 direct) on=$(of "hot-$mode" 8 on)
    printf '%-10s %8s %12.0f %11s %16s %15s\n' "$mode" 8 "$direct" - - "$(ratio "$on" "$direct")"
  done
  echo
  echo "a repeated aggregate, one client: median latency"
  for mode in simple extended prepared; do
    awk -v m="$mode" -v d="$(cat "$DIR/aggregate.$mode.direct")" -v c="$(cat "$DIR/aggregate.$mode.on")" \
      'BEGIN { printf "%-10s direct %8.1f ms   from the cache %7.0f us\n", m, d / 1000, c }'
  done
  echo
  printf 'psql of a result of %d MB, cache on: peak memory of the proxy %.1f MB\n' $((large_bytes / 1000000)) \
    "$(awk -v k="$peak_large" 'BEGIN { print k / 1024 }')"
  printf 'peak memory of the caching proxy after all cells: %.1f MB; cores used by the relaying one at most: %s\n' \
    "$(awk -v k="$peak_before" 'BEGIN { print k / 1024 }')" "$cores_off"
  echo "cache hits of all cells: $(http_get "$ON_HTTP" /metrics | awk '/^heliosdb_cache_accesses_total[{].*result="hit"/ { n += $2 } END { printf "%d", n }')"
} > "$DIR/table"
cat "$DIR/table"
if [ -n "$OUTPUT" ]; then
  cp "$DIR/table" "$OUTPUT"
  if command -v python3 >/dev/null; then "$ROOT/benches/plot.py" "$OUTPUT" > "${OUTPUT%.*}.svg"; fi
fi
