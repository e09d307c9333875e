#!/usr/bin/env bash
# Builds the wheel of this machine twice, and compares the bytes: once here, and once in a copy of the checkout in
# another folder, with another target folder and another CARGO_HOME. Compiles Candle anew, so it takes as long as a
# first `make wheel`.
#
#   tools/test_reproducible.sh [TARGET]
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
  echo "error: $*" >&2
  exit 1
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

mkdir -p "$scratch/elsewhere/checkout" "$scratch/cargo"
git ls-files -z | xargs -0 cp --parents -t "$scratch/elsewhere/checkout"
ln -s "${CARGO_HOME:-$HOME/.cargo}/registry" "$scratch/cargo/registry"

mkdir "$scratch/here"
tools/wheel.sh "$@" --out "$scratch/here"
CARGO_HOME=$scratch/cargo CARGO_TARGET_DIR=$scratch/elsewhere/target \
  "$scratch/elsewhere/checkout/tools/wheel.sh" "$@" --out "$scratch/there"

sha256sum "$scratch"/here/*.whl "$scratch"/there/*.whl
cmp "$scratch"/here/*.whl "$scratch"/there/*.whl || {
  diff <(unzip -v "$scratch"/here/*.whl) <(unzip -v "$scratch"/there/*.whl) || true
  die "the bytes differ"
}
echo "the same bytes"
