#!/usr/bin/env bash
# std::numeric_limits of PyTorch's C++ type c10::BFloat16; torch 2.14.1 (2.10 and 2.13 alike), 2026-11-28.
# Guess: signaling_NaN() is a NaN, as has_signaling_NaN is true, and as c10::Half's is one.
# Seen:  it is infinity: its bits are 0x7f80, without the bit that would make a NaN of them. A buffer
#        of bfloat16 that is filled with it, so that what a kernel leaves unwritten shows, holds a
#        number that isnan() does not find. PyTorch 2.15 has 0x7fa0, a NaN.
# Hence: fill with quiet_NaN(), which is 0x7fc0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.14.1 2> "$folder/pip" || { cat "$folder/pip"; exit 1; }
torch=$("$folder/venv/bin/python" -c 'import importlib.util as u; print(*u.find_spec("torch").submodule_search_locations)')
cat > "$folder/see.cpp" << 'CPP'
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cmath>
#include <cstdio>
#include <limits>

template <class T> bool show(const char* name) {
  const T value = std::numeric_limits<T>::signaling_NaN();
  std::printf("%s: has_signaling_NaN %d, signaling_NaN() %g, bits 0x%x, isnan %d\n", name,
              std::numeric_limits<T>::has_signaling_NaN, double(float(value)), value.x,
              std::isnan(float(value)));
  return std::isnan(float(value));
}
int main() {
  const bool half = show<c10::Half>("c10::Half"), bfloat16 = show<c10::BFloat16>("c10::BFloat16");
  return !(half && !bfloat16);
}
CPP
echo "torch $(basename "$torch"/../torch-*.dist-info .dist-info), $(c++ --version | head -n 1)"
c++ -std=c++20 -isystem "$torch/include" "$folder/see.cpp" -o "$folder/see"
"$folder/see"
