# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.10", "ninja"]
# ///
"""Sigmoid at the memory limit: a drop-in for torch.sigmoid in one file.

    python sigmoid_inline.py              # build, check against float64, time (--help: options)
    from sigmoid_inline import ModelNew   # ModelNew()(x) is torch.sigmoid(x), faster; so is sigmoid
    %run or paste into a notebook cell    # the same check and timing

load_inline compiles the CUDA and C++ sources on the first import. From top to bottom: the formula,
the GPU kernel, the CPU loop, the call (from a Python tensor to a kernel and back), the build, the
public functions, the self-check and the timing.
"""

import argparse
import contextlib
import ctypes
import fcntl
import functools
import hashlib
import logging
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest.mock import patch

if __name__ == "__main__" and "__file__" in globals() and "IPython" not in sys.modules:
    # A script ends quietly at Ctrl-C and where `| head` closes its pipe.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
with warnings.catch_warnings():
    if __name__ == "__main__":
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # not needed
    import torch
    from torch._C._profiler import _RecordFunctionFast
    from torch.autograd import forward_ad, profiler
    from torch.compiler import is_dynamo_compiling

# ---- The formula, shared by both devices --------------------------------------------------------

FORMULA_SOURCE = r"""
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#define INLINE __device__ __forceinline__
// 1/d for a normal d, to 2^-23 (float) or 2^-20 (double). `1 / d` in CUDA C++ is an IEEE division:
// 4 % slower in float32 at 2^29 elements, 17 % in the L2 cache.
INLINE float reciprocal(float d) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(d));
  return r;
}
INLINE double reciprocal(double d) {
  double r;
  asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(r) : "d"(d));
  return r;
}
#else
#define INLINE static inline __attribute__((always_inline))
INLINE float reciprocal(float d) { return 1 / d; }
INLINE double reciprocal(double d) { return 1 / d; }
#endif

template <class To, class From>
INLINE To bit_cast(From from) {
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// lowest + u (... + u highest)
template <class T, class... Rest>
INLINE T polynomial(T u, T lowest, Rest... rest) {
  if constexpr (sizeof...(rest) > 0) lowest = std::fma(polynomial(u, rest...), u, lowest);
  return lowest;
}

// q(u) of e^-u = 1 - u + u^2 q(u) for |u| <= ln 2 / 2: the polynomial with the least largest error
// |(1 - u + u^2 q(u)) e^u - 1|, by the Remez algorithm in 200-bit arithmetic, each coefficient then
// rounded to nearest. The error is 2^-17.5, 2^-28.0 and 2^-56.3 then. The tests over all floats,
// all 16-bit values and 10^8 doubles notice a coefficient that breaks the bounds.
template <bool exact>
INLINE float exp_rest(float u) {
  if (!exact) return polynomial(u, 0x1.0006b4p-1f, -0x1.571caap-3f, 0x1.5225b6p-5f);
  return polynomial(u, 0x1.fffffcp-2f, -0x1.555492p-3f, 0x1.5558f2p-5f, -0x1.1239d4p-7f,
                    0x1.6a244cp-10f);
}
template <bool exact>
INLINE double exp_rest(double u) {
  return polynomial(u, 0x1.000000000000ap-1, -0x1.55555555554fap-3, 0x1.555555555088cp-5,
                    -0x1.1111111127b9ep-7, 0x1.6c16c184266ebp-10, -0x1.a01a012a68f41p-13,
                    0x1.a0199a16dcba7p-16, -0x1.71df253bfd924p-19, 0x1.28ad68a7aadbcp-22,
                    -0x1.ad7f77e4fff9fp-26);
}

// sigmoid(x) = 2^k / (2^k + e^-u) with x = k ln 2 + u and |u| <= ln 2 / 2, for T = float or double.
//
// The denominator is carried as high + low, and one Newton step with both (of third order for
// double) divides: at most 1 ulp over all 2^32 floats. Numerator and denominator are scaled by 2^24
// (2^53), and the last product rounds into the subnormal range where the result lies there, so that
// no range needs a path of its own. Without `exact`, for 16-bit results on the CPU, the low parts
// are left out and q has 3 coefficients.
template <bool exact, class T>
INLINE T sigmoid(T x) {
  constexpr bool f32 = sizeof(T) == 4;
  using Bits = std::conditional_t<f32, uint32_t, uint64_t>;
  constexpr int mantissa = f32 ? 23 : 52, bias = f32 ? 127 : 1023;
  constexpr T log2e = 1.4426950408889634;
  constexpr T ln2_high = f32 ? 0x1.62e4p-1 : 0x1.62e42feep-1;  // so short that x - k * it is exact
  constexpr T ln2_low = f32 ? 0x1.7f7d1cf8p-20 : 0x1.a39ef35793c76p-33;
  constexpr T to_integer = f32 ? 0x1.8p23 : 0x1.8p52;  // a sum with it ends in the integer's bits
  constexpr T scale = f32 ? 0x1p24 : 0x1p53;
  constexpr T least = f32 ? -104.7 : -745.9;  // power is 0 there
  constexpr T most = 40;                      // the result rounds to 1 there
  x = x < least ? least : x;                  // written so that NaN stays NaN
  x = x > most ? most : x;
  const T t = std::fma(x, log2e, to_integer);
  const T k = t - to_integer;
  T u = std::fma(-k, exact ? ln2_high : ln2_high + ln2_low, x);
  if (exact) u = std::fma(-k, ln2_low, u);
  const Bits exponent = bit_cast<Bits>(t) << mantissa;
  const T power = bit_cast<T>(exponent + (Bits(bias + mantissa + 1) << mantissa));  // scale * 2^k
  const T s = std::fma(u * u, exp_rest<exact>(u), -u);                              // e^-u - 1
  const T d = std::fma(s, scale, scale + power);
  if (!exact) return power / d;
  const T d_low = std::fma(s, scale, power - (d - scale));
  const T r = reciprocal(d);
  T e = std::fma(-d_low, r, std::fma(-d, r, T(1)));  // 1/d = r / (1 - e) = r (1 + e + e^2 + ...)
  if (!f32) e = std::fma(e, e, e);
  return std::fma(e, r, r) * power;
}
INLINE float compute(float x) { return sigmoid<true>(x); }
INLINE double compute(double x) { return sigmoid<true>(x); }

enum class Dtype { kHalf = 5, kFloat = 6, kDouble = 7, kBFloat16 = 15 };  // as c10::ScalarType

// 16-bit types as bits: cuda_bf16.h and cuda_fp16.h would add 0.5 s to the build.
struct BFloat16 {
  uint16_t bits;
};
INLINE float widen(BFloat16 x) { return bit_cast<float>(uint32_t(x.bits) << 16); }
INLINE BFloat16 round_to_bfloat16(float x) {  // to nearest, ties to even
#if __CUDA_ARCH__ >= 800
  BFloat16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  const uint32_t b = bit_cast<uint32_t>(x);
  return {uint16_t(x != x ? 0x7fc0 : (b + 0x7fff + (b >> 16 & 1)) >> 16)};
#endif
}

// The input's dimensions in the order in which they lie in the output, innermost first, neighbours
// merged where the input allows it. The output is dense: element i of this order is at out[i].
constexpr int kMaxDims = 8, kMaxGpuDims = 3;
struct View {
  int64_t numel;
  int ndim = 1;
  int64_t size[kMaxDims] = {1, 1};
  int64_t stride[kMaxDims] = {1};  // of the input, in elements

  bool is_dense() const { return ndim == 1 && stride[0] == 1; }
};
"""

# ---- The GPU kernel and its launch --------------------------------------------------------------

CUDA_SOURCE = r"""
struct Half {
  uint16_t bits;
};
INLINE float widen(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
INLINE Half round_to_half(float x) {
  Half y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

// For a 16-bit result the hardware's exponential and reciprocal suffice (at most 1 ulp; all but 3
// of the 65,536 float16 and 1 of the bfloat16 inputs are correctly rounded), and their speed is
// needed: the formula for float costs 20 to 29 % there. exp2f is ex2.approx without flush-to-zero.
INLINE float sigmoid_16bit(float x) {
  const float e = exp2f(-1.44269504f * fabsf(x));
  return (x < 0 ? e : 1) * reciprocal(1 + e);
}
INLINE BFloat16 compute(BFloat16 x) { return round_to_bfloat16(sigmoid_16bit(widen(x))); }
INLINE Half compute(Half x) { return round_to_half(sigmoid_16bit(widen(x))); }

template <class T, int size>
struct alignas(size * sizeof(T)) Unit {  // what one load or store moves
  T element[size];
};
template <class T, int size>
INLINE Unit<T, size> compute(Unit<T, size> x) {
#pragma unroll
  for (int n = 0; n < size; n++) x.element[n] = compute(x.element[n]);
  return x;
}

// The input's dimensions, the innermost counted in units; strides in elements. To divide is to
// multiply: n / size = (mulhi(n, magic) + n) >> shift for n < 2^31 (Granlund and Montgomery 1994).
struct Dims {
  uint32_t size[kMaxGpuDims], magic[kMaxGpuDims], shift[kMaxGpuDims];
  int64_t stride[kMaxGpuDims];
};

// The input's unit of this index, by 2 or 3 dimensions, or `ndim` = 0 where the input is dense.
template <class T, int size, int ndim>
INLINE Unit<T, size> load(const T* in, const Dims& dims, uint32_t index) {
  if constexpr (ndim > 0) {
#pragma unroll
    for (int d = 0; d < ndim - 1; d++) {
      const uint32_t quotient = (__umulhi(index, dims.magic[d]) + index) >> dims.shift[d];
      in += (index - quotient * dims.size[d]) * dims.stride[d];
      index = quotient;
    }
    return *reinterpret_cast<const Unit<T, size>*>(in + index * dims.stride[ndim - 1]);
  }
  return reinterpret_cast<const Unit<T, size>*>(in)[index];
}

constexpr int kBlock = 128;  // threads; 256 take 1.3 % longer in float32

// Each thread computes `count` units, a block apart so that neighbouring lanes touch neighbouring
// memory, and loads them all before it uses the first. The `tail` elements after the last unit of a
// dense tensor take one thread each. Asked for 8 blocks a multiprocessor, the compiler gives
// float64 the registers to overlap its elements: 5 % faster in the L2 cache.
template <class T, int width, int count, int ndim>
__global__ void __launch_bounds__(kBlock, sizeof(T) == 8 ? 8 : 0)
    kernel(T* out, const T* in, uint32_t units, uint32_t tail, const __grid_constant__ Dims dims) {
  constexpr int size = width / sizeof(T);
  const uint32_t first = blockIdx.x * (kBlock * count) + threadIdx.x;
  Unit<T, size>* const to = reinterpret_cast<Unit<T, size>*>(out) + first;
  Unit<T, size> x[count];
#if __CUDA_ARCH__ >= 900  // before any access: GpuCall::launch lets blocks start early
  cudaGridDependencySynchronize();
#endif
  // Only the last one or two blocks test each unit: 1.03 to 1.3 times as fast on narrow units.
  if ((blockIdx.x + 1) * (kBlock * count) <= units) {
#pragma unroll
    for (int n = 0; n < count; n++) x[n] = load<T, size, ndim>(in, dims, first + n * kBlock);
#pragma unroll
    for (int n = 0; n < count; n++) to[n * kBlock] = compute(x[n]);
    return;
  }
#pragma unroll
  for (int n = 0; n < count; n++) {
    if (first + n * kBlock < units) x[n] = load<T, size, ndim>(in, dims, first + n * kBlock);
  }
#pragma unroll
  for (int n = 0; n < count; n++) {
    const uint32_t past = first + n * kBlock - units;  // wraps around before the end
    if (first + n * kBlock < units) to[n * kBlock] = compute(x[n]);
    if (ndim == 0 && past < tail) {
      const int64_t element = int64_t(units) * size + past;
      out[element] = compute(in[element]);
    }
  }
}

struct Gpu {  // what a launch needs to know of a device
  int device = -1;
  int64_t l2_bytes = 0;
  int64_t wave_bytes = 0;   // of as many threads as fit at once, 16 bytes each
  size_t shared_bytes = 0;  // that nobody uses, to limit how many blocks are resident
  bool overlaps = false;    // whether a grid may start before the one before it has ended

  int64_t ask(cudaDeviceAttr attribute) const {
    int value = 0;
    cudaDeviceGetAttribute(&value, attribute, device);
    return value;
  }
  void read(int new_device) {
    device = new_device;
    const int64_t most = ask(cudaDevAttrMaxThreadsPerMultiProcessor) / kBlock;
    l2_bytes = ask(cudaDevAttrL2CacheSize);
    // PyTorch and drivers for CUDA 12 do not know every graph that such a launch makes.
    overlaps = PYTORCH_CUDA >= 13 && ask(cudaDevAttrComputeCapabilityMajor) >= 9;
    wave_bytes = most * kBlock * 16 * ask(cudaDevAttrMultiProcessorCount);
    // More loads in flight than the memory can serve cost it row changes: 1.09 us of its bandwidth,
    // at 16 bytes a thread, is best on an H100 (13 of 16 blocks: 0.9 % faster at 4096 x 393216
    // float32, 12 and 14 less) and an H200 (all 16; 15 are 3 % slower).
    const double hertz = 2e3 * ask(cudaDevAttrMemoryClockRate);
    const double bytes_per_s = hertz * ask(cudaDevAttrGlobalMemoryBusWidth) / 8;
    const int64_t blocks = 1.09e-6 * bytes_per_s / (wave_bytes / most);
    if (blocks < 1 || blocks >= most) return;
    const int64_t share = ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / blocks / 256 * 256;
    shared_bytes = min(share - ask(cudaDevAttrReservedSharedMemoryPerBlock),
                       ask(cudaDevAttrMaxSharedMemoryPerBlock));
  }
};

// Each function returns false where there is no kernel for the call or CUDA did not start it.
template <class T>
struct GpuCall {
  T* out;
  const T* in;
  const View& view;
  const Gpu& gpu;
  cudaStream_t stream;

  template <int width, int count, int ndim>
  bool launch(size_t shared_bytes = 0) const {
    constexpr int size = width / sizeof(T);
    // Indices have 32 bits, with room for a last block, and a division takes 31 of them.
    if (view.numel / size > (ndim > 0 ? INT32_MAX : UINT32_MAX - 4096)) return false;
    const uint32_t units = view.numel / size;
    const uint32_t tail = view.numel % size;
    Dims dims;
    for (int d = 0; d < ndim; d++) {
      const int elements = d == 0 ? size : 1;
      const int64_t n = view.size[d] / elements;
      const int shift = n > 1 ? 64 - __builtin_clzll(n - 1) : 0;
      dims.size[d] = n;
      dims.magic[d] = (((int64_t(1) << shift) - n) << 32) / n + 1;
      dims.shift[d] = shift;
      dims.stride[d] = view.stride[d] * elements;
    }
    const unsigned grid = (units + tail + kBlock * count - 1) / (kBlock * count);
    // Blocks may start once those of the grid before have ended, and wait in the kernel until its
    // writes are there: an eager call takes 0.5 us less, one after another in a graph 0.4 us less.
    cudaLaunchAttribute overlap = {cudaLaunchAttributeProgrammaticStreamSerialization};
    overlap.val.programmaticStreamSerializationAllowed = 1;
    const cudaLaunchConfig_t config = {grid, kBlock, shared_bytes, stream, &overlap, gpu.overlaps};
    const auto function = kernel<T, width, count, ndim>;
    if (!cudaLaunchKernelEx(&config, function, out, in, units, tail, dims)) return true;
    cudaGetLastError();  // so that torch.sigmoid does not find the error and take it for its own
    return false;
  }
  template <int width, int count>
  bool launch_by_dims() const {
    if (view.is_dense()) return launch<width, count, 0>();
    return view.ndim <= 2 ? launch<width, count, 2>() : launch<width, count, kMaxGpuDims>();
  }
  // By the widest unit that every row of both tensors is made of: 16 bytes, 4 or an element. A
  // thread moves 16 bytes, or 32 where that is faster: views in units of 16 (8 % on an expanded
  // row), and dense tensors that fit in the L2 cache with their output and fill more than half a
  // wave of blocks (up to 14 %).
  bool start() const {
    constexpr int kElement = sizeof(T), kWord = kElement < 4 ? 4 : kElement;
    uint64_t alignment = uintptr_t(out) | uintptr_t(in);
    if (!view.is_dense()) {
      alignment |= view.size[0] * kElement;
      if (view.stride[0] != 1) alignment |= kElement;
      for (int d = 1; d < view.ndim; d++) alignment |= view.stride[d] * kElement;
    }
    if (alignment % kWord != 0) return launch_by_dims<kElement, 16 / kElement>();
    if (alignment % 16 != 0) return launch_by_dims<kWord, 16 / kWord>();
    const int64_t bytes = view.numel * kElement;
    const bool in_l2 = 2 * bytes <= gpu.l2_bytes;
    if (!view.is_dense() || (in_l2 && 2 * bytes > gpu.wave_bytes)) return launch_by_dims<16, 2>();
    return launch<16, 1, 0>(in_l2 ? 0 : gpu.shared_bytes);
  }
};

// Whether a kernel was started. The tensors' device has to be current.
extern "C" bool sigmoid_inline_cuda(Dtype dtype, void* out, const void* in, const View& view,
                                    int device, void* stream) {
  static thread_local Gpu gpus[64];  // so that no lock is needed
  Gpu& gpu = gpus[device % 64];
  if (gpu.device != device) gpu.read(device);
  const auto start = [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    return GpuCall<T>{to, static_cast<const T*>(in), view, gpu, cudaStream_t(stream)}.start();
  };
  if (dtype == Dtype::kFloat) return start(static_cast<float*>(out));
  if (dtype == Dtype::kDouble) return start(static_cast<double*>(out));
  if (dtype == Dtype::kBFloat16) return start(static_cast<BFloat16*>(out));
  return start(static_cast<Half*>(out));
}
"""

# ---- The CPU loop -------------------------------------------------------------------------------

CPU_SOURCE = r"""
#include <sys/mman.h>
#include <torch/csrc/stable/c/shim.h>
#include <unistd.h>

#include <algorithm>

constexpr int64_t kTile = 2048;   // elements; a tile stays in the L1 cache
constexpr int64_t kGrain = 16;    // tiles that are worth one more thread, as in at::TensorIterator
constexpr int64_t kLongRow = 64;  // elements; shorter rows are copied first
// malloc takes an output of nearly 32 MiB fresh from the system, with a fault for each page: with
// huge pages the call is up to 2.5 times as fast on two cores. Smaller outputs are recycled.
constexpr int64_t kHugePagesBytes = 31 << 20;

INLINE BFloat16 compute(BFloat16 x) { return round_to_bfloat16(sigmoid<false>(widen(x))); }

template <class T>
static void compute_row(const T* in, T* out, int64_t count) {
#pragma GCC ivdep  // `in` is `out` or apart from it
  for (int64_t n = 0; n < count; n++) out[n] = compute(in[n]);
}

// Computes `count` elements of `out`, whose first is number `first` of the output. Long rows are
// computed where they lie, and a repeated value once; others are copied and computed in place.
template <class T>
static void compute_tile(const View& view, const T* in, int64_t first, int64_t count, T* out) {
  int64_t at[kMaxDims];
  for (int d = 0; d < view.ndim; d++) {
    at[d] = first % view.size[d];
    first /= view.size[d];
    in += at[d] * view.stride[d];
  }
  const int64_t stride = view.stride[0];
  const bool direct = stride == 1 && view.size[0] >= kLongRow;
  for (int64_t done = 0, piece; done < count; done += piece) {
    piece = std::min(view.size[0] - at[0], count - done);
    if (stride == 0) {
      std::fill_n(out + done, piece, compute(*in));
    } else if (direct) {
      compute_row(in, out + done, piece);
    } else if (stride == 1) {
      memcpy(out + done, in, piece * sizeof(T));
    } else {
      for (int64_t n = 0; n < piece; n++) out[done + n] = in[n * stride];
    }
    in -= at[0] * stride;  // to the start of the next row
    at[0] = 0;
    for (int d = 1; d < view.ndim; d++) {
      in += view.stride[d];
      if (++at[d] < view.size[d]) break;
      in -= view.size[d] * view.stride[d];
      at[d] = 0;
    }
  }
  if (stride != 0 && !direct) compute_row(out, out, count);
}

template <class T>
struct CpuCall {
  T* out;
  const T* in;
  const View& view;

  static void compute_tiles(int64_t begin, int64_t end, void* context) {
    const CpuCall call = *static_cast<const CpuCall*>(context);
    const int64_t last = std::min(end * kTile, call.view.numel);
    for (int64_t first = begin * kTile; first < last; first += kTile) {
      const int64_t count = std::min(kTile, last - first);
      compute_tile(call.view, call.in, first, count, call.out + first);
    }
  }

  bool run() {
    const int64_t bytes = view.numel * sizeof(T);
    if (bytes >= kHugePagesBytes) {
      const uintptr_t page = sysconf(_SC_PAGESIZE);
      const uintptr_t begin = (uintptr_t(out) + page - 1) / page * page;
      madvise(reinterpret_cast<void*>(begin), uintptr_t(out) + bytes - begin, MADV_HUGEPAGE);
    }
    const int64_t tiles = (view.numel + kTile - 1) / kTile;  // each one thread's
    if (tiles > kGrain) return !torch_parallel_for(0, tiles, kGrain, compute_tiles, this);
    compute_tiles(0, tiles, this);  // without PyTorch's shim one element takes 0.03 us less of 0.6
    return true;
  }
};

static bool run_cpu(Dtype dtype, void* out, const void* in, const View& view) {
  const auto run = [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    return CpuCall<T>{to, static_cast<const T*>(in), view}.run();
  };
  if (dtype == Dtype::kFloat) return run(static_cast<float*>(out));
  if (dtype == Dtype::kDouble) return run(static_cast<double*>(out));
  return run(static_cast<BFloat16*>(out));
}
"""

# ---- The call: from a Python tensor to output, layout and kernel, and back ----------------------

# A built-in function on the tensor's own C++ object: a call through the dispatcher costs the host
# more than torch.sigmoid itself. Calls that something intercepts must not take it: is_plain.
CALL_SOURCE = r"""
#include <ATen/EmptyTensor.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/cuda/EmptyTensor.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/strides.h>

// Of Python, what is needed here: Python.h is missing on many machines.
extern "C" {
typedef struct _object PyObject;
struct PyMethodDef {
  const char* name;
  PyObject* (*function)(PyObject* self, PyObject* argument);
  int flags;
  const char* doc;
};
extern PyObject _Py_NoneStruct;
PyObject* PyCFunction_NewEx(PyMethodDef*, PyObject*, PyObject*);
PyObject* Py_NewRef(PyObject*);
void Py_DecRef(PyObject*);
PyObject* PyObject_Type(PyObject*);
PyObject* PyObject_GetAttr(PyObject*, PyObject* name);
PyObject* PyUnicode_InternFromString(const char*);
void* PyLong_AsVoidPtr(PyObject*);
void* PyEval_SaveThread();
void PyEval_RestoreThread(void*);
}

// Of PyTorch, what is declared in headers that take seconds or need Python.h.
namespace at {
std::vector<int64_t> infer_dense_strides(IntArrayRef sizes, IntArrayRef strides);
}
PyObject* THPVariable_Wrap(const at::TensorBase&);
extern PyObject* THPVariableClass;  // torch.Tensor

extern "C" bool sigmoid_inline_cuda(Dtype, void*, const void*, const View&, int, void*);

// Whether the dispatcher would send a call with these keys, of the tensor and the thread, straight
// to the CPU or CUDA kernel, with nothing in between but autograd and keys that let sigmoid fall
// through: no mode, transform, tracer, subclass, negative view, other layout or device.
static bool is_plain(c10::DispatchKeySet keys) {
  using Key = c10::DispatchKey;
  const c10::DispatchKeySet safe({Key::CPU, Key::CUDA, Key::BackendSelect, Key::ADInplaceOrView,
                                  Key::AutogradFunctionality, Key::AutocastCPU, Key::AutocastCUDA});
  return (keys.raw_repr() & ~safe.raw_repr()) == 0 && keys.has(Key::Dense);
}

static bool has_kernel(const at::TensorBase& x) {
  const auto type = x.scalar_type();
  const bool computed = type == at::kFloat || type == at::kDouble || type == at::kBFloat16 ||
                        (type == at::kHalf && x.is_cuda());
  return computed && (x.is_cuda() ? HAS_CUDA : HAS_CPU) && x.numel() > 0;
}

// The strides of torch.sigmoid's output: those of empty_like with contiguous_format where x is
// contiguous, else channels_last where it is that, else preserve_format.
static std::vector<int64_t> output_strides(const at::TensorBase& x) {
  if (x.is_contiguous()) return at::IntArrayRef(c10::contiguous_strides(x.sizes())).vec();
  if (x.is_contiguous(at::MemoryFormat::ChannelsLast))
    return c10::get_channels_last_strides_2d(x.sizes());
  if (x.is_non_overlapping_and_dense()) return x.strides().vec();
  return at::infer_dense_strides(x.sizes(), x.strides());
}

// Orders the dimensions by the output's strides and merges neighbours. Returns false where
// more remain than a kernel takes.
static bool make_view(const at::TensorBase& x, const std::vector<int64_t>& out_strides,
                      View* view) {
  const auto sizes = x.sizes(), strides = x.strides();
  const int most = x.is_cuda() ? kMaxGpuDims : kMaxDims;
  c10::SmallVector<int64_t, kMaxDims> order;
  for (int64_t d = 0; d < x.dim(); d++) {
    if (sizes[d] != 1) order.push_back(d);
  }
  std::sort(order.begin(), order.end(),
            [&](int64_t a, int64_t b) { return out_strides[a] < out_strides[b]; });
  view->numel = x.numel();
  for (const int64_t d : order) {
    int last = view->ndim - 1;
    if (strides[d] == view->size[last] * view->stride[last]) {
      view->size[last] *= sizes[d];
      continue;
    }
    if (view->size[last] != 1) last = view->ndim++;
    if (last == most) return false;
    view->size[last] = sizes[d];
    view->stride[last] = strides[d];
  }
  return true;
}

// A new tensor; undefined where no kernel started. Its memory comes as torch.sigmoid's does:
// at::empty_strided costs 0.6 to 0.9 us more, and fills the output first in deterministic mode.
// Throws where there is no memory, or where the data of x was freed.
static at::TensorBase run(const at::TensorBase& x) {
  const std::vector<int64_t> strides = output_strides(x);
  View view;
  if (!make_view(x, strides, &view)) return {};
  const auto type = x.scalar_type();
  const void* const in = x.const_data_ptr();
#if HAS_CUDA
  if (x.is_cuda()) {
    const at::TensorBase y = at::detail::empty_strided_cuda(x.sizes(), strides, type, x.device());
    void* const out = y.mutable_data_ptr();
    void* stream = nullptr;
    CUDAGuardHandle guard = nullptr;
    if (aoti_torch_get_current_cuda_stream(x.get_device(), &stream)) return {};
    if (aoti_torch_create_cuda_guard(x.get_device(), &guard)) return {};
    const bool started = sigmoid_inline_cuda(Dtype(type), out, in, view, x.get_device(), stream);
    aoti_torch_delete_cuda_guard(guard);
    return started ? y : at::TensorBase();
  }
#endif
  const at::TensorBase y = at::detail::empty_strided_cpu(x.sizes(), strides, type);
  return run_cpu(Dtype(type), y.mutable_data_ptr(), in, view) ? y : at::TensorBase();
}

// sigmoid(x), or None where torch.sigmoid has to take it.
static PyObject* python_sigmoid(PyObject*, PyObject* object) {
  PyObject* const type = PyObject_Type(object);
  Py_DecRef(type);
  if (type != THPVariableClass || at::impl::torch_function_mode_enabled())
    return Py_NewRef(&_Py_NoneStruct);
  // In C++ a tensor is the address of its TensorImpl, which Python calls _cdata.
  static PyObject* const name = PyUnicode_InternFromString("_cdata");
  PyObject* const number = PyObject_GetAttr(object, name);
  void* const address = PyLong_AsVoidPtr(number);
  Py_DecRef(number);
  const at::TensorBase x = reinterpret_cast<const at::TensorBase&>(address);
  const auto thread = c10::impl::tls_local_dispatch_key_set();
  const c10::DispatchKeySet keys = (x.key_set() | thread.included_) - thread.excluded_;
  const bool autograd = keys.has(c10::DispatchKey::AutogradFunctionality);
  const bool recorded = autograd && x.requires_grad() && c10::GradMode::is_enabled();
  if (!is_plain(keys) || recorded || !has_kernel(x)) return Py_NewRef(&_Py_NoneStruct);
  void* const state = PyEval_SaveThread();  // without the GIL, as torch.sigmoid
  at::TensorBase y;
  try {
    y = run(x);
  } catch (...) {  // no memory, or data that was freed: torch.sigmoid says so
  }
  PyEval_RestoreThread(state);
  return y.defined() ? THPVariable_Wrap(y) : Py_NewRef(&_Py_NoneStruct);
}

extern "C" PyObject* sigmoid_inline_function() {
  static PyMethodDef method = {"_sigmoid", python_sigmoid, 8 /* METH_O */, nullptr};
  return PyCFunction_NewEx(&method, nullptr, nullptr);
}
"""

# ---- The build: a library per sources, versions and hardware, compiled once and then only loaded


def _cpu_flags():
    """Compiler flags for this CPU. Without fused multiply-add the loop is slow and left out."""
    capability = torch.backends.cpu.get_cpu_capability()  # "AVX512", "AVX2", "DEFAULT", ...
    arm = os.uname().machine == "aarch64"
    fma = arm or capability in ("AVX2", "AVX512")
    # Vectorised, before GCC 12 too; without multiply-adds that the formula does not name, and
    # without jump threading, which makes 10 instructions of its two clamps instead of 4.
    flags = ["-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fno-math-errno"]
    flags += ["-fno-trapping-math", "-ffp-contract=off", "-fno-thread-jumps"]
    if fma and not arm:
        flags += ["-mavx2", "-mfma"]
    if capability == "AVX512":  # the formula takes half the time on an Intel Xeon
        flags += ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"]
    return [*flags, f"-DHAS_CPU={int(fma)}"]


def _gpu_architectures():
    """The machine's NVIDIA GPUs as nvcc names them, such as ["90"]; empty where PyTorch sees none.

    Asks NVML, as torch.cuda.device_count() does: to initialise CUDA takes 0.2 s, and no process
    forked later could use it.
    """
    if torch.version.cuda is None or torch.cuda.device_count() == 0:
        return []
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    count, major, minor, gpu = ctypes.c_uint(), ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
    nvml.nvmlInit_v2()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    found = set()
    for index in range(count.value):
        nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(gpu))
        if nvml.nvmlDeviceGetCudaComputeCapability(gpu, *map(ctypes.byref, (major, minor))) == 0:
            found.add(f"{major.value}{minor.value}")
    if not found:
        raise OSError("libnvidia-ml.so.1 names no GPU")
    return sorted(found)


_TOOLKIT = f"install the toolkit of CUDA {torch.version.cuda}, or set CUDA_HOME to it"
_CACHE = "set TORCH_EXTENSIONS_DIR to a directory for programs and data"
_REMEDIES = {  # what a compiler or the system says, and what to do about it
    "No space left": "the disk is full: free some of it, or set TORCH_EXTENSIONS_DIR and TMPDIR",
    "Ninja is required": "ninja is missing: pip install ninja",
    "CUDA_HOME env|nvcc: (not found|No such)": f"nvcc is missing: {_TOOLKIT}",
    "libcudart.so": f"nvcc and PyTorch differ in CUDA: {_TOOLKIT}",
    "ninja: error": "ninja does not take this path: set TORCH_EXTENSIONS_DIR to a plain one",
    "Unsupported gpu|compute_70": f"a GPU is too new or old: {_TOOLKIT}, or CUDA_VISIBLE_DEVICES=",
    r"unsupported \w+ version": "nvcc refuses this compiler: set CC and CXX to gcc-13, g++-13",
    "libnvidia-ml": "libnvidia-ml.so.1 fails: mend the NVIDIA driver, or set CUDA_VISIBLE_DEVICES=",
    "cannot find -lcudart": f"the CUDA runtime is missing beside nvcc: {_TOOLKIT}",
    "undefined symbol": "PyTorch lacks what this file calls: pip install 'torch<2.16'",
    "home directory": f"there is no home directory: {_CACHE}",
}


class _OneLine(contextlib.AbstractContextManager):
    """Turns errors in _REMEDIES, and what the system says of files, into one line."""

    def __exit__(self, kind, error, traceback):
        if not isinstance(error, Exception):
            return
        said = f"{error} {error.__cause__}"
        remedies = [remedy for sign, remedy in _REMEDIES.items() if re.search(sign, said)]
        compiler = os.environ.get("CXX") or "c++"
        failed = isinstance(error, subprocess.CalledProcessError)  # when asked for its version
        if failed or " " in compiler or shutil.which(compiler) is None:
            remedies.append(f"the C++ compiler {compiler!r} does not work: install g++, or set CXX")
        if isinstance(error, OSError):
            remedies.append(f"{error}: {_CACHE}")
        if remedies:
            raise RuntimeError(f"sigmoid_inline: {remedies[0]}") from error


def _digest(content):
    return hashlib.sha256(content).hexdigest()[:16]


def _open_library(directory, name):
    """The library of this name, or None. The digest in the file's name vouches for its content."""
    for path in sorted(directory.glob(f"{name}-*.so")):
        if path.is_file() and path.stem == f"{name}-{_digest(path.read_bytes())}":
            return ctypes.PyDLL(str(path))
    return None


def _compile(name, cpu_flags, architectures, directory):
    """Compiles the library into `directory`; the caller holds its lock."""
    scratch = directory / "build"
    shutil.rmtree(scratch, ignore_errors=True)  # what a build that was killed has left
    scratch.mkdir(exist_ok=True)
    cuda = bool(architectures)
    # No PTX: compiled for a GPU before 9.0, a kernel would not wait, where 9.0 starts it early.
    nvcc_flags = [f"-gencode=arch=compute_{gpu},code=sm_{gpu}" for gpu in architectures]
    nvcc_flags += ["-std=c++17", f"-DPYTORCH_CUDA={torch.version.cuda}"]
    # pip puts ninja beside python, which need not be on PATH; cpp_extension takes an empty CXX for
    # a name, and looks for a GPU: by NVML, so that CUDA stays untouched.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath) + os.pathsep + os.path.dirname(sys.executable),
        "CXX": os.environ.get("CXX") or "c++",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, environment))
        log = logging.getLogger("torch.utils.cpp_extension")
        stack.enter_context(patch.object(log, "disabled", True))
        for output in ("stdout", "stderr"):
            stream = getattr(sys, output)
            if getattr(stream, "closed", stream is None):  # by a daemon
                stack.enter_context(patch.object(sys, output))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        from torch.utils.cpp_extension import load_inline

        start = time.perf_counter()
        load_inline(
            f"{name}_{time.time_ns()}",  # it remembers names, and would not build one again
            FORMULA_SOURCE + CPU_SOURCE + CALL_SOURCE,
            FORMULA_SOURCE + CUDA_SOURCE if cuda else None,
            # USE_CUDA has PyTorch's shims declare streams and device guards.
            extra_cflags=[*cpu_flags, f"-DHAS_CUDA={int(cuda)}", "-DUSE_CUDA"],
            # On all cores, and with smaller standard headers: 1.25 s instead of 1.85 s on 16 cores.
            extra_cuda_cflags=["-split-compile=0", *nvcc_flags],
            build_directory=str(scratch),
            with_cuda=cuda,
            is_python_module=False,
            no_implicit_headers=True,
        )
        (built,) = scratch.glob("*.so")
        built.replace(directory / f"{name}-{_digest(built.read_bytes())}.so")
        shutil.rmtree(scratch, ignore_errors=True)
        what = "GPU kernel for sm_" + ", sm_".join(architectures) if cuda else "CPU kernel"
        seconds = time.perf_counter() - start
        print(f"sigmoid_inline: compiled the {what} in {seconds:.1f} s", file=sys.stderr)


def _load(architectures):
    """The built-in function of the kernels, compiled if need be; RuntimeError where it cannot be.

    The library's name holds what the code depends on, so that machines can share a cache.
    """
    cpu_flags = _cpu_flags()
    facts = [FORMULA_SOURCE, CUDA_SOURCE, CPU_SOURCE, CALL_SOURCE]
    facts += [torch.__version__, torch.version.cuda, os.uname().machine, cpu_flags, architectures]
    facts += [os.environ.get(name) for name in ("CC", "CXX", "CUDA_HOME")]
    name = "sigmoid_inline_" + _digest(repr(facts).encode())
    root = os.environ.get("TORCH_EXTENSIONS_DIR")
    cache = root or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(cache, "" if root else "torch_extensions", "sigmoid_inline").absolute()
    library = _open_library(directory, name)
    if library is None:
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # dropped when its holder ends, killed or not
            if _open_library(directory, name) is None:
                _compile(name, cpu_flags, architectures, directory)
        library = _open_library(directory, name)
    library.sigmoid_inline_function.restype = ctypes.py_object
    return library.sigmoid_inline_function()


if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
    raise RuntimeError("sigmoid_inline: needs PyTorch 2.10 or newer: pip install -U torch")
with _OneLine():
    _sigmoid = _load(_gpu_architectures())

# ---- The public functions -----------------------------------------------------------------------


def sigmoid(input, *more, out=None):  # without `*more` make_fx counts `out` as an argument
    """torch.sigmoid(input), at the memory limit: with its shape, strides, dtype and exceptions.

    The error is at most 1 ulp over all inputs (float64: over 10^8 of them); NaN gives NaN. A plain
    call runs on a kernel of this file: a torch.Tensor of float32, float64, bfloat16 or (on the GPU)
    float16, of any shape and strides, on the CPU or an NVIDIA GPU. torch.sigmoid takes

    - torch.compile: Inductor fuses sigmoid with its neighbours, which saves more than any kernel;
    - what wants to see torch.sigmoid: function and dispatch modes, tracers, torch.func,
      functionalisation, forward-mode AD, subclasses (DTensor, Parameter, FakeTensor);
    - what autograd records: a backward in Python costs 5 us on the CPU, 20 us on the GPU;
    - `out`: it resizes, converts and overlaps;
    - what has no kernel: other dtypes, devices and layouts, negative views, no elements, more than
      8 dimensions (on the GPU 3) that do not merge.
    """
    if out is not None and not more:
        return torch.sigmoid(input, out=out)
    if more or is_dynamo_compiling() or forward_ad._current_level >= 0:
        return torch.sigmoid(input, *more)  # a TypeError where there is more
    if profiler._is_profiler_enabled:
        with _RecordFunctionFast("sigmoid_inline", [input]):
            y = _sigmoid(input)
    else:
        y = _sigmoid(input)
    return torch.sigmoid(input) if y is None else y


# torch.jit.script cannot compile it and takes it for the operator: by its id, so it has to stay.
torch.jit._builtins._builtin_ops.append((sigmoid, "aten::sigmoid"))
torch.jit._builtins._register_builtin(sigmoid, "aten::sigmoid")


class ModelNew(torch.nn.Module):
    """torch.nn.Sigmoid, at the memory limit."""

    def forward(self, input):
        return sigmoid(input)


def get_inputs(device="cuda"):
    """KernelBench's level 1, problem 21: one float32 tensor of 4096 x 393216 (6.44 GB)."""
    return [torch.rand(4096, 393216, device=device)]


def get_init_inputs():
    """The arguments of ModelNew(): none."""
    return []


# ---- The self-check, the timing and the command line --------------------------------------------

# The largest error allowed: float64's reference is torch.sigmoid, which errs by up to 2 ulp itself.
_BOUND_ULP = {torch.float32: 1, torch.bfloat16: 1, torch.float16: 1, torch.float64: 3}
_DTYPES = {str(dtype)[6:]: dtype for dtype in _BOUND_ULP}
_CHUNK = 1 << 24  # elements compared at a time: the float64 reference never takes the whole shape
_GRAPH_CALLS = 32


def _over_ranks(values, operation, device):
    """Each of the numbers as the "MAX" or "SUM" over torchrun's ranks."""
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor, getattr(torch.distributed.ReduceOp, operation))
    return tensor.tolist()


def max_error_ulp(x):
    """Largest error of sigmoid(x) on any rank, in units in the last place, against torch.sigmoid in
    float64; inf where one of them is NaN and the other is not."""
    torch.full_like(x, float("nan"))  # freed at once, for the output: what is not written shows
    info, worst = torch.finfo(x.dtype), 0.0
    for y, block in zip(sigmoid(x).reshape(-1).split(_CHUNK), x.reshape(-1).split(_CHUNK)):
        exact = block.double()
        exact = torch.where(exact < -40, exact.exp(), torch.sigmoid(exact))  # which is 0 below -709
        exponent = torch.frexp(exact.clamp(min=info.smallest_normal))[1].double() - 1
        ulp = torch.exp2(exponent).mul_(info.eps)  # torch.ldexp is wrong on GPU 1 in PyTorch 2.11
        error = (y.double() - exact).abs_().div_(ulp)
        error[exact.isnan() & y.isnan()] = 0
        worst = max(worst, error.nan_to_num_(nan=float("inf")).max().item())
    return _over_ranks([worst], "MAX", x.device)[0]


def measure(contenders, device, trials, calls=1):
    """Times functions in turn, `trials` times `calls` calls each, after three rounds to warm up.

    By events on the current stream on a GPU, else by a wall clock. Takes {name: function of no
    arguments}; returns {name: list of microseconds a call}.
    """
    cuda = device.type == "cuda"
    spans = {name: [] for name in contenders}

    def now():
        if not cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    for _ in range(3 + trials):  # without waiting in between: the GPU never idles
        for name, function in contenders.items():
            start = now()
            for _ in range(calls):
                function()
            spans[name].append((start, now()))
    if cuda:
        torch.cuda.synchronize()
    us = (lambda a, b: a.elapsed_time(b) * 1e3) if cuda else (lambda a, b: (b - a) * 1e6)
    return {name: [us(*span) / calls for span in spans[name][3:]] for name in spans}


def _replay(function):
    """A function that replays _GRAPH_CALLS calls of `function` from one CUDA graph."""
    function()  # loads the kernel outside of the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(_GRAPH_CALLS):
            function()
    return graph.replay


def _time_call(x, trials):
    """{contender: microseconds} of a call on `x`, from a CUDA graph where it is short."""
    contenders = {
        "sigmoid": functools.partial(sigmoid, x),
        "torch.sigmoid": functools.partial(torch.sigmoid, x),
        "copy": torch.rand(x.shape, device=x.device, dtype=x.dtype).clone,
    }
    if x.is_cpu or x.numel() > 1 << 24:
        return measure(contenders, x.device, trials)
    graphs = {name: _replay(function) for name, function in contenders.items()}
    times = measure(graphs, x.device, trials)
    return {name: [us / _GRAPH_CALLS for us in values] for name, values in times.items()}


_HEAD = f"{'us':>10}{'spread':>8}{'torch us':>10}{'ratio':>8}{'GB/s':>7}{'of copy':>9}{'ulp':>9}"


def _print_case(case, times, moved=None, error=None):
    """A line of the table: {contender: microseconds}, the bytes that a call moves, its error."""
    ours, theirs = times["sigmoid"], times["torch.sigmoid"]
    us = statistics.median(ours)
    line = f"{case:32}{us:10.2f}{(max(ours) - min(ours)) / us:8.1%}"
    line += f"{statistics.median(theirs):10.2f}{statistics.median(theirs) / us:7.3f}x"
    if moved:
        line += f"{moved / us / 1e3:7.0f}{statistics.median(times['copy']) / us:9.1%}{error:9.3g}"
    print(line)


def _one_shape(args, dtype):
    """Yields (name, tensor): a rank's share of the rows of one shape, or as many as fit."""
    rows, columns = args.shape
    rows = rows * (args.rank + 1) // args.ranks - rows * args.rank // args.ranks
    if args.device.type == "cuda":  # the input, two outputs, and the check's blocks in float64
        free = 0.9 * torch.cuda.mem_get_info(args.device)[0] - 80 * _CHUNK
        rows = max(1, min(rows, int(free / (3 * columns * dtype.itemsize))))
    x = torch.rand(rows, columns, device=args.device, dtype=dtype)
    yield f"{_over_ranks([rows], 'SUM', args.device)[0]:.0f} x {columns}", x


def _layouts(device, dtype):
    """Yields (name, tensor): sizes from small to large, then views."""
    new = functools.partial(torch.rand, device=device, dtype=dtype)
    largest, n = 25, 1 << 24
    if device.type == "cuda":
        largest = int(0.3 * torch.cuda.mem_get_info(device)[0] / dtype.itemsize).bit_length() - 1
        n = 1 << min(largest - 2, 28)
    for exponent in sorted({*range(10, largest, 2), 21, 23, largest}):
        yield f"2^{exponent}", new(1 << exponent)
    yield "half of rows of 8192", new(n // 4096, 8192).chunk(2, -1)[1]
    yield "half of rows of 160", new(n // 80, 160).chunk(2, -1)[1]
    yield "half of rows of 66", new(n // 33, 66).chunk(2, -1)[1]
    yield "half of dimension 1, NCHW", new(n >> 18, 512, 32, 32).chunk(2, 1)[0]
    yield "channels last, cropped", new(n >> 20, 128, 128, 64).permute(0, 3, 1, 2)[..., 1:-1, 1:-1]
    yield "NCHW, cropped at odd offsets", new(n >> 20, 64, 128, 128)[..., 1:-2, 3:-4]
    yield "expanded row", new(1, 4096).expand(n // 4096, 4096)
    yield "expanded column", new(n // 4096, 1).expand(n // 4096, 4096)
    yield "x[1:]", new(n)[1:]
    yield "x[::2]", new(2 * n)[::2]
    yield "x[::3]", new(3 * n)[::3]
    yield "x[:, 4:] of rows of 85", new(n // 85, 85)[:, 4:]
    yield "x[:, :2] of rows of 85", new(n // 85, 85)[:, :2]
    yield "x[:, 0] of rows of 20", new(n // 20, 20)[:, 0]


def _eager(device, dtype):
    """Yields (name, {contender: function of no arguments}): what the host's time decides."""
    steps = [lambda x, grad, f=f: f(x).backward(grad) for f in (sigmoid, torch.sigmoid)]
    sums = [lambda x, f=f: f(x + 1) for f in (sigmoid, torch.sigmoid)]
    for exponent in (0, 10, 12, 16, 20, 22, 23):
        x = torch.rand(1 << exponent, device=device, dtype=dtype)
        view, leaf = torch.stack([x, x], 1)[:, 0], x.clone().requires_grad_()
        for name, arguments, ours, theirs in (
            ("sigmoid(x)", [x], sigmoid, torch.sigmoid),
            ("ModelNew()(x)", [x], ModelNew(), torch.nn.Sigmoid()),
            ("sigmoid(view)", [view], sigmoid, torch.sigmoid),
            ("sigmoid(x + 1)", [x], *sums),
            ("forward and backward", [leaf, x], *steps),
        ):
            calls = {"sigmoid": functools.partial(ours, *arguments)}
            calls["torch.sigmoid"] = functools.partial(theirs, *arguments)
            yield f"{name}, 2^{exponent}", calls


def _report(args, name):
    """Checks, times and prints the cases of one data type; returns whether all were right."""
    device, dtype = args.device, _DTYPES[name]
    bits = torch.arange(-(1 << 15), 1 << 15, device=device).to(torch.int16)
    special = bits.view(dtype if dtype.itemsize == 2 else torch.bfloat16).to(dtype)
    worst = max_error_ulp(special)
    taken = _sigmoid(special) is not None
    bound = _BOUND_ULP[dtype] if taken else float("inf")
    print(f"\n{name + ', every 16-bit number':84}{worst:9.3g}")
    if not taken:
        print("torch.sigmoid takes this data type here, and is what is timed")
    print(f"{name:32}{_HEAD}")
    for case, x in _layouts(device, dtype) if args.sweep else _one_shape(args, dtype):
        error = max_error_ulp(x)
        worst = max(error, worst)
        (moved,) = _over_ranks([2 * x.numel() * dtype.itemsize], "SUM", device)
        times = {k: _over_ranks(us, "MAX", device) for k, us in _time_call(x, args.trials).items()}
        _print_case(case, times, moved, error)
    if args.sweep:
        print(f"\n{name + ', loops of 100 calls':32}{_HEAD[:36]}")
        for case, calls in _eager(device, dtype):
            _print_case(case, measure(calls, device, args.trials, calls=100))
    if worst > bound:
        print(f"FAILED: an error of {worst:.3g} ulp, where {bound} is the bound")
    return worst <= bound


def _parse(argv):
    """The options, completed by what the machine has and by torchrun's environment."""
    parser = argparse.ArgumentParser(
        prog="sigmoid_inline.py",
        usage=argparse.SUPPRESS,
        description="Checks the kernels against float64 and times them beside torch.sigmoid.",
    )
    add = parser.add_argument
    add("--shape", nargs=2, type=int, metavar=("ROWS", "COLS"), help="of all ranks together")
    add("--dtype", nargs="+", choices=_DTYPES, default=["float32"], help="float32 by default")
    add("--device", choices=("cuda", "cpu"), help="cuda by default, where there is one")
    add("--trials", type=int, default=30, help="timed rounds (30)")
    add("--sweep", action="store_true", help="time many sizes and layouts, and eager loops")
    args = parser.parse_args(argv)
    args.rank, args.ranks, local_rank = 0, 1, 0
    if "TORCHELASTIC_RUN_ID" in os.environ:  # by torchrun
        own = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        args.rank, args.ranks, local_rank = (int(os.environ[name]) for name in own)
    cuda = (args.device or ("cuda" if torch.cuda.is_available() else "cpu")) == "cuda"
    gpus = torch.cuda.device_count()
    if cuda and local_rank >= gpus:
        parser.error(f"rank {args.rank} needs GPU {local_rank}: PyTorch sees {gpus}")
    if args.sweep and (args.shape or args.ranks > 1):
        parser.error("--sweep has shapes of its own and runs in one process")
    args.device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    args.shape = args.shape or [4096 if cuda else 256, 393216]
    if args.shape[0] < args.ranks or args.shape[1] < 1 or args.trials < 1:
        parser.error(f"--shape and --trials are positive, a row for each of {args.ranks} ranks")
    return args


def main(argv):
    """Runs the check and the timing; returns the exit status, 1 where the check finds anything."""
    args = _parse(argv)
    cuda = args.device.type == "cuda"
    with contextlib.ExitStack() as stack:
        if cuda:
            stack.enter_context(torch.cuda.device(args.device))
        if args.rank > 0:  # rank 0 speaks for all
            stack.enter_context(contextlib.redirect_stdout(None))
        if args.ranks > 1:
            torch.distributed.init_process_group("nccl" if cuda else "gloo")
        machine = torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} CPU threads"
        print(f"{args.ranks} x {machine}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}")
        print(f"medians of {args.trials} interleaved rounds; GB/s: bytes read and written")
        right = [_report(args, name) for name in args.dtype]
        if args.ranks > 1:
            torch.distributed.destroy_process_group()
    return int(not all(right))


if __name__ == "__main__":
    if "__file__" not in globals():
        if main([]):  # in a notebook cell sys.argv is the kernel's, and nobody may leave
            raise RuntimeError("sigmoid_inline: the self-check failed")
    elif main(sys.argv[1:]):
        sys.exit(1)
