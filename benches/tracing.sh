#!/usr/bin/env bash
# What traces cost: pgbench -S on hot rows (answers from the cache) and on all of them (relayed), with tracing off, on but sampling nothing, and
# on with every statement, to a receiver that is there; interleaved, medians of ROUNDS. HELIOSPROXY_BIN, else the release build.
#   ROUNDS=5 CELL_SECONDS=3 benches/tracing.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
set -euo pipefail
ROUNDS=${ROUNDS:-5} CELL_SECONDS=${CELL_SECONDS:-3}
RECEIVER=
leave_nothing_behind
trap '[ -z "$RECEIVER" ] || kill "$RECEIVER" 2>/dev/null || true; clean_up' EXIT
need_postgres
need_proxy
DIR=$(mktemp -d "${TMPDIR:-/tmp}/heliosproxy-tracing-XXXXXX")
chmod 755 "$DIR"
cluster_start "$DIR" 'fsync = off' 'shared_buffers = 512MB' 'max_wal_size = 4GB' 'autovacuum = off'
psql -Xqh 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -d postgres -c 'CREATE DATABASE bench'
pgbench -i -q -s 10 -h 127.0.0.1 -p "$CLUSTER_PORT" -U postgres bench >/dev/null 2>&1
psql -Xqh 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -d bench -c 'VACUUM ANALYZE'

# A receiver that takes everything and keeps nothing.
receiver=$(free_port)
python3 - "$receiver" <<'PY' &
import http.server, sys
class Takes(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Takes).serve_forever()
PY
RECEIVER=$!

declare -A PORT
variant() { # variant NAME ENDPOINT RATIO
  HELIOSPROXY_TRACING_ENDPOINT=$2 HELIOSPROXY_TRACING_SAMPLE_RATIO=$3 proxy_start "$DIR/$1.log" bench
  PORT[$1]=$PROXY_PORT
}
variant off "" 1
variant none "http://127.0.0.1:$receiver" 0
variant all "http://127.0.0.1:$receiver" 1

printf '\\set aid random(1, 1000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n' > "$DIR/hot.sql"
printf '\\set aid random(1, 1000000)\n/* helios: nocache */ SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n' > "$DIR/relayed.sql"
run() { # run VARIANT LOAD HOW...
  local variant=$1 load=$2; shift 2
  pgbench -n -M prepared -c 8 -j 2 "$@" -h 127.0.0.1 -p "${PORT[$variant]}" -U postgres -f "$DIR/$load.sql" bench 2>/dev/null \
    | awk '/^tps/ { print $3 }'
}
for name in off none all; do run $name hot -t 2500 >/dev/null; done
for round in $(seq "$ROUNDS"); do
  say "round $round of $ROUNDS"
  for load in hot relayed; do
    # Another first one in every round.
    for name in $(printf '%s\n' off none all | awk -v r="$round" '{ v[NR] = $0 } END { for (i = 0; i < NR; i++) print v[(i + r) % NR + 1] }'); do
      run $name $load -T "$CELL_SECONDS" >> "$DIR/tps.$load.$name"
    done
  done
done
echo "tracing: $(nproc) cores, $("$PGBIN/postgres" --version); pgbench, prepared, 8 clients, tps (medians of $ROUNDS rounds of $CELL_SECONDS s)"
printf '%-10s %10s %22s %18s\n' '' off 'on, sampling nothing' 'every statement'
for load in hot relayed; do
  printf '%-10s' $load
  for name in off none all; do printf ' %.0f (%.2f)' "$(median < "$DIR/tps.$load.$name")" "$(awk -v a="$(median < "$DIR/tps.$load.$name")" -v b="$(median < "$DIR/tps.$load.off")" 'BEGIN { print a / b }')"; done
  echo
done
