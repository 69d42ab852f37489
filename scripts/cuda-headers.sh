#!/bin/sh
# Sees to it that the folder INCLUDE holds a CUDA 12 cuda.h: cuda-headers.sh INCLUDE. A folder that isn't there is made, from the wheel of headers.txt, by pip;
# one that is there is only looked at. Where there can be no cuda.h, one line on standard error says why, and the exit code is 1.
set -eu
include=$1
list=$(cd "$(dirname "$0")/.." && pwd)/internal/kernels/cuda/headers.txt
fail() { echo "no cuda.h: $*" >&2; exit 1; }

if [ -f "$include/cuda.h" ]; then
	version=$(sed -n 's/^#define CUDA_VERSION *\([0-9]*\).*/\1/p' "$include/cuda.h" | head -1)
	case $version in
	12???) exit 0 ;;
	*) fail "the one in $include is of version ${version:-unknown}, and only 12's fits gorgonia.org/cu" ;;
	esac
fi
[ ! -e "$include" ] || fail "there is none in $include"
[ "$(uname -sm)" = "Linux x86_64" ] || fail "the CUDA build is for x86-64 Linux, this is $(uname -sm)"
python=$(command -v python3) || fail "python3 with pip fetches it, and there is none; or set CUDA_INCLUDE to a CUDA 12 toolkit's include folder"
"$python" -m pip --version >/dev/null 2>&1 || fail "python3 has no pip to fetch it; or set CUDA_INCLUDE to a CUDA 12 toolkit's include folder"

mkdir -p "$(dirname "$include")"
work=$(mktemp -d "$include.XXXXXX")
trap 'rm -rf "$work"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --timeout 20 --retries 1 --require-hashes -r "$list" -d "$work" 2>"$work/log" ||
	fail "pip can't fetch it: $(grep -v '^WARNING' "$work/log" | tail -1)"
"$python" -m zipfile -e "$work"/*.whl "$work/wheel"
[ -f "$work/wheel/nvidia/cuda_runtime/include/cuda.h" ] || fail "the wheel holds none"
mv "$work/wheel/nvidia/cuda_runtime/include" "$include"
