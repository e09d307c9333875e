#!/usr/bin/env bash
# Builds the engine and runs its example with an environment of a few variables and a PATH of a few programs: Rust's, and what
# links. No Python is there, to build with or to run with.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
for tool in cc c++ gcc g++ ld as ar sed; do
  found=$(command -v "$tool") && ln -s "$found" "$tools/$tool"
done
# rustup's programs look at the name that they are called by, and in a folder that they know.
for tool in cargo rustc; do
  found=$(rustup which "$tool" 2>/dev/null || command -v "$tool")
  ln -s "$found" "$tools/$tool"
done

alone() {
  env -i HOME="$HOME" PATH="$tools" ${CARGO_HOME:+CARGO_HOME="$CARGO_HOME"} \
    ${CARGO_TARGET_DIR:+CARGO_TARGET_DIR="$CARGO_TARGET_DIR"} "$@"
}
for python in python python3; do
  if alone sh -c "command -v $python" >/dev/null 2>&1; then
    echo "error: $python is on the PATH" >&2
    exit 1
  fi
done
if alone cargo tree --locked --package candle-phi-engine --edges normal,build --prefix none | grep -E '^(pyo3|cpython|numpy)'; then
  echo "error: the engine depends on Python" >&2
  exit 1
fi
# --workspace so that features are chosen as everywhere else: with another choice Candle is compiled twice. Of its members
# only the engine and the kernels are built for this.
alone cargo build --release --locked --workspace --example conversation
folder=$(alone cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
answer=$(alone "$folder/release/examples/conversation")
echo "$answer"
[[ $answer == *"tokens were there already"* ]] || { echo "error: expected three answers" >&2; exit 1; }
