# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.10", "ninja"]
# ///
"""Sigmoid at the memory limit: a drop-in for torch.sigmoid, on NVIDIA GPUs and on CPUs.

    python sigmoid_inline.py              # build, check against exact values, time (--help)
    from sigmoid_inline import ModelNew   # ModelNew()(x) is torch.sigmoid(x), faster; so is sigmoid
    paste it whole into a notebook cell   # the same check and timing

The whole idea is a kernel that moves 8 bytes an element of float32, and nothing else counts:

    __global__ void sigmoid(float* out, const float* in, int numel) {
      int i = blockIdx.x * blockDim.x + threadIdx.x;
      if (i < numel) out[i] = 1 / (1 + expf(-in[i]));
    }

What the rest adds is every layout at that speed, the last bit, and a call that costs less than
PyTorch's. From top to bottom: what a user calls; the kernel; the formula; the CPU's loop; the way
of a call; then the build, the self-check, the timing and the command line.

    plain    of a call: nothing but autograd stands between it and PyTorch's own kernel
    view     the input as the output sees it: dimensions ordered and merged
    dense    of a view: one run of neighbouring elements, so that no position is computed
    unit     what one load or store moves: 16 bytes, 4, or an element
    wave     the blocks that are resident on a GPU at once
    tile     what the CPU computes in one go: 2,048 elements of the output
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
    from torch.autograd import profiler
    from torch.compiler import is_dynamo_compiling

__version__ = "3.0"

# ---- What a user calls --------------------------------------------------------------------------

# A program may put `sigmoid` in the place of torch.sigmoid: what is PyTorch's goes to the function
# that was there, and PyTorch makes its list of functions, which it keeps, before that (5 ms).
_torch_sigmoid = torch.sigmoid
torch.overrides.get_overridable_functions()


def sigmoid(input, *more, out=None):  # without `*more` make_fx counts `out` as an argument
    """torch.sigmoid(input), at the memory limit: with its shape, strides, dtype and exceptions.

    The error is at most 1 ulp over all inputs (float64: over 10^8 of them); NaN gives NaN. A plain
    call runs on a kernel of this file, recorded by autograd or not: a torch.Tensor or Parameter of
    float32, float64, bfloat16 or (on the GPU) float16, of any shape and strides, on the CPU or an
    NVIDIA GPU; with `out` where that is a tensor such as the result would be. torch.sigmoid takes

    - torch.compile: Inductor fuses sigmoid with its neighbours, which saves more than any kernel;
    - what wants to see torch.sigmoid: function and dispatch modes, tracers, torch.func,
      functionalisation, forward-mode AD, other subclasses (DTensor, FakeTensor);
    - every other `out`: it resizes, converts and overlaps;
    - what has no kernel: other dtypes, devices and layouts, negative views, no elements, more than
      8 dimensions (on the GPU 3) that do not merge.
    """
    if more or is_dynamo_compiling():
        y = None
    elif profiler._is_profiler_enabled:
        with _RecordFunctionFast("sigmoid_inline", [input]):
            y = _sigmoid(input, out)
    else:
        y = _sigmoid(input, out)
    if y is not None:
        return y
    if out is None:
        return _torch_sigmoid(input, *more)  # a TypeError where there is more
    return _torch_sigmoid(input, *more, out=out)


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

# ---- The kernel: what a thread loads, computes and stores, and how many of them are launched -----

# What both devices share.
COMMON_SOURCE = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

// All that was tuned, on an H100 and an H200 in November 2026 and, for the CPU, on an AMD EPYC. The
// figures are of float32 at 4096 x 393216 where they name no other case.
inline constexpr int kBlock = 128;        // threads; blocks of 256 take 1.3 % longer
inline constexpr int kWideUnits = 2;      // of 16 bytes, a thread of a view: 1 takes 8 % longer on
                                          // an expanded row; in the L2 cache up to 14 %
inline constexpr int kDoubleBlocks = 8;   // resident, to leave float64 registers: 5 % in the L2
inline constexpr double kFlight = 1.09e-6;  // seconds of the bandwidth: see tune()
inline constexpr int64_t kTile = 2048;    // elements that stay in a CPU's L1 cache
inline constexpr int64_t kGrain = 16;     // tiles worth one more thread, as in at::TensorIterator
inline constexpr int64_t kLongRow = 64;   // elements; the CPU copies shorter rows first

struct Tuning {
  int units_per_thread, resident_blocks;
};

// How to load a dense tensor that no cache holds. More bytes in flight than the memory can serve
// cost it row changes, fewer leave it idle: kFlight of the bandwidth is best on an H100 (13 of 16
// blocks: 0.9 % faster than all, 12 and 14 less) and an H200 (all 16; 15 are 3 % slower). GPUs that
// were not seen keep three quarters of their blocks at least, and move two units a thread where
// one is too little by half, as on a B200.
inline Tuning tune(int multiprocessors, int threads, double memory_clock_khz, int bus_bits) {
  const int all = threads / kBlock;  // of one multiprocessor
  const double bytes_per_s = 2e3 * memory_clock_khz * bus_bits / 8;  // at both edges of the clock
  const double blocks = kFlight * bytes_per_s / multiprocessors / (kBlock * 16);
  if (blocks >= 1.5 * all) return {2, all};
  if (blocks < 1) return {1, all};  // the driver does not say how fast the memory is
  return {1, std::clamp(int(blocks), all - all / 4, all)};
}

enum class Dtype { kHalf = 5, kFloat = 6, kDouble = 7, kBFloat16 = 15 };  // as c10::ScalarType

// The input's dimensions in the order in which they lie in the output, innermost first, neighbours
// merged where the input allows it. The output is dense: element i of this order is at out[i].
inline constexpr int kMaxDims = 8, kMaxGpuDims = 3;
struct View {
  int64_t numel;
  int ndim = 1;
  int64_t sizes[kMaxDims] = {1};    // of one element, until make_view() finds more
  int64_t strides[kMaxDims] = {1};  // of the input, in elements

  bool is_dense() const { return ndim == 1 && strides[0] == 1; }
};

// Launches the kernel; false where there is none for this view or CUDA refuses it.
bool launch_on_gpu(Dtype, void* out, const void* in, const View&, int device, void* stream);
"""

KERNEL_SOURCE = r"""
#include <cuda.h>

template <class T, int unit_elements>
struct alignas(unit_elements * sizeof(T)) Unit {
  T element[unit_elements];
};
template <class T, int unit_elements>
INLINE Unit<T, unit_elements> sigmoid(Unit<T, unit_elements> x) {
#pragma unroll
  for (int n = 0; n < unit_elements; n++) x.element[n] = sigmoid(x.element[n]);
  return x;
}

// A view for the kernel: the innermost dimension is counted in units, strides are in elements. To
// divide is to multiply: n / size = (mulhi(n, magic) + n) >> shift for n < 2^31 (Granlund and
// Montgomery, "Division by invariant integers using multiplication", 1994).
struct Dims {
  uint32_t size[kMaxGpuDims], magic[kMaxGpuDims], shift[kMaxGpuDims];
  int64_t stride[kMaxGpuDims];
};

// The input's unit of this index, by 2 or 3 dimensions, or `ndim` = 0 where the input is dense.
template <class T, int unit_elements, int ndim>
INLINE Unit<T, unit_elements> load(const T* in, const Dims& dims, uint32_t index) {
  using U = Unit<T, unit_elements>;
  if constexpr (ndim > 0) {
#pragma unroll
    for (int d = 0; d < ndim - 1; d++) {
      const uint32_t quotient = (__umulhi(index, dims.magic[d]) + index) >> dims.shift[d];
      in += (index - quotient * dims.size[d]) * dims.stride[d];
      index = quotient;
    }
    return *reinterpret_cast<const U*>(in + index * dims.stride[ndim - 1]);
  }
  return reinterpret_cast<const U*>(in)[index];
}

// Each thread computes `units_per_thread` units, a block apart so that neighbouring lanes touch
// neighbouring memory, and loads them all before it uses the first. The `tail` elements after the
// last unit of a dense tensor take one thread each.
template <class T, int unit_bytes, int units_per_thread, int ndim>
__global__ void __launch_bounds__(kBlock, sizeof(T) == 8 ? kDoubleBlocks : 0)
    sigmoid_kernel(T* out, const T* in, uint32_t units, uint32_t tail,
                   const __grid_constant__ Dims dims) {
  constexpr int unit_elements = unit_bytes / sizeof(T);
  using U = Unit<T, unit_elements>;
  const uint32_t first = blockIdx.x * (kBlock * units_per_thread) + threadIdx.x;
  U* const to = reinterpret_cast<U*>(out) + first;
  U x[units_per_thread];
#if __CUDA_ARCH__ >= 900  // before any access: launch() lets blocks start early
  cudaGridDependencySynchronize();
#endif
  // Only the last one or two blocks test each unit: 1.03 to 1.3 times as fast on narrow units.
  if ((blockIdx.x + 1) * (kBlock * units_per_thread) <= units) {
#pragma unroll
    for (int n = 0; n < units_per_thread; n++)
      x[n] = load<T, unit_elements, ndim>(in, dims, first + n * kBlock);
#pragma unroll
    for (int n = 0; n < units_per_thread; n++) to[n * kBlock] = sigmoid(x[n]);
    return;
  }
#pragma unroll
  for (int n = 0; n < units_per_thread; n++) {
    const uint32_t unit = first + n * kBlock;
    if (unit < units) x[n] = load<T, unit_elements, ndim>(in, dims, unit);
  }
#pragma unroll
  for (int n = 0; n < units_per_thread; n++) {
    const uint32_t unit = first + n * kBlock;
    const uint32_t past = unit - units;  // wraps around before the end
    if (unit < units) to[n * kBlock] = sigmoid(x[n]);
    if (ndim == 0 && past < tail) {
      const int64_t element = int64_t(units) * unit_elements + past;
      out[element] = sigmoid(in[element]);
    }
  }
}

// What a launch needs to know of a device.
struct Gpu {
  int64_t l2_bytes, wave_bytes;  // a wave of blocks moves so much, at 16 bytes a thread
  int units_per_thread;          // of a dense tensor that no cache holds
  unsigned held_bytes;           // of shared memory, unused: they keep other blocks out there
  bool overlaps;                 // whether a grid may start before the one before it has ended

  void read(int device) {
    const auto ask = [device](cudaDeviceAttr attribute) {
      int value = 0;
      cudaDeviceGetAttribute(&value, attribute, device);
      return value;
    };
    const int multiprocessors = ask(cudaDevAttrMultiProcessorCount);
    const int threads = ask(cudaDevAttrMaxThreadsPerMultiProcessor);
    const Tuning tuning = tune(multiprocessors, threads, ask(cudaDevAttrMemoryClockRate),
                               ask(cudaDevAttrGlobalMemoryBusWidth));
    l2_bytes = ask(cudaDevAttrL2CacheSize);
    wave_bytes = int64_t(multiprocessors) * (threads / kBlock * kBlock) * 16;
    units_per_thread = tuning.units_per_thread;
    const int shared = ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / tuning.resident_blocks;
    held_bytes = std::min(shared / 256 * 256 - ask(cudaDevAttrReservedSharedMemoryPerBlock),
                          ask(cudaDevAttrMaxSharedMemoryPerBlock));
    if (tuning.resident_blocks == threads / kBlock) held_bytes = 0;
    // PyTorch and drivers for CUDA 12 do not know every graph that such a launch makes.
    overlaps = PYTORCH_CUDA >= 13 && ask(cudaDevAttrComputeCapabilityMajor) >= 9;
  }
};

inline auto driver_launch() {
  static const auto launch = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found;
    cudaGetDriverEntryPointByVersion("cuLaunchKernelEx", &entry, 12000, cudaEnableDefault, &found);
    return reinterpret_cast<decltype(&cuLaunchKernelEx)>(entry);
  }();
  return launch;
}

template <class T>
struct GpuCall {
  T* out;
  const T* in;
  const View& view;
  const Gpu& gpu;
  int device;
  CUstream stream;

  template <int unit_elements, int ndim>
  Dims make_dims() const {
    Dims dims;
    for (int d = 0; d < ndim; d++) dims.stride[d] = view.strides[d] * (d == 0 ? unit_elements : 1);
    for (int d = 0; d < ndim - 1; d++) {  // nothing is divided by the outermost size
      const int64_t size = view.sizes[d] / (d == 0 ? unit_elements : 1);
      const int shift = size > 1 ? 64 - __builtin_clzll(size - 1) : 0;
      dims.size[d] = size;
      dims.magic[d] = (((int64_t(1) << shift) - size) << 32) / size + 1;
      dims.shift[d] = shift;
    }
    return dims;
  }

  // Through the driver, by a handle that each thread asks once, a launch takes 0.3 to 0.6 us less of
  // the host's time than <<<>>>. Blocks may start once those of the grid before have ended, and wait
  // in the kernel until its writes are there: an eager call takes 0.5 us less, one in a graph 0.4.
  template <int unit_bytes, int units_per_thread, int ndim>
  bool launch(unsigned shared_bytes) {
    constexpr int unit_elements = unit_bytes / sizeof(T), block_units = kBlock * units_per_thread;
    // Indices have 32 bits, with room for a last block, and a division takes 31 of them.
    if (view.numel / unit_elements > (ndim > 0 ? INT32_MAX : UINT32_MAX - 4096)) return false;
    const uint32_t units = view.numel / unit_elements, tail = view.numel % unit_elements;
    const Dims dims = make_dims<unit_elements, ndim>();
    static thread_local CUfunction handles[128];  // a c10::DeviceIndex has 8 bits
    const auto kernel = sigmoid_kernel<T, unit_bytes, units_per_thread, ndim>;
    CUfunction& handle = handles[device];
    if (!handle && cudaGetFuncBySymbol(&handle, reinterpret_cast<const void*>(kernel))) return false;
    CUlaunchAttribute overlap = {CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION};
    overlap.value.programmaticStreamSerializationAllowed = 1;
    const unsigned grid = (units + tail + block_units - 1) / block_units;
    const CUlaunchConfig config = {grid,         1,      1,        kBlock, 1, 1,
                                   shared_bytes, stream, &overlap, gpu.overlaps ? 1u : 0u};
    const void* arguments[] = {&out, &in, &units, &tail, &dims};
    return !driver_launch()(&config, handle, const_cast<void**>(arguments), nullptr);
  }
  template <int unit_bytes, int units_per_thread>
  bool launch_by_ndim() {
    if (view.is_dense()) return launch<unit_bytes, units_per_thread, 0>(0);
    if (view.ndim <= 2) return launch<unit_bytes, units_per_thread, 2>(0);
    return launch<unit_bytes, units_per_thread, kMaxGpuDims>(0);
  }

  // By the widest unit that all rows of both tensors start and end with: 16 bytes, 4 or an element.
  // A thread moves 16 bytes in all, or more where kWideUnits says so.
  bool launch_by_unit() {
    constexpr int kElement = sizeof(T), kWord = kElement < 4 ? 4 : kElement;
    uint64_t boundaries = uintptr_t(out) | uintptr_t(in);  // in bytes, of all rows, by their bits
    if (!view.is_dense()) {
      boundaries |= view.sizes[0] * kElement;
      if (view.strides[0] != 1) boundaries |= kElement;
      for (int d = 1; d < view.ndim; d++) boundaries |= view.strides[d] * kElement;
    }
    const int64_t bytes = view.numel * kElement;
    const bool in_l2 = 2 * bytes <= gpu.l2_bytes;  // with the output
    if (boundaries % kWord != 0) return launch_by_ndim<kElement, 16 / kElement>();
    if (boundaries % 16 != 0) return launch_by_ndim<kWord, 16 / kWord>();
    if (!view.is_dense()) return launch_by_ndim<16, kWideUnits>();
    if (in_l2 && 2 * bytes > gpu.wave_bytes) return launch<16, kWideUnits, 0>(0);
    if (in_l2) return launch<16, 1, 0>(0);
    if (gpu.units_per_thread == 2) return launch<16, 2, 0>(0);
    return launch<16, 1, 0>(gpu.held_bytes);
  }
};

bool launch_on_gpu(Dtype dtype, void* out, const void* in, const View& view, int device,
                   void* stream) {
  static thread_local Gpu gpus[128];  // of each thread, so that nothing is locked
  Gpu& gpu = gpus[device];
  if (gpu.wave_bytes == 0) gpu.read(device);
  int current = device;
  cudaGetDevice(&current);
  if (current != device) cudaSetDevice(device);
  const auto launch = [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    GpuCall<T> call = {to, static_cast<const T*>(in), view, gpu, device, CUstream(stream)};
    return call.launch_by_unit();
  };
  bool launched = false;
  if (dtype == Dtype::kFloat) launched = launch(static_cast<float*>(out));
  if (dtype == Dtype::kDouble) launched = launch(static_cast<double*>(out));
  if (dtype == Dtype::kBFloat16) launched = launch(static_cast<BFloat16*>(out));
  if (dtype == Dtype::kHalf) launched = launch(static_cast<Half*>(out));
  if (current != device) cudaSetDevice(current);
  if (!launched) cudaGetLastError();  // torch.sigmoid would find the error and take it for its own
  return launched;
}
"""

# ---- The formula, for both devices ---------------------------------------------------------------

FORMULA_SOURCE = r"""
#ifdef __CUDACC__
#define INLINE __device__ __forceinline__
// 1/d for a normal d, to 2^-23 (float) or 2^-20 (double). `1 / d` in CUDA C++ is an IEEE division:
// 4 % slower in float32 at 2^29 elements, 17 % in the L2 cache.
// https://docs.nvidia.com/cuda/parallel-thread-execution/#floating-point-instructions-rcp
INLINE float reciprocal(float d) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(d));
  return r;
}
INLINE double reciprocal(double d) {  // .../#floating-point-instructions-rcp-approx-ftz-f64
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
// rounded to nearest; its error is 2^-28.0 then, and 2^-56.3 for double. The tests over all floats
// and 10^8 doubles notice a coefficient that breaks the bounds.
INLINE float exp_rest(float u) {
  return polynomial(u, 0x1.fffffcp-2f, -0x1.555492p-3f, 0x1.5558f2p-5f, -0x1.1239d4p-7f,
                    0x1.6a244cp-10f);
}
INLINE double exp_rest(double u) {
  return polynomial(u, 0x1.000000000000ap-1, -0x1.55555555554fap-3, 0x1.555555555088cp-5,
                    -0x1.1111111127b9ep-7, 0x1.6c16c184266ebp-10, -0x1.a01a012a68f41p-13,
                    0x1.a0199a16dcba7p-16, -0x1.71df253bfd924p-19, 0x1.28ad68a7aadbcp-22,
                    -0x1.ad7f77e4fff9fp-26);
}
// For 16-bit results on the CPU, ...
INLINE float exp_rest_16bit(float u) {
  return polynomial(u, 0x1.000e1cp-1f, -0x1.566e1ap-3f, 0x1.4f6104p-5f);
}

// sigmoid(x) = 2^k / (2^k + e^-u) with x = k ln 2 + u and |u| <= ln 2 / 2, for T = float or double.
//
// The denominator is carried as high + low, and one Newton step with both (of third order for
// double) divides: at most 1 ulp over all 2^32 floats. Numerator and denominator are scaled by 2^24
// (2^53), and the last product rounds into the subnormal range where the result lies there, so that
// no range needs a path of its own. Without `exact`, for 16-bit results on the CPU, the low parts
// are left out and q has 3 coefficients.
template <bool exact, class T>
INLINE T sigmoid_by_formula(T x) {
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
  const T q = exact ? exp_rest(u) : exp_rest_16bit(u);
  const T s = std::fma(u * u, q, -u);                                               // e^-u - 1
  const T d = std::fma(s, scale, scale + power);
  if (!exact) return power / d;
  const T d_low = std::fma(s, scale, power - (d - scale));
  const T r = reciprocal(d);
  T e = std::fma(-d_low, r, std::fma(-d, r, T(1)));  // 1/d = r / (1 - e) = r (1 + e + e^2 + ...)
  if (!f32) e = std::fma(e, e, e);
  return std::fma(e, r, r) * power;
}
INLINE float sigmoid(float x) { return sigmoid_by_formula<true>(x); }
INLINE double sigmoid(double x) { return sigmoid_by_formula<true>(x); }

// 16-bit types as bits: cuda_bf16.h and cuda_fp16.h would add 0.5 s to the build.
// https://docs.nvidia.com/cuda/parallel-thread-execution/#data-movement-and-conversion-instructions-cvt
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

#ifdef __CUDACC__
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

// For a 16-bit result the hardware's exponential and reciprocal suffice, and their speed is needed:
// the formula for float costs 20 to 29 % there. Ties of the 16 bits lie as close as float32's last
// place to exact results, so the three constants are next to -log2 e, 0 and 1. They come from the
// grid c = -log2 e + i ulp, b = j 2^-32, a = 1 + k 2^-24 for |i| <= 4, |j| <= 1024, |k| <= 8, on an
// H100: all inputs of both types round correctly for i = -1, k = -3 and j from -473 to -212, and
// j = -342 is its middle. The test over all 16-bit values notices another last digit of c or a.
INLINE float sigmoid_16bit(float x) {
  constexpr float c = -0x1.715478p+0, b = -0x1.56p-24, a = 0x1.fffffap-1;
  const float e = exp2f(fmaf(c, fabsf(x), b));  // ex2.approx, without flush-to-zero
  return (x < 0 ? e : a) * reciprocal(a + e);
}
INLINE BFloat16 sigmoid(BFloat16 x) { return round_to_bfloat16(sigmoid_16bit(widen(x))); }
INLINE Half sigmoid(Half x) { return round_to_half(sigmoid_16bit(widen(x))); }
#else
INLINE BFloat16 sigmoid(BFloat16 x) {
  return round_to_bfloat16(sigmoid_by_formula<false>(widen(x)));
}
#endif
"""

# ---- The CPU loop -------------------------------------------------------------------------------

CPU_SOURCE = r"""
#include <sys/mman.h>
#include <torch/csrc/stable/c/shim.h>
#include <unistd.h>

// malloc takes an output of nearly 32 MiB fresh from the system, with a fault for each page: with
// huge pages the call is up to 2.5 times as fast on two cores. Smaller outputs are recycled.
constexpr int64_t kHugePagesBytes = 31 << 20;

template <class T>
void compute_row(const T* in, T* out, int64_t count) {
#pragma GCC ivdep  // `in` is `out` or apart from it
  for (int64_t n = 0; n < count; n++) out[n] = sigmoid(in[n]);
}

// Computes `count` elements of `out`, whose first is number `first` of the output. Long rows are
// computed where they lie, and a repeated value once; others are copied and computed in place.
template <class T>
void compute_tile(const View& view, const T* in, int64_t first, int64_t count, T* out) {
  int64_t at[kMaxDims];
  for (int d = 0; d < view.ndim; d++) {
    at[d] = first % view.sizes[d];
    first /= view.sizes[d];
    in += at[d] * view.strides[d];
  }
  const int64_t stride = view.strides[0];
  const bool direct = stride == 1 && view.sizes[0] >= kLongRow;
  for (int64_t done = 0, piece; done < count; done += piece) {
    piece = std::min(view.sizes[0] - at[0], count - done);
    if (stride == 0) {
      std::fill_n(out + done, piece, sigmoid(*in));
    } else if (direct) {
      compute_row(in, out + done, piece);
    } else if (stride == 1) {
      memmove(out + done, in, piece * sizeof(T));
    } else {
      for (int64_t n = 0; n < piece; n++) out[done + n] = in[n * stride];
    }
    in -= at[0] * stride;  // to the start of the next row
    at[0] = 0;
    for (int d = 1; d < view.ndim; d++) {
      in += view.strides[d];
      if (++at[d] < view.sizes[d]) break;
      in -= view.sizes[d] * view.strides[d];
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

bool compute_on_cpu(Dtype dtype, void* out, const void* in, const View& view) {
  const auto run = [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    return CpuCall<T>{to, static_cast<const T*>(in), view}.run();
  };
  if (dtype == Dtype::kFloat) return run(static_cast<float*>(out));
  if (dtype == Dtype::kDouble) return run(static_cast<double*>(out));
  return run(static_cast<BFloat16*>(out));
}
"""

# ---- The call: from a Python tensor to output, view and kernel, and back -------------------------

# A built-in function on the tensor's own C++ object. Through the dispatcher a call would cost the
# host more than torch.sigmoid itself; the dispatcher's own keys say where it must not be skipped.
CALL_SOURCE = r"""
#include <ATen/EmptyTensor.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/core/TensorBody.h>
#include <ATen/cuda/EmptyTensor.h>
#include <ATen/ops/sigmoid_ops.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/strides.h>
#include <torch/csrc/stable/c/shim.h>

#include <memory>

// Of Python, what is needed here: Python.h is missing on many machines.
extern "C" {
typedef struct _object PyObject;
struct PyMethodDef {
  const char* name;
  PyObject* (*function)(PyObject* self, PyObject* const* arguments, intptr_t nargs);
  int flags;
  const char* doc;
};
extern PyObject _Py_NoneStruct;
PyObject* PyCFunction_NewEx(PyMethodDef*, PyObject*, PyObject*);
PyObject* Py_NewRef(PyObject*);
void Py_DecRef(PyObject*);
PyObject* PyErr_Occurred();
PyObject* PyObject_Type(PyObject*);
PyObject* PyObject_GetAttr(PyObject*, PyObject* name);
PyObject* PyUnicode_InternFromString(const char*);
void* PyLong_AsVoidPtr(PyObject*);
struct _ts* PyEval_SaveThread();
void PyEval_RestoreThread(struct _ts*);
}

// Of PyTorch, what is declared in headers that take seconds or need Python.h.
namespace at {
std::vector<int64_t> infer_dense_strides(IntArrayRef sizes, IntArrayRef strides);
}
PyObject* THPVariable_Wrap(const at::TensorBase&);
extern PyObject* THPVariableClass;  // torch.Tensor
extern PyObject* ParameterClass;    // torch.nn.Parameter

using at::TensorBase;
using c10::DispatchKeySet;
using Key = c10::DispatchKey;

static_assert(int(Dtype::kHalf) == int(at::kHalf) && int(Dtype::kFloat) == int(at::kFloat) &&
              int(Dtype::kDouble) == int(at::kDouble) &&
              int(Dtype::kBFloat16) == int(at::kBFloat16));

bool is_tensor(PyObject* object) {
  PyObject* const type = PyObject_Type(object);
  Py_DecRef(type);
  return type == THPVariableClass || type == ParameterClass;
}

TensorBase tensor_of(PyObject* object) {
  static PyObject* const name = PyUnicode_InternFromString("_cdata");  // the TensorImpl's address
  PyObject* const number = PyObject_GetAttr(object, name);
  using Impl = c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;
  TensorBase x(Impl::reclaim_copy(static_cast<c10::TensorImpl*>(PyLong_AsVoidPtr(number))));
  Py_DecRef(number);
  return x;
}

// The keys by which the dispatcher would choose a kernel for this tensor in this thread.
DispatchKeySet keys_of(const TensorBase& x) {
  const auto thread = c10::impl::tls_local_dispatch_key_set();
  return (x.key_set() | thread.included_) - thread.excluded_;
}

// Whether nothing would come between a call and the CPU or CUDA kernel but autograd and keys that
// let sigmoid fall through: no mode, transform, tracer, subclass, negative view, other layout.
bool is_plain(DispatchKeySet keys) {
  const DispatchKeySet safe({Key::CPU, Key::CUDA, Key::BackendSelect, Key::ADInplaceOrView,
                             Key::AutogradFunctionality, Key::AutocastCPU, Key::AutocastCUDA});
  return (keys.raw_repr() & ~safe.raw_repr()) == 0 && keys.has(Key::Dense);
}

// Whether x carries a tangent of forward-mode AD, which has one level, 0.
bool is_dual(const TensorBase& x) {
  return x.unsafeGetTensorImpl()->_fw_grad(0, x).defined();
}

bool is_recorded(const TensorBase& x) {
  return c10::GradMode::is_enabled() && x.requires_grad() &&
         keys_of(x).has(Key::AutogradFunctionality);
}

bool has_kernel(const TensorBase& x) {
  const auto type = x.scalar_type();
  const bool computed = type == at::kFloat || type == at::kDouble || type == at::kBFloat16 ||
                        (type == at::kHalf && x.is_cuda());
  return computed && (x.is_cuda() ? HAS_CUDA : HAS_CPU) && x.numel() > 0;
}

// What a call needs to know of its input's layout.
struct Plan {
  std::vector<int64_t> out_strides;
  View view;

  // Returns false where more dimensions remain than a kernel takes. The output's strides are those
  // of torch.sigmoid: of empty_like with contiguous_format where x is contiguous, else
  // channels_last where it is that, else preserve_format.
  bool make(const TensorBase& x) {
    if (x.is_contiguous()) {
      out_strides = at::IntArrayRef(c10::contiguous_strides(x.sizes())).vec();
    } else if (x.is_contiguous(at::MemoryFormat::ChannelsLast)) {
      out_strides = c10::get_channels_last_strides_2d(x.sizes());
    } else {
      out_strides = x.is_non_overlapping_and_dense()
                        ? x.strides().vec()
                        : at::infer_dense_strides(x.sizes(), x.strides());
    }
    return make_view(x.sizes(), x.strides(), x.is_cuda() ? kMaxGpuDims : kMaxDims);
  }

  // Orders the dimensions by the output's strides and merges neighbours.
  bool make_view(at::IntArrayRef sizes, at::IntArrayRef strides, int most_dims) {
    c10::SmallVector<int64_t, kMaxDims> order;
    for (size_t d = 0; d < sizes.size(); d++) {
      if (sizes[d] != 1) order.push_back(d);
    }
    std::sort(order.begin(), order.end(),
              [&](int64_t a, int64_t b) { return out_strides[a] < out_strides[b]; });
    view.numel = c10::multiply_integers(sizes);
    for (const int64_t d : order) {
      int last = view.ndim - 1;
      if (strides[d] == view.sizes[last] * view.strides[last]) {
        view.sizes[last] *= sizes[d];
        continue;
      }
      if (view.sizes[last] != 1) last = view.ndim++;
      if (last == most_dims) return false;
      view.sizes[last] = sizes[d];
      view.strides[last] = strides[d];
    }
    return true;
  }
};

// Whether the kernel may write to `out`: it is as a new result would be, records nothing, and
// shares no memory with x or is x.
bool takes_out(const TensorBase& out, const TensorBase& x, const Plan& plan) {
  return out.device() == x.device() && out.scalar_type() == x.scalar_type() &&
         out.sizes() == x.sizes() && out.strides() == plan.out_strides && is_plain(keys_of(out)) &&
         !is_dual(out) && !is_recorded(out) &&
         (!out.is_alias_of(x) || (out.strides() == x.strides() && out.const_data_ptr() == x.const_data_ptr()));
}

// Computes into `y`, or into a new tensor where that is undefined. Its memory comes as
// torch.sigmoid's does: at::empty_strided costs 0.6 to 0.9 us more, and fills it in deterministic
// mode. Throws where there is no memory, the data of x was freed, or no kernel starts.
TensorBase compute(const TensorBase& x, const Plan& plan, TensorBase y) {
  const auto type = x.scalar_type();
  const void* const in = x.const_data_ptr();
  bool started = false;
#if HAS_CUDA
  if (x.is_cuda()) {
    if (!y.defined())
      y = at::detail::empty_strided_cuda(x.sizes(), plan.out_strides, type, x.device());
    void* stream = nullptr;
    started = !aoti_torch_get_current_cuda_stream(x.get_device(), &stream) &&
              launch_on_gpu(Dtype(type), y.mutable_data_ptr(), in, plan.view, x.get_device(), stream);
  }
#endif
  if (x.is_cpu()) {
    if (!y.defined()) y = at::detail::empty_strided_cpu(x.sizes(), plan.out_strides, type);
    started = compute_on_cpu(Dtype(type), y.mutable_data_ptr(), in, plan.view);
  }
  TORCH_CHECK(started);
  return y;
}

// A recorded call has PyTorch's own autograd make the node, save what it saves and call the kernel
// below it: ours, registered for aten::sigmoid under a key that nobody else's calls carry.
constexpr DispatchKeySet kBelowAutograd(Key::CustomRNGKeyId);

void below_autograd(StableIValue* stack, uint64_t, uint64_t) {
  std::unique_ptr<at::Tensor> x(reinterpret_cast<at::Tensor*>(stack[0]));  // it is ours to free
  Plan plan;
  TORCH_CHECK(plan.make(*x));
  *x = at::Tensor(compute(*x, plan, {}));
  stack[0] = reinterpret_cast<StableIValue>(x.release());
}

bool register_below_autograd() {
  struct : c10::WarningHandler {  // PyTorch warns where another copy of this file has registered
    void process(const c10::Warning&) override {}
  } silent;
  c10::WarningUtils::WarningHandlerGuard guard(&silent);
  TorchLibraryHandle library;
  return !aoti_torch_library_init_impl("aten", "CustomRNGKeyId", __FILE__, __LINE__, &library) &&
         !aoti_torch_library_impl(library, "sigmoid", below_autograd);
}
const bool can_record = register_below_autograd();

// sigmoid(x), in `out` where that is defined; undefined where torch.sigmoid has to take the call.
TensorBase call(const TensorBase& x, const TensorBase& out) {
  const DispatchKeySet keys = keys_of(x);
  Plan plan;
  if (!is_plain(keys) || is_dual(x) || !has_kernel(x) || !plan.make(x)) return {};
  if (is_recorded(x)) {
    if (!can_record || out.defined()) return {};
    const DispatchKeySet kernels({Key::CPU, Key::CUDA, Key::AutogradFunctionality});
    return at::_ops::sigmoid::redispatch((keys & kernels) | kBelowAutograd, at::Tensor(x));
  }
  if (out.defined() && !takes_out(out, x, plan)) return {};
  TensorBase y = compute(x, plan, out);
  if (out.defined() && keys_of(out).has(Key::ADInplaceOrView)) out.unsafeGetTensorImpl()->bump_version();
  return y;
}

// sigmoid(x) or sigmoid(x, out) of Python; None where torch.sigmoid has to take the call.
PyObject* python_sigmoid(PyObject*, PyObject* const* arguments, intptr_t nargs) {
  const bool into = nargs == 2 && arguments[1] != &_Py_NoneStruct;
  if (nargs < 1 || !is_tensor(arguments[0]) || (into && !is_tensor(arguments[1])) ||
      at::impl::torch_function_mode_enabled())
    return Py_NewRef(&_Py_NoneStruct);
  const TensorBase x = tensor_of(arguments[0]), out = into ? tensor_of(arguments[1]) : TensorBase();
  TensorBase y;
  struct _ts* const state = PyEval_SaveThread();  // without the GIL, as torch.sigmoid
  try {
    y = call(x, out);
  } catch (...) {  // no memory, or data that was freed, which torch.sigmoid says; or a hook's error
  }
  PyEval_RestoreThread(state);
  if (PyErr_Occurred()) return nullptr;
  return y.defined() ? THPVariable_Wrap(y) : Py_NewRef(&_Py_NoneStruct);
}

extern "C" __attribute__((visibility("default"))) PyObject* sigmoid_inline_function() {
  static PyMethodDef method = {"_sigmoid", nullptr, 0x80 /* METH_FASTCALL */, nullptr};
  method.function = python_sigmoid;
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
    nvcc_flags.append("-Xcompiler=-fvisibility=hidden")
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
            COMMON_SOURCE + FORMULA_SOURCE + CPU_SOURCE + CALL_SOURCE,
            COMMON_SOURCE + FORMULA_SOURCE + KERNEL_SOURCE if cuda else None,
            # USE_CUDA has PyTorch's shims declare streams and device guards.
            extra_cflags=[*cpu_flags, f"-DHAS_CUDA={int(cuda)}", "-DUSE_CUDA", "-fvisibility=hidden"],
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
    facts = [COMMON_SOURCE, KERNEL_SOURCE, FORMULA_SOURCE, CPU_SOURCE, CALL_SOURCE]
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
