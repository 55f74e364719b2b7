#!/usr/bin/env bash
# 90 % reads and 10 % updates by primary key, Zipf over 100,000 rows, 16 clients, prepared statements: PostgreSQL directly, through
# the proxy, and through a proxy whose rows share one counter, which is what invalidating by table comes to. For both proxies the
# share of reads that were answered from the cache is set beside an oracle that forgets exactly the changed row.
#   benches/mixed.sh [OUTPUT_FILE]
# ROUNDS (3), SECONDS_EACH (20), EXPONENT (1.0). Leaves nothing behind.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

ROUNDS=${ROUNDS:-3} SECONDS_EACH=${SECONDS_EACH:-20} EXPONENT=${EXPONENT:-1.0}
OUTPUT=${1:-}

leave_nothing_behind
need_postgres
need_proxy
LOAD=$(cd "$ROOT" && cargo bench --locked --bench mixed_load --no-run --message-format=json 2>/dev/null \
  | sed -n 's/.*"executable":"\([^"]*mixed_load[^"]*\)".*/\1/p' | tail -n 1)
[ -x "$LOAD" ] || die "cannot build the load generator"

DIR=$(mktemp -d "${TMPDIR:-/tmp}/heliosproxy-mixed-XXXXXX")
chmod 755 "$DIR"
cluster_start "$DIR" 'fsync = off' 'shared_buffers = 512MB' 'max_wal_size = 4GB' 'autovacuum = off'
psql -Xqh 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -d postgres -c 'CREATE DATABASE bench'
say "loading pgbench's tables"
pgbench -i -q -s 1 -h 127.0.0.1 -p "$CLUSTER_PORT" -U postgres bench >/dev/null 2>&1
psql -Xqh 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -d bench -c 'VACUUM ANALYZE' -c 'CHECKPOINT'

hits() { http_get "$1" /metrics | awk '/^heliosdb_cache_accesses_total[{].*result="hit"/ { n += $2 } END { printf "%d", n }'; }
# A proxy of its own for each round: the oracle starts empty, too.
measure() {
  local variant=$1 port=$CLUSTER_PORT http=; shift
  if [ "$variant" != direct ]; then
    HELIOSPROXY_CACHE_MAX_ENTRIES=200000 HELIOSPROXY_CACHE_VERSION_STRIPES=$1 proxy_start "$DIR/$variant.log" bench
    port=$PROXY_PORT http=$PROXY_HTTP
  fi
  read -r rate reads oracle < <("$LOAD" 127.0.0.1 "$port" bench "$SECONDS_EACH" "$EXPONENT")
  echo "$rate" >> "$DIR/rate.$variant"
  [ -n "$http" ] || return 0
  awk -v h="$(hits "$http")" -v r="$reads" 'BEGIN { print h / r }' >> "$DIR/hits.$variant"
  awk -v o="$oracle" -v r="$reads" 'BEGIN { print o / r }' >> "$DIR/oracle.$variant"
  proxy_stop "$PROXY_PID"
}
for round in $(seq "$ROUNDS"); do
  say "round $round of $ROUNDS"
  measure direct
  measure rows 1048576
  measure table 1
done

of() { median < "$DIR/$1"; }
{
  echo "HeliosProxy, reads and updates by key: $(nproc) cores, $("$PGBIN/postgres" --version)"
  echo "90/10, Zipf $EXPONENT over 100,000 rows, 16 clients, prepared; medians of $ROUNDS rounds of $SECONDS_EACH s"
  echo
  printf '%-18s %12s %10s %14s %14s %12s\n' '' 'operations/s' 'of direct' 'from the cache' 'oracle' 'of oracle'
  for variant in direct rows table; do
    if [ "$variant" = direct ]; then
      printf '%-18s %12.0f %10s\n' "$variant" "$(of rate.direct)" 1.00
      continue
    fi
    awk -v v="by $variant" -v r="$(of "rate.$variant")" -v d="$(of rate.direct)" -v h="$(of "hits.$variant")" -v o="$(of "oracle.$variant")" \
      'BEGIN { printf "%-18s %12.0f %10.2f %13.1f%% %13.1f%% %12.3f\n", v, r, r / d, h * 100, o * 100, h / o }'
  done
} > "$DIR/table"
cat "$DIR/table"
[ -z "$OUTPUT" ] || cp "$DIR/table" "$OUTPUT"
