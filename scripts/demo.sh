#!/usr/bin/env bash
# Shows what HeliosProxy does, on a throw-away PostgreSQL: a query cold, the same from the cache, fresh after a write.
#   scripts/demo.sh          ends with a running proxy to try by hand; Ctrl-C ends it
#   scripts/demo.sh --once   ends by itself; the exit status is 0 if every answer was right and the cached one 20 times faster
# DEMO_SCALE sets the size of the sample (pgbench's scale, 100,000 rows each; default 10). Leaves nothing behind.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

once=
case ${1:-} in
  --once) once=1 ;;
  '') ;;
  *) sed -n '2,5s/^# //p' "$0" >&2; exit 2 ;;
esac

REPEATS=21
QUERY="SELECT a.bid, count(*), sum(a.abalance) AS balance, round(avg(a.abalance), 2) AS mean, max(a.abalance) AS richest
FROM pgbench_accounts a JOIN pgbench_branches b ON b.bid = a.bid GROUP BY a.bid ORDER BY a.bid"

leave_nothing_behind
need_postgres
need_proxy
DIR=$(mktemp -d "${TMPDIR:-/tmp}/heliosproxy-demo-XXXXXX")
chmod 755 "$DIR"

say "starting a throw-away $("$PGBIN/postgres" --version)"
cluster_start "$DIR" 'fsync = off' 'max_wal_size = 4GB' 'shared_buffers = 256MB'
server="host=127.0.0.1 port=$CLUSTER_PORT user=postgres dbname=demo"
psql -Xqd "host=127.0.0.1 port=$CLUSTER_PORT user=postgres dbname=postgres" -c 'CREATE DATABASE demo'
say "loading pgbench's sample, scale ${DEMO_SCALE:-10}"
pgbench -i -q -s "${DEMO_SCALE:-10}" "$server" >/dev/null 2>&1
pgbench -n -c 4 -t 500 "$server" >/dev/null 2>&1
psql -Xqd "$server" -c 'VACUUM ANALYZE' -c 'CHECKPOINT'

# The server asks nobody for a password, and so nobody is asked who looks into the proxy.
export HELIOSPROXY_AUTH_MODE=trust HELIOSPROXY_ADMIN_USERS=postgres
proxy_start "$DIR/proxy.log" demo
proxy="host=127.0.0.1 port=$PROXY_PORT user=postgres dbname=demo"
hits() { http_get "$PROXY_HTTP" /metrics | awk '/^heliosdb_cache_accesses_total[{].*result="hit"/ { n += $2 } END { print n + 0 }'; }

# run CONNECTION TIMES ROWS_FILE: the query so many times in one session; the times in milliseconds on standard output.
run() {
  { echo '\timing on'; for _ in $(seq "$2"); do printf '\\o %s\n%s;\n' "$3" "$QUERY"; done; } > "$DIR/script.sql"
  psql -XAqt -v ON_ERROR_STOP=1 -d "$1" -f "$DIR/script.sql" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
}

cold=$(run "$proxy" 1 "$DIR/cold")
run "$server" 1 "$DIR/direct" > "$DIR/direct.ms"
run "$proxy" 1 "$DIR/again" > /dev/null   # the proxy may need a second look before it keeps an answer
before=$(hits)
run "$proxy" $REPEATS "$DIR/cached" > "$DIR/cached.ms"
from_cache=$(($(hits) - before))
cached=$(median < "$DIR/cached.ms")

psql -XAqtd "$proxy" -c '\timing on' -c 'UPDATE pgbench_accounts SET abalance = abalance + 1000000 WHERE aid = 1' > "$DIR/update"
update=$(sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' "$DIR/update")
after=$(run "$proxy" 1 "$DIR/after")
run "$server" 1 "$DIR/direct_after" > /dev/null
run "$proxy" 1 "$DIR/again" > /dev/null
warm_again=$(run "$proxy" $REPEATS "$DIR/cached_after" | median)

failed=
check() { # check TEXT CONDITION...: one line of the report
  local text=$1; shift
  if "$@"; then printf '  ok    %s\n' "$text"; else printf '  WRONG %s\n' "$text"; failed=1; fi
}
factor=$(awk -v a="$cold" -v b="$cached" 'BEGIN { printf "%.0f", a / b }')
row() { printf '  %-52s %12s ms\n' "$1" "$2"; }
first_lines() { head -3 "$1" | sed 's/^/    /'; }

cat <<REPORT

The query, over $(psql -XAtd "$server" -c 'SELECT count(*) FROM pgbench_accounts') accounts:
$(sed 's/^/    /' <<<"$QUERY")

Through HeliosProxy                                          latency
$(row 'cold: PostgreSQL answers, the proxy relays' "$cold")
$(row "again: from the cache (median of $REPEATS)" "$cached")
$(row 'UPDATE of one account by another client' "$update")
$(row 'the query after the UPDATE: PostgreSQL answers' "$after")
$(row "and again: from the cache (median of $REPEATS)" "$warm_again")
  for comparison, PostgreSQL directly                  $(printf '%12s' "$(cat "$DIR/direct.ms")") ms

The cached answer came $factor times faster than the cold one.

First rows before the UPDATE (bid | count | balance | mean | richest)
$(first_lines "$DIR/cached")
and after it
$(first_lines "$DIR/after")

REPORT
check 'cold, cached and direct rows are the same' eval 'cmp -s "$DIR/cold" "$DIR/direct" && cmp -s "$DIR/cached" "$DIR/direct"'
check "the repeats came from the cache ($from_cache of $REPEATS)" test "$from_cache" -ge $((REPEATS - 1))
check 'the UPDATE changed the answer' eval '! cmp -s "$DIR/after" "$DIR/cached"'
check 'rows after the UPDATE are those of PostgreSQL' eval 'cmp -s "$DIR/after" "$DIR/direct_after" && cmp -s "$DIR/cached_after" "$DIR/direct_after"'
check 'the cached answer is at least 20 times faster' test "$factor" -ge 20
[ -z "$failed" ] || { say "proxy log:"; tail -20 "$DIR/proxy.log" >&2; exit 1; }

if [ -z "$once" ]; then
  cat <<HAND

Try it by hand (\\timing on shows the latency):
    psql -h 127.0.0.1 -p $PROXY_PORT -U postgres demo
PostgreSQL itself is on port $CLUSTER_PORT.

What the proxy does: http://127.0.0.1:$PROXY_HTTP/ in a browser, or as tables (SHOW HELP lists them):
    psql -h 127.0.0.1 -p $PROXY_PORT -U postgres helios -c 'SHOW CACHE TOP'
Why a statement is not cached:
    psql -h 127.0.0.1 -p $PROXY_PORT -U postgres helios -c "CACHE EXPLAIN 'SELECT now(), count(*) FROM pgbench_accounts' IN demo"

Ctrl-C ends the demo and removes everything.
HAND
  wait "$PROXY_PID"
fi
