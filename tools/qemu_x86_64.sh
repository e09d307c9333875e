#!/usr/bin/env bash
# Runs the kernel crate's tests as processors older than this one: one that has only what every x86-64 machine has,
# and one with AVX2. Needs an x86-64 Linux machine with qemu-user. Its processors have no AVX-512 and no AVX-VNNI.
#
#   tools/qemu_x86_64.sh [TEST OPTION ...]            the kernel crate's tests, on each processor
#   tools/qemu_x86_64.sh --package PYTHON             PYTHON's candle-phi answers with the embedded model, on each, as here
#
# CPU="qemu64" or another list of names of `qemu-x86_64 -cpu help` takes those processors instead.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
  echo "error: $*" >&2
  exit 1
}
[ "$(uname -sm)" = "Linux x86_64" ] || die "this runs on x86-64 Linux, not on $(uname -sm)"
qemu=$(command -v qemu-x86_64 || command -v qemu-x86_64-static) || die "no qemu-x86_64; on Debian: apt-get install qemu-user"
[ -z "${RUSTFLAGS:-}" ] || die "RUSTFLAGS is set; what is to be tested is the build that everyone gets"

expected() { # the level that the kernels must find there
  case $1 in
    qemu64 | Nehalem | Westmere | SandyBridge) echo scalar ;; # AVX alone, without AVX2, is of no use to the kernels
    Haswell* | Broadwell* | EPYC* | max) echo avx2 ;;
  esac
}
found_as_expected() { # CPU LEVEL
  [ "$2" = "$(expected "$1" || true)" ] || [ -z "$(expected "$1")" ] || die "expected $(expected "$1"), found $2"
}

if [ "${1:-}" = --package ]; then
  python=$(realpath -s "${2:?"which python?"}")
  # Away from the checkout, so that it is the installed package that answers.
  cd /
  answers() { # [EMULATOR ...]: the likeliest words, which must not depend on the processor
    "$@" "$python" - <<'EOF'
from candle_phi import Phi3Session

for executor in ("kernels", "candle"):
    with Phi3Session.demo(executor=executor) as session:
        answer = session.chat("Write a haiku about ice hockey", temperature=0.0, max_tokens=40)
        print(f"{executor}: {answer.text!r}")
EOF
  }
  wanted=$(answers)
  echo "$wanted"
  for cpu in ${CPU:-qemu64 max}; do
    isa=$("$qemu" -cpu "$cpu" "$python" -c 'import candle_phi; print(candle_phi.Phi3Session.demo().isa)')
    echo "--- the package on $cpu: $isa"
    found_as_expected "$cpu" "$isa"
    found=$(answers "$qemu" -cpu "$cpu")
    [ "$found" = "$wanted" ] || die "other answers there: $found"
  done
  exit
fi

for cpu in ${CPU:-qemu64 max}; do
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$qemu -cpu $cpu"
  found=$(cargo run --quiet --release --locked -p candle-phi-kernels --example isa)
  echo "--- x86-64 $cpu: $found"
  found_as_expected "$cpu" "$found"
  cargo test --quiet --release --locked -p candle-phi-kernels --lib --tests -- "$@"
done
