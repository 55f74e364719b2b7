#!/usr/bin/env bash
# PostgreSQL's own suites and psycopg2's, directly and through the proxy with the cache on: fails if a test passes directly and not through the proxy.
#   scripts/suites.sh [regress] [isolation] [libpq_pipeline] [psycopg2]      default: all of them
# What PostgreSQL's suites answered directly is what they must answer through the proxy. Connections are shared (pool.mode "auto"), but not for the
# isolation suite, which asks by their process ids who waits for whom. PostgreSQL's are built from SOURCE, a source tree of the installed server's
# version; without it that is fetched as a Debian source package. The last run's logs stay in target/suites.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(regress isolation libpq_pipeline psycopg2)
WORK=${CARGO_TARGET_DIR:-$ROOT/target}/suites
leave_nothing_behind
need_postgres
need_proxy
mkdir -p "$WORK"
version=$("$PGBIN/postgres" --version | sed 's/.* \([0-9]*\)\..*/\1/')

# Sets SOURCE to a tree in which the programs of PostgreSQL's suites are built.
need_source() {
  SOURCE=${SOURCE:-$WORK/postgresql}
  if [ ! -d "$SOURCE" ]; then
    install_packages dpkg-dev gcc make bison flex
    local lists=$WORK/lists
    mkdir -p "$lists"
    sed 's/^Types:.*/Types: deb-src/' /etc/apt/sources.list.d/*.sources > "$lists/source.sources" 2>/dev/null || rm -f "$lists/source.sources"
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed -n 's/^deb /deb-src /p' > "$lists/source.list"
    local apt=(-qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$lists" -o "Dir::State::lists=$WORK/apt" -o APT::Sandbox::User=root)
    mkdir -p "$WORK/apt/partial" "$WORK/unpacked"
    apt-get "${apt[@]}" update
    (cd "$WORK/unpacked" && apt-get "${apt[@]}" source --download-only "postgresql-$version" >/dev/null && mkdir tree \
      && tar -xf postgresql-"$version"_*.orig.tar.* -C tree --strip-components=1)
    mv "$WORK/unpacked/tree" "$SOURCE"
  fi
  [ ! -x "$SOURCE/src/test/modules/libpq_pipeline/libpq_pipeline" ] || return 0
  say "building the programs of PostgreSQL's suites (once)"
  (
    cd "$SOURCE"
    ./configure --quiet --without-readline --without-zlib
    make -s -C src/backend generated-headers
    for part in src/test/regress src/test/isolation src/interfaces/libpq src/test/modules/libpq_pipeline; do make -s -j2 -C $part all; done
  ) > "$WORK/build.log" 2>&1 || { tail -20 "$WORK/build.log" >&2; die "PostgreSQL's suites cannot be built"; }
}

# server COMMAND...: SQL for the server itself.
server() { psql -Xqh 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -d postgres -v ON_ERROR_STOP=1 "${@/#/-c}"; }

# Each suite is a function: PORT, and a directory of its own for what it leaves; `passed` there gets the names of the tests that pass.

# by_pg_regress PROGRAM SUITE DATABASE SCHEDULE PORT DIRECTORY [ARGUMENT...]
by_pg_regress() {
  local program=$1 suite=$2 database=$3 schedule=$4 port=$5 out=$6; shift 6
  local input=$SOURCE/src/test/$suite
  if [ "$port" != "$CLUSTER_PORT" ]; then
    # What the server answered directly takes the place of what PostgreSQL ships.
    mkdir "$out/in"
    cp -r "$input"/{sql,data,specs,resultmap,expected} "$out/in/" 2>/dev/null || true
    for answer in "$out"/../direct/results/*.out; do
      rm -f "$out/in/expected/$(basename "$answer" .out)"_[0-9].out
      cp "$answer" "$out/in/expected/"
    done
    input=$out/in
  fi
  chmod -R 777 "$out"
  server "DROP DATABASE IF EXISTS $database WITH (FORCE)" "CREATE DATABASE $database TEMPLATE template0 ENCODING 'UTF8'"
  for setting in lc_messages lc_monetary lc_numeric lc_time; do server "ALTER DATABASE $database SET $setting TO 'C'"; done
  server "ALTER DATABASE $database SET bytea_output TO 'hex'" "ALTER DATABASE $database SET timezone_abbreviations TO 'Default'"
  (cd "$out" && as_owner "$program" --inputdir="$input" --outputdir="$out" --bindir="$PGBIN" --use-existing --dbname="$database" --host=127.0.0.1 \
    --port="$port" --user=postgres --schedule="$SOURCE/src/test/$suite/$schedule" --max-concurrent-tests=20 "$@" > "$out/log" 2>&1) || true
  # Whatever the server answers directly is right.
  local ok='(ok)'
  [ "$port" != "$CLUSTER_PORT" ] || ok='(ok|not ok|FAILED|failed)'
  sed -nE -e "s/^(test |     )([a-z0-9_-]+) +\.\.\. $ok .*/\2/p" -e "s/^$ok [0-9]+ +[-+] ([a-z0-9_-]+) .*/\2/p" "$out/log" > "$out/passed"
}

regress() {
  mkdir "$2/lib"
  cp "$SOURCE/src/test/regress/regress.so" "$("$PGBIN/pg_config" --pkglibdir)"/{autoinc,refint}.so "$2/lib/"
  by_pg_regress "$SOURCE/src/test/regress/pg_regress" regress regression parallel_schedule "$1" "$2" --dlpath="$2/lib"
}

isolation() {
  by_pg_regress "$SOURCE/src/test/isolation/pg_isolation_regress" isolation isolation_regression isolation_schedule "$1" "$2"
}

libpq_pipeline() {
  local program=$SOURCE/src/test/modules/libpq_pipeline
  server 'DROP DATABASE IF EXISTS pipeline WITH (FORCE)' 'CREATE DATABASE pipeline'
  for test in $("$program/libpq_pipeline" tests); do
    if timeout 60 "$program/libpq_pipeline" -r 700 -t "$2/$test.trace" "$test" "host=127.0.0.1 port=$1 user=postgres dbname=pipeline sslmode=disable" \
      > "$2/$test.log" 2>&1; then echo "$test"; fi
    # And what libpq saw on the wire, message by message.
    if [ -f "$program/traces/$test.trace" ] && cmp -s "$program/traces/$test.trace" "$2/$test.trace"; then echo "$test, its trace"; fi
  done > "$2/passed"
}

psycopg2() {
  local release=2.9.13 python=$WORK/venv/bin/python
  if [ ! -d "$WORK/psycopg2-$release" ]; then
    python3 -m venv "$WORK/venv" 2>/dev/null || { install_packages python3-venv; python3 -m venv "$WORK/venv"; }
    "$python" -m pip install -q "psycopg2-binary==$release" pytest pytest-timeout
    "$python" -m pip download -q --no-deps --no-binary psycopg2 -d "$WORK" "psycopg2==$release"
    tar -xzf "$WORK/psycopg2-$release.tar.gz" -C "$WORK"
  fi
  server 'DROP DATABASE IF EXISTS psycopg2_test WITH (FORCE)' 'CREATE DATABASE psycopg2_test'
  psql -Xqh 127.0.0.1 -p "$CLUSTER_PORT" -U postgres -d psycopg2_test -c 'CREATE EXTENSION hstore'
  (cd "$WORK/psycopg2-$release" && PSYCOPG2_TESTDB=psycopg2_test PSYCOPG2_TESTDB_HOST=127.0.0.1 PSYCOPG2_TESTDB_PORT=$1 PSYCOPG2_TESTDB_USER=postgres \
    PSYCOPG2_TEST_REPL_DSN='' "$python" -m pytest -p no:cacheprovider --timeout=60 -rA -q tests > "$2/log" 2>&1) || true
  sed -n 's/^PASSED //p' "$2/log" > "$2/passed"
}

DIR=$(mktemp -d "${TMPDIR:-/tmp}/heliosproxy-suites-XXXXXX")
chmod 755 "$DIR"
cluster_start "$DIR" 'fsync = off' 'max_connections = 200' 'max_prepared_transactions = 10' 'max_wal_size = 4GB' 'wal_level = logical'
failed=
for suite in "${suites[@]}"; do
  [ "$suite" = psycopg2 ] || need_source
  mode=auto
  [ "$suite" != isolation ] || mode=session
  HELIOSPROXY_AUTH_MODE=trust HELIOSPROXY_POOL_MODE=$mode proxy_start "$DIR/proxy.log" postgres
  for way in direct proxy; do
    out=$DIR/$suite/$way
    mkdir -p "$out"
    say "$suite, $way"
    if [ $way = direct ]; then "$suite" "$CLUSTER_PORT" "$out"; else "$suite" "$PROXY_PORT" "$out"; fi
    sort -o "$out/passed" "$out/passed"
  done
  proxy_stop "$PROXY_PID"
  rm -rf "${WORK:?}/$suite"
  cp -r "$DIR/$suite" "$WORK/"
  lost=$(comm -23 "$DIR/$suite/direct/passed" "$DIR/$suite/proxy/passed")
  echo "$suite (pool.mode $mode): $(wc -l < "$DIR/$suite/direct/passed") directly, $(wc -l < "$DIR/$suite/proxy/passed") through the proxy"
  if [ -n "$lost" ]; then sed 's/^/  lost: /' <<<"$lost"; failed=1; fi
  [ -s "$DIR/$suite/direct/passed" ] || { echo "  nothing passes directly: see $WORK/$suite"; failed=1; }
done
[ -z "$failed" ]
