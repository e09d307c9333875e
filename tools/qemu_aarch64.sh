#!/usr/bin/env bash
# Runs the kernel crate's tests as 64-bit ARM processors, one for each level of NEON, on an x86-64 Debian machine.
#
#   tools/qemu_aarch64.sh [TEST OPTION ...]           e.g. tools/qemu_aarch64.sh q4_k --nocapture
#
# CPU="max" or another list of names of `qemu-aarch64 -cpu help` takes those processors instead. Debian packages that are
# missing are installed if root runs this. tools/rustc_for.sh says where Rust for ARM comes from.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu

die() {
  echo "error: $*" >&2
  exit 1
}

packages=()
command -v aarch64-linux-gnu-gcc >/dev/null || packages+=(gcc-aarch64-linux-gnu)
[ -e /usr/aarch64-linux-gnu/lib/crt1.o ] || packages+=(libc6-dev-arm64-cross)
command -v qemu-aarch64 >/dev/null || command -v qemu-aarch64-static >/dev/null || packages+=(qemu-user)
if [ ${#packages[@]} -gt 0 ]; then
  [ "$(id -u)" = 0 ] || die "missing packages; on Debian: apt-get install ${packages[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static)

RUSTC=$(tools/rustc_for.sh $target)
export RUSTC
"$RUSTC" --version

expected() { # the level that the kernels must find there
  case $1 in
    cortex-a53 | cortex-a57 | cortex-a72) echo neon ;;
    cortex-a76 | neoverse-n1) echo neon-dotprod ;;
    max) echo neon-i8mm ;;
  esac
}

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
for cpu in ${CPU:-cortex-a72 cortex-a76 max}; do
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$qemu -cpu $cpu -L /usr/aarch64-linux-gnu"
  unset RUSTFLAGS
  # These have no half-precision arithmetic, which .cargo/config.toml takes for granted: built without its flags.
  case $cpu in cortex-a53 | cortex-a57 | cortex-a72) export RUSTFLAGS="" ;; esac
  found=$(cargo run --quiet --release --locked --target $target -p candle-phi-kernels --example isa)
  echo "--- aarch64 $cpu: $found"
  [ "$found" = "$(expected "$cpu" || true)" ] || [ -z "$(expected "$cpu")" ] || die "expected $(expected "$cpu")"
  cargo test --quiet --release --locked --target $target -p candle-phi-kernels --lib --tests -- "$@"
done
