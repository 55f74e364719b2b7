#!/usr/bin/env bash
# How long one client takes to read a whole table: directly, through the proxy unsplit, and split over two connections; interleaved, the
# medians of ROUNDS. The same for groups. And what a read that is not split pays for the question. PROXY: HELIOSPROXY_BIN, else the
# release build.
#   ROWS=3000000 ROUNDS=5 benches/parallel.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
set -euo pipefail
ROWS=${ROWS:-3000000} ROUNDS=${ROUNDS:-5}
leave_nothing_behind
need_postgres
need_proxy
bench_cluster "$ROWS"
# For the point reads. Now: later, it would void what the proxies know, and these wait with that for the sleeper below.
"$PGBIN/psql" -qX -h 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -c "CREATE UNIQUE INDEX ON big (id)"
export HELIOSPROXY_AUTH_MODE=trust HELIOSPROXY_CACHE_MAX_ENTRY_BYTES=1000
HELIOSPROXY_PARALLEL_ENABLED=false proxy_start "$DIR/unsplit.log" postgres
unsplit=$PROXY_PORT
HELIOSPROXY_PARALLEL_ENABLED=true HELIOSPROXY_PARALLEL_MAX_PARALLELISM=2 proxy_start "$DIR/split.log" postgres
split=$PROXY_PORT split_http=$PROXY_HTTP
# Nothing is split while nobody watches the catalogue, and it is watched while somebody is there.
"$PGBIN/psql" -qX -h 127.0.0.1 -p "$split" -U postgres -c "SELECT pg_sleep(3600)" >/dev/null 2>&1 &

# drain PORT SQL [OPTIONS]: reads the whole answer and prints seconds and bytes. It looks at the end of the answer only, as no driver
# could. OPTIONS are the session's, as PGOPTIONS are.
drain() {
  python3 - "$1" "$2" "${3:-}" <<'PY'
import socket, struct, sys, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
options = b"options\0" + sys.argv[3].encode() + b"\0" if sys.argv[3] else b""
body = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0" + options + b"\0"
s.sendall(struct.pack("!i", len(body) + 4) + body)
buffer, view = bytearray(1 << 18), None
view = memoryview(buffer)
def until_ready():
    tail, total = b"", 0
    while True:
        n = s.recv_into(buffer)
        if n == 0: sys.exit("closed")
        total += n
        tail = (tail + bytes(view[max(0, n - 6):n]))[-6:]
        if tail == b"Z\0\0\0\5I": return total
until_ready()
sql = sys.argv[2].encode() + b"\0"
began = time.monotonic()
s.sendall(b"Q" + struct.pack("!i", len(sql) + 4) + sql)
total = until_ready()
print(f"{time.monotonic() - began:.3f} {total}")
PY
}

# compare NAME SQL: reads it in all three ways, ROUNDS times.
compare() {
  for port in "$CLUSTER_PORT" "$unsplit" "$split"; do drain "$port" "$2" >/dev/null; done
  for _ in $(seq "$ROUNDS"); do
    for which in direct:$CLUSTER_PORT unsplit:$unsplit split:$split; do
      drain "${which#*:}" "$2" >> "$DIR/$1-${which%%:*}"
    done
  done
  echo "$1: $ROWS rows, $(awk 'NR == 1 { print int($2 / 1e6) }' "$DIR/$1-direct") MB, seconds (median of $ROUNDS):"
  for which in direct unsplit split; do
    echo "  $which: $(awk '{ print $1 }' "$DIR/$1-$which" | median)   (each: $(awk '{ printf "%s ", $1 }' "$DIR/$1-$which"))"
  done
}
compare scan "SELECT * FROM big"
compare sorted "SELECT * FROM big ORDER BY t COLLATE \"C\""
http_get "$split_http" /metrics | grep -E '^heliosdb_parallel_(query_duration_seconds_count|skipped_total).* [1-9]' || true

# Groups: the server with no, one and two workers of its own; and the proxy, unsplit and split, where it has none.
groups="SELECT id % 1000 AS k, count(*), sum(a), avg(num), max(at) FROM big GROUP BY k"
for _ in $(seq "$ROUNDS"); do
  for which in direct-0:$CLUSTER_PORT direct-1:$CLUSTER_PORT direct-2:$CLUSTER_PORT unsplit-0:$unsplit split-0:$split; do
    name=${which%%:*}
    drain "${which#*:}" "$groups" "-c max_parallel_workers_per_gather=${name#*-}" >> "$DIR/groups-$name"
  done
done
echo "GROUP BY with 1000 groups, seconds (median of $ROUNDS), by max_parallel_workers_per_gather:"
for name in direct-0 direct-1 direct-2 unsplit-0 split-0; do
  echo "  $name: $(awk '{ print $1 }' "$DIR/groups-$name" | median)   (each: $(awk '{ printf "%s ", $1 }' "$DIR/groups-$name"))"
done
http_get "$split_http" /metrics | grep -E '^heliosdb_parallel_(query_duration_seconds_count|skipped_total).* [1-9]' || true

# A point read through both proxies, which is never split.
printf '\\set n random(1, %s)\nSELECT t FROM big WHERE id = :n;\n' "$ROWS" > "$DIR/point.sql"
for _ in $(seq "$ROUNDS"); do
  for which in unsplit:$unsplit split:$split; do
    "$PGBIN/pgbench" -n -M extended -c 4 -T 3 -h 127.0.0.1 -p "${which#*:}" -U postgres -f "$DIR/point.sql" postgres 2>/dev/null \
      | awk '/^tps/ { print $3 }' >> "$DIR/point-${which%%:*}"
  done
done
echo "point reads, tps: parallel off $(median < "$DIR/point-unsplit"), on $(median < "$DIR/point-split")"
