#!/usr/bin/env bash
# Runs every check of the project: formatting, lints, unit and integration tests. Installs PostgreSQL and promtool if they are missing.
#   scripts/test.sh [ARGUMENTS OF cargo test...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

command -v cargo >/dev/null || die "a Rust toolchain is needed: https://rustup.rs"
command -v cc >/dev/null || install_packages build-essential
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
need_postgres
need_promtool
say "testing against $("$PGBIN/postgres" --version)"

step() {
  local start=$SECONDS
  printf '\n== %s\n' "$*" >&2
  "$@" || die "failed after $((SECONDS - start)) s: $*"
  printf '== passed in %s s: %s\n' "$((SECONDS - start))" "$*" >&2
}

step cargo fmt --check
step cargo clippy --locked --all-targets -- -D warnings
step cargo test --locked --no-fail-fast "$@"
# What may happen to a server and a network, once more with connections that clients share.
TEST_POOL_MODE=auto step cargo test --locked --no-fail-fast --test chaos_ends_well
say "everything passed"
