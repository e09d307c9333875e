#!/usr/bin/env bash
# Says which rustc compiles for a Linux target that is not this machine's, and gets it where there is none.
#
#   tools/rustc_for.sh TARGET                         e.g. RUSTC=$(tools/rustc_for.sh aarch64-unknown-linux-gnu)
#
# That is the rustc on the PATH if it has the target's standard library, or rustup can give it that. Otherwise it is
# that of Debian's `rustc-web`, unpacked below the target folder, with the libraries for x86-64 and 64-bit ARM with
# glibc, and the source to build the others from (cargo's build-std). DEBIAN_RUST=1 chooses the latter.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:?"which target?"}
folder=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

has_std() {
  compgen -G "$(rustc --print target-libdir --target "$target")/libstd-*.rlib" >/dev/null
}

# The two libraries of the compiler itself carry versions in their names. The wrapper is written last: if it exists, the rest does.
unpack_debian_rust() {
  local root=$1
  tools/unpack_debian.sh "$root" "amd64 arm64" rustc-web rust-web-src libstd-rust-web-dev libstd-rust-web-dev:arm64 \
    --depends 'libstd-rust-web-[0-9.]+|libllvm[0-9]+'
  mkdir -p "$root/bin"
  cat >"$root/rustc.new" <<END
#!/bin/sh
LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu exec $root/usr/bin/rustc "\$@"
END
  chmod +x "$root/rustc.new"
  mv "$root/rustc.new" "$root/bin/rustc"
}

if [ -z "${DEBIAN_RUST:-}" ] && { has_std || { rustup target add "$target" >&2 && has_std; }; }; then
  command -v rustc
else
  root=$folder/debian-rust
  if [ ! -x "$root/bin/rustc" ] || [ ! -e "$root/usr/lib/rustlib/src" ]; then unpack_debian_rust "$root" >&2; fi
  echo "$root/bin/rustc"
fi
