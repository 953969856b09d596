#!/usr/bin/env bash
# The CUDA compiler that pip installs, and its own type of 16 bits; cuda-toolkit 13.0.3.0, 2026-11-28.
# Guess: `pip install "cuda-toolkit[nvcc,nvvm,crt]"` compiles a kernel that uses __half: nvcc, the
#        runtime and cuda_fp16.h come with it, and a kernel of floats compiles.
# Seen:  cuda_fp16.h includes nv/target, which belongs to CCCL: nvcc stops, and the line that it
#        prints names a header that no part of the program asks for. NVIDIA's own installers put
#        CCCL beside nvcc, so that the same file compiles there.
# Hence: name cccl too: pip install "cuda-toolkit[nvcc,nvvm,crt,cccl]==13.0.*".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/pip" install -q "$1" 2> "$folder/pip" || { cat "$folder/pip"; exit 1; }; }
cat > "$folder/float.cu" << 'CUDA'
__global__ void twice(float* x) { x[threadIdx.x] *= 2; }
CUDA
cat > "$folder/half.cu" << 'CUDA'
#include <cuda_fp16.h>
__global__ void twice(__half* x) { x[threadIdx.x] = __hadd(x[threadIdx.x], x[threadIdx.x]); }
CUDA
compile() {  # prints whether nvcc compiles this file
  local home
  home=$(echo "$folder"/venv/lib/python3*/site-packages/nvidia/cu13)
  if "$home/bin/nvcc" -arch=sm_90 -cubin "$folder/$1.cu" -o "$folder/$1.cubin" 2> "$folder/said"
  then echo "$1.cu: compiled"
  else echo "$1.cu: $(grep -m 1 error "$folder/said" | sed 's/.*: fatal error/fatal error/')"
  fi
}
install "cuda-toolkit[nvcc,nvvm,crt]==13.0.3.0"
"$folder/venv/bin/pip" list 2> /dev/null | grep -E "^(cuda|nvidia)"
without=$(compile float; compile half)
install "cuda-toolkit[cccl]==13.0.3.0"
with=$(compile half)
printf 'without CCCL\n%s\nwith CCCL\n%s\n' "$without" "$with"
grep -q "^float.cu: compiled" <<< "$without"
grep -q "^half.cu: .*nv/target" <<< "$without"
grep -q "^half.cu: compiled" <<< "$with"
