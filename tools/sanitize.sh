#!/usr/bin/env bash
# Runs the kernel crate's tests under what finds undefined behaviour.
#
#   tools/sanitize.sh [miri] [address] [thread]      all three by default; miri takes about ten minutes
#
#   miri      an interpreter that checks every access and every alias. It has no vector extensions, so this is the scalar
#             code and the threads; tests that are too much for it say so (`cfg_attr(miri, ignore)`).
#   address   AddressSanitizer: accesses outside of buffers, at every level that this machine has. Inline assembly is not seen.
#   thread    ThreadSanitizer: races, the standard library included, which is built for it.
#
# Needs x86-64 or ARM Linux and a nightly toolchain; the components `miri` and `rust-src` are asked of rustup where missing.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
  echo "error: $*" >&2
  exit 1
}

rustc +nightly --version || die "no nightly toolchain; rustup toolchain install nightly"
target=$(rustc +nightly -vV | sed -n 's/^host: //p')
component() {
  rustup component list --toolchain nightly | grep -q "^$1.*(installed)" || rustup component add --toolchain nightly "$1"
}

# Their builds are of no use to others.
folder=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
export CARGO_TARGET_DIR=$folder/sanitize
crate=(--locked -p candle-phi-kernels --lib --tests)

[ $# -gt 0 ] || set -- miri address thread
for tool in "$@"; do
  echo "--- $tool"
  case $tool in
    miri)
      component miri
      component rust-src
      # The queues of crossbeam, below rayon, keep pointers in integers and leave their memory to the end of the process.
      MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks -Zmiri-disable-isolation" \
        cargo +nightly miri test "${crate[@]}"
      ;;
    address)
      # A test asks for more memory than there is, and wants to hear so.
      ASAN_OPTIONS=allocator_may_return_null=1 RUSTFLAGS="-Zsanitizer=address" cargo +nightly test --release --target "$target" "${crate[@]}"
      ;;
    thread)
      component rust-src
      RUSTFLAGS="-Zsanitizer=thread" cargo +nightly test -Zbuild-std --release --target "$target" "${crate[@]}"
      ;;
    *) die "expected miri, address or thread, found $tool" ;;
  esac
done
