#!/usr/bin/env bash
# Runs the 64-bit ARM wheel of dist/ on an x86-64 Debian machine: with Debian's CPython for ARM, under qemu, as one
# processor for each level of NEON, and as one that lacks half-precision arithmetic.
#
#   tools/qemu_aarch64_wheel.sh [WHEEL]
#
# CPU="max" or another list of names of `qemu-aarch64 -cpu help` takes those processors instead. The interpreter is
# unpacked below the target folder; qemu is installed if it is missing and root runs this. Needs pip in the Python on the
# PATH, which `make test-aarch64` sees to.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
  echo "error: $*" >&2
  exit 1
}

wheel=${1:-$(compgen -G "dist/candle_phi-*manylinux*_aarch64.whl" || true)}
[ "$(wc -w <<<"$wheel")" = 1 ] || die "expected one ARM wheel in dist/, found: ${wheel:-none}; make wheel-aarch64"
wheel=$(realpath "$wheel")
folder=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

if ! command -v qemu-aarch64 >/dev/null && ! command -v qemu-aarch64-static >/dev/null; then
  [ "$(id -u)" = 0 ] || die "no qemu-aarch64; on Debian: apt-get install qemu-user"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-user >/dev/null
fi
qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static)

root=$folder/arm64-python
if [ ! -e "$root/complete" ]; then
  tools/unpack_debian.sh "$root" arm64 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 \
    libstdc++6 libexpat1 zlib1g libffi8 libssl3 libcrypt1 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1
  touch "$root/complete"
fi

rm -rf "$root/site"
python -m pip install --quiet --target "$root/site" --only-binary :all: --implementation cp --python-version 3.11 \
  --abi cp311 --abi abi3 --abi none --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
  --platform manylinux_2_28_aarch64 "$wheel"

arm_python() { # CPU [ARGUMENT ...]
  local cpu=$1
  shift
  "$qemu" -cpu "$cpu" -L "$root" -E PYTHONHOME="$root/usr" -E PYTHONPATH="$root/site" "$root/usr/bin/python3.11" -S "$@"
}

expected() { # the level that the kernels must find there
  case $1 in
    cortex-a76 | neoverse-n1) echo neon-dotprod ;;
    max) echo neon-i8mm ;;
  esac
}

cd / # away from the checkout
for cpu in ${CPU:-cortex-a76 max}; do
  echo "--- the wheel on aarch64 $cpu"
  EXPECTED=$(expected "$cpu") arm_python "$cpu" -W error - <<'END'
import os
import platform
from candle_phi import Phi3Session, _native

assert platform.machine() == "aarch64", platform.machine()
# The compiler's own word that .cargo/config.toml took effect.
assert _native.__build__ == "candle-phi build: needs fp16", _native.__build__
said = set()
for executor in ("kernels", "candle"):
    with Phi3Session.demo(executor=executor) as session:
        assert session.isa == (os.environ["EXPECTED"] or session.isa), session.isa
        answer = session.chat("Write a haiku about ice hockey", temperature=0.0, max_tokens=40)
        said.add(answer.text)
        print(f"{executor} ({session.isa}): {answer.text!r}")
assert len(said) == 1, "the executors differ"
# The level below, which the kernels of a processor with plain NEON are.
with Phi3Session.demo(isa="neon") as session:
    assert session.chat("Write a haiku about ice hockey", temperature=0.0, max_tokens=40).text in said
END
done

echo "--- the wheel on aarch64 cortex-a72, which has no FEAT_FP16"
arm_python cortex-a72 - <<'END'
import sys

try:
    import candle_phi
except ImportError as error:
    print("ImportError:", error)
    assert "FEAT_FP16" in str(error)
    assert "candle_phi._native" not in sys.modules
else:
    raise SystemExit("error: the import went well there")
END
