#!/usr/bin/env bash
# What an idle client costs: the resident memory of a proxy in mode auto, with 20 upstream connections, before and after so many clients
# have come, run a few statements, and gone idle. The kernel's socket buffers are not counted.
# Takes about a minute.
#   benches/idle_clients.sh [OUTPUT_FILE]
# CLIENTS (10000), MODE (simple or extended; with "prepared" pgbench waits for each Parse and so for its own transactions). Leaves nothing behind.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

CLIENTS=${CLIENTS:-10000} MODE=${MODE:-extended}
OUTPUT=${1:-}

leave_nothing_behind
need_postgres
need_proxy
ulimit -n $((CLIENTS + 2000)) || die "so many clients need as many open files (ulimit -n)"

DIR=$(mktemp -d "${TMPDIR:-/tmp}/heliosproxy-idle-XXXXXX")
chmod 755 "$DIR"
cluster_start "$DIR" 'fsync = off' 'max_connections = 100'
psql -Xqh 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -d postgres -c 'CREATE DATABASE bench'
pgbench -i -q -s 1 -h 127.0.0.1 -p "$CLUSTER_PORT" -U postgres bench >/dev/null 2>&1

export HELIOSPROXY_POOL_MODE=auto HELIOSPROXY_POOL_MAX_UPSTREAM_CONNECTIONS=20 HELIOSPROXY_SERVER_WORKER_THREADS=2
export HELIOSPROXY_SERVER_MAX_CLIENTS=$((CLIENTS + 100)) HELIOSPROXY_POOL_WAIT_TIMEOUT_SECS=600
proxy_start "$DIR/proxy.log" bench --auth trust
unset "${!HELIOSPROXY_@}"

# A read that the cache keeps, of few rows so that its results weigh nothing, and a transaction.
cat > "$DIR/come.sql" <<'SQL'
\set aid random(1, 100000)
\set few random(1, 100)
SELECT abalance FROM pgbench_accounts WHERE aid = :few;
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
COMMIT;
\sleep 1000 s
SQL
sed '$d' "$DIR/come.sql" > "$DIR/warm.sql"

resident() { awk '/^VmRSS:/ { print $2 }' "/proc/$PROXY_PID/status"; }
clients() {
  http_get "$PROXY_HTTP" /metrics | awk '/^heliosdb_connections[{]side="client",state="active"[}]/ { printf "%d", $2 }'
}
queries() { http_get "$PROXY_HTTP" /metrics | awk '/^heliosdb_queries_total/ { n += $2 } END { printf "%d", n }'; }
# Until nothing changes any more: what was read, and how much memory it takes.
settle() {
  local before now
  before=$(queries)
  for _ in $(seq 300); do
    sleep 3
    now=$(queries)
    if [ "$now" = "$before" ]; then return; fi
    before=$now
  done
  die "the clients do not come to rest"
}

pgbench -n -M "$MODE" -c 50 -j 2 -t 50 -f "$DIR/warm.sql" -h 127.0.0.1 -p "$PROXY_PORT" -U postgres bench >/dev/null 2>&1
settle
EMPTY=$(resident)
say "$CLIENTS clients come"
pgbench -n -M "$MODE" -c "$CLIENTS" -j 4 -t 1 -f "$DIR/come.sql" -h 127.0.0.1 -p "$PROXY_PORT" -U postgres bench \
  >"$DIR/pgbench.log" 2>&1 &
LOAD=$!
for _ in $(seq 600); do
  if [ "$(clients)" = "$CLIENTS" ]; then break; fi
  kill -0 "$LOAD" 2>/dev/null || { cat "$DIR/pgbench.log" >&2; die "pgbench has ended"; }
  sleep 0.5
done
settle
FULL=$(resident)
{
  echo "HeliosProxy, idle clients: $("$PROXY" --version), mode auto, 20 upstream connections, pgbench -M $MODE"
  echo "$(clients) clients, $(queries) statements answered"
  echo "resident before: $EMPTY kB, with them: $FULL kB"
  awk -v a="$EMPTY" -v b="$FULL" -v n="$CLIENTS" 'BEGIN { printf "%.1f kB a client\n", (b - a) / n }'
} | if [ -n "$OUTPUT" ]; then tee "$OUTPUT"; else cat; fi
kill "$LOAD" 2>/dev/null || true
