#!/usr/bin/env bash
# Runs the kernel crate's tests as 64-bit ARM processors, one for each level of NEON, on an x86-64 Debian machine.
#
#   tools/qemu_aarch64.sh [TEST OPTION ...]           e.g. tools/qemu_aarch64.sh q4_k --nocapture
#
# CPU="max" or another list of names of `qemu-aarch64 -cpu help` takes those processors instead. Debian packages that are
# missing are installed if root runs this. Rust's standard library for ARM comes from rustup, or, where rustup has none
# to give, from Debian's `rustc-web`, unpacked below the target folder; DEBIAN_RUST=1 chooses the latter.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
folder=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

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

has_std() {
  compgen -G "$("$@" --print target-libdir --target $target)/libstd-*.rlib" >/dev/null
}

# A compiler and its libraries for both architectures out of Debian's archive: nothing is installed, and apt's own
# lists stay as they are.
unpack_debian_rust() {
  local root=$folder/debian-rust apt=$folder/debian-rust/apt
  local packages=(rustc-web libstd-rust-web-dev libstd-rust-web-dev:arm64)
  if [ ! -e "$root/complete" ]; then
    rm -rf "$root"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$root/debs" "$root/bin"
    : >"$apt/status"
    cat >"$apt/apt.conf" <<EOF
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
EOF
    (
      export APT_CONFIG=$apt/apt.conf
      cd "$root/debs"
      apt-get -qq update
      # The two libraries of the compiler itself carry versions in their names.
      mapfile -t libraries < <(
        apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
          rustc-web libstd-rust-web-dev | grep -oE '^(libstd-rust-web-[0-9.]+|libllvm[0-9]+)$' | sort -u
      )
      apt-get -qq download "${packages[@]}" "${libraries[@]}"
      for deb in *.deb; do dpkg-deb -x "$deb" "$root"; done
    )
    cat >"$root/bin/rustc" <<EOF
#!/bin/sh
LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu exec $root/usr/bin/rustc "\$@"
EOF
    chmod +x "$root/bin/rustc"
    rm -rf "$root/debs" "$apt"
    touch "$root/complete"
  fi
  export RUSTC=$root/bin/rustc
}

if [ "${DEBIAN_RUST:-}" ] || ! { has_std rustc || { rustup target add $target && has_std rustc; }; }; then
  unpack_debian_rust
  has_std "$RUSTC" || die "Debian's Rust has no standard library for $target"
fi
"${RUSTC:-rustc}" --version

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
