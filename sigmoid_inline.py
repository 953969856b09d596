# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.10", "ninja"]
# ///
"""Sigmoid at the memory limit: a drop-in for torch.sigmoid, on NVIDIA GPUs and on CPUs.

    python sigmoid_inline.py                    # build, check against exact values, time (--help)
    from sigmoid_inline import sigmoid, ModelNew, enable
    paste it whole into a notebook cell         # the same check and timing

sigmoid(x) is torch.sigmoid(x), ModelNew() is a torch.nn.Sigmoid, and `with enable():` serves every
sigmoid of a program and its gradient. Views, bfloat16 and small tensors become faster. Compiled
models and large dense tensors do not. torch.sigmoid's time over ours, on an H200 and an H100:

    (PyTorch 2.11, CUDA 13.0, 2026-11-28)           H200               H100
    half of rows, float32, bfloat16                 1.61x, 2.76x       1.27x, 2.05x
    the same, trained under enable()                1.31x, 1.86x       1.14x, 1.53x
    gradient of a sum                               1.44x, 2.42x       1.20x, 1.85x
    4096 x 393216, at 4,313 and 3,053 GB/s          1.02x, 1.09x       1.01x, 1.01x
    one eager call on 1,024 elements                1.30x              1.26x

The whole idea is to read and write each float32 once, 8 bytes, and to hide the rest behind it:

    __global__ void sigmoid(float* out, const float* in, int numel) {
      int i = blockIdx.x * blockDim.x + threadIdx.x;
      if (i < numel) out[i] = 1 / (1 + expf(-in[i]));
    }

What the rest adds is every layout at that speed, the last bit, and a cheaper call. From top to
bottom: what a user calls; the kernel; the formula; the CPU's loop; the operator, which PyTorch's
dispatcher calls; what is assumed of PyTorch and Python; the build. Nothing below that affects
results: the self-check, the timing and the command line.

    row          a run of elements that lie at one distance, as along a matrix's last dimension
    view         the input as the output sees it: dimensions ordered and merged
    dense        neighbours in the output are neighbours in the input, so no position is computed
    unit         what one load or store moves: 16 bytes, 4, or an element
    tile         what a CPU copies and computes in one go: 2,048 elements of the output
    recorded     autograd makes a node for the call
"""

import argparse
import contextlib
import ctypes
import functools
import hashlib
import inspect
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Optional
from unittest.mock import patch

if sys.platform != "linux":
    raise RuntimeError("sigmoid_inline: needs Linux")
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise RuntimeError("sigmoid_inline: needs Python's global lock, not free threading")
import fcntl

_path = sys._getframe().f_code.co_filename
_IS_COMMAND = __name__ == "__main__" and _path == globals().get("__file__")
if _IS_COMMAND and not sys._getframe().f_back and not sys.flags.inspect:
    # Python runs this file itself: it ends quietly at Ctrl-C and where `| head` closes its pipe.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
with warnings.catch_warnings():
    if __name__ == "__main__":
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # not needed
    import torch
    from torch.compiler import is_dynamo_compiling

__version__ = "4.0"
_IS_MOCKED = not isinstance(torch.__version__, str)  # as Sphinx does
if not _IS_MOCKED and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
    raise RuntimeError("sigmoid_inline: needs PyTorch 2.10 or newer: pip install -U torch")

# ---- What a user calls --------------------------------------------------------------------------


def sigmoid(input, *, out=None):
    """torch.sigmoid(input), at the memory limit: with its shape, strides, dtype and exceptions.

    PyTorch makes the call, and so parses, checks, records, transforms and traces it as always. This
    file's kernel computes float32, float64, bfloat16 and (on the GPU) float16, of any shape and
    strides, on the CPU or an NVIDIA GPU, with an error below 1 ulp over all inputs (float64: over
    10^8 of them); NaN gives NaN. PyTorch's own kernel computes the rest: other dtypes, devices and
    layouts, an `out` that is not as the result would be, no elements, more than 8 dimensions (on
    the GPU 3) that do not merge; on CPUs without AVX2 or NEON, all. In torch.compile it is
    torch.sigmoid, which Inductor fuses with its neighbours.
    """
    # From Python 3.12 on a call goes to C and comes here only where Dynamo runs Python's frames.
    # `_call` is the C function as Python can call it, and None in a process that got a copy of
    # this.
    if _call is None or is_dynamo_compiling():
        return _scripted(input, out)
    return _call(input) if out is None else _call(input, out=out)


def _scripted(input: torch.Tensor, out: Optional[torch.Tensor] = None) -> torch.Tensor:
    if out is None:
        return torch.sigmoid(input)
    return torch.sigmoid(input, out=out)


# torch.jit.script refuses keywords with a default. By the attributes that script_if_tracing gives a
# function it compiles `_scripted` instead. make_fx and FX read the arguments of `__wrapped__`,
# which has no `out`.
sigmoid.__script_if_tracing_wrapper, sigmoid.__original_fn = True, _scripted
_scripted.__name__ = "sigmoid"
sigmoid.__signature__ = inspect.signature(sigmoid)
sigmoid.__wrapped__ = lambda input: torch.sigmoid(input)


class ModelNew(torch.nn.Sigmoid):
    """torch.nn.Sigmoid, at the memory limit. ModelNew() is of exactly that type, not of this class:
    FX, captum, BackPACK and torch.ao look modules up by their type. A class may derive from it."""

    def __new__(cls, *args, **options):
        if cls is not ModelNew:
            return super().__new__(cls)
        module = torch.nn.Sigmoid(*args, **options)
        module.forward = cls._forward
        return module

    @classmethod
    def _forward(cls, input):  # bound to the class, it can be pickled, copied and scripted
        return sigmoid(input)

    def forward(self, input):
        return sigmoid(input)


def enable():
    """Lets every sigmoid of the program, and its gradient, run on this file's kernels.

    They take the place of PyTorch's own for the CPU and CUDA: for torch.sigmoid, x.sigmoid(),
    x.sigmoid_(), torch.nn.Sigmoid, torch.jit and C++, in all threads, from this call on. Returns a
    context manager. When the last one is left, or at disable(), PyTorch's kernels are back.
    RuntimeError where the import has found that PyTorch has moved.
    """
    if _moved:
        raise RuntimeError(f"sigmoid_inline: {_moved}")
    context = contextlib.ExitStack()
    context.callback(_library.sigmoid_inline_disable, _library.sigmoid_inline_enable())
    return context


def disable():
    """Ends every enable(): PyTorch's own kernels are back."""
    _library.sigmoid_inline_disable(-1)


def kernel_calls():
    """How many calls this file's kernels have computed in this process, forward and backward."""
    return _library.sigmoid_inline_calls()


def get_inputs(device="cuda"):
    """KernelBench's level 1, problem 21: one float32 tensor of 4096 x 393216 (6.44 GB)."""
    return [torch.rand(4096, 393216, device=device)]


def get_init_inputs():
    """The arguments of ModelNew(): none."""
    return []


# ---- The kernel: what a thread loads, computes and stores, and how many of them are launched -----


def _numbered(source):
    """The source with its place in this file, which a compiler's errors name then."""
    return f'#line {sys._getframe(1).f_lineno + 1} "sigmoid_inline.py"{source}'


# What both devices share. The compiler reads this, then FORMULA_SOURCE, which has INLINE, the
# 16-bit types and sigmoid(x), and then the kernel or the CPU's loop.
COMMON_SOURCE = _numbered(r"""
// A compiler may come with -ffast-math, which loses NaN: these undo it, for GCC and for clang.
// Before GCC 12 -O2 does not vectorise; with jump threading every second element takes 1.4 times
// the time.
#ifndef __CUDACC__
#pragma GCC optimize("no-fast-math", "vect-cost-model=dynamic", "no-thread-jumps")
#pragma float_control(precise, on)
#endif
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

// All that was tuned, on an H100 and an H200 in November 2026 and, for the CPU, on an AMD EPYC. The
// figures are of float32 at 4096 x 393216 where they name no other case.
inline constexpr int kBlock = 128;       // threads; blocks of 256 take 1.3 % longer
inline constexpr int kWideUnits = 2;     // units a thread of a view, so that more bytes are in
                                         // flight: 1 takes 8 % longer on an expanded row
inline constexpr int kDoubleBlocks = 8;  // resident blocks that float64's registers must allow;
                                         // without this bound 5 % slower in the L2 cache
inline constexpr int kSector = 32;       // bytes; one word a thread takes 8 % less than four on
                                         // x[:, :2] of 85, on an H200 19 % more on 6 of 40
inline constexpr double kLoadLatency = 1.09e-6;  // s: see tune()
inline constexpr int64_t kTile = 2048;      // elements that stay in a CPU's L1 cache
inline constexpr int64_t kGrain = 16;       // tiles worth one more thread, as in at::TensorIterator
inline constexpr int64_t kLongRow = 64;     // elements; the CPU copies shorter rows first
inline constexpr int64_t kNewBytes = 31 << 20;  // malloc maps larger outputs anew for each call
inline constexpr int64_t kPopulatedBytes = 512 << 10;  // mapped at a time: see populate()

struct Tuning {
  int units_per_thread, resident_blocks;
};

// How to load a dense tensor that no cache holds. The memory is busy from kLoadLatency times its
// bandwidth in flight on (Little's law); with more it changes its DRAM rows more often. That asks
// for 13 blocks on an H100, where 16 fit: 13 are 0.9 % faster than 16, 12 and 14 gain less. It asks
// for 19 on an H200, where 16 fit. There 15 blocks, two units a thread in 10 to 12 blocks, and a
// loop of what fits take 3 %, 3 % and 8 % longer (2026-11-28). Never fewer than three quarters of
// the blocks stay, as the rule was measured on two GPUs. From 1.5 times what fits on, a thread
// moves two units, as on a B200; from 3 times on four; from 6 times on eight; as long as they take
// half of a multiprocessor's 65,536 registers. Four and eight are reasoned, not seen: a Rubin asks
// for eight.
inline Tuning tune(int multiprocessors, int threads, double memory_clock_khz, int bus_bits) {
  const int all = threads / kBlock;                                  // of one multiprocessor
  const double bytes_per_s = 2e3 * memory_clock_khz * bus_bits / 8;  // at both edges of the clock
  const double blocks = kLoadLatency * bytes_per_s / multiprocessors / (kBlock * 16);
  int units = 1;
  while (blocks >= 1.5 * all * units && 2 * units * 4 * threads <= 65536 / 2) units *= 2;
  if (units > 1) return {units, all};
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
  bool has_overlap() const {  // or may have: its rows do not lie one behind the other
    for (int d = 0; d < ndim; d++) {
      if (strides[d] < (d == 0 ? 1 : sizes[d - 1] * strides[d - 1])) return true;
    }
    return false;
  }

  // Whether runs of neighbours are shorter than two thirds of a sector of memory, and no two runs
  // share one. Then a thread of float32 loads one word, not four: see kSector.
  bool is_sparse(int element_bytes) const {
    const bool has_rows = strides[0] == 1;
    const int64_t run = (has_rows ? sizes[0] : 1) * element_bytes;
    const int64_t distance = strides[has_rows ? 1 : 0] * element_bytes;
    return 3 * run < 2 * kSector && distance >= run + kSector - element_bytes;
  }
};

// What a kernel reads and writes. `in` is what the view is of: the forward's input, and in the
// backward, which has `dense` too, the gradient or the output. `dense` and `out` are dense.
struct Operands {
  void* out;
  const void *in, *dense = nullptr;
  bool output_is_view = false;
};

// Launches the kernel on the current GPU; false where there is none for this view or CUDA refuses.
bool launch_on_gpu(Dtype, const Operands&, const View&, int device, void* stream);
int current_gpu();
""")

KERNEL_SOURCE = _numbered(r"""
#include <cuda.h>
static_assert(CUDART_VERSION / 1000 == int(PYTORCH_CUDA), "nvcc is not of PyTorch's CUDA");

template <class T, int unit_elements>
struct alignas(unit_elements * sizeof(T)) Unit {
  T element[unit_elements];
};

// A view for the kernel: the innermost dimension is counted in units, strides are in elements. To
// divide is to multiply: n / size = (mulhi(n, magic) + n) >> shift for n < 2^31 (Granlund and
// Montgomery, "Division by invariant integers using multiplication", 1994).
struct Dims {
  uint32_t size[kMaxGpuDims], magic[kMaxGpuDims], shift[kMaxGpuDims];
  int64_t stride[kMaxGpuDims];
};

// The view's unit of this index, by 2 or 3 dimensions, or `ndim` = 0 where it is dense.
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

// kBackwardOfRepeated: one value, loaded once, serves a whole unit.
enum class Direction { kForward, kBackward, kBackwardOfRepeated };

// Each thread computes `units_per_thread` units. They lie kBlock apart, so that neighbouring lanes
// touch neighbouring memory, and all are loaded before the first is used. The `tail` elements after
// the last unit of a dense tensor, or of one value repeated, take one thread each. For `in` and
// `dense` see Operands.
template <class T, int unit_bytes, int units_per_thread, int ndim, Direction direction>
__global__ void __launch_bounds__(kBlock, sizeof(T) == 8 ? kDoubleBlocks : 0)
    sigmoid_kernel(T* out, const T* in, const T* dense, bool output_is_view, uint32_t units,
                   uint32_t tail, const __grid_constant__ Dims dims) {
  constexpr int unit_elements = unit_bytes / sizeof(T), block_units = kBlock * units_per_thread;
  constexpr bool is_forward = direction == Direction::kForward;
  constexpr bool is_repeated = direction == Direction::kBackwardOfRepeated;
  constexpr int view_elements = is_repeated ? 1 : unit_elements;
  using U = Unit<T, unit_elements>;
  const uint32_t first = blockIdx.x * block_units + threadIdx.x;
  U* const to = reinterpret_cast<U*>(out) + first;
  const U* const other = reinterpret_cast<const U*>(dense) + first;
  const auto sigmoid_or_backward = [&](T x, T other) {
    if constexpr (is_forward) return sigmoid(x);
    return sigmoid_backward(output_is_view ? other : x, output_is_view ? x : other);
  };
  const auto compute = [&](auto block_is_whole) {
    constexpr bool is_whole = decltype(block_is_whole)::value;
    Unit<T, view_elements> x[units_per_thread];
    U y[units_per_thread];
#pragma unroll
    for (int n = 0; n < units_per_thread; n++) {
      const uint32_t unit = first + n * kBlock;
      if (!is_whole && unit >= units) continue;
      x[n] = load<T, view_elements, ndim>(in, dims, unit);
      if (!is_forward) y[n] = other[n * kBlock];
    }
#pragma unroll
    for (int n = 0; n < units_per_thread; n++) {
      if (!is_whole && first + n * kBlock >= units) continue;
#pragma unroll
      for (int e = 0; e < unit_elements; e++)
        y[n].element[e] = sigmoid_or_backward(x[n].element[e % view_elements], y[n].element[e]);
      to[n * kBlock] = y[n];
    }
  };
#if __CUDA_ARCH__ >= 900  // before any access: launch() lets blocks start early
  cudaGridDependencySynchronize();
#endif
  // Only the last one or two blocks test each unit: 1.03 to 1.3 times as fast on narrow units.
  constexpr bool has_whole = is_forward && units_per_thread * unit_bytes <= 32;
  if (has_whole && (blockIdx.x + 1) * block_units <= units) return compute(std::true_type());
  compute(std::false_type());
#pragma unroll 1
  for (int n = 0; n < units_per_thread && (ndim == 0 || is_repeated); n++) {
    const uint32_t past = first + n * kBlock - units;  // huge (it wraps) below `units`
    const int64_t element = int64_t(units) * unit_elements + past;
    if (past >= tail) continue;
    const T x = in[is_repeated ? 0 : element];
    out[element] = sigmoid_or_backward(x, is_forward ? x : dense[element]);
  }
}

// What a launch needs to know of a device.
struct Gpu {
  int64_t l2_bytes;
  int64_t wave_bytes;       // that all resident threads load at once, 16 each
  int units_per_thread;     // of a dense tensor that no cache holds
  unsigned occupancy_bytes;  // of shared memory, only to limit how many blocks are resident
  unsigned num_attributes;  // of a launch: 1 where blocks may start early, else 0
  decltype(&cuLaunchKernelEx) launch_kernel;

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
    wave_bytes = int64_t(multiprocessors) * threads * 16;
    units_per_thread = tuning.units_per_thread;
    const int shared = ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / tuning.resident_blocks;
    occupancy_bytes = std::min(shared / 256 * 256 - ask(cudaDevAttrReservedSharedMemoryPerBlock),
                              ask(cudaDevAttrMaxSharedMemoryPerBlock));
    if (tuning.resident_blocks == threads / kBlock) occupancy_bytes = 0;
    // PyTorch and drivers for CUDA 12 cannot read the edge that an early start makes in a graph.
    num_attributes = PYTORCH_CUDA >= 13 && ask(cudaDevAttrComputeCapabilityMajor) >= 9 ? 1 : 0;
    void** const entry = reinterpret_cast<void**>(&launch_kernel);
    cudaDriverEntryPointQueryResult found;
    cudaGetDriverEntryPointByVersion("cuLaunchKernelEx", entry, 12000, cudaEnableDefault, &found);
  }
};

template <class T>
struct GpuCall {
  static constexpr auto kForward = Direction::kForward, kBackward = Direction::kBackward;
  T* out;
  const T *in, *dense;  // see sigmoid_kernel; `dense` is null in the forward
  bool output_is_view;
  const View& view;
  const Gpu& gpu;
  int device;
  CUstream stream;

  template <int unit_elements, int ndim>
  Dims make_dims() const {
    Dims dims;
    for (int d = 0; d < ndim; d++) dims.stride[d] = view.strides[d] * (d == 0 ? unit_elements : 1);
    for (int d = 0; d < ndim - 1; d++) {  // nothing is divided by the outermost size
      const int64_t size = std::max<int64_t>(view.sizes[d] / (d == 0 ? unit_elements : 1), 1);
      const int shift = size > 1 ? 64 - __builtin_clzll(size - 1) : 0;
      dims.size[d] = size;
      dims.magic[d] = (((int64_t(1) << shift) - size) << 32) / size + 1;
      dims.shift[d] = shift;
    }
    return dims;
  }

  // A call of the driver with a cached handle takes 0.3 to 0.6 us less of the host's time than one
  // of the runtime. From 9.0 on a block may start before the writes of the grid before are visible,
  // for which the kernel waits: 0.5 us less a call, 0.4 us less in a graph.
  template <int unit_bytes, int units_per_thread, int ndim, Direction direction>
  bool launch(unsigned shared_bytes) {
    constexpr int unit_elements = unit_bytes / sizeof(T), block_units = kBlock * units_per_thread;
    // Indices have 32 bits, with room for a last block, and a division takes 31 of them.
    if (view.numel / unit_elements > (ndim > 0 ? INT32_MAX : UINT32_MAX - 4096)) return false;
    const uint32_t units = view.numel / unit_elements, tail = view.numel % unit_elements;
    const Dims dims = make_dims<unit_elements, ndim>();
    static thread_local CUfunction handles[128];  // a c10::DeviceIndex has 8 bits
    const auto kernel = sigmoid_kernel<T, unit_bytes, units_per_thread, ndim, direction>;
    CUfunction& handle = handles[device];
    if (!handle && cudaGetFuncBySymbol(&handle, reinterpret_cast<const void*>(kernel))) {
      cudaGetLastError();  // PyTorch's next launch would take the error for its own
      return false;
    }
    CUlaunchAttribute overlap = {CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION};
    overlap.value.programmaticStreamSerializationAllowed = 1;
    const unsigned grid = (units + tail + block_units - 1) / block_units;
    const CUlaunchConfig config = {
        grid, 1, 1, kBlock, 1, 1, shared_bytes, stream, &overlap, gpu.num_attributes};
    const void* arguments[] = {&out, &in, &dense, &output_is_view, &units, &tail, &dims};
    if (!gpu.launch_kernel) return false;
    return !gpu.launch_kernel(&config, handle, const_cast<void**>(arguments), nullptr);
  }
  template <int unit_bytes, int units_per_thread>
  bool launch_by_ndim() {  // one strided dimension is launched as two, the second of size 1
    if (view.is_dense()) return launch<unit_bytes, units_per_thread, 0, kForward>(0);
    if (view.ndim <= 2) return launch<unit_bytes, units_per_thread, 2, kForward>(0);
    return launch<unit_bytes, units_per_thread, kMaxGpuDims, kForward>(0);
  }

  // The bits of all places, in bytes, where rows start or end: a power of two divides them all
  // where it divides this. What the backward repeats over a whole row is read by the element.
  uint64_t boundaries() const {
    const bool is_repeated = dense && view.strides[0] == 0;
    uint64_t places = uintptr_t(out) | uintptr_t(is_repeated ? nullptr : in) | uintptr_t(dense);
    if (view.ndim == 1 && (is_repeated || view.strides[0] == 1)) return places;
    places |= view.sizes[0] * sizeof(T);
    if (is_repeated) return places;
    if (view.strides[0] != 1) places |= sizeof(T);
    for (int d = 1; d < view.ndim; d++) places |= view.strides[d] * sizeof(T);
    return places;
  }

  // Takes the widest unit that every row starts and ends with: 16 bytes, 4 or an element. A thread
  // loads 16 bytes. It loads two units of 16 of a view, of a tensor in the L2 cache whose reading
  // is more than half a wave, and where tune() says so.
  bool launch_by_unit() {
    constexpr int kElement = sizeof(T), kWord = kElement < 4 ? 4 : kElement;
    const uint64_t boundaries = this->boundaries();
    if (boundaries % kWord != 0) return launch_by_ndim<kElement, 16 / kElement>();
    if constexpr (std::is_same_v<T, float>) {
      if (boundaries % 16 != 0 && view.is_sparse(kWord))
        return launch<kWord, 1, kMaxGpuDims, kForward>(0);
    }
    if (boundaries % 16 != 0) return launch_by_ndim<kWord, 16 / kWord>();
    const int64_t bytes = 2 * view.numel * kElement;  // read and written; a wave is only read
    const bool in_l2 = bytes <= gpu.l2_bytes;
    const int units = in_l2 ? (bytes > gpu.wave_bytes ? kWideUnits : 1) : gpu.units_per_thread;
    if (units == kWideUnits || !view.is_dense()) return launch_by_ndim<16, kWideUnits>();
    if (units == 4) return launch<16, 4, 0, kForward>(0);
    if (units == 8) return launch<16, 8, 0, kForward>(0);
    return launch<16, 1, 0, kForward>(in_l2 ? 0 : gpu.occupancy_bytes);
  }

  bool launch_backward_by_unit() {
    constexpr int kElement = sizeof(T);
    if (view.strides[0] > 1) return false;  // PyTorch's kernel takes 2 % less for a transpose
    if (boundaries() % 16 != 0) return launch<kElement, 16 / kElement, kMaxGpuDims, kBackward>(0);
    if (view.is_dense()) return launch<16, kWideUnits, 0, kBackward>(0);
    if (view.strides[0] != 0) return launch<16, kWideUnits, kMaxGpuDims, kBackward>(0);
    return launch<16, kWideUnits, kMaxGpuDims, Direction::kBackwardOfRepeated>(0);
  }
};

bool launch_on_gpu(Dtype dtype, const Operands& operands, const View& view, int device,
                   void* stream) {
  static thread_local Gpu gpus[128];  // of each thread, so that nothing is locked
  Gpu& gpu = gpus[device];
  if (gpu.wave_bytes == 0) gpu.read(device);  // once
  return with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    GpuCall<T> call = {static_cast<T*>(operands.out), static_cast<const T*>(operands.in),
                       static_cast<const T*>(operands.dense), operands.output_is_view, view, gpu,
                       device, CUstream(stream)};
    return call.dense ? call.launch_backward_by_unit() : call.launch_by_unit();
  });
}
int current_gpu() {
  int device = -1;
  cudaGetDevice(&device);
  return device;
}
""")

# ---- The formula, for both devices ---------------------------------------------------------------

FORMULA_SOURCE = _numbered(r"""
#ifdef __CUDACC__
#define INLINE __device__ __forceinline__
#define BOUND constexpr
// 1/d for a normal d, to 2^-23 (float) or 2^-20 (double). `1 / d` in CUDA C++ is an IEEE division:
// 4 % slower in float32 at 2^29 elements, 17 % in the L2 cache.
INLINE float reciprocal(float d) { asm("rcp.approx.ftz.f32 %0, %0;" : "+f"(d)); return d; }
INLINE double reciprocal(double d) { asm("rcp.approx.ftz.f64 %0, %0;" : "+d"(d)); return d; }
#else
#define INLINE inline __attribute__((always_inline))
#define BOUND
template <class T> INLINE T reciprocal(T d) { return 1 / d; }
#endif

template <class To, class From>
INLINE To bit_cast(From from) { To to; memcpy(&to, &from, sizeof to); return to; }

template <class T> using Wide = std::conditional_t<sizeof(T) == 8, double, float>;

// 16-bit types convert to float and back. cuda_bf16.h and cuda_fp16.h would add 0.5 s to the build.
struct BFloat16 {
  uint16_t bits;
  BFloat16() = default;
  INLINE BFloat16(float x) {  // rounds to nearest, ties to even
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
    const uint32_t b = bit_cast<uint32_t>(x);
    bits = x != x ? 0x7fc0 : (b + 0x7fff + (b >> 16 & 1)) >> 16;
#endif
  }
  INLINE operator float() const { return bit_cast<float>(uint32_t(bits) << 16); }
};

template <class T, class... Rest>
INLINE T polynomial(T u, T lowest, Rest... rest) {  // lowest + u (... + u highest)
  if constexpr (sizeof...(rest) > 0) lowest = std::fma(polynomial(u, rest...), u, lowest);
  return lowest;
}

// q(u) of e^-u = 1 - u + u^2 q(u) for |u| <= ln 2 / 2: the polynomial with the least largest error
// |(1 - u + u^2 q(u)) e^u - 1|, by the Remez algorithm in 200-bit arithmetic, each coefficient then
// rounded to nearest: 2^-28.0, and 2^-56.3 for double.
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
// For bfloat16 on the CPU: with these all 65,536 inputs round correctly. Each is one of the Remez
// polynomial, 0x1.0006b4p-1, -0x1.571caap-3 and 0x1.5225b6p-5, times 1 + uniform(-w, w) of Python's
// random.Random(0), with w = 2^-12, 2^-8 and 2^-6: the ninth draw, the first that does.
INLINE float exp_rest_16bit(float u) {
  return polynomial(u, 0x1.0005dp-1f, -0x1.560aa8p-3f, 0x1.5173a2p-5f);
}

// On the CPU the bounds are variables: GCC clamps by a vector maximum then, and by a comparison and
// a blend where it knows the value, which takes 1.1 to 1.2 times the time.
template <class W> BOUND W least = sizeof(W) == 8 ? -745.9 : -104.7;  // power is 0 there
template <class W> BOUND W most = 40;  // the result rounds to 1 there

// sigmoid(x) = 2^k / (2^k + e^-u) with x = k ln 2 + u and |u| <= ln 2 / 2. The denominator is
// carried as high + low, and one Newton step with both (of third order for double) divides: less
// than 1 ulp over all 2^32 floats. Numerator and denominator are scaled by 2^24 (2^53), and the
// last product rounds into the subnormal range where the result lies there, so that no range needs
// a path of its own. For 16 bits the low parts are left out.
template <class T, class W = Wide<T>> INLINE T sigmoid(T input) {
  constexpr bool f32 = sizeof(W) == 4, exact = sizeof(T) > 2;
  using Bits = std::conditional_t<f32, uint32_t, uint64_t>;
  constexpr int mantissa = f32 ? 23 : 52, bias = f32 ? 127 : 1023;
  constexpr W log2e = 1.4426950408889634;
  constexpr W ln2_high = f32 ? 0x1.62e4p-1 : 0x1.62e42feep-1;  // so short that x - k * it is exact
  constexpr W ln2_low = f32 ? 0x1.7f7d1cf8p-20 : 0x1.a39ef35793c76p-33;
  constexpr W to_integer = f32 ? 0x1.8p23 : 0x1.8p52;  // a sum with it ends in the integer's bits
  constexpr W scale = f32 ? 0x1p24 : 0x1p53;
  W x = input;
  x = x < least<W> ? least<W> : x;  // written so that NaN stays NaN
  x = x > most<W> ? most<W> : x;
  const W t = std::fma(x, log2e, to_integer), k = t - to_integer;
  W u = std::fma(-k, exact ? ln2_high : ln2_high + ln2_low, x);
  if (exact) u = std::fma(-k, ln2_low, u);
  const W power = bit_cast<W>((bit_cast<Bits>(t) + bias + mantissa + 1) << mantissa);  // scale 2^k
  const W q = exact ? exp_rest(u) : exp_rest_16bit(u), s = std::fma(u * u, q, -u);  // e^-u - 1
  const W d = std::fma(s, scale, scale + power);
  if (!exact) return power / d;
  // d - scale is exact for k <= 23 (52): it is a multiple of d's last place and smaller than d. For
  // larger k it rounds, which the bound of 1 ulp has room for.
  const W d_low = std::fma(s, scale, power - (d - scale)), r = reciprocal(d);
  W e = std::fma(-d_low, r, std::fma(-d, r, W(1)));  // 1/d = r / (1 - e) = r (1 + e + e^2 + ...)
  if (!f32) e = std::fma(e, e, e);
  return std::fma(e, r, r) * power;
}

#ifdef __CUDACC__
struct Half {
  uint16_t bits;
  Half() = default;
  INLINE Half(float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x)); }
  INLINE operator float() const {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
  }
};

// The formula would take 20 to 29 % longer. With these constants, next to -log2 e, 0 and 1, every
// 16-bit input rounds correctly on sm_90; a test tells where another GPU approximates otherwise. Of
// the grid c = -log2 e + i ulp, b = j 2^-32, a = 1 + k 2^-24 for |i| <= 4, |j| <= 1024, |k| <= 8
// right are i = -1, k = -3 and j from -473 to -212, of which -342 is the middle.
INLINE float sigmoid_16bit(float x) {
  constexpr float c = -0x1.715478p+0, b = -0x1.56p-24, a = 0x1.fffffap-1;
  const float e = exp2f(fmaf(c, fabsf(x), b));  // ex2.approx, without flush-to-zero
  return (x < 0 ? e : a) * reciprocal(a + e);
}
INLINE BFloat16 sigmoid(BFloat16 x) { return sigmoid_16bit(x); }
INLINE Half sigmoid(Half x) { return sigmoid_16bit(x); }
#endif

// The backward has PyTorch's bits, by its order of operations and its roundings: on a GPU PyTorch
// rounds each of three steps to T, on a CPU the last one.
template <class T, class W> INLINE W step(W x) {
#ifndef __CUDACC__
  return x;
#elif __CUDA_ARCH__ >= 800  // a pair with 0 in its low half is the rounded float: half the time
  if constexpr (std::is_same_v<T, BFloat16>) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(x), "f"(0.0f));
    return bit_cast<float>(pair);
  }
#endif
  return T(x);
}
template <class T> INLINE T sigmoid_backward(T grad, T output) {
  const Wide<T> y = output;
  return step<T>(grad * step<T>(1 - y)) * y;
}

// The data types that have a kernel: run(T()) for this one, or false.
template <class Run> bool with_type(Dtype dtype, Run run) {
#ifdef __CUDACC__
  if (dtype == Dtype::kHalf) return run(Half());
#endif
  if (dtype == Dtype::kFloat) return run(float());
  if (dtype == Dtype::kDouble) return run(double());
  return dtype == Dtype::kBFloat16 && run(BFloat16());
}
""")

# ---- The CPU loop -------------------------------------------------------------------------------

CPU_SOURCE = _numbered(r"""
#include <fenv.h>
#include <sys/mman.h>
#include <torch/csrc/stable/c/shim.h>
#include <unistd.h>

// Has the system map small pages just before they are written, many at once: calls from 2^23
// elements on, the first ones too, run at 1.2 to 1.3 times the speed of torch.sigmoid. Huge pages
// are up to 3 times as fast in a loop, but let a first call take 4 times as long on a virtual
// machine, whose host has to find them (PyTorch 2.13, two threads of an AMD EPYC, 2026-11-27).
void populate(void* memory, int64_t bytes) {
  const uintptr_t page = sysconf(_SC_PAGESIZE), begin = uintptr_t(memory) / page * page;
  const uintptr_t end = uintptr_t(memory) + bytes, last = (end - 1) / page * page;
  unsigned char is_resident = 0;  // memory that malloc recycles has pages; it takes twice as long
  if (!mincore(reinterpret_cast<void*>(last), 1, &is_resident) && (is_resident & 1)) return;
  madvise(reinterpret_cast<void*>(begin), end - begin, 23 /* MADV_POPULATE_WRITE */);
}

// Two neighbours in a word, so that nothing is packed: 0.8 (forward) and 0.6 of the time.
struct [[gnu::packed, gnu::aligned(2), gnu::may_alias]] BFloat16Pair {
  uint32_t bits;
  BFloat16 part(int shift) const { return bit_cast<BFloat16>(uint16_t(bits >> shift)); }
};
template <class F> INLINE BFloat16Pair apply(F f, BFloat16Pair x, BFloat16Pair y) {
  return {uint32_t(f(x.part(16), y.part(16)).bits) << 16 | f(x.part(0), y.part(0)).bits};
}
template <class T, class F> INLINE T apply(F f, T x, T y) { return f(x, y); }

template <class T> struct CpuCall {
  const Operands& operands;
  const View& view;
  bool is_new;
  fenv_t environment = {};  // of the calling thread
  T* out = static_cast<T*>(operands.out);
  const T* in = static_cast<const T*>(operands.in);
  const T* dense = static_cast<const T*>(operands.dense);  // null in the forward

  // to[n] = f(x[n], y[n]), of which f uses one or both.
  template <class F> static void compute_loop(F f, const T* x, const T* y, T* to, int64_t numel) {
    using U = std::conditional_t<sizeof(T) == 2, BFloat16Pair, T>;
    constexpr int64_t kElements = sizeof(U) / sizeof(T);
    const auto from = [](const T* p) { return reinterpret_cast<const U*>(p); };
#pragma GCC ivdep  // what is read is `to` or apart from it
    for (int64_t n = 0; n < numel / kElements; n++)
      reinterpret_cast<U*>(to)[n] = apply(f, from(x)[n], from(y)[n]);
    if (numel % kElements != 0) to[numel - 1] = f(x[numel - 1], y[numel - 1]);
  }

  // Computes a row of the view, with the neighbours of `dense` from `other` on. GCC vectorises only
  // what is inlined whole: `flatten` makes it.
  [[gnu::flatten]] void compute_row(const T* row, bool is_repeated, const T* other, T* to,
                                    int64_t numel) const {
    const auto run = [&](auto f) {
      if (!is_repeated) return compute_loop(f, row, other, to, numel);
      compute_loop([f, x = *row](T, T y) { return f(x, y); }, to, other, to, numel);
    };
    if (!dense) return run([](T x, T) { return sigmoid(x); });
    if (operands.output_is_view) return run([](T x, T y) { return sigmoid_backward(y, x); });
    run([](T x, T y) { return sigmoid_backward(x, y); });
  }

  // Calls f(row, done, piece) for each piece of a row of the view in the `numel` elements from
  // `first` on: `piece` elements at `row`, behind `done` others.
  template <class F> void for_each_row(int64_t first, int64_t numel, F f) const {
    const T* row = in;
    int64_t at[kMaxDims];
    for (int d = 0; d < view.ndim; d++) {
      at[d] = first % view.sizes[d];
      first /= view.sizes[d];
      row += at[d] * view.strides[d];
    }
    for (int64_t done = 0, piece; done < numel; done += piece) {
      piece = std::min(view.sizes[0] - at[0], numel - done);
      f(row, done, piece);
      row -= at[0] * view.strides[0];  // to the start of the next row
      at[0] = 0;
      for (int d = 1; d < view.ndim; d++) {
        row += view.strides[d];
        if (++at[d] < view.sizes[d]) break;
        row -= view.sizes[d] * view.strides[d];
        at[d] = 0;
      }
    }
  }

  // Long rows and repeated values are computed where they lie. Short rows and wide strides are
  // copied into the output and computed there. A view that is computed in place is copied, computed
  // and copied back.
  void compute_tiles(int64_t begin, int64_t end) const {
    T copy[kTile];
    const bool is_in_place = out == in && !view.is_dense();
    const int64_t stride = view.strides[0], last = std::min(end * kTile, view.numel);
    const bool is_copied = is_in_place || stride > 1 || (stride == 1 && view.sizes[0] < kLongRow);
    const bool has_new_pages = is_new && view.numel * int64_t(sizeof(T)) >= kNewBytes;
    constexpr int64_t portion = kPopulatedBytes / sizeof(T);  // of whole tiles
    for (int64_t first = begin * kTile, numel; first < last; first += numel) {
      numel = std::min(is_copied ? kTile : portion, last - first);
      if (has_new_pages && (first - begin * kTile) % portion == 0)
        populate(out + first, std::min(portion, last - first) * sizeof(T));
      T* const to = is_in_place ? copy : out + first;
      const T* const other = dense ? dense + first : to;
      const auto compute = [&](const T* row, int64_t done, int64_t piece) {
        compute_row(row, stride == 0, other + done, to + done, piece);
      };
      const auto copy_in = [&](const T* row, int64_t done, int64_t piece) {
        if (stride == 1) memcpy(to + done, row, piece * sizeof(T));
        for (int64_t n = 0; stride != 1 && n < piece; n++) to[done + n] = row[n * stride];
      };
      const auto copy_back = [&](const T* row, int64_t done, int64_t piece) {
        for (int64_t n = 0; n < piece; n++) const_cast<T*>(row)[n * stride] = to[done + n];
      };
      is_copied ? for_each_row(first, numel, copy_in) : for_each_row(first, numel, compute);
      if (is_copied) compute_row(to, false, other, to, numel);
      if (is_in_place) for_each_row(first, numel, copy_back);
    }
  }

  // The calling thread tells whether subnormals are flushed, not one of the pool.
  static void compute_in_pool(int64_t begin, int64_t end, void* context) {
    const auto& call = *static_cast<const CpuCall*>(context);
    fenv_t own;
    fegetenv(&own);
    fesetenv(&call.environment);
    call.compute_tiles(begin, end);
    fesetenv(&own);
  }
};

// Returns whether it was computed. `is_new`: the output was allocated for this call.
bool compute_on_cpu(Dtype dtype, const Operands& operands, const View& view, bool is_new) {
  return with_type(dtype, [&](auto zero) {
    CpuCall<decltype(zero)> call = {operands, view, is_new};
    const int64_t tiles = (view.numel + kTile - 1) / kTile;
    if (tiles > kGrain) {
      fegetenv(&call.environment);
      return !torch_parallel_for(0, tiles, kGrain, call.compute_in_pool, &call);
    }
    call.compute_tiles(0, tiles);  // without PyTorch's shim one element takes 0.03 us less of 0.6
    return true;
  });
}
""")

# ---- The operator: from tensors to output, layout and kernel ------------------------------------

OPERATOR_SOURCE = _numbered(r"""
#include <ATen/EmptyTensor.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/cuda/EmptyTensor.h>
#include <ATen/ops/sigmoid_backward_cpu_dispatch.h>
#include <ATen/ops/sigmoid_backward_cuda_dispatch.h>
#include <ATen/ops/sigmoid_cpu_dispatch.h>
#include <ATen/ops/sigmoid_cuda_dispatch.h>
#include <ATen/ops/sigmoid_ops.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <c10/util/strides.h>
#include <torch/library.h>

#include <atomic>
#include <thread>

using at::Tensor;
using c10::DispatchKeySet;
using Key = c10::DispatchKey;

static_assert(int(Dtype::kHalf) == int(at::kHalf) && int(Dtype::kFloat) == int(at::kFloat) &&
              int(Dtype::kDouble) == int(at::kDouble) &&
              int(Dtype::kBFloat16) == int(at::kBFloat16));

#define EXPORT extern "C" __attribute__((visibility("default")))
std::atomic<int64_t> kernel_calls;

// Whether `x` is a dense tensor of a device and nothing else: all that is special about a tensor
// has a key of its own, such as names, a negative view, a subclass, and sizes that are symbols.
bool is_dense_on(Key device, const Tensor& x) {
  const DispatchKeySet keys = x.key_set();
  const DispatchKeySet plain({device, Key::AutocastCPU, Key::AutocastCUDA, Key::ADInplaceOrView,
                              Key::AutogradFunctionality});
  return keys.has_all(DispatchKeySet(device)) && (keys.raw_repr() & ~plain.raw_repr()) == 0;
}

// Whether a kernel may take `x`, by its kind and type; its layout may still refuse. Half is not in
// the list of types here, since only the GPU's part of this file is compiled with it.
bool has_kernel(const Tensor& x) {
  const bool on_gpu = HAS_CUDA && is_dense_on(Key::CUDA, x);
  if (!on_gpu && !(HAS_CPU && is_dense_on(Key::CPU, x))) return false;
  const Dtype dtype = Dtype(x.scalar_type());
  const bool is_known = with_type(dtype, [](auto) { return true; });
  return (is_known || (on_gpu && dtype == Dtype::kHalf)) && x.numel() > 0;
}

// The strides that at::TensorIterator gives a new output of `x` and `y`, which have the same sizes:
// contiguous or channels-last where both are that, else those of both, else dense in the order of
// the strides of `x`. The strides of `y` order dimensions that those of `x` do not.
at::DimVector output_strides(const Tensor& x, const Tensor& y) {
  const auto sizes = x.sizes();
  if (x.is_contiguous() && y.is_contiguous()) return c10::contiguous_strides(sizes);
  constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;
  if (x.is_contiguous(kChannelsLast) && y.is_contiguous(kChannelsLast))
    return at::DimVector(c10::get_channels_last_strides_2d(sizes));
  if (x.is_non_overlapping_and_dense() && y.is_non_overlapping_and_dense() &&
      x.strides() == y.strides())
    return at::DimVector(x.strides());
  const auto is_outside = [&](int64_t a, int64_t b) {  // 1: a is outside of b; -1: inside
    for (const auto strides : {x.strides(), y.strides()}) {
      if (strides[a] == 0 || strides[b] == 0) continue;
      if (strides[a] != strides[b]) return strides[a] > strides[b] ? 1 : -1;
      if (sizes[a] > sizes[b]) return 1;
    }
    return 0;
  };
  at::DimVector order(sizes.size()), strides(sizes.size());  // from the innermost dimension
  for (int64_t n = 0; n < x.dim(); n++) {
    order[n] = x.dim() - 1 - n;
    for (int64_t at = n, below = n - 1; below >= 0; below--) {
      const int found = is_outside(order[below], order[at]);
      if (found < 0) break;
      if (found > 0) std::swap(order[below], order[at]), at = below;
    }
  }
  int64_t stride = 1;
  for (const int64_t d : order) {
    strides[d] = stride;
    stride *= sizes[d];
  }
  return strides;
}

// The layout of `x` as an output of these strides sees it: false where too many dimensions remain.
bool make_view(View& view, const Tensor& x, const at::DimVector& out_strides) {
  view.numel = x.numel();
  const auto sizes = x.sizes(), strides = x.strides();
  if (strides == at::IntArrayRef(out_strides)) {
    view.sizes[0] = view.numel;
    return true;
  }
  const int most_dims = x.is_cuda() ? kMaxGpuDims : kMaxDims;
  c10::SmallVector<int64_t, kMaxDims> order;  // from the output's innermost dimension
  for (int64_t d = 0; d < x.dim(); d++) {
    if (sizes[d] != 1) order.push_back(d);
  }
  std::sort(order.begin(), order.end(),
            [&](int64_t a, int64_t b) { return out_strides[a] < out_strides[b]; });
  for (const int64_t d : order) {
    int last = view.ndim - 1;
    if (strides[d] == view.sizes[last] * view.strides[last]) {  // neighbours merge
      view.sizes[last] *= sizes[d];
      continue;
    }
    if (view.sizes[last] != 1) last = view.ndim++;  // else the first takes its place
    if (last == most_dims) return false;
    view.sizes[last] = sizes[d];
    view.strides[last] = strides[d];
  }
  return true;
}

// New memory for a result, from where PyTorch's kernels get it: at::empty_strided costs 0.6 to
// 0.9 us more, and fills it in deterministic mode.
Tensor new_output(const Tensor& x, const at::DimVector& strides) {
#if HAS_CUDA
  if (x.is_cuda()) {
    return Tensor(at::detail::empty_strided_cuda(x.sizes(), strides, x.scalar_type(), x.device()));
  }
#endif
  return Tensor(at::detail::empty_strided_cpu(x.sizes(), strides, x.scalar_type()));
}

// Runs the kernel on the data of `in` and `dense`, into `out` or a new tensor; undefined where no
// kernel runs.
Tensor run_kernel(const View& view, const Tensor& in, const Tensor* dense, bool output_is_view,
                  const Tensor* out, const at::DimVector& strides) {
  Tensor y = out ? *out : new_output(in, strides);
  void* const result = y.mutable_data_ptr();  // first, as it may move the data, and `in` may be y
  const Operands operands = {result, in.const_data_ptr(), dense ? dense->const_data_ptr() : nullptr,
                             output_is_view};
  const Dtype dtype = Dtype(in.scalar_type());
  bool is_done = false;
  if (in.is_cpu()) is_done = compute_on_cpu(dtype, operands, view, !out);
#if HAS_CUDA
  if (in.is_cuda()) {
    c10::OptionalDeviceGuard guard;  // asked for only on another GPU: it takes 0.1 us
    if (current_gpu() != in.get_device()) guard.reset_device(in.device());
    void* stream = nullptr;
    is_done = !aoti_torch_get_current_cuda_stream(in.get_device(), &stream) &&
              launch_on_gpu(dtype, operands, view, in.get_device(), stream);
  }
#endif
  kernel_calls.fetch_add(is_done, std::memory_order_relaxed);
  if (!is_done) y.reset();
  return y;
}

bool are_alike(const Tensor& x, const Tensor& y) {
  return has_kernel(x) && has_kernel(y) && x.device() == y.device() &&
         x.scalar_type() == y.scalar_type() && x.sizes() == y.sizes();
}

// Whether the kernel may write to `out`: it is as a new result would be and shares no memory with
// x, or it is x, on the CPU also where that is a view.
bool takes_out(const Tensor& out, const Tensor& x, const View& view, at::IntArrayRef strides) {
  if (!are_alike(x, out)) return false;
  const bool begins_as_x = out.const_data_ptr() == x.const_data_ptr();
  if (!out.is_alias_of(x) && (view.is_dense() || !begins_as_x)) return out.strides() == strides;
  return out.strides() == x.strides() && begins_as_x &&
         (view.is_dense() || (x.is_cpu() && !view.has_overlap()));
}

// sigmoid(x), in `out` where that is given; undefined where PyTorch's kernel has to take the call.
Tensor try_sigmoid(const Tensor& x, const Tensor* out = nullptr) {
  View view;
  if (!has_kernel(x)) return {};
  const auto strides = output_strides(x, x);
  if (!make_view(view, x, strides)) return {};
  if (out && !takes_out(*out, x, view, strides)) return {};
  return run_kernel(view, x, nullptr, false, out, strides);
}

// grad * (1 - output) * output, with PyTorch's bits; one of them may be a view.
Tensor try_sigmoid_backward(const Tensor& grad, const Tensor& output) {
  View of_grad, of_output;
  if (!are_alike(grad, output)) return {};
  const auto strides = output_strides(grad, output);
  if (!make_view(of_grad, grad, strides) || !make_view(of_output, output, strides)) return {};
  if (of_output.is_dense()) return run_kernel(of_grad, grad, &output, false, nullptr, strides);
  if (of_grad.is_dense()) return run_kernel(of_output, output, &grad, true, nullptr, strides);
  return {};
}

// ---- For sigmoid(): a spare key -----------------------------------------------------------------

// sigmoid() adds CustomRNGKeyId to the keys of PyTorch's own call. PyTorch has this key and nobody
// uses it. Autograd, modes and transforms lie above it and run first; the kernels of the devices
// lie below it. A recorded call comes here from autograd, which has made its node. Every other
// operator lets the key fall through, but for those that end_key() tells of.
constexpr Key kOurKey = Key::CustomRNGKeyId;
constexpr DispatchKeySet kBelowOurs(DispatchKeySet::FULL_AFTER, kOurKey);

// The key ends with the first kernel that it reaches. Python that runs in the rest of the call, as
// hooks of saved tensors do, would take PyTorch's generic kernels (CompositeExplicitAutograd) for
// operators that have kernels of their own: those come before a fall-through.
void end_key() { c10::impl::tls_set_dispatch_key_included(kOurKey, false); }

Tensor sigmoid_of_call(DispatchKeySet keys, const Tensor& x) {
  end_key();
  Tensor y = try_sigmoid(x);
  if (!y.defined()) y = at::_ops::sigmoid::redispatch(keys & kBelowOurs, x);
  return y;
}
Tensor& sigmoid_out_of_call(DispatchKeySet keys, const Tensor& x, Tensor& out) {
  end_key();
  if (try_sigmoid(x, &out).defined()) return out;
  return at::_ops::sigmoid_out::redispatch(keys & kBelowOurs, x, out);
}

// ---- For enable(): PyTorch's keys ---------------------------------------------------------------

template <auto own>
Tensor sigmoid_or(const Tensor& x) {
  Tensor y = try_sigmoid(x);
  if (!y.defined()) y = own(x);
  return y;
}
template <auto own>
Tensor& sigmoid_out_or(const Tensor& x, Tensor& out) {
  return try_sigmoid(x, &out).defined() ? out : own(x, out);
}
template <auto own>
Tensor& sigmoid_in_place_or(Tensor& x) {
  return try_sigmoid(x, &x).defined() ? x : own(x);
}
template <auto own>
Tensor sigmoid_backward_or(const Tensor& grad, const Tensor& output) {
  Tensor grad_input = try_sigmoid_backward(grad, output);
  if (!grad_input.defined()) grad_input = own(grad, output);
  return grad_input;
}

// PyTorch warns where a kernel takes the place of another. That is what is wanted here.
struct Silent : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

using Library = std::unique_ptr<torch::Library>;
Library all_operators, our_operator, on_cpu, on_gpu;

Library open_library(const char* operators, Key key) {
  return std::make_unique<torch::Library>(torch::Library::IMPL, operators, key, __FILE__, __LINE__);
}

// Python's lock is held in all that follows, so that one thread at a time registers. A library that
// is destroyed takes its kernels back, whoever has registered others in the meantime.
EXPORT void sigmoid_inline_register(int on) {
  Silent silent;
  c10::WarningUtils::WarningHandlerGuard guard(&silent);
  our_operator.reset();
  if (!on) return;
  if (!c10::Dispatcher::singleton().hasBackendFallbackForDispatchKey(kOurKey)) {
    all_operators = open_library("_", kOurKey);  // once in a process, whatever copy comes first
    all_operators->fallback(torch::CppFunction::makeFallthrough());
  }
  our_operator = open_library("aten", kOurKey);
  our_operator->impl("sigmoid", TORCH_FN(sigmoid_of_call));
  our_operator->impl("sigmoid.out", TORCH_FN(sigmoid_out_of_call));
}

#define TAKE_OVER(library, device)                                                            \
  (library)->impl("sigmoid", TORCH_FN(sigmoid_or<at::device::sigmoid>));                      \
  (library)->impl("sigmoid.out", TORCH_FN(sigmoid_out_or<at::device::sigmoid_outf>));         \
  (library)->impl("sigmoid_", TORCH_FN(sigmoid_in_place_or<at::device::sigmoid_>));           \
  (library)->impl("sigmoid_backward",                                                         \
                  TORCH_FN(sigmoid_backward_or<at::device::sigmoid_backward>))

// How many enable() are in force since the last disable(), of which this counts.
int enabled = 0, disabled = 0;
EXPORT int sigmoid_inline_enable() {
  Silent silent;
  c10::WarningUtils::WarningHandlerGuard guard(&silent);
  if (enabled++ > 0) return disabled;
#if HAS_CPU
  on_cpu = open_library("aten", Key::CPU);
  TAKE_OVER(on_cpu, cpu);
#endif
#if HAS_CUDA
  on_gpu = open_library("aten", Key::CUDA);
  TAKE_OVER(on_gpu, cuda);
#endif
  return disabled;
}
// Ends the enable() that returned `since`, or all for -1.
EXPORT void sigmoid_inline_disable(int since) {
  if (since == -1) enabled = 0, disabled++;
  if (since == disabled) enabled--;
  if (enabled == 0) on_cpu.reset(), on_gpu.reset();
}
EXPORT int64_t sigmoid_inline_calls() { return kernel_calls; }
EXPORT int sigmoid_inline_has_cpu() { return HAS_CPU; }
""")

# ---- What is assumed of PyTorch and Python -------------------------------------------------------

# Each item says what is assumed; where it is declared; how it shows where it does not hold.
#
#   CustomRNGKeyId lies between autograd, modes and the devices' kernels, and is nobody's;
#     c10/core/DispatchKey.h; the probe's calls miss the kernel, or autograd's node.
#   A kernel that TORCH_FN registers may be taken back beside running calls; torch/library.h; a test
#     that switches while threads call.
#   A new output has at::TensorIterator's strides; ATen/TensorIterator.h; tests of random layouts.
#   empty_strided_cpu and _cuda allocate as PyTorch's kernels do; ATen/EmptyTensor.h and
#     ATen/cuda/EmptyTensor.h; the compiler or the loader says so.
#   at::cpu and at::cuda hold PyTorch's own kernels; ATen/ops/sigmoid_cpu_dispatch.h and its
#     neighbours; the compiler or the loader says so.
#   torch_parallel_for and the current stream; torch/csrc/stable/c/shim.h, which is stable.
#   TorchDispatchModeTLS knows whether a dispatch mode is active; c10/core/impl/; the compiler.
#   torch.Tensor's method sigmoid computes torch.sigmoid; tests of what intercepts and records.
#   torch.sigmoid is a method of torch._C._VariableFunctionsClass; the import raises.
#   torch.jit.script and Dynamo know the two attributes of sigmoid; torch/jit/_trace.py; scripting
#     raises.
#   From Python 3.12 on PyFunction_SetVectorcall is documented; without it the Python body runs.
#   Dynamo replaces the interpreter's frame evaluation (PEP 523), which Python's documentation of
#     _PyInterpreterState_GetEvalFrameFunc describes; torch.compile(sigmoid) finds no frame.
#   PyMethodDef is of Python's stable ABI: a built-in function needs it.
CALL_SOURCE = _numbered(r"""
// Of Python, documented functions alone: Python.h is missing on many machines.
extern "C" {
typedef struct _object PyObject;
struct PyMethodDef {
  const char* name;
  PyObject* (*function)(PyObject* self, PyObject* arguments, PyObject* keywords);
  int flags;
  const char* doc;
};
PyObject* PyCFunction_NewEx(PyMethodDef*, PyObject* self, PyObject* module);
PyObject* PyObject_Call(PyObject*, PyObject* arguments, PyObject* keywords);
PyObject* PyObject_CallNoArgs(PyObject*);
PyObject* PyObject_Type(PyObject*);
struct _ts* PyEval_SaveThread();
void PyEval_RestoreThread(struct _ts*);
int PyGILState_Ensure();
void PyGILState_Release(int);
struct _is* PyInterpreterState_Get();
PyObject* _PyEval_EvalFrameDefault(struct _ts*, struct _PyInterpreterFrame*, int);
decltype(&_PyEval_EvalFrameDefault) _PyInterpreterState_GetEvalFrameFunc(struct _is*);
PyObject* Py_NewRef(PyObject*);
void Py_DecRef(PyObject*);
__attribute__((weak))  // Python 3.10 has none, and never calls it
PyObject* PyObject_Vectorcall(PyObject*, PyObject* const*, size_t nargs, PyObject* names);
}
constexpr size_t kArgumentsOffset = size_t(1) << 63;  // PY_VECTORCALL_ARGUMENTS_OFFSET

PyObject *torch_sigmoid, *tensor_sigmoid, *python_body, *tensor_class, *parameter_class;

// Adds our key, but not where a dispatch mode runs Python before the kernel: see end_key().
struct KeyGuard {
  std::optional<c10::impl::IncludeDispatchKeyGuard> guard;
  KeyGuard() {
    if (!c10::impl::TorchDispatchModeTLS::any_modes_set()) guard.emplace(kOurKey);
  }
};

// torch.sigmoid's call, with our key: a built-in function, which is pickled as torch.sigmoid is.
PyObject* python_call(PyObject*, PyObject* arguments, PyObject* keywords) {
  const KeyGuard guard;
  return PyObject_Call(torch_sigmoid, arguments, keywords);
}

// The same as the vectorcall of sigmoid(). Nothing can intercept the call of an exact Tensor or
// Parameter where no function mode is active, so torch.Tensor's method gives the same result. It
// parses no arguments: 0.2 us less. Dynamo compiles frames of Python, and gets one.
EXPORT PyObject* sigmoid_inline_vectorcall(PyObject*, PyObject* const* arguments, size_t nargs,
                                           PyObject* names) {
  if (_PyInterpreterState_GetEvalFrameFunc(PyInterpreterState_Get()) != _PyEval_EvalFrameDefault)
    return PyObject_Vectorcall(python_body, arguments, nargs, names);
  PyObject* function = torch_sigmoid;
  if ((nargs & ~kArgumentsOffset) == 1 && !names && !at::impl::torch_function_mode_enabled()) {
    PyObject* const type = PyObject_Type(arguments[0]);
    Py_DecRef(type);
    if (type == tensor_class || type == parameter_class) function = tensor_sigmoid;
  }
  const KeyGuard guard;
  return PyObject_Vectorcall(function, arguments, nargs, names);
}

// Registers the kernel and returns the built-in function, a method of `self` as torch.sigmoid is.
EXPORT PyObject* sigmoid_inline_start(PyObject* function, PyObject* method, PyObject* body,
                                      PyObject* self, PyObject* tensor, PyObject* parameter) {
  torch_sigmoid = Py_NewRef(function), tensor_sigmoid = Py_NewRef(method);
  python_body = Py_NewRef(body);
  tensor_class = Py_NewRef(tensor), parameter_class = Py_NewRef(parameter);
  sigmoid_inline_register(1);
  static PyMethodDef definition = {"sigmoid", python_call, 3 /* VARARGS and KEYWORDS */, nullptr};
  return PyCFunction_NewEx(&definition, self, nullptr);
}

// Calls a Python function in a thread of its own, so that no mode, hook, compiler or profiler of
// the thread that imports takes part. The function raises nothing.
EXPORT PyObject* sigmoid_inline_call_apart(PyObject* function) {
  PyObject* result = nullptr;
  struct _ts* const state = PyEval_SaveThread();
  std::thread([&] {
    const int taken = PyGILState_Ensure();
    result = PyObject_CallNoArgs(function);
    PyGILState_Release(taken);
  }).join();
  PyEval_RestoreThread(state);
  return result;
}
""")


def _probe():
    """What does not hold of a plain and of a recorded call on the CPU; "" where all does."""
    with contextlib.suppress(Exception):
        leaf = torch.zeros(3, requires_grad=True, dtype=torch.float32, device="cpu")
        before, plain, recorded = kernel_calls(), sigmoid(leaf.detach()), sigmoid(leaf)
        if plain.tolist() != [0.5] * 3 or recorded.tolist() != [0.5] * 3:
            return f"sigmoid of 0 is {plain.tolist()}, recorded {recorded.tolist()}"
        if getattr(recorded.grad_fn, "name", str)() != "SigmoidBackward0":
            return f"a recorded call makes {recorded.grad_fn}"
        if _library.sigmoid_inline_has_cpu() and kernel_calls() < before + 2:
            return "calls do not reach the kernel"
        return ""
    return "a call raises an error"


# ---- The build: a library per sources, flags, versions and GPUs, compiled once, then loaded ------

_CPP = COMMON_SOURCE + FORMULA_SOURCE + CPU_SOURCE + OPERATOR_SOURCE + CALL_SOURCE
_CUDA = COMMON_SOURCE + FORMULA_SOURCE + KERNEL_SOURCE
# USE_CUDA has PyTorch's shims declare streams and device guards.
_CPU_FLAGS = "-O2 -ftree-vectorize -fno-math-errno -fno-trapping-math -ffp-contract=off"
_CPU_FLAGS += " -fvisibility=hidden -DUSE_CUDA -DHAS_CPU="
_AVX2 = "1 -mavx2 -mfma"  # without fused multiply-add the loop is slow and left out
_AVX512 = f"{_AVX2} -mavx512f -mavx512vl -mavx512bw -mavx512dq"  # takes half the time of AVX2
# On all cores, and as C++17, whose headers are smaller: 1.25 s instead of 1.85 s on 16 cores.
_NVCC_FLAGS = "-std=c++17 -split-compile=0 -Xcompiler=-fvisibility=hidden -DPYTORCH_CUDA="
_digest = lambda content: hashlib.sha256(content).hexdigest()[:16]
# The newest of these codes that runs on the GPU. It has the GPU's major version; "" is none.
_newest = lambda gpu, codes: max((c for c in codes if c[:-1] == gpu[:-1] and c <= gpu), default="")


def _explain(step, kind, error, trace):
    """Ends an error in one line, with what helps in this step. A longer report stands above it."""
    if isinstance(error, Exception):
        text = f"{getattr(error, 'output', None) or error.__cause__ or ''}\n{error}"
        # Ninja prints FAILED, the command, and then what the command has printed.
        lines = text.partition("\nFAILED: ")[2].splitlines()[2:] or text.strip().splitlines()
        counts = re.compile(r"\b(error|fatal)\b[^:]{0,9}:|\bld: (?!warn|.*in func)|\bsh: ").search
        rank = lambda line: bool(counts(line)) - ("ERROR: ld.so" in line)
        line = max(filter(str.strip, lines), key=rank, default=kind.__name__)
        raise RuntimeError(f"sigmoid_inline: {line}{step.remedy}") from error if lines[1:] else None


def _say(line):
    with contextlib.suppress(AttributeError, OSError, ValueError):  # there may be no usable stderr
        sys.stderr.write(f"sigmoid_inline: {line}\n")


def _gpus():
    """Compute capabilities, such as {"90"}, and whether they are of GPUs that PyTorch may use here.
    NVML tells them, since no process can fork after a call of CUDA's. TORCH_CUDA_ARCH_LIST names
    others. Where neither does, a driver may have any GPU that PyTorch is built for."""
    found, named = set(), os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    with contextlib.suppress(OSError, AttributeError):
        nvml, gpu = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p()
        count, major, minor = ctypes.c_uint(), ctypes.c_int(), ctypes.c_int()
        nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for index in range(count.value):
            nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(gpu))
            if not nvml.nvmlDeviceGetCudaComputeCapability(gpu, *map(ctypes.byref, (major, minor))):
                found.add(f"{major.value}{minor.value}")
    if found and torch.cuda.device_count() > 0:  # by NVML; CUDA_VISIBLE_DEVICES may hide them
        return found, True
    if not found and not named:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libcuda.so.1")
            named = torch._C._cuda_getArchFlags()  # such as "sm_80 sm_90"
    if unknown := re.sub(r"(\w+_)?\d+\.?\d[af]?|\+PTX|[; ]", "", named):
        _say(f"ignores {unknown!r} in TORCH_CUDA_ARCH_LIST")
    return {major + minor for major, minor in re.findall(r"(\d+)\.?(\d)", named)}, False


def _toolkit(gpus):
    """(home, codes, what is missing) of the toolkit of PyTorch's CUDA with the newest codes."""
    cuda, toolkits, others = torch.version.cuda, {}, ""
    major, on_path = cuda.split(".")[0], Path(shutil.which("nvcc") or "/-/-").parents[1]
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), on_path, "/usr/local/cuda"]
    homes += [f"{path}/nvidia/cu{major}" for path in sys.path]  # by pip, from CUDA 13 on
    for home in map(str, filter(None, homes)):
        nvcc = shlex.quote(f"{home}/bin/nvcc")
        text = subprocess.getoutput(f"{nvcc} --version && {nvcc} --list-gpu-arch")
        if release := re.search(r"release (\d+\.\d+)", text):
            others += f", {home} has {release[1]}"
            # Before 12.5 there is no cudaGetDriverEntryPointByVersion.
            if re.match(rf"(?!12\.[0-4]$){major}\.", release[1]):
                toolkits[home] = re.findall(r"compute_(\d+)\b", text)
    if toolkits:
        newest = lambda home: [_newest(gpu, toolkits[home]) for gpu in gpus]
        return (home := max(toolkits, key=newest)), toolkits[home], ""
    pip = f'pip install "cuda-toolkit[nvcc,nvvm,crt]=={cuda}.*", or ' if cuda >= "13" else ""
    return "", [], f"nvcc of CUDA {cuda} is missing{others}: {pip}set CUDA_HOME to CUDA {cuda}"


def _open_library(directory, name, least):
    """A library that has for each GPU this code or a newer one. The digest vouches for the file."""
    for path in sorted(directory.glob(f"{name}-*-*.so")):
        *_, codes, digest = path.stem.split("-")
        serves = all(_newest(gpu, codes.split("_")) >= code for gpu, code in least.items())
        with contextlib.suppress(OSError):
            if serves and _digest(path.read_bytes()) == digest:
                return ctypes.PyDLL(str(path))


def _build(directory, name, cpu_flags, home, codes, steps):
    """Compiles the library in a directory of its own, loads it and puts it into the cache."""
    start, enter = time.time(), steps.enter_context
    directory.mkdir(parents=True, exist_ok=True)  # where it could not be locked
    scratch = Path(enter(tempfile.TemporaryDirectory("", "build-", directory)))
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:  # then no program's status is known
        ctypes.CDLL(None).signal(signal.SIGCHLD, 0)  # in any thread
        steps.callback(ctypes.CDLL(None).signal, signal.SIGCHLD, 1)
    cxx, cc = os.environ.get("CXX") or "c++", os.environ.get("CC") or "gcc"
    cc = [word for word in cc.split() if not word.startswith("-")][-1]  # nvcc takes a program alone
    # cpp_extension would put a ccache before compilers, say less of a compiler than ninja, and look
    # for a GPU: by NVML, so that CUDA stays untouched.
    environment = {"TORCH_NO_COMPILER_WRAPPER": "1", "TORCH_DONT_CHECK_COMPILER_ABI": "1"}
    environment |= {"PYTORCH_NVML_BASED_CUDA_CHECK": "1", "LC_ALL": "C", "CXX": cxx, "CC": cc}
    environment["PYTORCH_NVCC"] = shlex.quote(f"{home}/bin/nvcc")
    root = Path(getattr(find_spec("ninja"), "origin", None) or sys.executable or "/-/-").parents[1]
    if subprocess.getstatusoutput("ninja --version")[0]:  # pip has put one beside the package
        environment["PATH"] = f"{root}/bin:{root}/../../../bin:{os.environ.get('PATH', os.defpath)}"
    for variable in environment.keys() - os.environ.keys():
        steps.callback(os.environ.pop, variable, None)
    steps.callback(os.environ.update, {k: os.environ[k] for k in environment if k in os.environ})
    os.environ.update(environment)
    enter(patch.object(logging.getLogger("torch.utils.cpp_extension"), "disabled", 1))
    steps.remedy = ": pip install setuptools"
    from torch.utils import cpp_extension
    # Since PyTorch 2.13 CXX is quoted as one word but may have several. This path is not quoted.
    enter(patch.object(cpp_extension, "_shell_join", " ".join, create=True))
    enter(patch.object(cpp_extension, "TORCH_LIB_PATH", shlex.quote(cpp_extension.TORCH_LIB_PATH)))
    steps.remedy = ": install g++, or set CXX to a compiler of C++17"
    check = f"echo '#include <type_traits>' | {cxx} -std=c++17 -fsyntax-only -x c++ -"
    subprocess.check_output(check, shell=True, text=True, stderr=subprocess.STDOUT)
    steps.remedy = f" (CXX={cxx}, CC={cc}, in {directory}; tried with PyTorch 2.10 to 2.15)"
    enter(patch.object(cpp_extension, "CUDA_HOME", home))
    # pip's toolkit has no libcudart.so, and PyTorch's is what the library gets in the end.
    for runtime in Path(torch.__file__).parents[1].glob("nvidia/*/lib/libcudart.so.*"):
        (scratch / "libcudart.so").write_text(f'INPUT("{runtime}")')  # a linker script
    # No PTX: of a GPU before 9.0 it would lack the kernel's wait, and 9.0 would start it early.
    gencode = [f"-gencode=arch=compute_{code},code=sm_{code}" for code in codes]
    flags = {"extra_cuda_cflags": [f"{_NVCC_FLAGS}{torch.version.cuda}", *gencode]}
    flags |= {"extra_cflags": [cpu_flags, f"-DHAS_CUDA={bool(codes):d}"], "extra_ldflags": ["-L."]}
    options = {"build_directory": scratch, "is_python_module": False, "no_implicit_headers": True}
    cpp_extension.load_inline("sigmoid_inline", _CPP, _CUDA if codes else None, **flags, **options)
    (built,) = scratch.glob("sigmoid*.so")
    library, digest = ctypes.PyDLL(str(built)), _digest(built.read_bytes())
    built.replace(directory / f"{name}-{'_'.join(codes) or 'cpu'}-{digest}.so")
    _say(f"compiled the CPU kernel{' and sm_'.join(['', *codes])} in {time.time() - start:.1f} s")
    return library


def _load():
    """The library of the kernels, which is compiled where none in the cache serves."""
    with contextlib.ExitStack() as steps:
        steps.push(functools.partial(_explain, steps))
        steps.remedy = ": set TORCH_EXTENSIONS_DIR to a directory that can be written"
        # To load what was linked with -ffast-math changes how this thread computes subnormals.
        libm, state = ctypes.CDLL("libm.so.6"), ctypes.create_string_buffer(64)
        libm.fegetenv(state)
        steps.callback(libm.fesetenv, state)
        machine, capability = os.uname().machine, torch.backends.cpu.get_cpu_capability()
        avx = {"AVX2": _AVX2, "AVX512": _AVX512}.get(capability, int(machine == "aarch64"))
        facts = _CPU_FLAGS, avx, _NVCC_FLAGS, torch.version.cuda, torch.__version__, machine
        text = re.sub("#line.*", "", _CPP + _CUDA)  # wherever it stands in the file
        name = f"sigmoid_inline-{_digest(f'{text}{facts}'.encode())}"
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        cache = os.environ.get("TORCH_EXTENSIONS_DIR") or f"{cache}/torch_extensions"
        directory = Path(cache, "sigmoid_inline").expanduser().absolute()
        gpus, are_here = _gpus() if torch.version.cuda else ([], False)
        least = {gpu: gpu for gpu in sorted(gpus) if int(gpu) >= 70}  # the oldest code that serves
        if library := _open_library(directory, name, least):
            return library
        home, known, missing = _toolkit(least) if least else ("", [], "")
        for gpu in least:  # without nvcc any code serves that runs on a GPU that is here
            least[gpu] = f"{gpu[:-1]}0" if missing and are_here else _newest(gpu, known)
        with contextlib.suppress(OSError):  # some file systems have no locks: each compiles
            directory.mkdir(parents=True, exist_ok=True)
            lock = steps.enter_context(open(directory / "lock", "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # dropped when its holder ends, killed or not
            for path in directory.glob("build-*"):  # of a process that was killed
                if os.fstat(lock.fileno()).st_mtime - path.stat().st_mtime > 3600:
                    shutil.rmtree(path, ignore_errors=True)
        if library := _open_library(directory, name, least):
            return library
        if missing and are_here:
            steps.remedy = ""
            raise FileNotFoundError(missing)
        codes = sorted(set(least.values()) - {""})
        library = _build(directory, name, f"{_CPU_FLAGS}{avx}", home, codes, steps)
        if left := ", ".join(gpu for gpu in least if not least[gpu]):
            _say(f"leaves GPUs of {left} to torch.sigmoid: {missing or f'{home} is too old'}")
        return library


def _start(library):
    """Lets the calls of `sigmoid` go to the library, and returns its built-in function."""
    library.sigmoid_inline_calls.restype = ctypes.c_int64
    for function in (library.sigmoid_inline_start, library.sigmoid_inline_call_apart):
        function.restype = ctypes.py_object
    frame = FunctionType(sigmoid.__code__, globals())
    frame.__kwdefaults__ = sigmoid.__kwdefaults__
    own = torch._C._VariableFunctionsClass.sigmoid  # also where a program has put ours in its place
    own = own if hasattr(torch.sigmoid, "__original_fn") else torch.sigmoid
    objects = [own, torch.Tensor.sigmoid, frame]
    objects += [torch._C._VariableFunctionsClass, torch.Tensor, torch.nn.Parameter]
    call = library.sigmoid_inline_start(*map(ctypes.py_object, objects))
    if hasattr(ctypes.pythonapi, "PyFunction_SetVectorcall"):  # from Python 3.12 on
        vectorcall = ctypes.cast(library.sigmoid_inline_vectorcall, ctypes.c_void_p)
        ctypes.pythonapi.PyFunction_SetVectorcall(ctypes.py_object(sigmoid), vectorcall)
    return call


_library, _call, _moved = None, None, ""
if not _IS_MOCKED:
    _library = _load()
    _call = _start(_library)
    _moved = _library.sigmoid_inline_call_apart(ctypes.py_object(_probe))
if _moved:
    _library.sigmoid_inline_register(0)  # without the kernel the key lets sigmoid fall through
    _moved = f"PyTorch {torch.__version__} has moved: {_moved}; sigmoid is torch.sigmoid now"
    _say(_moved)


# ---- Nothing below affects results: the self-check, the timing and the command line --------------

# Errors lie below these, in ulp. float64's reference, torch.sigmoid, is itself off by up to 2.
_BOUND_ULP = {"float32": 1, "bfloat16": 0.5, "float16": 0.5, "float64": 3}
_ABOUT = """Checks sigmoid against float64 and times it beside torch.sigmoid: in 20 s, or
with --sweep in 3 minutes a data type. Example: --dtype float32 bfloat16

ratio  torch.sigmoid's time over sigmoid's, by medians; torch: no kernel takes x
       ~: the middle half of the rounds spans 10 %, or they are under 3
speed  of sigmoid: bytes read and written a second, or the time of a call"""


def _over_ranks(number, operation, device):
    """The "MAX" or the "SUM" of a number over torchrun's ranks."""
    tensor = torch.tensor(number, dtype=torch.float64, device=device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor, getattr(torch.distributed.ReduceOp, operation))
    return tensor.item()


def max_error_ulp(x, result=None):
    """Largest error of sigmoid(x), or of this result, in units in the last place, on any rank: from
    float64, so that less than 0.5 is correctly rounded; inf: only one is NaN."""
    torch.full_like(x, float("nan"))  # freed at once, for the output: what is not written shows
    result = sigmoid(x) if result is None else result
    info, worst = torch.finfo(x.dtype), 0.0
    blocks = (tensor.detach().reshape(-1).split(1 << 20) for tensor in (result, x))
    for y, block in zip(*blocks):
        exact = block.double()
        exact = torch.where(exact < -40, exact.exp(), 1 / (1 + (-exact).exp()))
        exponent = torch.frexp(exact.clamp(min=info.smallest_normal))[1].double() - 1
        ulp = torch.exp2(exponent).mul_(info.eps)  # torch.ldexp is wrong on GPU 1 in PyTorch 2.11
        error = (y.double() - exact).abs_().div_(ulp)
        error[exact.isnan() & y.isnan()] = 0
        worst = max(worst, error.nan_to_num_(nan=float("inf")).max().item())
    return _over_ranks(worst, "MAX", x.device)


def measure(contenders, device, trials, calls=1, seconds=2, within=contextlib.nullcontext):
    """Times {name: function} in turn, `trials` times `calls` calls, after three rounds to warm up.

    Every other round goes backwards. On a GPU events on the current stream tell the time, which
    includes where it waits for the host; on a CPU a wall clock does, and no round starts after
    `seconds`. "sigmoid" runs in the context within(), which is entered before its time begins.
    Returns {name: [us of a call]}.
    """
    names, end = list(contenders), time.perf_counter() + seconds
    spans = {name: [] for name in names}
    stamp, us = time.perf_counter, lambda start, stop: (stop - start) * 1e6
    if device.type == "cuda":
        stream, end = torch.cuda.current_stream(), float("inf")
        stamp = lambda: stream.record_event(torch.cuda.Event(enable_timing=True))
        us = lambda start, stop: start.elapsed_time(stop) * 1e3
    for done in range(3 + trials):
        if done > 3 and time.perf_counter() > end:
            break
        for name in names:
            with within() if name == "sigmoid" else contextlib.nullcontext():
                start = stamp()
                for _ in range(calls):
                    contenders[name]()
                spans[name].append((start, stamp()))
        names.reverse()
    if device.type == "cuda":
        stream.synchronize()
    return {name: [us(*span) / calls for span in spans[name][3:]] for name in contenders}


def _cases(args, dtype):
    """{case: (make, way, within)} of this run. x = make() is the input; way(f, x)() is timed in
    loops, for f = sigmoid and torch.sigmoid, and shown in us; without a way f(x) is, and shown in
    GB/s. Within enable(), f is torch.sigmoid alone, timed in its context and out of it."""
    call, rand = functools.partial, functools.partial(torch.rand, device=args.device, dtype=dtype)
    shape = f"{_over_ranks(args.rows, 'SUM', args.device):.0f} x {args.columns}"
    large, plain = call(rand, args.rows, args.columns), contextlib.nullcontext
    default = {shape: (large, None, plain)}
    if args.shape or args.ranks > 1:
        return default
    largest = args.room.bit_length() - 1
    sizes = sorted({*range(10, largest, 2), 21, 23, largest})
    sweep = {f"2^{e}": (call(rand, 1 << e), None, plain) for e in sizes}
    n = 1 << min(largest - 2, 28)
    nhwc, half = (n >> 20, 128, 128, 64), "half of rows"
    leaf = lambda make: lambda: make().requires_grad_()
    train = lambda f, x: lambda: (y := f(x), torch.autograd.grad(y, x, y.detach()))[0]
    for view, is_trained, make in (
        (half, True, lambda: rand(n // 4096, 8192).chunk(2, -1)[1]),
        ("half of rows of 66", False, lambda: rand(n // 33, 66).chunk(2, -1)[1]),
        ("cropped NHWC", True, lambda: rand(nhwc)[:, 1:-1, 1:-1].movedim(3, 1)),
        ("expanded row", False, lambda: rand(1, 4096).expand(n // 4096, 4096)),
        ("x[1:]", False, lambda: rand(n)[1:]),
        ("x[::2]", False, lambda: rand(2 * n)[::2]),
        ("x[:, 4:] of 85", True, lambda: rand(n // 85, 85)[:, 4:]),
        ("x[:, :2] of 85", False, lambda: rand(n // 85, 85)[:, :2]),
    ):
        sweep[view] = make, None, plain
        if is_trained:
            sweep[f"recorded {view}"] = leaf(make), None, plain
            sweep[f"fwd+bwd {view}"] = leaf(make), train, plain
            sweep[f"enable(), fwd+bwd {view}"] = leaf(make), train, enable
    rows = lambda: rand(n // 4096, 4096)
    for name, gradient in (
        ("dense", torch.rand_like),
        ("one scalar", lambda y: rand(1, 1).expand_as(y)),
        ("a value a row", lambda y: rand(len(y), 1).expand_as(y)),
        ("a row for all", lambda y: rand(1, len(y[0])).expand_as(y)),
        ("half of rows", lambda y: rand(len(y), 2 * len(y[0])).chunk(2, -1)[1]),
    ):
        backward = lambda _, y, of=gradient: call(torch.ops.aten.sigmoid_backward, of(y), y)
        sweep[f"enable(), bwd, {name}"] = rows, backward, enable
    module = lambda f, x: call(ModelNew() if f is sigmoid else torch.nn.Sigmoid(), x)
    out = lambda f, x: call(f, x, out=torch.empty_like(x))
    for e in (0, 10, 16, 20, 22, 23):
        make = call(rand, 1 << e)
        for name, way in (("eager call", call), ("ModelNew()(x)", module), ("call with out=", out)):
            sweep[f"one {name}, 2^{e}"] = make, way, plain
        sweep[f"one call on a view, 2^{e}"] = lambda n=1 << e: rand(n, 2)[:, 0], call, plain
        sweep[f"one recorded call, 2^{e}"] = leaf(make), call, plain
        sweep[f"one training step, 2^{e}"] = leaf(make), train, plain
        sweep[f"enable(), torch.sigmoid, 2^{e}"] = make, call, enable
        sweep[f"enable(), x.sigmoid(), 2^{e}"] = make, lambda _, x: x.sigmoid, enable
        sweep[f"enable(), x.sigmoid_(), 2^{e}"] = make, lambda _, x: x.clone().sigmoid_, enable
        sweep[f"enable(), training step, 2^{e}"] = leaf(make), train, enable
    if args.sweep:
        return sweep
    picked = [half, f"enable(), fwd+bwd {half}", "one eager call, 2^10"]
    if args.cuda:
        picked[1:1] = "cropped NHWC", "x[::2]", "x[:, :2] of 85"
        picked.append("one training step, 2^10")
    else:
        default[f"{shape}, bfloat16"] = call(large, dtype=torch.bfloat16), None, plain
    return default | {case: sweep[case] for case in picked}


def _row(args, case, x, way, within, ratios, errors):
    """Checks, times and prints a case, and notes its ratio and error where a kernel takes it."""
    from statistics import quantiles  # here, as it takes 5 ms

    call, dtype, graph_calls = way or functools.partial, str(x.dtype)[6:], 1
    theirs = call(torch.sigmoid, x)
    timed = {"sigmoid": theirs if within is enable else call(sigmoid, x), "torch.sigmoid": theirs}
    with within():
        before, result = kernel_calls(), timed["sigmoid"]()
        is_taken = kernel_calls() > before
    if "bwd, " in case:  # the gradient has PyTorch's bits
        error = 0.0 if torch.equal(result, theirs()) else float("inf")
    else:
        error = max_error_ulp(x, result)
    calls = max(1, min(100, (1 << (30 if args.cuda else 22)) // x.numel())) if way else 1
    if not way and args.cuda and x.numel() <= 1 << 24 and not x.requires_grad:
        graph_calls = 32
        for name, function in timed.items():
            with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):
                for _ in range(graph_calls):
                    function()
            timed[name] = graph.replay
    times = measure(timed, x.device, args.trials, calls, within=within)
    quartiles = [quantiles(us * 2, n=4) for us in times.values()]  # of 2 at least
    medians = [_over_ranks(median / graph_calls, "MAX", x.device) for _, median, _ in quartiles]
    differ = len(times["sigmoid"]) < 3 or any(c - a > 0.1 * b for a, b, c in quartiles)
    moved = _over_ranks(2 * x.numel() * x.itemsize, "SUM", x.device)
    speed = f"{medians[0]:.1f} us" if way else f"{moved / medians[0] / 1e3:.0f} GB/s"
    ratio, shown = medians[1] / medians[0], "torch"
    mark = "~" if _over_ranks(differ, "MAX", x.device) else ""
    if is_taken:
        shown = mark + f"{ratio:.3f}"[:5] + "x"
        label = f"{dtype}, {case}" if len(args.dtype) > 1 else case
        ratios.append((ratio, f"{shown} ({label})"))
        errors.append((error, dtype, case))
    print(f"{case:35}{shown:>8}{speed:>13}", flush=True)


def _parse(argv):
    """The options, completed by what the machine has and by torchrun's environment."""
    parser = argparse.ArgumentParser("sigmoid_inline.py", description=_ABOUT, add_help=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter

    def refuse(message):
        if _IS_COMMAND:
            parser.exit(2, f"{parser.prog}: error: {message}\n")
        refusal = ValueError(f"sigmoid_inline: {message}")
        refusal._render_traceback_ = lambda *_: [str(refusal)]  # a notebook shows the line alone
        raise refusal from None

    parser.error, add = refuse, parser.add_argument
    dtypes = {"choices": _BOUND_ULP, "default": ["float32"], "metavar": "T", "help": "%(choices)s"}
    add("--dtype", nargs="+", **dtypes)
    add("--device", choices=("cuda", "cpu"), help="cuda by default, where there is one")
    add("--shape", nargs=2, type=int, metavar=("ROWS", "COLS"), help="time this shape alone")
    add("--trials", type=int, default=30, help="timed rounds at most (30)")
    add("--sweep", action="store_true", help="time many sizes, views and eager calls")
    add("-h", "--help", action="store_true", help="show this")
    args = parser.parse_args(argv)
    if args.help:
        return parser.print_help()
    torchrun = os.environ if "TORCHELASTIC_RUN_ID" in os.environ else {}
    args.rank, args.ranks = int(torchrun.get("RANK", 0)), int(torchrun.get("WORLD_SIZE", 1))
    gpus, gpu = torch.cuda.device_count(), int(torchrun.get("LOCAL_RANK", 0))
    args.cuda = args.device == "cuda" if args.device else torch.cuda.is_available()
    args.device = torch.device("cuda", gpu) if args.cuda else torch.device("cpu")
    rows, args.columns = args.shape or (4096 if args.cuda else 256, 393216)
    if args.cuda and gpu >= gpus:
        refuse(f"rank {args.rank} has no GPU" if gpus else "no GPU is visible to PyTorch")
    if args.sweep and (args.shape or args.ranks > 1):
        refuse("--sweep has shapes of its own and runs in one process")
    if rows < args.ranks or args.columns < 1 or args.trials < 1:
        refuse(f"--shape and --trials are positive, a row for each of {args.ranks} ranks")
    args.room = 1 << 26  # elements
    args.rows = (rows + args.rank) // args.ranks  # `rows` are the sum over the ranks
    if args.cuda:  # an input and two outputs fit, of the widest type
        widest = max(getattr(torch, name).itemsize for name in args.dtype)
        args.room = int(0.3 * torch.cuda.mem_get_info(args.device)[0] / widest)
        args.rows = max(1, min(args.rows, args.room // args.columns))
    return args


def _without_kernel(cuda):
    """Why the README promises no kernel on this device; "" where it does."""
    if cuda and torch.cuda.get_device_capability() < (7, 0):
        return "this GPU is older than compute capability 7.0"
    if not cuda and not _library.sigmoid_inline_has_cpu():
        return "this CPU has neither AVX2 nor NEON"
    return ""


def main(argv=()):
    """As the command with these options; RuntimeError where a result is wrong."""
    args, ratios, errors = _parse(argv), [], []
    if args is None:  # --help was all
        return
    with contextlib.ExitStack() as stack:
        if args.cuda:
            stack.enter_context(torch.cuda.device(args.device))
        if args.rank > 0:  # rank 0 speaks for all
            stack.enter_context(contextlib.redirect_stdout(None))
        if args.ranks > 1:
            torch.distributed.init_process_group("nccl" if args.cuda else "gloo")
            stack.callback(torch.distributed.destroy_process_group)
        cpu = f"{torch.get_num_threads()} CPU threads ({torch.backends.cpu.get_cpu_capability()})"
        text = f"{torch.cuda.get_device_name() if args.cuda else cpu}, PyTorch "
        text += torch.__version__.partition("+")[0]
        if args.cuda or args.ranks > 1:
            text = f"{args.ranks} x {text}"
        if args.cuda:
            text += f", CUDA {torch.version.cuda}"
        print(textwrap.fill(f"{text}, sigmoid_inline {__version__}", 80))
        print(f"medians of up to {args.trials} rounds (~: too different to cite)", flush=True)
        if args.sweep:
            print("at most 3 minutes a data type", flush=True)
        for name in args.dtype:
            dtype, bits = getattr(torch, name), torch.arange(-(1 << 15), 1 << 15).short()
            bits = bits.to(args.device).view(dtype if dtype.itemsize == 2 else torch.bfloat16)
            x, before = bits.to(dtype), kernel_calls()
            error = max_error_ulp(x)
            if kernel_calls() > before:
                errors.append((error, name, "one of all 16-bit numbers"))
            print(f"\n{name:35}{'ratio':>8}{'speed':>13}", flush=True)
            for case, (make, way, within) in _cases(args, dtype).items():
                _row(args, case, make(), way, within, ratios, errors)
        worst, failure = {}, ""  # of each bound
        for error, name, case in errors:
            bound = _BOUND_ULP[name]
            worst[bound] = max(worst.get(bound, 0), error)
            if error >= bound:  # a wrong result below a power of two may err by half an ulp alone
                failure = failure or f"an error of {error:.3g} ulp in {name}, {case}"
        before, without = kernel_calls(), _without_kernel(args.cuda)
        sigmoid(torch.ones(9, device=args.device))
        if kernel_calls() == before and not without:
            failure = f"no kernel computed a dense float32 tensor. {_moved}"
        if failure:
            print(f"\nFAILED: {failure}")
            raise SystemExit(1) if _IS_COMMAND else RuntimeError(f"sigmoid_inline: {failure}")
        if not ratios:
            return print(f"\nRIGHT  torch.sigmoid took every call{without and ': '}{without}")
        print("\n" + textwrap.fill(f"SPEED  {min(ratios)[1]} to {max(ratios)[1]}", 80))
        (bound, error), *others = worst.items()
        others = "".join(f"; {other:.3g} of {allowed}" for allowed, other in others)
        print(f"RIGHT  at most {error:.3g} ulp from exact, where {bound} is allowed{others}")


if __name__ == "__main__":
    main(sys.argv[1:] if "__file__" in globals() else [])
