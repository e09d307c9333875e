#!/usr/bin/env bash
# Checks the types of the library for C on the systems of phones: nothing is linked, which takes their SDKs.
#
#   tools/check_phones.sh [TARGET...]      aarch64-apple-ios and aarch64-linux-android by default
#
# Rust's standard library for a target is built from source where there is no other (see tools/rustc_for.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/phones
[ $# -gt 0 ] || set -- aarch64-apple-ios aarch64-linux-android

for target in "$@"; do
  echo "--- $target"
  (
    RUSTC=$(tools/rustc_for.sh "$target")
    export RUSTC CARGO_TARGET_DIR=$folder
    if ! compgen -G "$("$RUSTC" --print target-libdir --target "$target")/libstd-*.rlib" >/dev/null; then
      export RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_abort
    fi
    cargo check -p candle-phi-capi --no-default-features --release --locked --target "$target"
  )
done
