#!/usr/bin/env bash
# Makes a Debian package: target/debian/heliosproxy_*.deb, with systemd unit, manual page and completions.
#   scripts/package.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

command -v cargo >/dev/null || die "a Rust toolchain is needed: https://rustup.rs"
command -v cargo-deb >/dev/null || die "cargo-deb is needed: cargo install cargo-deb --locked"
cargo build --release --locked --bin heliosproxy
mkdir -p target/package
target/release/heliosproxy --man > target/package/heliosproxy.1
target/release/heliosproxy --completions bash > target/package/heliosproxy.bash
target/release/heliosproxy --completions zsh > target/package/_heliosproxy
target/release/heliosproxy --completions fish > target/package/heliosproxy.fish
cargo deb --no-build
