#!/usr/bin/env bash
# Lays out a CUDA toolkit from PyPI's packages: what compiles and links the feature `cuda`, without a driver or a GPU.
#
#   eval "$(tools/cuda_toolkit.sh [DIRECTORY])"       prints the environment; the messages go to stderr
#   make wheel FEATURES=cuda
#
# DIRECTORY defaults to `cuda-toolkit` in the target folder. CUDA_COMPUTE_CAP is the GPU's compute capability, 80 if unset:
# a build runs on GPUs of that generation only (docs/devices.md). FAST=1 lets nvcc skip optimizing, for those who only
# want to know whether it compiles. Takes 4 GB of disk.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)

die() {
  echo "error: $*" >&2
  exit 1
}

[ "$(uname -s)" = Linux ] || die "PyPI's toolkit is for Linux; install NVIDIA's for this system"
if [ $# -gt 0 ]; then
  folder=$1
else
  folder=$(cd "$repository" && cargo metadata --format-version 1 --no-deps |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/cuda-toolkit
fi

# One release of all parts: nvcc refuses headers of another, and cudarc, below Candle, knows CUDA up to 13.4.
packages=(
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88
  'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-nvrtc==13.0.*'
  nvidia-curand==10.4.0.35 'nvidia-cublas==13.1.*'
)
[ -e "$folder/bin/python" ] || python3 -m venv "$folder" >&2
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}" >&2
folder=$(realpath "$folder")
home=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia/cu13
[ -x "$home/bin/nvcc" ] || die "expected nvcc in $home/bin, found none; remove $folder and start again"

# nvcc and cudarc look in lib64, and a linker for names without a version.
ln -sfn lib "$home/lib64"
for library in "$home"/lib/lib*.so.*; do
  plain=${library%%.so.*}.so
  [ -e "$plain" ] || ln -s "$(basename "$library")" "$plain"
done
# The driver's own library comes with a driver, in no package. A stand-in with its name and its functions is enough to
# link against; each returns CUDA_ERROR_STUB_LIBRARY. (A linker drops a library that has none of what is asked for.)
stub=$home/lib/stubs/libcuda.so
if [ ! -e "$stub" ]; then
  mkdir -p "$home/lib/stubs"
  grep -ohE '\bcu[A-Z][A-Za-z0-9_]*' "$home/include/cuda.h" | sort -u | sed 's/.*/int &(void) { return 34; }/' |
    cc -x c -w -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$stub" -
fi

"$home/bin/nvcc" --version | tail -2 | head -1 >&2
cat <<END
export CUDA_HOME=$home
export PATH=$home/bin:\$PATH
export LIBRARY_PATH=$home/lib:$home/lib/stubs
export CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-80}
END
[ -z "${FAST:-}" ] || echo "export NVCC_APPEND_FLAGS=--Ofast-compile=max"
