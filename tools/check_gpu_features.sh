#!/usr/bin/env bash
# Checks the types of the code behind the GPU features, on a Linux machine with neither a GPU nor a toolkit for one.
#
#   tools/check_gpu_features.sh [cuda] [flash-attn] [metal]      all three by default
#
#   cuda, flash-attn   clippy, with a stand-in for nvcc that writes empty files in the place of compiled kernels: the Rust
#                      code is checked as far as calling the kernels, and nothing is linked. tools/cuda_toolkit.sh gets a
#                      toolkit that compiles them.
#   metal              `cargo check` for macOS on Apple's processors. Rust's standard library for it is built from source
#                      (see tools/rustc_for.sh); a stand-in for the C compiler writes empty files for the C code of TLS, and
#                      nothing is linked.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/gpu-features
[ $# -gt 0 ] || set -- cuda flash-attn metal

# The features of all crates of the workspace that have them.
features() {
  echo "candle-phi-engine/$1,candle-phi-python/$1"
}

stand_in_for_nvcc() {
  mkdir -p "$folder/cuda/bin" "$folder/cuda/include" "$folder/cuda/lib64"
  cat >"$folder/cuda/bin/nvcc" <<'END'
#!/usr/bin/env bash
# Says which CUDA it stands for, and writes each file that it was to compile, empty.
set -euo pipefail
output=
directory=
while [ $# -gt 0 ]; do
  case $1 in
    --version)
      printf '%s\n' "stand-in for nvcc" "" "" "Cuda compilation tools, release 13.0, V13.0.88" ""
      exit ;;
    -o) output=$2 && shift ;;
    --output-directory) directory=$2 && shift ;;
    *.cu) source=$1 ;;
  esac
  shift
done
: >"${output:-$directory/$(basename "$source" .cu).ptx}"
END
  chmod +x "$folder/cuda/bin/nvcc"
  export CUDA_HOME=$folder/cuda PATH=$folder/cuda/bin:$PATH CUDA_COMPUTE_CAP=80 NVCC=$folder/cuda/bin/nvcc
}

# The build script of flash attention would fetch CUTLASS, whose headers nothing reads here, unless it is there already.
stand_in_for_cutlass() {
  local manifest commit checkout
  manifest=$(cargo metadata --format-version 1 --locked --features "$(features flash-attn)" |
    grep -o '"manifest_path":"[^"]*/candle-flash-attn-[^"]*/Cargo.toml"' | head -1 | cut -d '"' -f 4)
  commit=$(sed -n 's/^const CUTLASS_COMMIT: &str = "\([0-9a-f]*\)";/\1/p' "$(dirname "$manifest")/build.rs")
  export CUDAFORGE_HOME=$folder/cudaforge
  checkout=$CUDAFORGE_HOME/git/checkouts/cutlass-${commit:0:16}
  mkdir -p "$checkout/include"
  [ -e "$checkout/.git" ] || git init -q "$checkout"
  echo "$commit" >"$checkout/.git/HEAD"
}

# For the C code below the crates, which nothing reads here either.
stand_in_for_a_c_compiler() {
  mkdir -p "$folder/c"
  cat >"$folder/c/cc" <<'END'
#!/usr/bin/env bash
# Says that it is clang, and writes what it was to compile, empty.
set -euo pipefail
for argument in "$@"; do
  case ${previous:-} in -o) : >"$argument" ;; esac
  case $argument in -E) echo '#pragma message "clang"' ;; esac
  previous=$argument
done
END
  cat >"$folder/c/ar" <<'END'
#!/usr/bin/env bash
for argument in "$@"; do
  case $argument in *.a) : >"$argument" ;; esac
done
END
  chmod +x "$folder/c/cc" "$folder/c/ar"
  export CC_aarch64_apple_darwin=$folder/c/cc CXX_aarch64_apple_darwin=$folder/c/cc AR_aarch64_apple_darwin=$folder/c/ar
  export SDKROOT=$folder/c
}

for feature in "$@"; do
  echo "--- $feature"
  case $feature in
    cuda | flash-attn)
      (
        stand_in_for_nvcc
        [ "$feature" = cuda ] || stand_in_for_cutlass
        CARGO_TARGET_DIR=$folder/cuda-target cargo clippy --workspace --all-targets --release --locked \
          --features "$(features "$feature")" -- -D warnings
      )
      ;;
    metal)
      (
        target=aarch64-apple-darwin
        RUSTC=$(tools/rustc_for.sh $target)
        export RUSTC CARGO_TARGET_DIR=$folder/metal-target
        stand_in_for_a_c_compiler
        if ! compgen -G "$("$RUSTC" --print target-libdir --target $target)/libstd-*.rlib" >/dev/null; then
          export RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_abort
        fi
        cargo check --workspace --release --locked --target $target --features "$(features metal)"
      )
      ;;
    *)
      echo "error: expected cuda, flash-attn or metal, found $feature" >&2
      exit 2
      ;;
  esac
done
