#!/usr/bin/env bash
# Tests and measures a wheel with CUDA on a machine with a GPU that has neither Rust nor a network.
#
#   tools/gpu_check.sh FOLDER... [-- PART...]     all parts by default; they take minutes, and are stopped after six
#
# The folders have wheels: the package's, which `make wheel FEATURES=cuda` makes, and those that the tests need and the
# machine's Python has not, such as gguf and pytest 9, which `pip download --no-deps` fetches where there is a network.
#
#   machine    what is there, which device the package takes and why
#   models     tests/test_cuda.py
#   sessions   tests/test_cuda_sessions.py
#   speed      prefill and decode of a file in Phi-3-mini's shape, which is written to TMPDIR: 2.4 GB
#
# A part that fails does not keep the others from running. OUT, if set, is a folder for the parts' logs.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

die() {
  echo "error: $*" >&2
  exit 2
}

wheels=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  found=("$1"/*.whl)
  [ -e "${found[0]}" ] || die "expected a folder with wheels, found none in $1"
  wheels+=("${found[@]}")
  shift
done
[ ${#wheels[@]} -gt 0 ] || die "which folders have the wheels?"
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- machine models sessions speed

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
logs=${OUT:-$scratch}
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$scratch/site" "${wheels[@]}" ||
  die "the wheels cannot be installed"
export PYTHONPATH=$scratch/site PYTHONUNBUFFERED=1 RAYON_NUM_THREADS=8

machine() {
  nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader
  python3 --version
  ls -d /usr/local/cuda*/lib64 2>/dev/null
  python3 - <<'END'
import time

started = time.monotonic()
from candle_phi import Phi3Model

print(f"imported in {time.monotonic() - started:.2f} s")
with open("/proc/self/maps", encoding="utf-8") as maps:
    print(*sorted({line.split()[-1] for line in maps if "/lib" in line and ("cu" in line or "nvrtc" in line)}), sep="\n")
for device in ("auto", "cuda:0", "cuda:7"):
    started = time.monotonic()
    try:
        model = Phi3Model.demo(device=device)
        print(f"{device}: {model.device}, {model.device_reason}, in {time.monotonic() - started:.2f} s")
    except Exception as error:
        print(f"{device}: {type(error).__name__}: {error}")
END
  python3 -m candle_phi doctor
}

# Without the checkout's own options: plugins and warnings here are the machine's.
tested() {
  PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 python3 -m pytest -c /dev/null --rootdir . -p no:cacheprovider -p pytest_timeout \
    --timeout 60 -v -rA --durations=8 --tb=short -W ignore::pytest.PytestUnknownMarkWarning "$@"
}

part() {
  case $1 in
    machine) machine ;;
    models) tested tests/test_cuda.py ;;
    sessions) tested tests/test_cuda_sessions.py ;;
    speed) python3 tools/gpu_speed.py ;;
  esac
}

declare -A most_s=([machine]=30 [models]=110 [sessions]=100 [speed]=100)
export -f machine tested part
failed=()
for name in "$@"; do
  [ -n "${most_s[$name]:-}" ] || die "expected one of machine, models, sessions and speed, found $name"
  echo
  echo "=== $name ($SECONDS s)"
  timeout -k 5 "${most_s[$name]}" bash -uo pipefail -c "part $name" 2>&1 | tee "$logs/$name.log"
  status=${PIPESTATUS[0]}
  [ "$status" -eq 0 ] || failed+=("$name ($status)")
done
echo
echo "=== done ($SECONDS s)${failed[*]:+, failed: ${failed[*]}}"
[ ${#failed[@]} -eq 0 ]
