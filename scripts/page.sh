#!/usr/bin/env bash
# Checks the status page in a headless Chromium, with a real proxy under load, and leaves screenshots: wide and phone, light and dark.
# And the example of a page to which rows are streamed.
#   scripts/page.sh [DIRECTORY]     default: a temporary one
# Installs Chromium, Node and PostgreSQL if they are missing. Not part of scripts/test.sh: a browser is a large thing to install.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_postgres
need_proxy
command -v chromium >/dev/null || install_packages chromium
# Node 22 has WebSocket, 20 has it behind a flag.
NODE=()
for flag in "" --experimental-websocket; do
  if node $flag -e 'process.exit(typeof WebSocket === "function" ? 0 : 1)' 2>/dev/null; then NODE=(node $flag); break; fi
done
[ ${#NODE[@]} -gt 0 ] || die "Node 20.10 or newer is needed: https://nodejs.org"

shots=${1:-$(mktemp -d -t heliosproxy-page-XXXXXX)}
mkdir -p "$shots"
dir=$(mktemp -d -t heliosproxy-load-XXXXXX)
load=()
cleanup() {
  for pid in "${load[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait "${load[@]}" 2>/dev/null || true
  proxies_stop
  cluster_stop
  rm -rf "$dir"
}
trap cleanup EXIT

cluster_start "$dir"
# Reads are split however small their table is.
export HELIOSPROXY_PARALLEL_ENABLED=true HELIOSPROXY_PARALLEL_MIN_TABLE_MB=0 HELIOSPROXY_PARALLEL_MAX_PARALLELISM=2
proxy_start "$dir/proxy.log" postgres --auth trust
direct=(psql -X -q -h 127.0.0.1 -p "$CLUSTER_PORT" -U postgres postgres)
"${direct[@]}" <<'SQL'
CREATE TABLE orders (id int PRIMARY KEY, customer int, total numeric(10,2), note text);
INSERT INTO orders SELECT n, n % 1000, n % 977, 'note ' || n FROM generate_series(1, 100000) n;
CREATE TABLE "<img src=x onerror=window.markup=1>" (v int);
ALTER TABLE "<img src=x onerror=window.markup=1>" ENABLE ROW LEVEL SECURITY;
ANALYZE;
SQL
cat > "$dir/load.sql" <<'SQL'
\set id random_zipfian(1, 5000, 1.1)
\set one random(1, 100)
SELECT total, note FROM orders WHERE id = :id;
SELECT customer, sum(total) FROM orders GROUP BY customer ORDER BY 2 DESC LIMIT 10;
SELECT note FROM orders WHERE id = :id AND note <> 'a secret value';
\if :one = 1
UPDATE orders SET total = total + 1 WHERE id = :id;
\endif
SQL
cat > "$dir/uncached.sql" <<'SQL'
SELECT id FROM orders ORDER BY random() LIMIT 1;
SELECT count(*) FROM orders WHERE id > 10 AND current_date > '2020-01-01';
SELECT * FROM "<img src=x onerror=window.markup=1>";
/* helios: nocache */ SELECT note FROM orders;
/* helios: nocache parallel=1 */ SELECT note FROM orders;
SQL
pgbench -n -h 127.0.0.1 -p "$PROXY_PORT" -U postgres -c 4 -T 600 -R 400 -f "$dir/load.sql" postgres >/dev/null 2>&1 &
load+=($!)
pgbench -n -h 127.0.0.1 -p "$PROXY_PORT" -U postgres -c 1 -T 600 -R 4 -f "$dir/uncached.sql" postgres >/dev/null 2>&1 &
load+=($!)
"${NODE[@]}" "$ROOT/tests/page/check.mjs" "$(command -v chromium)" "http://127.0.0.1:$PROXY_HTTP/" "$shots"

# Streams, to a page of one origin.
page_port=$(free_port) stream_port=$(free_port)
HELIOSPROXY_STREAM_LISTEN="127.0.0.1:$stream_port" HELIOSPROXY_STREAM_ALLOWED_ORIGINS="http://127.0.0.1:$page_port" \
  proxy_start "$dir/stream.log" postgres
"${NODE[@]}" "$ROOT/tests/page/stream.mjs" "$(command -v chromium)" "$ROOT/examples/stream.html" "$page_port" \
  "ws://127.0.0.1:$stream_port/stream?database=postgres"
