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
import io
import logging
import os
import platform
import shutil
import signal
import statistics
import sys
import time
import unittest.mock
import warnings
from pathlib import Path

if __name__ == "__main__" and "__file__" in globals() and "IPython" not in sys.modules:
    # A script ends quietly at Ctrl-C and where `| head` closes its pipe.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
with warnings.catch_warnings():
    if __name__ == "__main__":
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # not needed
    import torch
    from torch.autograd import forward_ad, profiler

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
constexpr bool kCoarseReciprocal = true;  // in double
#else
#define INLINE static inline __attribute__((always_inline))
INLINE float reciprocal(float d) { return 1 / d; }
INLINE double reciprocal(double d) { return 1 / d; }
constexpr bool kCoarseReciprocal = false;
#endif

template <class To, class From>
INLINE To bit_cast(From from) {
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// lowest + u (... + u highest)
template <class T>
INLINE T polynomial(T, T highest) {
  return highest;
}
template <class T, class... Rest>
INLINE T polynomial(T u, T lowest, Rest... rest) {
  return std::fma(polynomial(u, rest...), u, lowest);
}

// q(u) of e^-u = 1 - u + u^2 q(u) for |u| <= ln 2 / 2: the polynomial with the least largest error
// |(1 - u + u^2 q(u)) e^u - 1|, by the Remez algorithm in 200-bit arithmetic, each coefficient then
// rounded to nearest. That error is 2^-17.5, 2^-28.3 and 2^-57.9. The tests over all floats, all
// 16-bit values and 10^8 doubles notice a coefficient that breaks the bounds.
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
// double on the GPU) divides: at most 1 ulp over all 2^32 floats. Numerator and denominator are
// scaled by 2^24 (2^53), and the last product rounds into the subnormal range where the result lies
// there, so that no range needs a path of its own. Without `exact`, for 16-bit results on the CPU,
// the low parts are left out and q has 3 coefficients.
template <bool exact, class T>
INLINE T sigmoid(T x) {
  constexpr bool f32 = sizeof(T) == 4;
  using Bits = std::conditional_t<f32, uint32_t, uint64_t>;
  constexpr int mantissa = f32 ? 23 : 52, bias = f32 ? 127 : 1023;
  constexpr T log2e = 1.4426950408889634;
  constexpr T ln2 = 0.6931471805599453;
  constexpr T ln2_high = f32 ? 0x1.62e4p-1 : 0x1.62e42feep-1;  // so short that k * it is exact
  constexpr T ln2_low = f32 ? 0x1.7f7d1cf8p-20 : 0x1.a39ef35793c76p-33;
  constexpr T to_integer = f32 ? 0x1.8p23 : 0x1.8p52;  // a sum with it ends in the integer's bits
  constexpr T scale = f32 ? 0x1p24 : 0x1p53;
  constexpr T least = f32 ? -104 : -745.2;  // the result rounds to 0 below
  constexpr T most = 40;                    // and to 1 above
  x = x < least ? least : x;                // written so that NaN stays NaN
  x = x > most ? most : x;
  const T t = std::fma(x, log2e, to_integer);
  const T k = t - to_integer;
  T u = std::fma(-k, exact ? ln2_high : ln2, x);
  if (exact) u = std::fma(-k, ln2_low, u);
  const Bits exponent = bit_cast<Bits>(t) << mantissa;
  const T power = bit_cast<T>(exponent + (Bits(bias + mantissa + 1) << mantissa));  // scale * 2^k
  const T s = std::fma(u * u, exp_rest<exact>(u), -u);                              // e^-u - 1
  const T d = std::fma(s, scale, scale + power);
  if (!exact) return power / d;
  const T d_low = std::fma(s, scale, power - (d - scale));
  const T r = reciprocal(d);
  T e = std::fma(-d_low, r, std::fma(-d, r, T(1)));  // 1/d = r / (1 - e) = r (1 + e + e^2 + ...)
  if (kCoarseReciprocal && !f32) e = std::fma(e, e, e);
  return std::fma(e, r, r) * power;
}
"""

# What a kernel is given beside pointers: the data type and one layout.
ARGUMENTS_SOURCE = r"""
enum class Dtype { kFloat, kDouble, kBFloat16, kHalf };

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
constexpr int kMaxDims = 8;
struct Layout {
  int64_t numel;
  int ndim;  // at least 1
  int64_t size[kMaxDims];
  int64_t stride[kMaxDims];  // of the input, in elements

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
INLINE float compute(float x) { return sigmoid<true>(x); }
INLINE double compute(double x) { return sigmoid<true>(x); }
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

// A dimension counted in units, with its stride in elements. It divides by multiplication:
// n / size = (mulhi(n, magic) + n) >> shift for n < 2^31 (Granlund and Montgomery 1994).
struct Dim {
  uint32_t size, magic, shift;
  int64_t stride;

  void set(int64_t new_size, int64_t new_stride) {
    size = new_size;
    stride = new_stride;
    for (shift = 0; int64_t(1) << shift < size;) shift++;
    magic = (((int64_t(1) << shift) - size) << 32) / size + 1;
  }
  INLINE uint32_t divide(uint32_t n) const { return (__umulhi(n, magic) + n) >> shift; }
};
template <int ndim>
struct Dims {
  int count;  // of ndim; no dimension where the input is dense
  Dim dim[ndim > 0 ? ndim : 1];
};

// The input's unit of this index. 2 and 3 dimensions are unrolled, more are a loop: the loop alone
// takes 25 to 40 % longer on narrow units.
template <class T, int size, int ndim>
INLINE Unit<T, size> load(const T* in, const Dims<ndim>& dims, uint32_t index) {
  if constexpr (ndim == 0) return reinterpret_cast<const Unit<T, size>*>(in)[index];
  const int last = ndim == kMaxDims ? dims.count - 1 : ndim - 1;
#pragma unroll
  for (int d = 0; d < last; d++) {
    const uint32_t quotient = dims.dim[d].divide(index);
    in += (index - quotient * dims.dim[d].size) * dims.dim[d].stride;
    index = quotient;
  }
  return *reinterpret_cast<const Unit<T, size>*>(in + index * dims.dim[last].stride);
}

constexpr int kBlock = 128;  // threads; 256 take 1.3 % longer in float32

// Each thread computes `count` units, a block apart so that neighbouring lanes touch neighbouring
// memory, and loads them all before it uses the first. After the last unit of a dense tensor a
// thread each takes the `tail` elements that do not fill one. Asked for 8 blocks a multiprocessor,
// the compiler gives float64 the registers to overlap its elements: 5 % faster in the L2 cache.
template <class T, int bytes, int count, int ndim>
__global__ void __launch_bounds__(kBlock, sizeof(T) == 8 ? 8 : 0)
    kernel(T* out, const T* in, uint32_t units, uint32_t tail,
           const __grid_constant__ Dims<ndim> dims) {
  constexpr int size = bytes / sizeof(T);
  const uint32_t first = blockIdx.x * (kBlock * count) + threadIdx.x;
  Unit<T, size>* const to = reinterpret_cast<Unit<T, size>*>(out) + first;
  Unit<T, size> x[count];
  // All blocks but the last, without a test for each unit: 1.03 to 1.3 times as fast on narrow
  // units.
  if ((blockIdx.x + 1) * (kBlock * count) <= units) {
#pragma unroll
    for (int n = 0; n < count; n++) x[n] = load<T, size>(in, dims, first + n * kBlock);
#pragma unroll
    for (int n = 0; n < count; n++) to[n * kBlock] = compute(x[n]);
    return;
  }
#pragma unroll
  for (int n = 0; n < count; n++) {
    if (first + n * kBlock < units) x[n] = load<T, size>(in, dims, first + n * kBlock);
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

struct Gpu {  // what the launch asks of each
  int device = -1;
  int64_t l2_bytes = 0;
  int64_t wave_bytes = 0;  // of the blocks that are resident at once, 16 bytes a thread
  int shared_bytes = 0;    // of a block, to limit how many are resident on a multiprocessor

  int64_t ask(cudaDeviceAttr attribute) const {
    int value = 0;
    cudaDeviceGetAttribute(&value, attribute, device);
    return value;
  }
  Gpu() = default;
  explicit Gpu(int device) : device(device) {
    const int64_t processors = ask(cudaDevAttrMultiProcessorCount);
    const int64_t most = ask(cudaDevAttrMaxThreadsPerMultiProcessor) / kBlock;
    l2_bytes = ask(cudaDevAttrL2CacheSize);
    wave_bytes = most * processors * kBlock * 16;
    // More loads in flight than the memory can serve cost it row changes: 1.05 us of its bandwidth,
    // at 16 bytes a thread, is best. Checked on an H100 (13 blocks instead of 16 are 0.9 % faster,
    // 12 and 14 less, at 4096 x 393216 float32) and on an H200 (all 16; 15 are 3 % slower).
    const double hertz = 2e3 * ask(cudaDevAttrMemoryClockRate);
    const double bytes_per_s = hertz * ask(cudaDevAttrGlobalMemoryBusWidth) / 8;
    const int64_t blocks = 1.05e-6 * bytes_per_s / (wave_bytes / most);
    if (blocks < 1 || blocks >= most) return;
    const int64_t share = ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / blocks / 256 * 256;
    shared_bytes = share - ask(cudaDevAttrReservedSharedMemoryPerBlock);
    const int64_t limit = ask(cudaDevAttrMaxSharedMemoryPerBlock);
    if (shared_bytes > limit) shared_bytes = limit;
  }
};

// Each function is false where there is no kernel for the call or CUDA did not start it.
template <class T>
struct GpuCall {
  T* out;
  const T* in;
  const Layout& layout;
  cudaStream_t stream;

  template <int bytes, int count, int ndim>
  bool launch(int shared_bytes = 0) const {
    constexpr int size = bytes / sizeof(T);
    // Indices have 32 bits, and a division takes 31 of them.
    if (layout.numel / size > (ndim > 0 ? INT32_MAX : UINT32_MAX - 4096)) return false;
    const uint32_t units = layout.numel / size;
    const uint32_t tail = layout.numel % size;
    Dims<ndim> dims{layout.ndim > 2 ? layout.ndim : 2};
    for (int d = 0; d < ndim && d < dims.count; d++) {
      const bool given = d < layout.ndim;
      const int elements = d == 0 ? size : 1;
      dims.dim[d].set(given ? layout.size[d] / elements : 1,
                      given ? layout.stride[d] * elements : 0);
    }
    const unsigned grid = (units + tail + kBlock * count - 1) / (kBlock * count);
    void* arguments[] = {(void*)&out, (void*)&in, (void*)&units, (void*)&tail, &dims};
    const auto function = (const void*)kernel<T, bytes, count, ndim>;
    return cudaLaunchKernel(function, grid, kBlock, arguments, shared_bytes, stream) == cudaSuccess;
  }
  template <int bytes, int count>
  bool launch_view() const {
    if (layout.ndim <= 2) return launch<bytes, count, 2>();
    if (layout.ndim == 3) return launch<bytes, count, 3>();
    if constexpr (bytes == 16) return launch<bytes, count, kMaxDims>();
    return false;  // narrow units and a loop over the dimensions are as fast as torch.sigmoid
  }
  // By the widest unit that every row of both tensors is made of: 16 bytes, 4 or an element. A
  // thread moves 16 bytes, or 32 where that is faster: views (8 % on an expanded row), and dense
  // tensors of 4 and 8 bytes an element that nearly fill a wave of blocks and, with their output,
  // fit in the L2 cache (up to 9 %).
  bool start(const Gpu& gpu) const {
    constexpr int kElement = sizeof(T), kWord = kElement < 4 ? 4 : kElement;
    const bool dense = layout.is_dense();
    uint64_t all = uintptr_t(out) | uintptr_t(in);
    if (!dense) {
      all |= layout.size[0] * kElement;
      if (layout.stride[0] != 1) all |= kElement;
      for (int d = 1; d < layout.ndim; d++) all |= layout.stride[d] * kElement;
    }
    if (all % kWord != 0) {
      constexpr int kCount = 16 / kElement;
      return dense ? launch<kElement, kCount, 0>() : launch_view<kElement, kCount>();
    }
    if (all % 16 != 0)
      return dense ? launch<kWord, 16 / kWord, 0>() : launch_view<kWord, 16 / kWord>();
    if (!dense) return launch_view<16, 2>();
    const int64_t bytes = layout.numel * kElement;
    if (2 * bytes > gpu.l2_bytes) return launch<16, 1, 0>(gpu.shared_bytes);
    if constexpr (kElement >= 4) {
      if (4 * bytes > 3 * gpu.wave_bytes) return launch<16, 2, 0>();
    }
    return launch<16, 1, 0>();
  }
};

// Whether a kernel was started. The tensors' device has to be current.
extern "C" bool sigmoid_inline_cuda(Dtype dtype, void* out, const void* in, const Layout& layout,
                                    int device, void* stream) {
  static thread_local Gpu gpus[64];
  Gpu& gpu = gpus[device % 64];
  if (gpu.device != device) gpu = Gpu(device);
  const auto start = [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    const auto cuda_stream = static_cast<cudaStream_t>(stream);
    return GpuCall<T>{to, static_cast<const T*>(in), layout, cuda_stream}.start(gpu);
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
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/version.h>
#include <unistd.h>

#include <algorithm>

constexpr int64_t kTile = 2048;   // elements; a tile stays in the L1 cache
constexpr int64_t kGrain = 16;    // tiles a thread takes at least, as in at::TensorIterator
constexpr int64_t kLongRow = 64;  // elements
// malloc takes an output of this size fresh from the system, with a page fault for each page: with
// huge pages the call is 2.5 times as fast on two cores. Smaller outputs are recycled.
constexpr int64_t kHugePagesBytes = 32 << 20;

INLINE float compute(float x) { return sigmoid<true>(x); }
INLINE double compute(double x) { return sigmoid<true>(x); }
INLINE BFloat16 compute(BFloat16 x) { return round_to_bfloat16(sigmoid<false>(widen(x))); }

template <class T>
static void compute_row(const T* in, T* out, int64_t count) {
#pragma GCC ivdep  // `in` is `out` or apart from it
  for (int64_t n = 0; n < count; n++) out[n] = compute(in[n]);
}

// Computes `count` elements of `out`, whose first is number `first` of the output. Long rows are
// computed where they lie, and a repeated value once; others are copied and computed in place.
template <class T>
static void compute_tile(const Layout& layout, const T* in, int64_t first, int64_t count, T* out) {
  int64_t at[kMaxDims];
  for (int d = 0; d < layout.ndim; d++) {
    at[d] = first % layout.size[d];
    first /= layout.size[d];
    in += at[d] * layout.stride[d];
  }
  const int64_t stride = layout.stride[0];
  const bool direct = stride == 1 && layout.size[0] >= kLongRow;
  for (int64_t done = 0, piece; done < count; done += piece) {
    piece = std::min(layout.size[0] - at[0], count - done);
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
    for (int d = 1; d < layout.ndim; d++) {
      in += layout.stride[d];
      if (++at[d] < layout.size[d]) break;
      in -= layout.size[d] * layout.stride[d];
      at[d] = 0;
    }
  }
  if (stride != 0 && !direct) compute_row(out, out, count);
}

template <class T>
struct CpuCall {
  T* out;
  const T* in;
  const Layout& layout;

  static void compute_tiles(int64_t begin, int64_t end, void* context) {
    const CpuCall call = *static_cast<const CpuCall*>(context);
    const int64_t last = std::min(end * kTile, call.layout.numel);
    for (int64_t first = begin * kTile; first < last; first += kTile) {
      const int64_t count = std::min(kTile, last - first);
      compute_tile(call.layout, call.in, first, count, call.out + first);
    }
  }

  bool run() {
#ifdef MADV_HUGEPAGE
    const int64_t bytes = layout.numel * sizeof(T);
    if (bytes >= kHugePagesBytes) {
      const uintptr_t page = sysconf(_SC_PAGESIZE);
      const uintptr_t begin = (uintptr_t(out) + page - 1) / page * page;
      madvise(reinterpret_cast<void*>(begin), uintptr_t(out) + bytes - begin, MADV_HUGEPAGE);
    }
#endif
    const int64_t tiles = (layout.numel + kTile - 1) / kTile;  // whole: threads share no cache line
    if (tiles > kGrain) return !torch_parallel_for(0, tiles, kGrain, compute_tiles, this);
    compute_tiles(0, tiles, this);  // without PyTorch's shim one element takes 0.03 us less of 0.6
    return true;
  }
};

static bool run_cpu(Dtype dtype, void* out, const void* in, const Layout& layout) {
  const auto run = [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    return CpuCall<T>{to, static_cast<const T*>(in), layout}.run();
  };
  if (dtype == Dtype::kFloat) return run(static_cast<float*>(out));
  if (dtype == Dtype::kDouble) return run(static_cast<double*>(out));
  return run(static_cast<BFloat16*>(out));
}
"""

# ---- The call: from a Python tensor to output, layout and kernel, and back ----------------------

# A built-in function on the tensor's handle: a call through the dispatcher costs the host more than
# torch.sigmoid itself. What it may not skip is whatever intercepts operators: Tensor::is_plain.
CALL_SOURCE = r"""
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/ArrayRef.h>

#include <vector>

// Of Python, what is needed here: Python.h is missing on many machines.
extern "C" {
typedef struct _object PyObject;
struct PyMethodDef {
  const char* name;
  PyObject* (*function)(PyObject* self, PyObject* const* arguments, intptr_t count);
  int flags;
  const char* doc;
};
constexpr int METH_FASTCALL = 0x80;
extern PyObject _Py_NoneStruct, _Py_TrueStruct;
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
struct WithoutGil {  // for as long as it lives, as torch.sigmoid does
  void* thread = PyEval_SaveThread();
  ~WithoutGil() { PyEval_RestoreThread(thread); }
};

// Of PyTorch, what its libraries export: the headers take seconds.
namespace at {
class Tensor;
class TensorBase;
std::vector<int64_t> infer_dense_strides(c10::IntArrayRef sizes, c10::IntArrayRef strides);
}  // namespace at
namespace at::impl {
bool torch_function_mode_enabled();
}
namespace c10 {
struct TensorImpl {
  bool requires_grad() const;
};
}  // namespace c10
namespace torch::autograd::impl {
void bump_version(const at::Tensor&);
}
PyObject* THPVariable_Wrap(const at::TensorBase&);
struct CUDAGuardOpaque;
using CUDAGuardHandle = CUDAGuardOpaque*;
extern "C" {
AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);
AOTITorchError aoti_torch_create_cuda_guard(int32_t device, CUDAGuardHandle* guard);
AOTITorchError aoti_torch_delete_cuda_guard(CUDAGuardHandle guard);
}
extern "C" bool sigmoid_inline_cuda(Dtype, void*, const void*, const Layout&, int, void*);

// A Python tensor as a handle, and back: by PyTorch's shims where it has them. Before 2.14 by what
// a handle is: the address of a place that holds the address of a TensorImpl, `_cdata` in Python.
#ifdef TORCH_VERSION_2_14_0
struct Handle {
  AtenTensorHandle handle = nullptr;

  explicit Handle(PyObject* tensor) { torch_tensor_from_pyobject(tensor, &handle); }
  ~Handle() { aoti_torch_delete_tensor_object(handle); }
};
static PyObject* to_python(AtenTensorHandle tensor) {
  void* object = nullptr;
  torch_tensor_to_pyobject(tensor, nullptr, &object);
  return static_cast<PyObject*>(object);
}
#else
struct Handle {
  void* place;
  AtenTensorHandle handle = reinterpret_cast<AtenTensorHandle>(&place);

  explicit Handle(PyObject* tensor) {
    static PyObject* const name = PyUnicode_InternFromString("_cdata");
    PyObject* const number = PyObject_GetAttr(tensor, name);
    place = PyLong_AsVoidPtr(number);
    Py_DecRef(number);
  }
};
static PyObject* to_python(AtenTensorHandle tensor) {
  return THPVariable_Wrap(*reinterpret_cast<const at::TensorBase*>(tensor));
}
#endif

static PyObject* tensor_type;  // torch.Tensor
static size_t key_set_offset;  // in a TensorImpl, in bytes: what _key_set_offset in Python finds

// torch.Tensor itself, and no TorchFunctionMode.
static bool is_tensor(PyObject* object) {
  PyObject* const type = PyObject_Type(object);
  Py_DecRef(type);
  return type == tensor_type && !at::impl::torch_function_mode_enabled();
}

constexpr int kMaxTensorDims = 64;

struct Tensor : Handle {
  using Keys = c10::DispatchKeySet;
  using Key = c10::DispatchKey;
  const c10::TensorImpl* impl = *reinterpret_cast<const c10::TensorImpl* const*>(handle);
  Keys keys;       // the tensor's own, without those that the thread excludes
  Keys effective;  // and with those that it includes
  int64_t ndim, numel, *size, *stride;
  int32_t dtype, device_type, device;
  const void* data;

  explicit Tensor(PyObject* tensor) : Handle(tensor) {
    uint64_t raw;
    memcpy(&raw, reinterpret_cast<const char*>(impl) + key_set_offset, sizeof raw);
    const c10::impl::LocalDispatchKeySet thread = c10::impl::tls_local_dispatch_key_set();
    keys = Keys(Keys::RAW, raw) - thread.excluded_;
    effective = keys | (thread.included_ - thread.excluded_);
  }

  bool has(Keys set, Key key) const { return set.has_any(Keys(key)); }
  // Whether the dispatcher would send the call straight to the CPU or CUDA kernel, with nothing in
  // between but autograd and keys that let sigmoid fall through: no mode, transform, tracer,
  // subclass, negative view, other layout or device.
  bool is_plain() const {
    const Keys known({Key::CPU, Key::CUDA, Key::BackendSelect, Key::ADInplaceOrView,
                      Key::AutogradFunctionality, Key::AutocastCPU, Key::AutocastCUDA});
    return (effective.raw_repr() & ~known.raw_repr()) == 0 && has(effective, Key::Dense);
  }
  bool wants_gradient() const { return impl->requires_grad() && aoti_torch_grad_mode_is_enabled(); }
  bool is_cuda() const { return device_type == aoti_torch_device_type_cuda(); }

  // Reads the rest and says whether there is a kernel for it.
  bool find_kernel(Dtype* kernel) {
    static const int32_t dtypes[] = {aoti_torch_dtype_float32(), aoti_torch_dtype_float64(),
                                     aoti_torch_dtype_bfloat16(), aoti_torch_dtype_float16()};
    if (!is_plain()) return false;
    aoti_torch_get_dim(handle, &ndim);
    aoti_torch_get_numel(handle, &numel);
    aoti_torch_get_sizes(handle, &size);
    aoti_torch_get_strides(handle, &stride);
    aoti_torch_get_dtype(handle, &dtype);
    aoti_torch_get_device_type(handle, &device_type);
    aoti_torch_get_device_index(handle, &device);
    const int n = std::find(dtypes, dtypes + 4, dtype) - dtypes;
    *kernel = Dtype(n);
    if (numel == 0 || ndim > kMaxTensorDims || torch_get_const_data_ptr(handle, &data))
      return false;
    return is_cuda() ? HAS_CUDA && n < 4 : HAS_CPU && n < 3;  // float16 on the CPU: torch.sigmoid's
  }

  bool has_strides(const int64_t* other) const {  // of a dimension of size 1 any stride will do
    int64_t d = 0;
    while (d < ndim && (size[d] == 1 || stride[d] == other[d])) d++;
    return d == ndim;
  }
  const char* end() const {  // after the last element
    int64_t elements = 1;
    for (int d = 0; d < ndim; d++) elements += (size[d] - 1) * stride[d];
    return static_cast<const char*>(data) + elements * aoti_torch_dtype_element_size(dtype);
  }
};

// The strides of torch.sigmoid's output: those of empty_like with contiguous_format where x is
// contiguous, else channels_last where it is that, else preserve_format.
static void output_strides(const Tensor& x, int64_t* stride) {
  const auto lay_out = [&](const int64_t* order) {  // outermost first
    int64_t next = 1;
    for (int64_t n = x.ndim - 1; n >= 0; n--) {
      const int64_t d = order ? order[n] : n;
      stride[d] = next;
      next *= x.size[d];
    }
    return x.has_strides(stride);
  };
  constexpr int64_t kChannelsLast[] = {0, 2, 3, 1};
  if (lay_out(nullptr) || (x.ndim == 4 && lay_out(kChannelsLast))) return;
  const size_t ndim = x.ndim;
  const auto dense = at::infer_dense_strides({x.size, ndim}, {x.stride, ndim});
  // A tensor that is dense in any order keeps its strides, those of dimensions of size 1 too.
  std::copy_n(x.has_strides(dense.data()) ? x.stride : dense.data(), ndim, stride);
}

// Orders the dimensions by the output's strides and merges neighbours. False where the output is
// not dense in that order (a view as `out`), or more than kMaxDims remain.
static bool make_layout(const Tensor& x, const int64_t* out_stride, Layout* layout) {
  int order[kMaxTensorDims];
  int* end = order;
  for (int d = 0; d < x.ndim; d++) {
    if (x.size[d] != 1) *end++ = d;
  }
  std::sort(order, end, [=](int a, int b) { return out_stride[a] < out_stride[b]; });
  *layout = {x.numel, 1, {1}, {1}};
  int64_t dense = 1;
  for (const int* d = order; d < end; d++) {
    if (out_stride[*d] != dense) return false;
    dense *= x.size[*d];
    int last = layout->ndim - 1;
    if (d > order && x.stride[*d] == layout->stride[last] * layout->size[last]) {
      layout->size[last] *= x.size[*d];
      continue;
    }
    if (d > order) last = layout->ndim++;
    if (last == kMaxDims) return false;
    layout->size[last] = x.size[*d];
    layout->stride[last] = x.stride[*d];
  }
  return true;
}

// False where the kernel did not start.
static bool run(Dtype dtype, const Tensor& x, AtenTensorHandle output, const Layout& layout) {
  void* out = nullptr;
  if (aoti_torch_get_data_ptr(output, &out) != AOTI_TORCH_SUCCESS) return false;
#if HAS_CUDA
  if (x.is_cuda()) {
    void* stream = nullptr;
    CUDAGuardHandle guard = nullptr;
    if (aoti_torch_get_current_cuda_stream(x.device, &stream)) return false;
    if (aoti_torch_create_cuda_guard(x.device, &guard)) return false;
    const bool started = sigmoid_inline_cuda(dtype, out, x.data, layout, x.device, stream);
    aoti_torch_delete_cuda_guard(guard);
    return started;
  }
#endif
  return run_cpu(dtype, out, x.data, layout);
}

// A new tensor; null where there is no memory, so that torch.sigmoid says so, or no start.
static AtenTensorHandle into_new(Dtype dtype, const Tensor& x) {
  const WithoutGil without_gil;
  int64_t stride[kMaxTensorDims];
  Layout layout;
  output_strides(x, stride);
  AtenTensorHandle y = nullptr;
  if (!make_layout(x, stride, &layout)) return nullptr;
  aoti_torch_empty_strided(x.ndim, x.size, stride, x.dtype, x.device_type, x.device, &y);
  if (!y || run(dtype, x, y, layout)) return y;
  aoti_torch_delete_tensor_object(y);
  return nullptr;
}

// Whether torch.sigmoid's `out` is filled. Where not, torch.sigmoid's rules apply.
static bool into(const Tensor& y, Dtype dtype, const Tensor& x) {
  if (x.dtype != y.dtype || x.device_type != y.device_type || x.device != y.device) return false;
  if (x.ndim != y.ndim || !std::equal(x.size, x.size + x.ndim, y.size)) return false;
  if (x.wants_gradient() || y.wants_gradient()) return false;
  if (!y.has(y.keys, Tensor::Key::ADInplaceOrView)) return false;  // an inference tensor
  const bool same = x.data == y.data && std::equal(x.stride, x.stride + x.ndim, y.stride);
  const bool apart = x.end() <= y.data || y.end() <= x.data;
  Layout layout;
  if (!(same || apart) || !make_layout(x, y.stride, &layout)) return false;
  const WithoutGil without_gil;
  if (!run(dtype, x, y.handle, layout)) return false;
  // So that a backward that needs the old values says so.
  torch::autograd::impl::bump_version(*reinterpret_cast<const at::Tensor*>(y.handle));
  return true;
}

// Elements from which autograd records a kernel of this file. Its backward, in Python, costs the
// host 5 us more than torch.sigmoid's on the CPU, 20 us on the GPU: small tensors would train at
// 0.8x.
constexpr int64_t kRecordedCpu = 1 << 20, kRecordedCuda = 1 << 24;

// sigmoid(x) or sigmoid(x, out): the result; True where autograd has to record the call; None where
// torch.sigmoid has to take it.
static PyObject* python_sigmoid(PyObject*, PyObject* const* arguments, intptr_t count) {
  PyObject* const none = &_Py_NoneStruct;
  PyObject* const out = count == 2 ? arguments[1] : nullptr;
  if (!is_tensor(arguments[0]) || (out && !is_tensor(out))) return Py_NewRef(none);
  bool contiguous = true;
  if (out) aoti_torch_is_contiguous(Handle(out).handle, &contiguous);
  if (!contiguous) return Py_NewRef(none);  // first, as torch.sigmoid is to lose no time
  Tensor x(arguments[0]);
  Dtype dtype;
  if (!x.find_kernel(&dtype)) return Py_NewRef(none);
  if (out) {
    Tensor y(out);
    return Py_NewRef(y.find_kernel(&dtype) && into(y, dtype, x) ? out : none);
  }
  if (x.wants_gradient() && x.has(x.effective, Tensor::Key::AutogradFunctionality)) {
    const bool large = x.numel >= (x.is_cuda() ? kRecordedCuda : kRecordedCpu);
    return Py_NewRef(large ? &_Py_TrueStruct : none);
  }
  const AtenTensorHandle output = into_new(dtype, x);
  if (!output) return Py_NewRef(none);
  PyObject* const result = to_python(output);
  aoti_torch_delete_tensor_object(output);
  return result;
}

extern "C" PyObject* sigmoid_inline_function(PyObject* type, size_t offset) {
  static PyMethodDef method = {"sigmoid", python_sigmoid, METH_FASTCALL, nullptr};
  tensor_type = Py_NewRef(type);
  key_set_offset = offset;
  return PyCFunction_NewEx(&method, nullptr, nullptr);
}
"""

# ---- The build: a library per sources, versions and hardware, compiled once and then only loaded


def _cpu_flags():
    """Compiler flags for this CPU. Without fused multiply-add the loop is slow and left out."""
    capability = torch.backends.cpu.get_cpu_capability()  # "AVX512", "AVX2", "DEFAULT", ...
    arm = platform.machine() in ("aarch64", "arm64")
    fma = arm or capability in ("AVX2", "AVX512")
    # Without jump threading, which makes 10 instructions of the formula's two clamps instead of 4.
    flags = ["-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fno-math-errno"]
    flags += ["-fno-trapping-math", "-ffp-contract=off", "-fno-thread-jumps", "-fno-split-paths"]
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
        pointers = ctypes.byref(major), ctypes.byref(minor)
        if nvml.nvmlDeviceGetCudaComputeCapability(gpu, *pointers) == 0:
            found.add(f"{major.value}{minor.value}")
    return sorted(found)


_TOOLKIT = f"install the toolkit of CUDA {torch.version.cuda}, or set CUDA_HOME to it"
_OLDER = "nvcc does not take this compiler: set CC and CXX to older ones, such as gcc-13 and g++-13"
_REMEDIES = {  # what a compiler or the system says, and what to do about it
    "Ninja is required": "ninja is missing: pip install ninja",
    "CUDA_HOME environment variable is not set": f"nvcc is missing: {_TOOLKIT}",
    "nvcc: not found": f"nvcc is missing: {_TOOLKIT}",
    "nvcc: No such file": f"nvcc is missing: {_TOOLKIT}",
    "libcudart.so": f"nvcc and PyTorch differ in CUDA: {_TOOLKIT}",
    "ninja: error": "ninja does not take this path: set TORCH_EXTENSIONS_DIR to a plain one",
    "Unsupported gpu architecture": f"nvcc does not know this GPU: {_TOOLKIT}, or use the CPU with"
    " CUDA_VISIBLE_DEVICES= (empty)",
    "unsupported GNU version": _OLDER,
    "unsupported clang version": _OLDER,
    "cannot find -lcudart": f"the CUDA runtime is missing beside nvcc: {_TOOLKIT}",
    "No space left": "the disk is full: free some of it, or set TORCH_EXTENSIONS_DIR and TMPDIR",
}


class _OneLine:
    """Turns errors in _REMEDIES, and what the system says of files, into one line."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            return
        said = f"{error} {error.__cause__}"
        remedies = [remedy for sign, remedy in _REMEDIES.items() if sign in said]
        compiler = os.environ.get("CXX") or "c++"
        if " " in compiler or shutil.which(compiler) is None:
            remedies.append(f"the C++ compiler {compiler!r} is missing: install g++, or set CXX")
        if isinstance(error, OSError):
            where = "set TORCH_EXTENSIONS_DIR to a directory for programs and data"
            remedies.append(f"{error}: {where}")
        if isinstance(error, (OSError, RuntimeError)) and remedies:
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
    gencode = [f"-gencode=arch=compute_{gpu},code=sm_{gpu}" for gpu in architectures]
    # pip puts ninja beside python, which need not be on PATH; cpp_extension takes an empty CXX for
    # the compiler's name, and asks for a GPU: by NVML, CUDA stays untouched.
    environment = {
        "PATH": os.environ.get("PATH", "") + os.pathsep + os.path.dirname(sys.executable),
        "CXX": os.environ.get("CXX") or "c++",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    patch = unittest.mock.patch
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, environment))
        log = logging.getLogger("torch.utils.cpp_extension")
        stack.enter_context(patch.object(log, "disabled", True))
        for stream in ("stdout", "stderr"):
            if getattr(sys, stream) is None or getattr(sys, stream).closed:  # by a daemon
                stack.enter_context(patch.object(sys, stream, io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        from torch.utils.cpp_extension import load_inline

        start = time.perf_counter()
        load_inline(
            f"{name}_{time.time_ns()}",  # it remembers names, and would not build one again
            FORMULA_SOURCE + ARGUMENTS_SOURCE + CPU_SOURCE + CALL_SOURCE,
            FORMULA_SOURCE + ARGUMENTS_SOURCE + CUDA_SOURCE if cuda else None,
            extra_cflags=[*cpu_flags, f"-DHAS_CUDA={int(cuda)}"],
            # On all cores, and with smaller standard headers: 1.25 s instead of 1.85 s on 16 cores.
            extra_cuda_cflags=["-split-compile=0", "-std=c++17", *gencode],
            build_directory=str(scratch),
            with_cuda=cuda,
            is_python_module=False,
            no_implicit_headers=True,
        )
        seconds = time.perf_counter() - start
        (built,) = scratch.glob("*.so")
        built.replace(directory / f"{name}-{_digest(built.read_bytes())}.so")
        shutil.rmtree(scratch, ignore_errors=True)
        what = "GPU kernel for sm_" + ", sm_".join(architectures) if cuda else "CPU kernel"
        print(f"sigmoid_inline: compiled the {what} in {seconds:.1f} s", file=sys.stderr)


def _key_set_offset():
    """Where a TensorImpl holds its dispatch keys, in bytes.

    c10/core/TensorImpl.h knows, but takes 0.6 s to compile. Here it is found: the one of a
    TensorImpl's 26 words that holds, for each of some tensors, the keys that PyTorch says it has.
    """
    x = torch.empty(1, device="cpu")
    offsets = set(range(0, 26 * 8, 8))
    for tensor in (x, torch.empty(1, device="meta"), x.to_sparse(), x.to(torch.complex64).conj()):
        keys = torch._C._dispatch_keys(tensor).raw_repr()
        words = {o: ctypes.c_uint64.from_address(tensor._cdata + o).value for o in offsets}
        offsets = {offset for offset, word in words.items() if word == keys}
    if len(offsets) != 1:
        raise RuntimeError(f"sigmoid_inline does not know PyTorch {torch.__version__}'s tensors")
    return offsets.pop()


def _load(architectures):
    """Returns the built-in function of the kernels, compiled if need be.

    The library's name holds what the code depends on, so that machines can share a cache.

    Raises RuntimeError where a tool is missing or the cache cannot be used.
    """
    version = torch.__version__
    if tuple(map(int, version.split(".")[:2])) < (2, 10):
        older = f"sigmoid_inline: PyTorch {version} is older than 2.10"
        raise RuntimeError(f"{older}: pip install -U torch")
    cpu_flags = _cpu_flags()
    facts = [FORMULA_SOURCE, ARGUMENTS_SOURCE, CUDA_SOURCE, CPU_SOURCE, CALL_SOURCE]
    facts += [version, torch.version.cuda, platform.machine(), cpu_flags, architectures]
    facts += [os.environ.get(name) for name in ("CC", "CXX", "CUDA_HOME")]
    name = "sigmoid_inline_" + _digest(repr(facts).encode())
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or os.path.join(cache, "torch_extensions")
    directory = Path(root, "sigmoid_inline").absolute()
    with _OneLine():
        if root.startswith("~"):
            raise OSError("there is no home directory")
        library = _open_library(directory, name)
        if library is None:
            directory.mkdir(parents=True, exist_ok=True)
            with open(directory / "lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # dropped when its holder ends, killed or not
                library = _open_library(directory, name)
                if library is None:
                    _compile(name, cpu_flags, architectures, directory)
                    library = _open_library(directory, name)
    function = library.sigmoid_inline_function
    function.restype = ctypes.py_object
    function.argtypes = [ctypes.py_object, ctypes.c_size_t]
    return function(torch.Tensor, _key_set_offset())


_sigmoid = _load(_gpu_architectures())

# ---- The public functions -----------------------------------------------------------------------

_is_tracing = torch.compiler.is_dynamo_compiling


class _Recorded(torch.autograd.Function):
    """Entered where `_sigmoid` says so; saves the output alone, as torch.sigmoid does."""

    @staticmethod
    def forward(ctx, x):
        y = _sigmoid(x)
        if y is None:
            y = torch.sigmoid(x)
        ctx.save_for_backward(y)
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        with torch._C.DisableTorchFunction():  # nor do PyTorch's own derivatives ask subclasses
            return None if grad is None else torch.ops.aten.sigmoid_backward(grad, y)


def sigmoid(input, *more, out=None):
    """torch.sigmoid(input), at the memory limit.

    A plain call runs on a kernel of this file: a torch.Tensor of float32, float64, bfloat16 or (on
    the GPU) float16, of any shape and strides, on the CPU or an NVIDIA GPU. torch.sigmoid takes

    - torch.compile: Inductor fuses sigmoid with its neighbours, which saves more than any kernel;
    - what wants to see torch.sigmoid: function and dispatch modes, tracers, torch.func,
      functionalisation, forward-mode AD, subclasses (DTensor, Parameter, FakeTensor);
    - what autograd records, below 2^20 elements on the CPU and 2^24 on the GPU: a backward in
      Python costs more than the kernel saves;
    - what has no kernel: other dtypes, devices and layouts, negative views, no elements, more than
      8 dimensions that do not merge (on the GPU 3, unless rows are made of 16-byte vectors);
    - `out` of another dtype, shape or device, not contiguous, or overlapping the input in part.

    Args:
        input: what torch.sigmoid takes.
        more: nothing. make_fx takes functions with `*more`, and none with just a keyword `out`.
        out: as for torch.sigmoid; may be `input` itself.

    Returns:
        A tensor of the shape, strides, device and dtype of torch.sigmoid's. The error is at most 1
        ulp over all inputs (float64: over 10^8 of them); NaN gives NaN.

    Raises:
        What torch.sigmoid raises for the same arguments.
    """
    if more:
        return torch.sigmoid(input, *more, out=out)  # its TypeError
    if _is_tracing() or forward_ad._current_level >= 0:
        y = None
    elif out is not None:
        y = _sigmoid(input, out)
    elif profiler._is_profiler_enabled:
        with profiler.record_function("sigmoid_inline"):
            y = _sigmoid(input)
    else:
        y = _sigmoid(input)
    if y is True:
        y = _Recorded.apply(input)
    if y is None:
        return torch.sigmoid(input) if out is None else torch.sigmoid(input, out=out)
    return y


class ModelNew(torch.nn.Module):
    """torch.nn.Sigmoid, at the memory limit."""

    def forward(self, input):
        return sigmoid(input)

    def __prepare_scriptable__(self):
        return torch.nn.Sigmoid()  # for torch.jit.script, which knows no built-in functions


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
_BLOCK = 1 << 24  # elements compared at a time: the float64 reference never takes the whole shape
_GRAPH_CALLS = 32


def ulp(exact, dtype):
    """The unit in the last place of `dtype` at each element of `exact`, which is float64."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(exact.clamp(min=info.smallest_normal))[1]
    return torch.exp2(exponent.double() - 1).mul_(info.eps)  # ldexp: wrong on GPU 1 in PyTorch 2.11


def max_error_ulp(y, x):
    """Largest error of `y`, in ulp of its dtype, against torch.sigmoid(x) in float64; inf where one
    of them is NaN and the other is not."""
    worst = 0.0
    blocks = zip(y.reshape(-1).split(_BLOCK), x.reshape(-1).split(_BLOCK))
    for y_block, x_block in blocks if x.numel() else ():
        exact = torch.sigmoid(x_block.double())
        error = (y_block.double() - exact).abs_().div_(ulp(exact, y.dtype))
        error[exact.isnan() & y_block.isnan()] = 0
        worst = max(worst, error.nan_to_num_(nan=float("inf")).max().item())
    return worst


def _special_values(dtype, device):
    """Infinities, NaN, zeros, subnormals, extremes, and a sweep to where results are subnormal."""
    info = torch.finfo(dtype)
    edge = {torch.float16: 10, torch.float64: 709}.get(dtype, 88)
    some = [float("inf"), 0.0, info.smallest_normal, info.smallest_normal * info.eps]
    some += [info.max, info.eps, 1.0, edge, edge + 17]
    values = torch.tensor([float("nan"), *some, *(-v for v in some)], dtype=torch.float64)
    sweep = torch.linspace(-1.2 * edge - 2, 1.2 * edge + 2, 100_003, dtype=torch.float64)
    return torch.cat([values, sweep]).to(device, dtype)


def self_check(x):
    """Compares the kernels with float64 at the shape of `x` and on what tends to break them.

    Returns (largest error of ModelNew in ulp, the same of torch.sigmoid, list of what is wrong).
    """
    model, bound, ours, wrong = ModelNew(), _BOUND_ULP[x.dtype], 0.0, []
    special = _special_values(x.dtype, x.device)
    poison = torch.full_like(x, float("nan"))  # freed for the output: what is left unwritten shows
    del poison
    for view in (x, special, *(special[i : i + n] for i in (1, 2, 3) for n in (1, 7, 33, 1025))):
        y = model(view)
        error = max_error_ulp(y, view)
        ours = max(ours, error)
        if error > bound or (y.stride(), y.dtype) != (view.stride(), view.dtype):
            wrong.append(f"{error:.2f} ulp, {y.dtype}, strides {y.stride()} in {tuple(view.shape)}")
        del y
    around = torch.full((1040,), float("nan"), dtype=x.dtype, device=x.device)
    sigmoid(special[-1025:], out=around[7:-8])
    if around.isnan().nonzero().flatten().tolist() != [*range(7), *range(1032, 1040)]:
        wrong.append("wrote outside of the output, or not all of it")
    return ours, max(max_error_ulp(torch.sigmoid(t), t) for t in (x, special)), wrong


def measure(contenders, device, trials, calls=1):
    """Times functions in turn, after three rounds to warm up.

    Args:
        contenders: {name: function of no arguments}.
        device: torch.device; CUDA is timed with events on the current stream, else a wall clock.
        trials: how many times each is timed.
        calls: how many calls are timed at once.

    Returns {name: list of microseconds a call}.
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
    milliseconds = (lambda a, b: a.elapsed_time(b)) if cuda else (lambda a, b: (b - a) * 1e3)
    return {name: [milliseconds(*s) * 1e3 / calls for s in spans[name][3:]] for name in spans}


def _replay(function):
    """A function that replays _GRAPH_CALLS calls of `function` from one CUDA graph."""
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(_GRAPH_CALLS):
            function()
    return graph.replay


def _time_call(x, args):
    """{contender: microseconds} of a call on `x`, from a CUDA graph where it is short."""
    contenders = {"sigmoid": sigmoid, "torch.sigmoid": torch.sigmoid}
    if args.compile:
        torch.compiler.reset()  # else its limit of recompilations would turn it into torch.sigmoid
        contenders["torch.compile"] = torch.compile(torch.sigmoid)
    contenders = {name: functools.partial(function, x) for name, function in contenders.items()}
    contenders["copy"] = torch.rand(x.shape, device=x.device, dtype=x.dtype).clone
    if x.is_cpu or x.numel() > 1 << 24:
        return measure(contenders, x.device, args.trials)
    graphs = {name: _replay(function) for name, function in contenders.items()}
    times = measure(graphs, x.device, args.trials)
    return {name: [us / _GRAPH_CALLS for us in values] for name, values in times.items()}


_HEAD = f"{'us':>10}{'spread':>8}{'torch us':>10}{'ratio':>8}{'GB/s':>7}{'of copy':>9}"


def _print_case(case, times, moved=None):
    """A line of the table: {contender: microseconds}, and the bytes that a call moves."""
    ours, theirs = times["sigmoid"], times["torch.sigmoid"]
    us = statistics.median(ours)
    line = f"{case:32}{us:10.2f}{(max(ours) - min(ours)) / us:8.1%}"
    line += f"{statistics.median(theirs):10.2f}{statistics.median(theirs) / us:7.3f}x"
    if moved:
        line += f"{moved / us / 1e3:7.0f}{statistics.median(times['copy']) / us:9.1%}"
    if "torch.compile" in times:
        line += f"  compiled {statistics.median(times['torch.compile']) / us:.3f}x"
    print(line)


def _layouts(device, dtype):
    """Yields (name, tensor): sizes from small to large, then views as models make them."""
    new = functools.partial(torch.rand, device=device, dtype=dtype)
    largest, n = 25, 1 << 24
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        largest = int(0.3 * free / dtype.itemsize).bit_length() - 1
        n = 1 << min(largest - 2, 28)
    for exponent in sorted({*range(10, largest, 2), 21, 23, largest}):
        yield f"2^{exponent}", new(1 << exponent)
    yield "half of rows of 8192", new(n // 4096, 8192).chunk(2, -1)[1]
    yield "half of rows of 160", new(n // 80, 160).chunk(2, -1)[1]
    yield "half of rows of 66", new(n // 33, 66).chunk(2, -1)[1]
    yield "half of dimension 1, NCHW", new(n >> 18, 512, 32, 32).chunk(2, 1)[0]
    yield "channels last, cropped", new(n >> 20, 128, 128, 64).permute(0, 3, 1, 2)[..., 1:-1, 1:-1]
    yield "NCHW, cropped at odd offsets", new(n >> 20, 64, 128, 128)[..., 1:-2, 3:-4]
    yield "transposed", new(4096, n // 4096).t()
    yield "expanded row", new(1, 4096).expand(n // 4096, 4096)
    yield "expanded column", new(n // 4096, 1).expand(n // 4096, 4096)
    yield "x[1:]", new(n)[1:]
    yield "x[::2]", new(2 * n)[::2]
    yield "x[::3]", new(3 * n)[::3]
    yield "x[:, 4:] of rows of 85", new(n // 85, 85)[:, 4:]
    yield "x[:, :2] of rows of 85", new(n // 85, 85)[:, :2]
    yield "x[:, 0] of rows of 20", new(n // 20, 20)[:, 0]


def _eager(device, dtype):
    """Yields (name, a call here, the same of torch.sigmoid): what the host's time decides."""
    new = functools.partial(torch.rand, device=device, dtype=dtype)
    for exponent in (0, 10, 12, 16, 20, 22, 23):
        n = 1 << exponent
        x, y, view, leaf = new(n), new(n), new(n, 2)[:, 0], new(n, requires_grad=True)

        def train(function):
            function(leaf).backward(y)

        calls = {
            "sigmoid(x)": [functools.partial(f, x) for f in (sigmoid, torch.sigmoid)],
            "ModelNew()(x)": [functools.partial(f(), x) for f in (ModelNew, torch.nn.Sigmoid)],
            "sigmoid(view)": [functools.partial(f, view) for f in (sigmoid, torch.sigmoid)],
            "forward and backward": [functools.partial(train, f) for f in (sigmoid, torch.sigmoid)],
        }
        for name, a, out in (
            ("x, out=y", x, y),
            ("x, out=x", x, x),
            ("view, out=view", view, view),
        ):
            ways = [functools.partial(f, a, out=out) for f in (sigmoid, torch.sigmoid)]
            calls[f"sigmoid({name})"] = ways
        for name, ways in calls.items():
            yield f"{name}, 2^{exponent}", *ways


def _sweep(args):
    """Sizes and layouts, each checked, then timed beside torch.sigmoid and a copy; eager loops."""
    status = 0
    print(_machine(args))
    print(f"medians of {args.trials} interleaved rounds; GB/s counts bytes read and written")
    print("on a GPU sizes to 2^24 are replayed from a CUDA graph; eager: loops of 100 calls")
    for name in [args.dtype] if args.dtype else _DTYPES:
        dtype = _DTYPES[name]
        print(f"\n{name:32}{_HEAD}")
        for case, x in _layouts(args.device, dtype):
            error = max_error_ulp(sigmoid(x), x)
            if error > _BOUND_ULP[dtype] and _sigmoid(x) is not None:
                print(f"{case:32}FAILED: an error of {error:.2f} ulp")
                status = 1
            _print_case(case, _time_call(x, args), 2 * x.numel() * dtype.itemsize)
        print(f"\n{name + ', eager':32}{_HEAD}")
        for case, ours, theirs in _eager(args.device, dtype):
            ways = {"sigmoid": ours, "torch.sigmoid": theirs}
            _print_case(case, measure(ways, args.device, args.trials, calls=100))
    return status


def _headline(args):
    """One shape, its rows dealt out to the ranks of torchrun: the check, then the times."""
    dtype, (rows, columns) = _DTYPES[args.dtype or "float32"], args.shape
    cuda = args.device.type == "cuda"
    if args.ranks > 1:
        backend = "nccl" if cuda else "gloo"
        torch.distributed.init_process_group(backend, device_id=args.device if cuda else None)

    def over_ranks(values, operation):
        tensor = torch.tensor(values, dtype=torch.float64, device=args.device)
        if args.ranks > 1:
            torch.distributed.all_reduce(tensor, getattr(torch.distributed.ReduceOp, operation))
        return tensor.tolist()

    mine = rows * (args.rank + 1) // args.ranks - rows * args.rank // args.ranks
    if cuda:  # the input, two outputs, and the check's blocks in float64
        free = 0.9 * torch.cuda.mem_get_info(args.device)[0] - 80 * _BLOCK
        mine = max(1, min(mine, int(free / (3 * columns * dtype.itemsize))))
    total = int(over_ranks([mine], "SUM")[0])
    generator = torch.Generator(args.device).manual_seed(args.rank)
    x = torch.rand(mine, columns, device=args.device, dtype=dtype, generator=generator)
    moved = 2 * total * columns * dtype.itemsize
    title = f"{str(dtype)[6:]} {total} x {columns}"
    print(f"{_machine(args)}\n{title}: {moved / 2e6:,.0f} MB read, as many written")
    if total < rows:
        print(f"memory for {total} of {rows} rows: taking those")
    if _sigmoid(x) is None:
        print("check   nothing: torch.sigmoid takes this data type here, and is what is timed")
    else:
        ours, theirs, wrong = self_check(x)
        ours, theirs, failed = over_ranks([ours, theirs, len(wrong)], "MAX")
        print(f"check   largest error: {ours:.2f} ulp (torch.sigmoid: {theirs:.6g} ulp)")
        for problem in wrong:
            print(f"check   FAILED: {problem}", file=sys.stderr if args.rank else sys.stdout)
        if failed:
            return 1
        print("check   every element, special values, odd lengths and offsets: all right")
    times = {name: over_ranks(us, "MAX") for name, us in _time_call(x, args).items()}
    print(f"\n{'':32}{_HEAD}")
    _print_case(title, times, moved)
    print(f"\nmedians of {args.trials} interleaved calls; GB/s counts bytes read and written")
    if args.ranks > 1:
        print(f"times of the slowest of {args.ranks} ranks, GB/s of all together")
        torch.distributed.destroy_process_group()
    return 0


def _machine(args):
    """What computes, as many times as there are ranks, and the versions."""
    name = f"CPU with {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    cuda = ""
    if args.device.type == "cuda":
        name = torch.cuda.get_device_name(args.device)
        cuda = f", CUDA {torch.version.cuda}"
    times = f"{args.ranks} x " if args.ranks > 1 else ""
    return f"{times}{name}, PyTorch {torch.__version__}{cuda}"


def _parse(argv):
    """The options, completed by what the machine has and by torchrun's environment."""
    parser = argparse.ArgumentParser(
        prog="sigmoid_inline.py",
        usage=argparse.SUPPRESS,
        description="Checks the kernels against float64 and times them beside torch.sigmoid.",
    )
    add = parser.add_argument
    add("--shape", nargs=2, type=int, metavar=("ROWS", "COLS"), help="of all ranks together")
    add("--dtype", choices=_DTYPES, help="float32 by default; with --sweep each")
    add("--device", choices=("cuda", "cpu"), help="cuda by default, where there is one")
    add("--trials", type=int, default=30, help="timed calls of each contender (30)")
    add("--compile", action="store_true", help="time torch.compile(torch.sigmoid) too")
    add("--sweep", action="store_true", help="time many sizes and layouts, and eager loops")
    args = parser.parse_args(argv)
    launched = "TORCHELASTIC_RUN_ID" in os.environ  # by torchrun
    args.rank = int(os.environ["RANK"]) if launched else 0
    args.ranks = int(os.environ["WORLD_SIZE"]) if launched else 1
    local_rank = int(os.environ["LOCAL_RANK"]) if launched else 0
    cuda = (args.device or ("cuda" if torch.cuda.is_available() else "cpu")) == "cuda"
    if cuda and local_rank >= torch.cuda.device_count():
        gpus = torch.cuda.device_count()
        parser.error(f"rank {args.rank} needs GPU {local_rank}: PyTorch sees {gpus}")
    if args.sweep and (args.shape or launched):
        parser.error("--sweep has shapes of its own and runs in one process")
    args.device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    args.shape = args.shape or [4096 if cuda else 256, 393216]
    if args.shape[0] < args.ranks or args.shape[1] < 1 or args.trials < 1:
        parser.error(f"--shape and --trials are positive, a row for each of {args.ranks} ranks")
    return args


def main(argv):
    """Runs the check and the timing; returns the exit status, 1 where the check finds anything."""
    args = _parse(argv)
    with contextlib.ExitStack() as stack:
        if args.device.type == "cuda":
            stack.enter_context(torch.cuda.device(args.device))
        if args.rank > 0:  # rank 0 speaks for all
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        return _sweep(args) if args.sweep else _headline(args)


if __name__ == "__main__":
    if "__file__" not in globals():
        if main([]):  # in a notebook cell sys.argv is the kernel's, and nobody may leave
            raise RuntimeError("sigmoid_inline: the self-check failed")
    elif main(sys.argv[1:]):
        sys.exit(1)
