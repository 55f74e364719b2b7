#!/usr/bin/env bash
# Has real drivers read a cached result a part at a time: JDBC's setFetchSize, psycopg2's named cursors. Installs both if they are
# missing, which is why it is not part of scripts/test.sh. psql's FETCH_COUNT is tested there.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_postgres
need_proxy
command -v javac >/dev/null || install_packages default-jdk-headless
[ -e /usr/share/java/postgresql.jar ] || install_packages libpostgresql-jdbc-java
/usr/bin/python3 -c 'import psycopg2' 2>/dev/null || install_packages python3-psycopg2

dir=$(mktemp -d -t heliosproxy-cursors-XXXXXX)
cleanup() { proxies_stop; cluster_stop; rm -rf "$dir"; }
trap cleanup EXIT
cluster_start "$dir"
psql -X -q -h 127.0.0.1 -p "$CLUSTER_PORT" -U postgres postgres \
  -c "CREATE TABLE cursors AS SELECT n AS id, 'row ' || n AS v FROM generate_series(1, 1000) n" -c "ANALYZE cursors"
for mode in session auto; do
  HELIOSPROXY_AUTH_MODE=trust HELIOSPROXY_POOL_MODE=$mode proxy_start "$dir/$mode.log" postgres
  java -cp /usr/share/java/postgresql.jar "$ROOT/tests/drivers/Cursors.java" "$PROXY_PORT" postgres
  /usr/bin/python3 "$ROOT/tests/drivers/cursors.py" "$PROXY_PORT" postgres
  hits=$(http_get "$PROXY_HTTP" /metrics | awk '/^heliosdb_cache_accesses_total\{result="hit"\}/ { print $2 }')
  say "pool.mode $mode: $hits answers came from the cache"
  [ "$hits" -gt 0 ] || die "nothing was answered from the cache"
done
