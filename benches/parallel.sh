#!/usr/bin/env bash
# How long one client takes to read a whole table: directly, through the proxy unsplit, and split over two connections; interleaved, the
# medians of ROUNDS. And what a read that is not split pays for the question. PROXY: HELIOSPROXY_BIN, else the release build.
#   ROWS=3000000 ROUNDS=5 benches/parallel.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
set -euo pipefail
ROWS=${ROWS:-3000000} ROUNDS=${ROUNDS:-5}
need_postgres
need_proxy
work=$(mktemp -d)
cleanup() { proxies_stop; cluster_stop; rm -rf "$work"; }
trap cleanup EXIT
chmod 755 "$work"
cluster_start "$work" "shared_buffers = 1GB" "fsync = off" "max_wal_size = 4GB" "autovacuum = off"
"$PGBIN/psql" -qX -h 127.0.0.1 -p "$CLUSTER_PORT" -U postgres <<SQL
CREATE TABLE big AS SELECT n AS id, n * 7 AS a, n / 3.0::float8 AS f, (n % 1000) / 10.0 AS num, md5(n::text) AS t,
  timestamptz '2020-01-01' + n * interval '1 second' AS at, n % 2 = 0 AS b, 'row ' || n AS label FROM generate_series(1, $ROWS) n;
VACUUM (FREEZE, ANALYZE) big;
SQL
export HELIOSPROXY_AUTH_MODE=trust HELIOSPROXY_CACHE_MAX_ENTRY_BYTES=1000
HELIOSPROXY_PARALLEL_ENABLED=false proxy_start "$work/unsplit.log" postgres
unsplit=$PROXY_PORT
HELIOSPROXY_PARALLEL_ENABLED=true HELIOSPROXY_PARALLEL_MAX_PARALLELISM=2 proxy_start "$work/split.log" postgres
split=$PROXY_PORT split_http=$PROXY_HTTP
# Nothing is split while nobody watches the catalogue, and it is watched while somebody is there.
"$PGBIN/psql" -qX -h 127.0.0.1 -p "$split" -U postgres -c "SELECT pg_sleep(3600)" >/dev/null 2>&1 &

# drain PORT SQL: reads the whole answer and prints seconds and bytes. It looks at the end of the answer only, as no driver could.
drain() {
  python3 - "$1" "$2" <<'PY'
import socket, struct, sys, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
body = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0\0"
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

sql="SELECT * FROM big"
for port in "$CLUSTER_PORT" "$unsplit" "$split"; do drain "$port" "$sql" >/dev/null; done
for _ in $(seq "$ROUNDS"); do
  for which in direct:$CLUSTER_PORT unsplit:$unsplit split:$split; do
    drain "${which#*:}" "$sql" >> "$work/${which%%:*}"
  done
done
echo "$ROWS rows, $(awk 'NR == 1 { print int($2 / 1e6) }' "$work/direct") MB, seconds (median of $ROUNDS):"
for which in direct unsplit split; do
  echo "  $which: $(awk '{ print $1 }' "$work/$which" | median)   (each: $(awk '{ printf "%s ", $1 }' "$work/$which"))"
done
http_get "$split_http" /metrics | grep -E '^heliosdb_parallel_(query_duration_seconds_count|skipped_total).* [1-9]' || true

# A point read through both proxies, which is never split.
"$PGBIN/psql" -qX -h 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -c "CREATE UNIQUE INDEX ON big (id)"
printf '\\set n random(1, %s)\nSELECT t FROM big WHERE id = :n;\n' "$ROWS" > "$work/point.sql"
for _ in $(seq "$ROUNDS"); do
  for which in unsplit:$unsplit split:$split; do
    "$PGBIN/pgbench" -n -M extended -c 4 -T 3 -h 127.0.0.1 -p "${which#*:}" -U postgres -f "$work/point.sql" postgres 2>/dev/null \
      | awk '/^tps/ { print $3 }' >> "$work/point-${which%%:*}"
  done
done
echo "point reads, tps: parallel off $(median < "$work/point-unsplit"), on $(median < "$work/point-split")"
