#!/usr/bin/env bash
# Builds a Linux wheel for machines that are not this one: for a glibc or musl older than the one here, and of the same
# bytes wherever the same commit is built with the same tools. The result is in dist/, if no other --out is given.
#
#   tools/wheel.sh [TARGET] [MATURIN OPTION ...]      e.g. tools/wheel.sh aarch64-unknown-linux-gnu
#
# TARGET is x86_64 or aarch64, -unknown-linux-, gnu or musl; by default the kind of this machine. Zig, from PyPI, is the C
# compiler and the linker, so that nothing of this machine's libc gets in. Needs maturin and ziglang in the Python on the
# PATH, which `make wheel` sees to. tools/rustc_for.sh says where Rust for another kind of machine comes from.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
  echo "error: $*" >&2
  exit 1
}

[ "$(uname -s)" = Linux ] || die "this runs on Linux; elsewhere: make wheel"
target=$(rustc -vV | sed -n 's/^host: //p')
case ${1:-} in "" | -*) ;; *) target=$1 && shift ;; esac
# The oldest that Rust's standard library runs on, and all that the dependencies need.
case $target in
  x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) tag=manylinux_2_17 ;;
  x86_64-unknown-linux-musl | aarch64-unknown-linux-musl) tag=musllinux_1_2 ;;
  *) die "expected a target of x86-64 or 64-bit ARM Linux, found $target" ;;
esac

# Cargo would ignore the flags of .cargo/config.toml, and those below.
for variable in RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS; do
  [ -z "${!variable+set}" ] || die "$variable is set; unset it: a wheel is built with the flags of .cargo/config.toml"
done

folder=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
RUSTC=$(tools/rustc_for.sh "$target")
export RUSTC
if ! compgen -G "$("$RUSTC" --print target-libdir --target "$target")/libstd-*.rlib" >/dev/null; then
  # Debian has none for musl: it is built with the rest, from the source that Debian's compiler was built from.
  export RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_abort
fi

# Paths of this machine get into panic messages, and with them into the bytes. Not the checkout's: the crates in it are
# compiled with relative paths, and a flag that names it would have Candle compiled again for each checkout.
remaps=()
cargo_home=${CARGO_HOME:-$HOME/.cargo}
for pair in "$folder=/target" "$cargo_home=/cargo" "$("$RUSTC" --print sysroot)=/rust"; do
  remaps+=("\"--remap-path-prefix=$pair\"")
done
export CFLAGS="-ffile-prefix-map=$folder=/target -ffile-prefix-map=$cargo_home=/cargo"
# The times in the archive: the earliest that a zip archive can hold. Not the commit's: cargo would compile the C code of
# TLS anew for each commit, and all that is built on it.
export SOURCE_DATE_EPOCH=315532800

flags=$(
  IFS=,
  echo "${remaps[*]}"
)
case " $* " in *" --out "*) ;; *) set -- --out dist "$@" ;; esac
python tools/sbom.py --target "$target" "$folder/sbom/candle-phi.cyclonedx.json"
exec maturin build --release --locked --zig --target "$target" --compatibility "$tag" \
  --sbom-include "$folder/sbom/candle-phi.cyclonedx.json" \
  --config "target.$target.rustflags=[$flags]" "$@"
