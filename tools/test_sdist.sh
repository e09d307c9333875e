#!/usr/bin/env bash
# Builds a wheel from the source distribution alone, as `pip install` does where there is no wheel, and lets it answer.
# It is unpacked in a folder of its own, and pip makes the environment to build in. Only what is compiled of the
# dependencies is kept below the target folder, so that Candle is compiled once.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
  echo "error: $*" >&2
  exit 1
}

folder=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
checkout=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

maturin sdist --out "$scratch"
archive=$(echo "$scratch"/*.tar.gz)
listing=$(tar tzf "$archive")
for file in .cargo/config.toml Cargo.lock Cargo.toml THIRD_PARTY.md LICENSE-APACHE LICENSE-MIT python/candle_phi/py.typed; do
  grep -q "^[^/]*/$file$" <<<"$listing" || die "expected $file in the source distribution, found none"
done

cd "$scratch"
CARGO_TARGET_DIR=$folder python -m pip wheel --quiet --no-deps --no-cache-dir --wheel-dir "$scratch/dist" "$archive"
python "$checkout/tools/check_wheel.py" "$scratch"/dist/*.whl
