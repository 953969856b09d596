# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.10", "ninja"]
# ///
"""Sigmoid at the memory limit: a drop-in for torch.sigmoid, on NVIDIA GPUs and on CPUs.

    python sigmoid_inline.py                    # build, check against exact values, time (--help)
    from sigmoid_inline import sigmoid, ModelNew, enable
    paste it whole into a notebook cell         # the same check and timing

sigmoid(x) is torch.sigmoid(x), ModelNew() is a torch.nn.Sigmoid, and `with enable():` serves every
sigmoid of a program and its gradient. Views and small tensors become faster, large dense tensors
hardly, compiled models not. torch.sigmoid's time over ours, by `--sweep` (bwd: the gradient):

    (PyTorch 2.11, CUDA 13.0, 2026-11-28)           H200               H100
    half of rows: float32, bfloat16                 1.61x, 2.76x       1.27x, 2.05x
    enable(), fwd+bwd half of rows: as above        1.31x, 1.88x       1.14x, 1.53x
    enable(), bwd, one scalar (of a sum): as above  1.44x, 2.41x       1.19x, 1.85x
    4096 x 393216 float32                           4,315 GB/s, 1.02x  3,053 GB/s, 1.01x
    one eager call, up to 2^20 elements             1.32x to 1.43x     1.34x to 1.39x

The whole idea is to read and write each float32 once, 8 bytes, and to hide the rest behind it:

    __global__ void sigmoid(float* out, const float* in, int numel) {
      int i = blockIdx.x * blockDim.x + threadIdx.x;
      if (i < numel) out[i] = 1 / (1 + expf(-in[i]));
    }

The rest is every layout at that speed, the last bit, and a cheaper call. From top to bottom: what a
user calls; what both devices share; the kernel; the formula; the CPU's loop; the operator, which
PyTorch's dispatcher calls; what is assumed of PyTorch and Python; the build. Nothing below the
build affects results.

    row          a run of elements that lie at one distance, as along a matrix's last dimension
    view         a tensor as the output sees it, dimensions ordered and merged; also PyTorch's views
    dense        neighbours in the output are neighbours in the input, so no position is computed
    unit         what one load or store moves: 16 bytes, 4, or an element
    tile         2,048 elements of the output, by which a CPU's threads share and copy
    recorded     autograd makes a node for the call
"""

import _thread
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
_IS_MOCKED = not isinstance(torch.__version__, str)  # by Sphinx
if not _IS_MOCKED and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
    raise RuntimeError("sigmoid_inline: needs PyTorch 2.10 or newer: pip install -U torch")

# ---- What a user calls --------------------------------------------------------------------------


def sigmoid(input, *, out=None):
    """torch.sigmoid(input), at the memory limit: with its shape, strides, dtype and exceptions.

    PyTorch makes the call, and so parses, checks, records, transforms and traces it as always. This
    file's kernel computes float32, float64, bfloat16 and (on the GPU) float16, of any shape and
    almost any strides, on the CPU or an NVIDIA GPU, with an error below 1 ulp for all inputs (for
    float64: for 10^8 that were tried); NaN gives NaN. PyTorch's own kernel computes the rest: other
    dtypes, devices and layouts; empty tensors; an `out` unlike a new result or in part of x's
    memory; over 8 dimensions (GPU: 3) that do not merge; on CPUs without AVX2 or NEON, all.
    README.md has the list. In torch.compile it is torch.sigmoid, which Inductor fuses.
    """
    # From Python 3.12 on sigmoid_inline_vectorcall serves the call. This body then runs only where
    # Dynamo evaluates Python's frames. `_call` is a built-in function that makes the same call, and
    # is pickled as torch.sigmoid.
    if is_dynamo_compiling():
        return _scripted(input, out)
    return _call(input) if out is None else _call(input, out=out)


def _scripted(input: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    return torch.sigmoid(input) if out is None else torch.sigmoid(input, out=out)


# torch.jit.script refuses keywords with a default. By two attributes, as script_if_tracing sets
# them, it compiles `_scripted` instead. Were the first True, Dynamo would do so too, even for what
# functools.wraps(sigmoid) makes. make_fx and FX read the arguments of `__wrapped__`.
sigmoid.__script_if_tracing_wrapper, sigmoid.__original_fn = False, _scripted
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

    They take the calls of PyTorch's operators: of torch.sigmoid, x.sigmoid(), x.sigmoid_(),
    torch.nn.Sigmoid, torch.jit and C++, in all threads, from this call on. What they do not take
    goes to PyTorch's kernels. Returns a context manager, to be entered once or not at all. When the
    last one is left, or at disable(), sigmoid() and ModelNew() alone use this file's kernels again.
    RuntimeError where the probe at import has failed.
    """
    if _moved:
        raise RuntimeError(f"sigmoid_inline: {_moved}")
    context = contextlib.ExitStack()
    context.callback(_library.sigmoid_inline_disable, _library.sigmoid_inline_enable())
    return context


def disable():
    """Ends every enable(), also of another copy of this file."""
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


# ---- The kernel, after what it shares with the CPU's loop ----------------------------------------


def _numbered(source):
    """The source with its place in this file, which a compiler's errors name then."""
    return f'#line {sys._getframe(1).f_lineno + 1} "sigmoid_inline.py"{source}'


# What both devices share. The compiler reads this, then FORMULA_SOURCE, which has sigmoid(x), and
# then the kernel or the CPU's loop.
COMMON_SOURCE = _numbered(r"""
// CXX may name -ffast-math, which loses NaN: both lines undo it, GCC's and clang's. GCC's also has
// loops vectorised, which -O2 does not do before GCC 12.
#ifdef __CUDACC__
#define INLINE __device__ __forceinline__
#else
#define INLINE inline __attribute__((always_inline))
#pragma GCC optimize("no-fast-math", "tree-vectorize", "vect-cost-model=dynamic")
#pragma float_control(precise, on)
#endif
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>
#include <torch/headeronly/util/bit_cast.h>
#include <type_traits>
#include <utility>

using c10::BFloat16, c10::Half, c10::bit_cast;

// All that was tuned, on an H100 and an H200 in November 2026 and, for the CPU, on an AMD EPYC. The
// figures are of float32 at 4096 x 393216 where they name no other case.
inline constexpr int kBlock = 128;      // threads; blocks of 256 take 1.3 % longer
inline constexpr int kViewUnits = 2;    // a thread, also in the backward; one: an expanded row +8 %
inline constexpr int kDoubleBlocks = 8;  // of float64, resident at least; else 5 % longer in L2
inline constexpr int kSector = 32;      // bytes of memory that are read at once: see is_sparse()
inline constexpr double kLoadLatency = 1.09e-6;  // s: see tune()
inline constexpr int64_t kTile = 2048;           // elements that stay in a CPU's L1 cache
inline constexpr int64_t kGrain = 16;    // tiles worth one more thread, as in at::TensorIterator
inline constexpr int64_t kLongRow = 64;  // elements; the CPU copies shorter rows first
inline constexpr int64_t kCall = 8;      // elements worth a call of memcpy; 2 take 1.4 times a loop
inline constexpr int64_t kGradRow = 64, kGradNumel = 1024;  // see try_sigmoid_backward()
inline constexpr int64_t kNewBytes = 31 << 20;         // malloc maps larger outputs anew each time
inline constexpr int64_t kPopulatedBytes = 512 << 10;  // mapped at a time: see populate()

// How to load a dense tensor that no cache holds: how many units of 16 bytes a thread loads at
// once, and how many blocks of such threads are resident. The memory is busy where kLoadLatency
// times its bandwidth has been asked for (Little's law). Where more has been asked for, it changes
// its DRAM rows more often. `blocks` of one unit a thread, on each multiprocessor, ask for this
// amount: an H100 wants 13, an H200 19, and both hold 16.
//   An H100 gets 13: 0.9 % faster than 16; 12 and 14 gain less. Three quarters of what fits are
//   resident at least.
//   An H200 gets all 16. 15 take 3 % longer, two units in 10 to 12 blocks 3 %, and a loop over the
//   tensor in as many blocks as fit 8 %.
//   A GPU that wants 1.5 times what fits, as a B200, gets two units a thread, from 3 times on four,
//   and from 6 times on eight, if what is loaded takes at most half of the 65,536 registers: so
//   eight only with 1,024 threads a multiprocessor, as on a Rubin. Reasoned, not seen.
struct Tuning { int units_per_thread, resident_blocks; };
inline Tuning tune(int multiprocessors, int threads, double memory_clock_khz, int bus_bits) {
  const int all = threads / kBlock;                                  // of one multiprocessor
  const double bytes_per_s = 2e3 * memory_clock_khz * bus_bits / 8;  // at both edges of the clock
  const double blocks = kLoadLatency * bytes_per_s / multiprocessors / (kBlock * 16);
  int units = 1;
  while (blocks >= 1.5 * all * units && 2 * units * 4 * threads <= 65536 / 2) units *= 2;
  // The driver of some GPUs hides the memory's clock, as 0.
  return {units, blocks < 1 ? all : std::clamp(int(blocks), all - all / 4, all)};
}

enum class Dtype { kHalf = 5, kFloat = 6, kDouble = 7, kBFloat16 = 15 };  // as c10::ScalarType
// The data types that have a kernel: run(T()) for this one, or false.
template <class Run> bool with_type(Dtype dtype, Run run) {
#ifdef __CUDACC__
  if (dtype == Dtype::kHalf) return run(Half());
#endif
  if (dtype == Dtype::kFloat) return run(float());
  if (dtype == Dtype::kDouble) return run(double());
  return dtype == Dtype::kBFloat16 && run(BFloat16());
}

// The input's dimensions in the order in which they lie in the output, innermost first, neighbours
// merged where the input allows it. Element i of this order is at out[i], or in place where it was.
inline constexpr int kMaxDims = 8, kMaxGpuDims = 3;
struct View {
  int64_t numel;
  int ndim = 1;  // of one element, until make_view() finds more
  int64_t sizes[kMaxDims] = {1}, strides[kMaxDims] = {1};  // strides are the input's, in elements

  bool is_dense() const { return ndim == 1 && strides[0] == 1; }
  bool has_overlap() const {  // or may have: its rows do not lie one behind the other
    for (int d = 1; d < ndim; d++) if (strides[d] < sizes[d - 1] * strides[d - 1]) return true;
    return strides[0] < 1;
  }

  // Of float32: whether rows of neighbours are shorter than two thirds of a sector of memory, and
  // so far apart that no sector has elements of two. Then a thread loads one word, not four: 8 %
  // less time on x[:, :2] of 85. x[:, :6] of 40 is not sparse: an H200 takes 19 % more with one.
  bool is_sparse() const {
    const bool has_rows = strides[0] == 1;
    const int64_t row = (has_rows ? sizes[0] : 1) * 4, distance = strides[has_rows ? 1 : 0] * 4;
    return 3 * row < 2 * kSector && distance >= row + kSector - 4;
  }
};

// What a kernel reads and writes. `in` is read by the view. The backward reads two operands: one of
// the gradient and the forward's output is `in`, and the other is `dense_in`, whose elements lie as
// those of `out` do. The forward has no `dense_in`.
struct Operands {
  void* out;
  const void *in, *dense_in;
  bool in_is_output;  // in the backward: else `in` is the gradient
  bool is_backward() const { return dense_in != nullptr; }
};
// Launches the kernel on the current GPU; false where there is none for this view or CUDA refuses.
bool launch_on_gpu(Dtype, const Operands&, const View&, int device, void* stream);
""")

KERNEL_SOURCE = _numbered(r"""
#include <ATen/cuda/detail/IntegerDivider.cuh>
#include <cuda.h>

template <class T, int count> struct alignas(count * sizeof(T)) Unit { T element[count]; };

// A view for the kernel: the innermost dimension is counted in units, strides are in elements. An
// IntDivider divides an index below 2^31 by a multiplication.
struct Dims {
  at::cuda::detail::IntDivider<uint32_t> size[kMaxGpuDims];
  int64_t stride[kMaxGpuDims];
};

// Loads a unit of the view by its index, which is divided into positions along 2 or 3 dimensions.
// A dense view has ndim = 0.
template <class U, int ndim, class T>
INLINE U load(const T* in, const Dims& dims, uint32_t index) {
#pragma unroll
  for (int d = 0; d < ndim - 1; d++) {
    const auto divided = dims.size[d].divmod(index);
    in += divided.mod * dims.stride[d];
    index = divided.div;
  }
  if constexpr (ndim == 0) return reinterpret_cast<const U*>(in)[index];
  else return *reinterpret_cast<const U*>(in + index * dims.stride[ndim - 1]);
}

// Each thread computes `units_per_thread` units. They lie kBlock apart, so that neighbouring lanes
// touch neighbouring memory, and all are loaded before the first is used. In the backward of a view
// that repeats each value over a row, as of sum(), a unit loads the value once. Where the view is
// one row, of neighbours or of one value, its last `tail` elements take one thread each.
enum Direction { kForward, kBackward, kBackwardOfRepeated };
template <class T, int unit_bytes, int units_per_thread, int ndim, Direction direction>
__global__ void __launch_bounds__(kBlock, sizeof(T) == 8 ? kDoubleBlocks : 0)
    sigmoid_kernel(T* out, const T* in, const T* dense_in, bool in_is_output, uint32_t units,
                   uint32_t tail, const __grid_constant__ Dims dims) {
  constexpr bool is_forward = direction == kForward;
  constexpr bool is_repeated = direction == kBackwardOfRepeated;
  constexpr int unit_elements = unit_bytes / sizeof(T), block_units = kBlock * units_per_thread;
  constexpr int view_elements = is_repeated ? 1 : unit_elements;
  using U = Unit<T, unit_elements>;
  using ViewUnit = Unit<T, view_elements>;
  const uint32_t first = blockIdx.x * block_units + threadIdx.x;
  U* const to = reinterpret_cast<U*>(out) + first;
  const U* const dense_from = reinterpret_cast<const U*>(dense_in) + first;
  const auto result = [&](T x, T other) {
    if constexpr (is_forward) return sigmoid(x);
    return sigmoid_backward(in_is_output ? other : x, in_is_output ? x : other);
  };
  const auto compute = [&](auto block_is_whole) {
    constexpr bool is_whole = decltype(block_is_whole)::value;
    ViewUnit x[units_per_thread];
    U y[units_per_thread];
#pragma unroll
    for (int n = 0; n < units_per_thread; n++) {
      const uint32_t unit = first + n * kBlock;
      if (!is_whole && unit >= units) continue;
      x[n] = load<ViewUnit, ndim>(in, dims, unit);
      if (!is_forward) y[n] = dense_from[n * kBlock];
    }
#pragma unroll
    for (int n = 0; n < units_per_thread; n++) {
      if (!is_whole && first + n * kBlock >= units) continue;
#pragma unroll
      for (int e = 0; e < unit_elements; e++)
        y[n].element[e] = result(x[n].element[e % view_elements], y[n].element[e]);
      to[n * kBlock] = y[n];
    }
  };
#if __CUDA_ARCH__ >= 900  // before any access: launch() lets blocks start early
  cudaGridDependencySynchronize();
#endif
  // In forwards of up to 32 bytes a thread only the last blocks test each unit: 1.03x to 1.3x.
  constexpr bool has_whole = is_forward && units_per_thread * unit_bytes <= 32;
  if (has_whole && (blockIdx.x + 1) * block_units <= units) return compute(std::true_type());
  compute(std::false_type());
#pragma unroll 1
  for (int n = 0; n < units_per_thread && (ndim == 0 || is_repeated); n++) {
    const uint32_t past = first + n * kBlock - units;  // a negative one wraps, to 4096 or more
    if (past >= tail) continue;
    const int64_t element = int64_t(units) * unit_elements + past;
    out[element] = result(in[is_repeated ? 0 : element], is_forward ? T() : dense_in[element]);
  }
}

// What a launch needs to know of a device.
struct Gpu {
  int64_t l2_bytes, wave_bytes;  // in a wave each resident thread loads 16 bytes
  Tuning tuning;                     // for a dense tensor that no cache holds
  unsigned occupancy_bytes;          // of shared memory, only to limit how many blocks are resident
  unsigned num_attributes;           // of a launch: 1 where blocks may start early, else 0
  decltype(&cuLaunchKernelEx) launch_kernel;

  void read(int device) {
    const auto ask = [device](cudaDeviceAttr attribute) {
      int value = 0;
      cudaDeviceGetAttribute(&value, attribute, device);
      return value;
    };
    const int multiprocessors = ask(cudaDevAttrMultiProcessorCount);
    const int threads = ask(cudaDevAttrMaxThreadsPerMultiProcessor);
    tuning = tune(multiprocessors, threads, ask(cudaDevAttrMemoryClockRate),
                  ask(cudaDevAttrGlobalMemoryBusWidth));
    l2_bytes = ask(cudaDevAttrL2CacheSize);
    wave_bytes = int64_t(multiprocessors) * threads * 16;
    const int shared = ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / tuning.resident_blocks;
    occupancy_bytes = std::min(shared / 256 * 256 - ask(cudaDevAttrReservedSharedMemoryPerBlock),
                               ask(cudaDevAttrMaxSharedMemoryPerBlock));
    if (tuning.resident_blocks == threads / kBlock) occupancy_bytes = 0;
    // With CUDA 12, PyTorch and the driver cannot read a CUDA graph that has an early start.
    num_attributes = CUDART_VERSION >= 13000 && ask(cudaDevAttrComputeCapabilityMajor) >= 9 ? 1 : 0;
    cudaDriverEntryPointQueryResult found;
    cudaGetDriverEntryPointByVersion("cuLaunchKernelEx", reinterpret_cast<void**>(&launch_kernel),
                                     12000, cudaEnableDefault, &found);
    cudaGetLastError();  // what the driver does not know is no error of PyTorch's next launch
  }
};

template <class T> struct GpuCall {
  static constexpr int kElement = sizeof(T), kWord = std::max(kElement, 4);  // bytes
  const Operands& operands;
  const View& view;
  const Gpu& gpu;
  int device;
  void* stream;

  // A call of the driver with a cached handle takes 0.3 to 0.6 us less of the host's time than one
  // of the runtime. From 9.0 on, with CUDA 13, blocks may start before the previous grid has ended,
  // for whose writes the kernel waits: 0.5 us less a call, 0.4 us less in a graph.
  template <int unit_bytes, int units_per_thread, int ndim, Direction direction>
  bool launch(unsigned shared_bytes = 0) const {
    constexpr int unit_elements = unit_bytes / kElement, block_units = kBlock * units_per_thread;
    // Indices have 32 bits, with room for a last block, and a division takes 31 of them.
    if (view.numel / unit_elements > (ndim > 0 ? INT32_MAX : UINT32_MAX - 4096)) return false;
    const uint32_t units = view.numel / unit_elements, tail = view.numel % unit_elements;
    Dims dims;
    for (int d = 0; d < ndim; d++) dims.stride[d] = view.strides[d] * (d == 0 ? unit_elements : 1);
    for (int d = 0; d < ndim - 1; d++)  // nothing is divided by the outermost; unused are 0
      dims.size[d] = std::max<int64_t>(view.sizes[d] / (d == 0 ? unit_elements : 1), 1);
    static thread_local CUfunction handles[128];  // a c10::DeviceIndex has 8 bits
    const auto kernel = sigmoid_kernel<T, unit_bytes, units_per_thread, ndim, direction>;
    CUfunction& handle = handles[device];
    if (!handle && cudaGetFuncBySymbol(&handle, reinterpret_cast<const void*>(kernel))) {
      cudaGetLastError();  // as in Gpu::read()
      return false;
    }
    CUlaunchAttribute early = {CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION};
    early.value.programmaticStreamSerializationAllowed = 1;
    const unsigned grid = (units + tail + block_units - 1) / block_units;
    const CUlaunchConfig config = {grid, 1, 1, kBlock, 1, 1, shared_bytes, CUstream(stream),
                                   &early, gpu.num_attributes};
    const void* arguments[] = {&operands.out, &operands.in, &operands.dense_in,
                               &operands.in_is_output, &units, &tail, &dims};
    return gpu.launch_kernel && !gpu.launch_kernel(&config, handle, (void**)arguments, nullptr);
  }
  template <int unit_bytes, int units_per_thread>
  bool launch_by_ndim() const {  // one strided dimension is launched as two, the second of size 1
    if (view.is_dense()) return launch<unit_bytes, units_per_thread, 0, kForward>();
    if (view.ndim <= 2) return launch<unit_bytes, units_per_thread, 2, kForward>();
    return launch<unit_bytes, units_per_thread, kMaxGpuDims, kForward>();
  }

  // The bitwise or of all addresses and distances, in bytes, that decide where a row begins or
  // ends: a multiple of 16 where all of them are. A value that the backward repeats over a row is
  // loaded alone, so that its address does not count.
  uint64_t boundaries() const {
    uint64_t places = uintptr_t(operands.out) | uintptr_t(operands.dense_in);
    if (view.ndim > 1) places |= view.sizes[0] * kElement;
    if (operands.is_backward() && view.strides[0] == 0) return places;
    places |= uintptr_t(operands.in);
    if (view.strides[0] != 1) places |= kElement;
    for (int d = 1; d < view.ndim; d++) places |= view.strides[d] * kElement;
    return places;
  }

  // Takes the widest unit that every row starts and ends with: 16 bytes, 4 or an element. A thread
  // of narrow units loads 16 bytes, of a sparse view 4. Of 16-byte units it loads
  //   two where the input is a view;
  //   two of a dense input that the L2 cache holds with its output, if both have more bytes than a
  //   wave of loads, else one;
  //   of other dense inputs what tune() says;
  //   two of each operand in the backward.
  bool launch_forward() const {
    const uint64_t boundaries = this->boundaries();
    if (boundaries % kWord != 0) return launch_by_ndim<kElement, 16 / kElement>();
    if constexpr (std::is_same_v<T, float>)
      if (boundaries % 16 != 0 && view.is_sparse()) return launch<4, 1, kMaxGpuDims, kForward>();
    if (boundaries % 16 != 0) return launch_by_ndim<kWord, 16 / kWord>();
    if (!view.is_dense()) return launch_by_ndim<16, kViewUnits>();
    const int64_t bytes = 2 * view.numel * kElement;  // read and written
    const bool in_l2 = bytes <= gpu.l2_bytes;
    const int per_thread = in_l2 ? (bytes > gpu.wave_bytes ? 2 : 1) : gpu.tuning.units_per_thread;
    if (per_thread == 2) return launch<16, 2, 0, kForward>();
    if (per_thread == 4) return launch<16, 4, 0, kForward>();
    if (per_thread == 8) return launch<16, 8, 0, kForward>();
    return launch<16, 1, 0, kForward>(in_l2 ? 0 : gpu.occupancy_bytes);
  }
  bool launch_backward() const {
    if (boundaries() % 16 != 0) return launch<kElement, 16 / kElement, kMaxGpuDims, kBackward>();
    if (view.is_dense()) return launch<16, kViewUnits, 0, kBackward>();
    if (view.strides[0] != 0) return launch<16, kViewUnits, kMaxGpuDims, kBackward>();
    return launch<16, kViewUnits, kMaxGpuDims, kBackwardOfRepeated>();
  }
};

bool launch_on_gpu(Dtype dtype, const Operands& operands, const View& view, int device,
                   void* stream) {
  static thread_local Gpu gpus[128];  // of each thread, so that nothing is locked
  if (gpus[device].wave_bytes == 0) gpus[device].read(device);
  return with_type(dtype, [&](auto zero) {
    const GpuCall<decltype(zero)> call = {operands, view, gpus[device], device, stream};
    return operands.is_backward() ? call.launch_backward() : call.launch_forward();
  });
}
""")

# ---- The formula, for both devices ---------------------------------------------------------------

FORMULA_SOURCE = _numbered(r"""
#ifdef __CUDACC__
// 1/d for a normal d, to 2^-23 (float) or 2^-20 (double). `1 / d` in CUDA C++ is an IEEE division:
// 4 % slower in float32 at 2^29 elements, 17 % in the L2 cache.
INLINE float reciprocal(float d) { asm("rcp.approx.ftz.f32 %0, %0;" : "+f"(d)); return d; }
INLINE double reciprocal(double d) { asm("rcp.approx.ftz.f64 %0, %0;" : "+d"(d)); return d; }
#define CLAMP constexpr
#else
template <class T> INLINE T reciprocal(T d) { return 1 / d; }
#define CLAMP __attribute__((visibility("hidden")))  // else GCC shares it among libraries
#endif

template <class T> using Wide = std::conditional_t<sizeof(T) == 8, double, float>;

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
// For bfloat16 on the CPU: two of Taylor's coefficients, and 0.0405 for 1/24. With 0.0398 to 0.0412
// all 65,536 inputs round correctly.
INLINE float exp_rest_16bit(float u) { return polynomial(u, 0.5f, -1 / 6.0f, 0.0405f); }

// On the CPU the bounds are variables: GCC clamps by a vector maximum then, and by a comparison and
// a blend where it knows the value, which takes 1.1 to 1.2 times the time.
template <class W> CLAMP W least = sizeof(W) == 8 ? -745.8 : -104.6;  // power is 0 there
template <class W> CLAMP W most = 40;  // the result rounds to 1 there

// sigmoid(x) = 2^k / (2^k + e^-u) with x = k ln 2 + u and |u| <= ln 2 / 2. Both terms are scaled by
// S = 2^24 (2^53), so that only the last product may be subnormal and no range needs a path of its
// own: power / d with power = S 2^k, d = power + S (1 + s) and s = e^-u - 1. d is carried as high +
// low, and one Newton step with both divides, for double with one term more: less than 1 ulp, as a
// run over all 2^32 floats shows. bfloat16 leaves the low parts out: a float without them rounds
// right for all 65,536 inputs.
template <class T> constexpr bool kHasLowParts = sizeof(T) > 2;
template <class W> constexpr W kScale = sizeof(W) == 4 ? 0x1p24 : 0x1p53;
template <class T, class W = Wide<T>> INLINE W reduce(T input, W& power) {  // u and kScale * 2^k
  constexpr bool f32 = sizeof(W) == 4;
  using Bits = std::conditional_t<f32, uint32_t, uint64_t>;
  constexpr int mantissa = f32 ? 23 : 52, bias = f32 ? 127 : 1023;
  constexpr W log2e = 1.4426950408889634;
  constexpr W ln2_high = f32 ? 0x1.62e4p-1 : 0x1.62e42feep-1;  // so short that x - k * it is exact
  constexpr W ln2_low = f32 ? 0x1.7f7d1cf8p-20 : 0x1.a39ef35793c76p-33;
  // To add it rounds x log2 e to the integer k. The sum's low bits are k plus the biased exponent
  // of kScale: shifted up, they are the exponent bits of kScale * 2^k.
  constexpr W rounder = (f32 ? 0x1.8p23 : 0x1.8p52) + (bias + mantissa + 1);
  W x = input;
  x = x < least<W> ? least<W> : x;  // written so that NaN stays NaN
  x = x > most<W> ? most<W> : x;
  const W t = std::fma(x, log2e, rounder), k = t - rounder;
  power = bit_cast<W>(bit_cast<Bits>(t) << mantissa);
  const W u = std::fma(-k, kHasLowParts<T> ? ln2_high : ln2_high + ln2_low, x);
  return kHasLowParts<T> ? std::fma(-k, ln2_low, u) : u;
}
template <class T, class W> INLINE W exp_minus_1(W u) {  // e^-u - 1
  return std::fma(u * u, kHasLowParts<T> ? exp_rest(u) : exp_rest_16bit(u), -u);
}
template <class T, class W> INLINE T divide(W s, W power) {  // power / (power + kScale * (1 + s))
  const W d = std::fma(s, kScale<W>, kScale<W> + power);
  if (!kHasLowParts<T>) return power / d;
  // d - kScale is exact for k <= 23 (52): it is a multiple of d's last place and smaller than d.
  // For larger k it rounds, which the bound of 1 ulp has room for.
  const W d_low = std::fma(s, kScale<W>, power - (d - kScale<W>)), r = reciprocal(d);
  W e = std::fma(-d_low, r, std::fma(-d, r, W(1)));  // 1/d = r / (1 - e) = r (1 + e + e^2 + ...)
  if (sizeof(W) == 8) e = std::fma(e, e, e);
  return std::fma(e, r, r) * power;
}
template <class T> INLINE T sigmoid(T x) {
  Wide<T> power;
  const Wide<T> u = reduce(x, power);
  return divide<T>(exp_minus_1<T>(u), power);
}

#ifdef __CUDACC__
// What a GPU computes of 16 bits; the formula above takes 20 to 29 % longer. With these constants,
// next to -log2 e, 0 and 1, every 16-bit input rounds correctly on sm_90; a test tells whether they
// do on another GPU. Of c = -log2 e + i ulp, b = j 2^-32 and a = 1 + k 2^-24 with |i| <= 4,
// |k| <= 8 and |j| <= 1024 these alone are right: i = -1, k = -3 and j from -473 to -212.
INLINE float sigmoid_16bit(float x) {
  constexpr float c = -0x1.715478p+0, b = -0x1.56p-24, a = 0x1.fffffap-1;
  const float e = exp2f(fmaf(c, fabsf(x), b));  // ex2.approx, without flush-to-zero
  return (x < 0 ? e : a) * reciprocal(a + e);
}
INLINE BFloat16 sigmoid(BFloat16 x) { return sigmoid_16bit(x); }
INLINE Half sigmoid(Half x) { return sigmoid_16bit(x); }
#endif

// The backward has PyTorch's bits, but a NaN's, by its order of operations and its roundings: on
// a GPU PyTorch rounds each of three steps to T, on a CPU the last one.
template <class T, class W> INLINE W round_step(W x) {
#ifndef __CUDACC__
  return x;
#else
#if __CUDA_ARCH__ >= 800  // bfloat16's bits before 16 zeros are a float: half the time
  if constexpr (std::is_same_v<T, BFloat16>) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(x), "f"(0.0f));
    return bit_cast<float>(pair);
  }
#endif
  return T(x);
#endif
}
template <class T> INLINE T sigmoid_backward(T grad, T output) {
  const Wide<T> y = output;
  return round_step<T>(grad * round_step<T>(1 - y)) * y;
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
  unsigned char is_resident = 0;  // recycled memory has pages, and madvise would double its time
  if (!mincore(reinterpret_cast<void*>(last), 1, &is_resident) && (is_resident & 1)) return;
  madvise(reinterpret_cast<void*>(begin), end - begin, 23 /* MADV_POPULATE_WRITE */);
}

// Two neighbours in a word, so that no lanes are shuffled: 0.8 of the time forward, 0.6 backward.
struct [[gnu::packed, gnu::aligned(2), gnu::may_alias]] BFloat16Pair {
  uint32_t bits;
  BFloat16 element(int shift) const { return {uint16_t(bits >> shift), BFloat16::from_bits()}; }
};
template <class F> INLINE BFloat16Pair apply(F f, BFloat16Pair x, BFloat16Pair y) {
  return {uint32_t(f(x.element(16), y.element(16)).x) << 16 | f(x.element(0), y.element(0)).x};
}
template <class T, class F> INLINE T apply(F f, T x, T y) { return f(x, y); }

template <class T> struct CpuCall {
  const Operands& operands;
  const View& view;
  bool is_new;
  fenv_t environment = {};  // of the calling thread
  T* out = static_cast<T*>(operands.out);
  const T* in = static_cast<const T*>(operands.in);
  const T* dense_in = static_cast<const T*>(operands.dense_in);  // null in the forward

  // to[n] = sigmoid(x[n * stride]), in two loops, as the chain of operations from a load to its
  // store is longer than a CPU looks ahead: 0.8 of the time with AVX2, 0.9 with AVX-512. AVX-512's
  // division is slow, so the second loop has more of the other operations, and between the two the
  // input of a later part is brought into the L2 cache: 0.9 of the time at 2^20 elements.
  static void compute_sigmoid(const T* x, int64_t stride, T* to, int64_t numel) {
    constexpr bool is_avx512 = CPU_BITS == 512;
    constexpr int64_t kPart = 512;
    Wide<T> s[kPart], power[kPart];
    for (int64_t done = 0; done < numel; done += kPart) {
      const int64_t part = std::min(kPart, numel - done);
      for (int64_t n = 0; n < part; n++) {
        const Wide<T> u = reduce(x[(done + n) * stride], power[n]);
        s[n] = is_avx512 ? u : exp_minus_1<T>(u);
      }
      for (int64_t n = 4 * kPart; is_avx512 && n < std::min(5 * kPart, numel - done);
           n += 64 / sizeof(T))
        __builtin_prefetch(x + (done + n) * stride, 0, 2);
      for (int64_t n = 0; n < part; n++)
        to[done + n] = divide<T>(is_avx512 ? exp_minus_1<T>(s[n]) : s[n], power[n]);
    }
  }
  // to[n] = f(x[n], y[n]), of which f uses one or both.
  template <class F> static void compute_loop(F f, const T* x, const T* y, T* to, int64_t numel) {
    using U = std::conditional_t<std::is_same_v<T, BFloat16>, BFloat16Pair, T>;
    constexpr int64_t kElements = sizeof(U) / sizeof(T);
    const auto from = [](const T* p) { return reinterpret_cast<const U*>(p); };
#pragma GCC unroll 4  // a loop of few bytes may take 1.5 times as long, by where GCC puts it
#pragma GCC ivdep     // what is read is `to` or apart from it
    for (int64_t n = 0; n < numel / kElements; n++)
      reinterpret_cast<U*>(to)[n] = apply(f, from(x)[n], from(y)[n]);
    if (numel % kElements != 0) to[numel - 1] = f(x[numel - 1], y[numel - 1]);
  }

  bool in_two_loops() const { return kHasLowParts<T> && !operands.is_backward(); }

  // Computes a row of the view, with `dense_in` from `other` on. Its stride is 0 or 1 but where it
  // is computed in two loops. `flatten` inlines all, as GCC vectorises only what is inlined whole,
  // and loads vectors only where it reads the stride 1.
  [[gnu::flatten]] void compute_row(const T* row, int64_t stride, const T* other, T* to,
                                    int64_t numel) const {
    const auto run = [&](auto f) {
      if (stride != 0) return compute_loop(f, row, other, to, numel);
      compute_loop([f, x = *row](T, T y) { return f(x, y); }, to, other, to, numel);
    };
    if (stride == 1 && in_two_loops()) return compute_sigmoid(row, 1, to, numel);
    if (stride != 0 && in_two_loops()) return compute_sigmoid(row, stride, to, numel);
    if (!operands.is_backward()) return run([](T x, T) { return sigmoid(x); });
    if (operands.in_is_output) return run([](T x, T y) { return sigmoid_backward(y, x); });
    run([](T x, T y) { return sigmoid_backward(x, y); });
  }

  static void copy_row(T* to, int64_t to_stride, const T* row, int64_t stride, int64_t numel) {
    if (to_stride * stride == 1 && numel >= kCall) memcpy(to, row, numel * sizeof(T));
    else for (int64_t n = 0; n < numel; n++) to[n * to_stride] = row[n * stride];
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
      row -= at[0] * view.strides[0];  // to this row's start, and from there to the next row's
      at[0] = 0;
      for (int d = 1; d < view.ndim; d++) {
        row += view.strides[d];
        if (++at[d] < view.sizes[d]) break;
        row -= view.sizes[d] * view.strides[d];
        at[d] = 0;
      }
    }
  }

  // Long rows are computed where they lie, those with a stride only out of place and in two loops.
  // Others are copied into the output and computed there; in place, into `copy` and back. Where
  // short rows repeat one value, the forward computes that value alone.
  void compute_tiles(int64_t begin, int64_t end) const {
    T copy[kTile];
    const bool is_in_place = out == in && !view.is_dense();
    const int64_t stride = view.strides[0], last = std::min(end * kTile, view.numel);
    const bool is_short = view.ndim > 1 && view.sizes[0] < kLongRow;
    const bool is_repeated = is_short && stride == 0 && !operands.is_backward();
    const bool is_copied = is_short || (stride > 1 && (is_in_place || !in_two_loops()));
    const bool has_new_pages = is_new && view.numel * int64_t(sizeof(T)) >= kNewBytes;
    constexpr int64_t portion = kPopulatedBytes / sizeof(T);  // of whole tiles
    for (int64_t first = begin * kTile, numel; first < last; first += numel) {
      numel = std::min(is_copied ? kTile : portion, last - first);
      if (has_new_pages && (first - begin * kTile) % portion == 0)
        populate(out + first, std::min(portion, last - first) * sizeof(T));
      if (!is_copied) {
        for_each_row(first, numel, [&](const T* row, int64_t done, int64_t piece) {
          T* const at = is_in_place ? const_cast<T*>(row) : out + first + done;
          compute_row(row, stride, dense_in ? dense_in + first + done : at, at, piece);
        });
        continue;
      }
      T* const to = is_in_place || is_repeated ? copy : out + first;
      int64_t rows = 0;
      for_each_row(first, numel, [&](const T* row, int64_t done, int64_t piece) {
        if (is_repeated) copy[rows++] = *row;
        else copy_row(to + done, 1, row, stride, piece);
      });
      compute_row(to, 1, dense_in ? dense_in + first : to, to, is_repeated ? rows : numel);
      rows = 0;
      if (is_in_place) for_each_row(first, numel, [&](const T* row, int64_t done, int64_t piece) {
        copy_row(const_cast<T*>(row), stride, copy + done, 1, piece);
      });
      if (is_repeated) for_each_row(first, numel, [&](const T*, int64_t done, int64_t piece) {
        std::fill_n(out + first + done, piece, T(copy[rows++]));
      });
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

// `is_new`: the output was allocated for this call.
bool compute_on_cpu(Dtype dtype, const Operands& operands, const View& view, bool is_new) {
  return with_type(dtype, [&](auto zero) {
    CpuCall<decltype(zero)> call = {operands, view, is_new};
    const int64_t tiles = (view.numel + kTile - 1) / kTile;
    // Without PyTorch's shim one element takes 0.03 us less of 0.6.
    if (tiles <= kGrain) return call.compute_tiles(0, tiles), true;
    fegetenv(&call.environment);
    return !torch_parallel_for(0, tiles, kGrain, call.compute_in_pool, &call);
  });
}
""")

# ---- The operator: from tensors to output, layout and kernel ------------------------------------

OPERATOR_SOURCE = _numbered(r"""
#include <ATen/EmptyTensor.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/sigmoid_backward_ops.h>
#include <ATen/ops/sigmoid_ops.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/strides.h>
#include <torch/library.h>

#include <atomic>
#include <optional>

using at::Tensor;
using c10::DispatchKeySet;
using Key = c10::DispatchKey;

static_assert(int(Dtype::kHalf) == int(at::kHalf) && int(Dtype::kFloat) == int(at::kFloat) &&
              int(Dtype::kDouble) == int(at::kDouble) &&
              int(Dtype::kBFloat16) == int(at::kBFloat16));

#define EXPORT extern "C" __attribute__((visibility("default")))
std::atomic<int64_t> kernel_calls;

// sigmoid() makes PyTorch's own call and marks the thread for as long as it lasts. The mark is that
// the thread excludes CustomRNGKeyId, a dispatch key that no tensor has. What a mode, a class or a
// hook calls meanwhile is marked, too.
//
// Every call passes the key BackendSelect. Autograd, modes and transforms run before it,
// and the kernels of the devices after it. There the functions of this file, registered below, take
// the calls that are marked, and under enable() all, and pass the others on. By then autograd has
// made the node of a recorded call. The node calls sigmoid_backward, unmarked: ours under enable().
constexpr Key kMark = Key::CustomRNGKeyId, kOurKey = Key::BackendSelect;
constexpr DispatchKeySet kBelowOurs(DispatchKeySet::FULL_AFTER, kOurKey);
// How many enable() are in force, and how often disable() has ended all. All copies of this file in
// the process share both.
struct Enabled { std::atomic<int> count, ended; }* enabled;
bool is_ours() { return enabled->count > 0 || c10::impl::tls_is_dispatch_key_excluded(kMark); }

// Whether a kernel may take `x`, by its kind and type; its layout may still refuse. Names, a
// negative view, a subclass or symbols for sizes give a tensor a key that `plain` lacks. A wrapped
// Python number has no such key, but promotes unlike a tensor. Only nvcc's with_type() knows Half.
bool may_take(const Tensor& x) {
  const bool on_gpu = x.key_set().has_backend(c10::BackendComponent::CUDABit);
  const DispatchKeySet plain({on_gpu ? Key::CUDA : Key::CPU, Key::AutocastCPU, Key::AutocastCUDA,
                              Key::ADInplaceOrView, Key::AutogradFunctionality});
  if ((x.key_set().raw_repr() & ~plain.raw_repr()) || !(on_gpu ? HAS_CUDA : CPU_BITS)) return false;
  if (x.unsafeGetTensorImpl()->is_wrapped_number()) return false;
  const bool is_known = with_type(Dtype(x.scalar_type()), [](auto) { return true; });
  return (is_known || (on_gpu && x.scalar_type() == at::kHalf)) && x.numel() > 0;
}
bool are_alike(const Tensor& x, const Tensor& y) {
  return may_take(y) && x.device() == y.device() && x.scalar_type() == y.scalar_type() &&
         x.sizes() == y.sizes();
}

// A new output of `x` and `y`, which have the same sizes, with the strides that at::TensorIterator
// gives it: contiguous or channels-last where both are that, else those of both. In these cases
// both lie as the output does, and `order` is empty. Else it is dense in the order of the strides
// of `x`, and of those of `y` for dimensions that the former leave open.
struct Layout { at::DimVector strides, order; };  // dimensions from the innermost on, or none
Layout output_layout(const Tensor& x, const Tensor& y) {
  const auto sizes = x.sizes(), a = x.strides(), b = y.strides();
  constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;
  if (x.is_contiguous() && y.is_contiguous()) return {c10::contiguous_strides(sizes), {}};
  if (x.is_contiguous(kChannelsLast) && y.is_contiguous(kChannelsLast))
    return {at::DimVector(c10::get_channels_last_strides_2d(sizes)), {}};
  if (x.is_non_overlapping_and_dense() && a == b) return {at::DimVector(a), {}};
  const auto is_outside = [&](int64_t i, int64_t j) {  // 1: i is outside of j; -1: inside
    for (const auto strides : {a, b}) {
      if (strides[i] == 0 || strides[j] == 0) continue;
      if (strides[i] != strides[j]) return strides[i] > strides[j] ? 1 : -1;
      if (sizes[i] > sizes[j]) return 1;
    }
    return 0;
  };
  Layout layout = {at::DimVector(sizes.size()), {}};
  // The insertion sort of at::TensorIterator, as is_outside() is no order that std::sort could use.
  for (int64_t d = x.dim() - 1; d >= 0; d--) {
    layout.order.push_back(d);
    for (int64_t place = layout.order.size() - 1, below = place - 1; below >= 0; below--) {
      const int found = is_outside(layout.order[below], layout.order[place]);
      if (found < 0) break;
      if (found > 0) std::swap(layout.order[below], layout.order[place]), place = below;
    }
  }
  int64_t stride = 1;
  for (const int64_t d : layout.order) layout.strides[d] = stride, stride *= sizes[d];
  return layout;
}

// `x` as the output sees it: false where too many dimensions remain.
bool make_view(View& view, const Tensor& x, const Layout& output) {
  const auto sizes = x.sizes(), strides = x.strides();
  view.numel = x.numel();
  if (output.order.empty()) view.sizes[0] = view.numel;
  for (const int64_t d : output.order) {
    int last = view.ndim - 1;
    if (sizes[d] == 1) continue;
    if (strides[d] == view.sizes[last] * view.strides[last]) {  // neighbours merge
      view.sizes[last] *= sizes[d];
      continue;
    }
    if (view.sizes[last] != 1) last = view.ndim++;  // else it has no dimension yet
    if (last == (x.is_cuda() ? kMaxGpuDims : kMaxDims)) return false;
    view.sizes[last] = sizes[d];
    view.strides[last] = strides[d];
  }
  return true;
}

// Runs the kernel, into `out` or a new tensor; undefined where there is none. New memory comes from
// PyTorch's allocators: at::empty_strided takes 0.6 to 0.9 us more and fills in deterministic mode.
Tensor run_kernel(const View& view, const Tensor& in, const Tensor* dense_in, bool in_is_output,
                  const Tensor* out, const at::DimVector& strides) {
  const auto dtype = in.scalar_type();
  const bool on_gpu = in.is_cuda();
  c10::OptionalDeviceGuard guard;  // for another GPU alone: to ask takes 0.1 us, to set 0.1 more
  if (on_gpu) {
    const c10::impl::VirtualGuardImpl gpus(at::kCUDA);
    if (gpus.deviceCount() > 1 && gpus.getDevice() != in.device()) guard.reset_device(in.device());
  }
  Tensor y = out ? *out : Tensor(at::detail::empty_strided_generic(
      in.sizes(), strides,
      on_gpu ? at::detail::getCUDAHooks().getCUDADeviceAllocator() : c10::GetAllocator(at::kCPU),
      DispatchKeySet(on_gpu ? Key::CUDA : Key::CPU), dtype));
  void* const result = y.mutable_data_ptr();  // first, as it may move the data, and `in` may be y
  const Operands operands = {result, in.const_data_ptr(),
                             dense_in ? dense_in->const_data_ptr() : nullptr, in_is_output};
  bool is_done = !on_gpu && compute_on_cpu(Dtype(dtype), operands, view, !out);
  if constexpr (HAS_CUDA) {  // without, there is nothing to link
    void* stream = nullptr;
    if (on_gpu && !aoti_torch_get_current_cuda_stream(in.get_device(), &stream))
      is_done = launch_on_gpu(Dtype(dtype), operands, view, in.get_device(), stream);
  }
  kernel_calls.fetch_add(is_done, std::memory_order_relaxed);
  return is_done ? std::move(y) : Tensor();
}

// sigmoid(x), in `out` where that is given; undefined where PyTorch's kernel has to take the call.
Tensor try_sigmoid(const Tensor& x, const Tensor* out = nullptr) {
  if (!is_ours() || !may_take(x) || (out && !are_alike(x, *out))) return {};
  View view;
  const Layout layout = output_layout(x, x);
  if (!make_view(view, x, layout)) return {};
  // Two kinds of `out` are taken. One has memory of its own and the strides of a new result. The
  // other is `x` itself: dense, or on a CPU any view without overlap. A tensor that is copied when
  // it is written, or that came by DLPack, may begin as `x` does in another storage, if dense.
  if (out) {
    const bool is_alias = out->is_alias_of(x);
    const bool begins_as_x = out->const_data_ptr() == x.const_data_ptr();
    const bool is_apart = !is_alias && (view.is_dense() || !begins_as_x);
    const bool is_x = is_alias && begins_as_x &&
                      (view.is_dense() || (x.is_cpu() && !view.has_overlap()));
    if (!is_apart && !is_x) return {};
    if (out->strides() != (is_apart ? at::IntArrayRef(layout.strides) : x.strides())) return {};
  }
  return run_kernel(view, x, nullptr, false, out, layout.strides);
}

// grad * (1 - output) * output, with PyTorch's bits; one may lie unlike the result. PyTorch's
// kernel gets what it computes as fast or faster; its time over ours is
//   0.98 on a GPU, for rows with a stride, as of a transpose;
//   0.7 to 1.1 on a CPU, for such rows of float32 and float64 (of bfloat16 1.6 to 3);
//   0.4 to 1.1 on a CPU, for rows of under kGradRow times an element's bytes;
//   but 1.2 on a CPU for any of up to kGradNumel elements.
Tensor try_sigmoid_backward(const Tensor& grad, const Tensor& output) {
  if (!is_ours() || !may_take(grad) || !are_alike(grad, output)) return {};
  View of_grad, of_output;
  const Layout y = output_layout(grad, output);
  if (!make_view(of_grad, grad, y) || !make_view(of_output, output, y)) return {};
  const bool in_is_output = !of_output.is_dense();
  if (in_is_output && !of_grad.is_dense()) return {};
  const View& view = in_is_output ? of_output : of_grad;
  const bool is_strided = view.strides[0] > 1, is_bfloat16 = grad.scalar_type() == at::kBFloat16;
  const bool is_slow_row = view.ndim > 1 && view.sizes[0] < kGradRow * grad.element_size();
  const bool is_slow_on_cpu = is_slow_row || (is_strided && !is_bfloat16);
  if (grad.is_cuda() ? is_strided : is_slow_on_cpu && view.numel > kGradNumel) return {};
  if (in_is_output) return run_kernel(view, output, &grad, true, nullptr, y.strides);
  return run_kernel(view, grad, &output, false, nullptr, y.strides);
}

Tensor our_sigmoid(DispatchKeySet keys, const Tensor& x) {
  if (Tensor y = try_sigmoid(x); y.defined()) return y;
  return at::_ops::sigmoid::redispatch(keys & kBelowOurs, x);
}
Tensor& our_sigmoid_out(DispatchKeySet keys, const Tensor& x, Tensor& out) {
  if (try_sigmoid(x, &out).defined()) return out;
  return at::_ops::sigmoid_out::redispatch(keys & kBelowOurs, x, out);
}
Tensor& our_sigmoid_in_place(DispatchKeySet keys, Tensor& x) {
  if (try_sigmoid(x, &x).defined()) return x;
  return at::_ops::sigmoid_::redispatch(keys & kBelowOurs, x);
}
Tensor our_sigmoid_backward(DispatchKeySet keys, const Tensor& grad, const Tensor& output) {
  if (Tensor y = try_sigmoid_backward(grad, output); y.defined()) return y;
  return at::_ops::sigmoid_backward::redispatch(keys & kBelowOurs, grad, output);
}

// Hides PyTorch's warning that another copy of this file has registered its kernels.
struct Silent : c10::WarningHandler {
  c10::WarningUtils::WarningHandlerGuard guard{this};
  void process(const c10::Warning&) override {}
};

// A torch::Library that is destroyed takes its kernels back, whoever has registered others since.
std::optional<torch::Library> registered;
void register_kernels() {
  const Silent silent;
  torch::Library ours(torch::Library::IMPL, "aten", kOurKey, __FILE__, __LINE__);
  ours.impl("sigmoid", TORCH_FN(our_sigmoid));
  ours.impl("sigmoid.out", TORCH_FN(our_sigmoid_out));
  ours.impl("sigmoid_", TORCH_FN(our_sigmoid_in_place));
  ours.impl("sigmoid_backward", TORCH_FN(our_sigmoid_backward));
  registered = std::move(ours);  // only now are those of an earlier import, below these, removed
}
EXPORT void sigmoid_inline_stop() { registered.reset(); }

// Python's lock is held. An enable() that is older than the last disable() has nothing left to end.
EXPORT int sigmoid_inline_enable() { return enabled->count++, enabled->ended; }
EXPORT void sigmoid_inline_disable(int ended_before) {  // -1: all
  if (ended_before == -1) enabled->count = 0, enabled->ended++;
  if (ended_before == enabled->ended) enabled->count--;
}
EXPORT int64_t sigmoid_inline_calls() { return kernel_calls; }
""")

# ---- What is assumed of PyTorch and Python -------------------------------------------------------

# Each item says what is assumed; where that is declared; what shows that it does not hold.
#
#   Every call passes BackendSelect, after autograd and modes, before the devices' kernels, and no
#     tensor has CustomRNGKeyId; c10/core/DispatchKey.h; the probe's calls, on the CPU, miss kernel
#     or autograd.
#   A kernel may be registered beside running calls; torch/library.h; a test that imports while
#     threads call.
#   A new output has at::TensorIterator's strides; ATen/TensorIterator.h; tests of random layouts.
#   empty_strided_generic, with the allocator that the CUDA hooks name, allocates as PyTorch's
#     kernels do; ATen/EmptyTensor.h, ATen/detail/CUDAHooksInterface.h; the compiler says so.
#   The types of 16 bits and IntDivider are PyTorch's; torch/headeronly/util/BFloat16.h and Half.h,
#     ATen/cuda/detail/IntegerDivider.cuh; the compiler says so.
#   torch_parallel_for and the current stream; torch/csrc/stable/c/shim.h, which is stable.
#   VirtualGuardImpl knows the GPUs and the current one; c10/core/impl/VirtualGuardImpl.h; the
#     compiler says so.
#   torch.sigmoid is a method of torch._C._VariableFunctionsClass; the import raises. torch.Tensor's
#     own, of torch._C.TensorBase, computes the same; tests of what intercepts and records.
#   torch.jit.script knows two attributes of sigmoid; torch/jit/_trace.py; scripting raises.
#   From Python 3.12 on PyFunction_SetVectorcall is documented; without it the Python body runs.
#   Dynamo replaces the interpreter's frame evaluation (PEP 523), which Python's documentation of
#     _PyInterpreterState_GetEvalFrameFunc describes; torch.compile(sigmoid) finds no frame.
#   PyMethodDef is of Python's stable ABI: a built-in function needs it.
#   load_inline uses CUDA_HOME, PYTORCH_NVCC, _shell_join (to quote CXX) and ninja, which prints
#     FAILED; torch/utils/cpp_extension.py; tests of odd machines.
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
PyObject* PyObject_Type(PyObject*);
void Py_DecRef(PyObject*);
struct _is* PyInterpreterState_Get();
PyObject* _PyEval_EvalFrameDefault(struct _ts*, struct _PyInterpreterFrame*, int);
decltype(&_PyEval_EvalFrameDefault) _PyInterpreterState_GetEvalFrameFunc(struct _is*);
__attribute__((weak))  // Python 3.10 has none, and never calls it
PyObject* PyObject_Vectorcall(PyObject*, PyObject* const*, size_t nargs, PyObject* names);
}
constexpr size_t kArgumentsOffset = size_t(1) << 63;  // PY_VECTORCALL_ARGUMENTS_OFFSET
PyObject *torch_sigmoid, *tensor_sigmoid, *python_body, *tensor_class, *parameter_class;

bool is_exact(PyObject* x) {  // a Tensor or a Parameter, of no class of the user's
  PyObject* const type = PyObject_Type(x);
  Py_DecRef(type);
  return type == tensor_class || type == parameter_class;
}

// torch.sigmoid's call, marked: a built-in function, which is pickled as torch.sigmoid is.
PyObject* python_call(PyObject*, PyObject* arguments, PyObject* keywords) {
  const c10::impl::ExcludeDispatchKeyGuard mark(kMark);
  return PyObject_Call(torch_sigmoid, arguments, keywords);
}

// What Python runs for sigmoid() in place of its body. Nothing can intercept the call of an exact
// Tensor or Parameter where no function mode is active, so torch.Tensor's method gives the same
// result. It parses no arguments: 0.2 us less. Dynamo compiles frames of Python, and gets one.
EXPORT PyObject* sigmoid_inline_vectorcall(PyObject*, PyObject* const* arguments, size_t nargs,
                                           PyObject* names) {
  if (_PyInterpreterState_GetEvalFrameFunc(PyInterpreterState_Get()) != _PyEval_EvalFrameDefault)
    return PyObject_Vectorcall(python_body, arguments, nargs, names);
  const bool by_method = (nargs & ~kArgumentsOffset) == 1 && !names && is_exact(arguments[0]) &&
                        !at::impl::torch_function_mode_enabled();
  const c10::impl::ExcludeDispatchKeyGuard mark(kMark);
  return PyObject_Vectorcall(by_method ? tensor_sigmoid : torch_sigmoid, arguments, nargs, names);
}

// Registers the kernels and returns the built-in function, a method of `self` as torch.sigmoid is.
EXPORT PyObject* sigmoid_inline_start(Enabled* shared, PyObject* function, PyObject* method,
                                      PyObject* body, PyObject* self, PyObject* tensor,
                                      PyObject* parameter) {
  enabled = shared;
  torch_sigmoid = function, tensor_sigmoid = method, python_body = body;
  tensor_class = tensor, parameter_class = parameter;
  register_kernels();
  static PyMethodDef definition = {"sigmoid", python_call, 3 /* VARARGS and KEYWORDS */, nullptr};
  return PyCFunction_NewEx(&definition, self, nullptr);
}
""")


# KernelBench rejects code with try, except or import threading: hence ExitStack and _thread.


def _probe():
    """What does not hold of a plain and of a recorded call on the CPU; "" where all does."""
    errors = []
    with contextlib.ExitStack() as stack:
        stack.push(lambda kind, error, trace: errors.append(error) or isinstance(error, Exception))
        leaf = torch.zeros(3, requires_grad=True, dtype=torch.float32, device="cpu")
        before, plain, recorded = kernel_calls(), sigmoid(leaf.detach()), sigmoid(leaf)
        if plain.tolist() != [0.5] * 3 or recorded.tolist() != [0.5] * 3:
            return f"sigmoid of 0 is {plain.tolist()}, recorded {recorded.tolist()}"
        if getattr(recorded.grad_fn, "name", str)() != "SigmoidBackward0":
            return f"a recorded call makes {recorded.grad_fn}"
        if _CPU_BITS and kernel_calls() < before + 2:
            return "calls do not reach the kernel"
    return f"a call raises {errors[0]!r}" if errors[0] else ""


def _in_new_thread(function):
    """function() in a thread of its own, so that no mode, hook or compiler of this one takes part.
    `function` must not raise."""
    results, done, thread = [], _thread.allocate_lock(), 0
    done.acquire()
    with contextlib.suppress(RuntimeError):  # from Python 3.12 on none starts once main has ended
        thread = _thread.start_new_thread(lambda: (results.append(function()), done.release()), ())
    return results[0] if thread and done.acquire() else function()


# ---- The build: a library per sources, flags, versions and GPUs, compiled once, then loaded ------

_CPP = COMMON_SOURCE + FORMULA_SOURCE + CPU_SOURCE + OPERATOR_SOURCE + CALL_SOURCE
_CUDA = COMMON_SOURCE + FORMULA_SOURCE + KERNEL_SOURCE
# Of a vector of this CPU; 0 leaves it to PyTorch, as the loop is slow without fused multiply-add.
_CPU_BITS = {"AVX2": 256, "AVX512": 512}.get(torch.backends.cpu.get_cpu_capability(), 0)
_CPU_BITS = _CPU_BITS or 128 * (os.uname().machine == "aarch64")
_CPU_FLAGS = "-O2 -w -fno-math-errno -fno-trapping-math -ffp-contract=off"  # -w ends a -Werror
_CPU_FLAGS += " -fvisibility=hidden -DUSE_CUDA"  # for PyTorch's declaration of the stream
# GCC frees memory less often: 6.4 s instead of 7.9 on an H100's machine, and 0.68 GB, not 0.55.
_CPU_FLAGS += " --param=ggc-min-expand=400 --param=ggc-min-heapsize=400000"
_CPU_FLAGS += f" -DCPU_BITS={_CPU_BITS}" + " -mavx2 -mfma" * (_CPU_BITS > 128)
_CPU_FLAGS += " -mavx512f -mavx512vl -mavx512bw -mavx512dq" * (_CPU_BITS == 512)
# On all cores, and as C++17, whose headers are smaller: 1.25 s instead of 1.85 s on 16 cores.
_NVCC_FLAGS = "-std=c++17 -split-compile=0 -Xcompiler=-fvisibility=hidden"
_digest = lambda content: hashlib.sha256(content).hexdigest()[:16]
# Writes to sys.stderr. Where there is none that works, it raises nothing.
_say = lambda line: ctypes.pythonapi.PySys_WriteStderr(b"sigmoid_inline: %s\n", os.fsencode(line))
# The newest of these codes that runs on the GPU. It has the GPU's major version; "" is none.
_newest = lambda gpu, codes: max((c for c in codes if c[:-1] == gpu[:-1] and c <= gpu), default="")


# Whether a signal handler of the caller has raised it, as far as its class tells.
_is_foreign = lambda kind: kind is TimeoutError or kind.__module__ not in ("builtins", "subprocess")


class _suppress(contextlib.suppress):
    """But not what a signal handler of the caller raises."""

    def __exit__(self, kind, *error):
        return kind and not _is_foreign(kind) and super().__exit__(kind, *error)


def _explain(steps, kind, error, trace):
    """Ends an error in one line, with what helps in this step. A longer report stands above it."""
    if isinstance(error, Exception) and not _is_foreign(kind):
        text = f"{error.__cause__ or ''}\n{error}"
        # Ninja prints FAILED, the command, and then what the command has printed.
        lines = text.partition("\nFAILED: ")[2].splitlines()[2:] or text.strip().splitlines()
        counts = re.compile(r"\b(error|fatal)\b[^:]{0,9}:|\bld: (?!warn|.*in func)|\bsh: ").search
        line = next(filter(counts, lines), None) or next(filter(str.strip, lines), kind.__name__)
        line = f"sigmoid_inline: {line}{steps.remedy}"
        raise RuntimeError(line) from error if lines[1:] else None


def _gpus():
    """Compute capabilities, such as {"90"}, and whether they are of GPUs that PyTorch may use here.
    NVML tells, as no process can fork after a call of CUDA's. Else TORCH_CUDA_ARCH_LIST does, or,
    with a driver but no NVML, what PyTorch is built for."""
    found, named = set(), os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    with _suppress(OSError, AttributeError):
        nvml, gpu = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p()
        count, major, minor = ctypes.c_uint(), ctypes.c_int(), ctypes.c_int()
        nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for index in range(count.value):
            nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(gpu))
            if not nvml.nvmlDeviceGetCudaComputeCapability(gpu, *map(ctypes.byref, (major, minor))):
                found.add(f"{major.value}{minor.value}")
    if found and torch.cuda.device_count() > 0:  # by NVML; CUDA_VISIBLE_DEVICES may hide them
        return found, True
    with _suppress(OSError):  # a driver may have any GPU that PyTorch is built for
        if not found and not named and ctypes.CDLL("libcuda.so.1"):
            named = torch._C._cuda_getArchFlags()  # such as "sm_80 sm_90"
    if unknown := re.sub(r"(\w+_)?\d+\.?\d[af]?|\+PTX|[; ]", "", named):
        _say(f"ignores {unknown!r} in TORCH_CUDA_ARCH_LIST")
    return {major + minor for major, minor in re.findall(r"(\d+)\.?(\d)", named)}, False


def _toolkit(gpus):
    """(a code or "" for each GPU, home, what is missing) of the best toolkit of PyTorch's CUDA."""
    cuda, toolkits, others = torch.version.cuda, [], ""
    major, on_path = cuda.split(".")[0], Path(shutil.which("nvcc") or "/-/-").parents[1]
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), on_path, "/usr/local/cuda"]
    by_pip = (Path(path, f"nvidia/cu{major}").absolute() for path in sys.path)  # from CUDA 13 on
    homes += [home for home in by_pip if any(home.glob("include/**/nv/target"))]  # of its cccl
    for home in map(str, filter(None, homes)):
        nvcc = shlex.quote(f"{home}/bin/nvcc")
        text = subprocess.getoutput(f"{nvcc} --version && {nvcc} --list-gpu-arch")
        if release := re.search(r"release (\d+\.\d+)", text):
            others += f", {home} has {release[1]}"
            # Before 12.5 there is no cudaGetDriverEntryPointByVersion.
            if re.match(rf"(?!12\.[0-4]$){major}\.", release[1]):
                known = re.findall(r"compute_(\d+)\b", text)
                toolkits.append(([_newest(gpu, known) for gpu in gpus], home, ""))
    pip = f'pip install "cuda-toolkit[nvcc,nvvm,crt,cccl]=={cuda}.*", or ' if cuda >= "13" else ""
    missing = f"nvcc of CUDA {cuda} is missing{others}: {pip}set CUDA_HOME to CUDA {cuda}"
    return max(toolkits, key=lambda toolkit: toolkit[0], default=([], "", missing))


def _open_library(directory, name, gpus):
    """A library that has code for each GPU. The digest vouches for the file."""
    for path in sorted(directory.glob(f"{name}-*-*.so")):
        *_, codes, digest = path.stem.split("-")
        serves = all(_newest(gpu, codes.split("_")) for gpu in gpus)
        with _suppress(OSError):
            if serves and _digest(path.read_bytes()) == digest:
                return ctypes.PyDLL(str(path))


def _load():
    """The library of the kernels, which is compiled where none in the cache serves."""
    with contextlib.ExitStack() as steps:
        start, enter = time.time(), steps.enter_context
        steps.push(functools.partial(_explain, steps))
        steps.remedy = ": set TORCH_EXTENSIONS_DIR to a directory that can be written"
        # To load what was linked with -ffast-math changes how this thread computes subnormals.
        libm, state = ctypes.CDLL("libm.so.6"), ctypes.create_string_buffer(64)
        libm.fegetenv(state)
        steps.callback(libm.fesetenv, state)
        facts = re.sub("#line.*", "", _CPP + _CUDA) + _CPU_FLAGS + _NVCC_FLAGS
        facts += f"{torch.__version__}, CUDA {torch.version.cuda}"
        name = f"sigmoid_inline-{_digest(facts.encode())}"
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        cache = os.environ.get("TORCH_EXTENSIONS_DIR") or f"{cache}/torch_extensions"
        directory = Path(cache, "sigmoid_inline").expanduser().absolute()
        gpus, are_here = _gpus() if torch.version.cuda else ([], False)
        gpus = sorted(gpu for gpu in gpus if int(gpu) >= 70)
        if library := _open_library(directory, name, gpus):
            return library
        codes, home, missing = _toolkit(gpus) if gpus else ([], "", "")
        if missing and are_here:
            steps.remedy = ""
            raise FileNotFoundError(missing)
        codes = sorted({*codes} - {""})
        directory.mkdir(parents=True, exist_ok=True)
        with _suppress(OSError):  # some file systems have no locks: each compiles
            lock = enter(open(directory / "lock", "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # dropped when its holder ends, killed or not
            for path in directory.glob("build-*"):  # of a process that was killed
                if os.fstat(lock.fileno()).st_mtime - path.stat().st_mtime > 3600:
                    shutil.rmtree(path, ignore_errors=True)
        if library := _open_library(directory, name, codes):
            return library
        if left := ", ".join(gpu for gpu in gpus if not _newest(gpu, codes)):
            _say(f"leaves GPUs of {left} to torch.sigmoid: {missing or f'{home} is too old'}")
        scratch = Path(enter(tempfile.TemporaryDirectory("", "build-", directory)))
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:  # then no program's status is known
            ctypes.CDLL(None).signal(signal.SIGCHLD, 0)  # in any thread
            steps.callback(ctypes.CDLL(None).signal, signal.SIGCHLD, 1)
        cxx, cc = os.environ.get("CXX", "").strip() or "c++", os.environ.get("CC", "").split()
        cc = ["gcc", *(word for word in cc if word[0] != "-")][-1]  # nvcc takes a program alone
        steps.remedy = "" if shutil.which(cxx.split()[0]) else ": install g++"
        steps.remedy += f" (CXX={cxx}, CC={cc}, in {directory}; tried with PyTorch 2.10 to 2.15)"
        if re.search(r"[$:|\n]", str(directory)):  # which cpp_extension does not quote for ninja
            steps.remedy = ": set TORCH_EXTENSIONS_DIR to a directory without $, : and |"
        # cpp_extension would say less of a compiler than ninja, and ask CUDA, not NVML, for a GPU.
        environment = dict(os.environ, LC_ALL="C", CXX=cxx, CC=cc, PYTORCH_NVCC=f"{home}/bin/nvcc")
        environment.update(TORCH_DONT_CHECK_COMPILER_ABI="1", PYTORCH_NVML_BASED_CUDA_CHECK="1")
        ninja = os.path.dirname(getattr(find_spec("ninja"), "origin", None) or sys.executable or "")
        if subprocess.getstatusoutput("ninja --version")[0]:  # pip has put one beside the package
            path = f"{ninja}/../bin:{ninja}/../../../../bin:{os.environ.get('PATH', os.defpath)}"
            environment["PATH"] = path
        given = dict(environment)  # what other threads set meanwhile stays
        steps.callback(lambda: os.environ.update(dict(environment.items() - given.items())))
        enter(patch.object(os, "environ", environment))
        enter(patch.object(logging.getLogger("torch.utils.cpp_extension"), "disabled", True))
        from torch.utils import cpp_extension as cpp
        # From 2.13 on it quotes CXX, and puts a ccache before it; words[-1] is CXX. It never quotes
        # the path of PyTorch's libraries.
        patches = {"CUDA_HOME": home, "TORCH_LIB_PATH": shlex.quote(cpp.TORCH_LIB_PATH)}
        enter(patch.multiple(cpp, **patches, _shell_join=lambda words: words[-1], create=True))
        # pip's toolkit has no libcudart.so, and PyTorch has loaded the one that is used anyway.
        (scratch / "libcudart.so").write_text("/* a linker script without a command */")
        # No PTX: what is built for a GPU before 9.0 has no wait, yet a 9.0 would start it early.
        flags = [_NVCC_FLAGS, *(f"-gencode=arch=compute_{code},code=sm_{code}" for code in codes)]
        cpp.load_inline(
            "sigmoid_inline", _CPP, _CUDA if codes else None, build_directory=scratch,
            extra_cflags=[_CPU_FLAGS, f"-DHAS_CUDA={bool(codes):d}"], extra_ldflags=["-L."],
            extra_cuda_cflags=flags, is_python_module=False, no_implicit_headers=True)
        (built,) = scratch.glob("sigmoid*.so")
        path = directory / f"{name}-{'_'.join(codes) or 'cpu'}-{_digest(built.read_bytes())}.so"
        library = ctypes.PyDLL(str(built.replace(path)))
        _say(f"compiled for {' and sm_'.join(['the CPU', *codes])} in {time.time() - start:.1f} s")
        return library


_moved = ""
if not _IS_MOCKED:
    _library = _load()
    _library.sigmoid_inline_calls.restype = ctypes.c_int64
    _library.sigmoid_inline_start.restype = ctypes.py_object
    _functions = torch._C._VariableFunctionsClass
    _body = type(sigmoid)(sigmoid.__code__, globals())  # sigmoid, but without the vectorcall
    _body.__kwdefaults__ = sigmoid.__kwdefaults__
    _kept = (_functions.sigmoid, torch._C.TensorBase.sigmoid, _body, _functions, torch.Tensor,
             torch.nn.Parameter)
    _enabled = vars(sys).setdefault("_sigmoid_inline_enabled", (ctypes.c_int * 2)())
    _call = _library.sigmoid_inline_start(_enabled, *map(ctypes.py_object, _kept))
    for _object in (_enabled, *_kept):  # the library uses them for as long as it runs
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_object))
    if _set := getattr(ctypes.pythonapi, "PyFunction_SetVectorcall", None):  # from Python 3.12 on
        _set(ctypes.py_object(sigmoid), _library.sigmoid_inline_vectorcall)
    _moved = _in_new_thread(_probe)
if _moved:
    _library.sigmoid_inline_stop()  # calls are still marked, for the kernel of an older copy
    _moved = f"PyTorch {torch.__version__} has moved, or this file's kernel is wrong: {_moved}; "
    _moved += "sigmoid is torch.sigmoid now (see 'What is assumed')"
    _say(_moved)


# ---- Nothing below affects results: the self-check, the timing and the command line --------------

# Errors lie below these, in ulp. 0.5 itself may be an error, next to a power of two. float64's
# reference is itself off by up to 2.
_BOUND_ULP = {"float32": 1, "bfloat16": 0.5, "float16": 0.5, "float64": 3}


def max_error_ulp(x, result=None):
    """Largest error of sigmoid(x), or of this result, in units in the last place: from float64, so
    that less than 0.5 is correctly rounded; inf: only one is NaN. ValueError: they differ in shape.
    """
    torch.full_like(x, float("nan"))  # freed at once, for the output: what is not written shows
    result = sigmoid(x) if result is None else result
    if result.shape != x.shape: raise ValueError("sigmoid_inline: the result is of another shape")
    info, worst = torch.finfo(x.dtype), 0.0
    for y, block in zip(*(tensor.detach().reshape(-1).split(1 << 20) for tensor in (result, x))):
        exact = block.double().clamp(max=40).exp_()  # a copy of what is float64, too
        exact /= 1 + exact
        exponent = torch.frexp(exact.clamp(min=info.smallest_normal))[1].double() - 1
        ulp = torch.exp2(exponent).mul_(info.eps)  # torch.ldexp is wrong on GPU 1 in PyTorch 2.11
        error = ((y.double() - exact).abs_() / ulp).masked_fill_(exact.isnan() & y.isnan(), 0)
        worst = max(worst, error.nan_to_num_(nan=float("inf")).max().item())
    return worst


def measure(contenders, device, trials, calls=1, within=contextlib.nullcontext):
    """Times {name: function} in turn, `trials` times `calls` calls, after three rounds to warm up:
    {name: [us of a call]}. Every other round goes backwards; but for the first timed one, none
    starts after 2 s. On a GPU events on the current stream tell the time, which includes where it
    waits for the host. "sigmoid" runs in the context within(), entered before its time begins."""
    spans, end = {name: [] for name in contenders}, time.perf_counter() + 2
    stamp, us = time.perf_counter, lambda start, stop: (stop - start) * 1e6
    if device.type == "cuda":
        stream = torch.cuda.current_stream()
        stamp = lambda: stream.record_event(torch.cuda.Event(enable_timing=True))
        us = lambda start, stop: start.elapsed_time(stop) * 1e3
    for done in range(3 + trials):
        if done > 3 and time.perf_counter() > end: break
        for name in list(contenders)[:: -1 if done % 2 else 1]:
            with within() if name == "sigmoid" else contextlib.nullcontext():
                start = stamp()
                for _ in range(calls): contenders[name]()
                spans[name].append((start, stamp()))
    torch.get_device_module(device).synchronize()  # nothing on a CPU
    return {name: [us(*span) / calls for span in spans[name][3:]] for name in contenders}


def _of_ranks(args, *numbers):
    """For each number the list of its values on torchrun's ranks."""
    ranks = torch.tensor([numbers] * args.ranks, dtype=torch.float64, device=args.device)
    if args.ranks > 1: torch.distributed.all_gather(list(ranks), ranks[0].clone())
    return ranks.T.tolist()


def _cases(args, dtype):
    """{case: (make, way)}. x = make() is the input; way(f, x)() is timed in loops and shown in us,
    without a way f(x) in GB/s. Cases of enable() time torch.sigmoid in its context and outside."""
    call, rand = functools.partial, functools.partial(torch.rand, device=args.device, dtype=dtype)
    shape = f"{sum(*_of_ranks(args, args.rows)):.0f} x {args.columns}"
    default = {shape: (call(rand, args.rows, args.columns), None)}
    if args.shape or args.ranks > 1: return default
    module = lambda f, x: call(ModelNew() if f is sigmoid else torch.nn.Sigmoid(), x)
    record = lambda f, x: call(f, x.requires_grad_())
    step = lambda f, x: (y := f(x), torch.autograd.grad(y, x, y.detach()))[0]
    train = lambda f, x: call(step, f, x.requires_grad_())
    ways = {"one eager call": call, "one ModelNew()(x)": module, "one recorded call": record,
            "one call with out=": lambda f, x: call(f, x, out=torch.empty_like(x)),
            "one call on a view": lambda f, x: call(f, torch.stack((x, x), 1)[:, 0]),
            "one training step": train, "enable(), training step": train,
            "enable(), torch.sigmoid": call, "enable(), x.sigmoid()": lambda _, x: x.sigmoid,
            "enable(), x.sigmoid_()": lambda _, x: x.clone().sigmoid_}
    largest = args.room.bit_length() - 1
    n = 1 << min(largest - 2, 28)
    rows, half, nhwc = n // 4096, "half of rows", "cropped NHWC"
    views = {half: lambda: rand(rows, 8192)[:, 4096:],
             "half of rows of 66": lambda: rand(n // 33, 66)[:, 33:],
             nhwc: lambda: rand(n >> 20, 128, 128, 64)[:, 1:-1, 1:-1].movedim(3, 1),
             "expanded row": lambda: rand(1, 4096).expand(rows, 4096),
             "x[1:]": lambda: rand(n)[1:], "x[::2]": lambda: rand(2 * n)[::2],
             "x[:, 4:] of 85": lambda: rand(n // 85, 85)[:, 4:],
             "x[:, :2] of 85": lambda: rand(n // 85, 85)[:, :2]}
    gradients = {"dense": (rows, 4096), "one scalar": (1, 1), "a value a row": (rows, 1),
                 "a row for all": (1, 4096), half: (rows, 8192)}
    sizes = sorted({*range(10, largest, 2), 21, 23, largest})
    cases = {f"2^{e}": (call(rand, 1 << e), None) for e in sizes}
    cases |= {view: (make, None) for view, make in views.items()}
    for name, way in (("recorded", record), ("fwd+bwd", train), ("enable(), fwd+bwd", train)):
        cases |= {f"{name} {view}": (views[view], way) for view in (half, nhwc, "x[:, 4:] of 85")}
    for name, of in gradients.items():
        gradient = lambda y, of=of: rand(*of)[:, -4096:].expand_as(y)
        way = lambda _, y, of=gradient: call(torch.ops.aten.sigmoid_backward, of(y), y)
        cases[f"enable(), bwd, {name}"] = call(rand, rows, 4096), way
    for e in (0, 10, 16, 20, 22, 23):
        cases |= {f"{name}, 2^{e}": (call(rand, 1 << e), way) for name, way in ways.items()}
    if args.sweep: return cases
    picked = {half, nhwc, f"enable(), fwd+bwd {half}", "one eager call, 2^10"}
    if args.cuda: picked |= {"x[::2]", "x[:, :2] of 85", "one training step, 2^10"}
    elif args.dtype == ["float32"]:
        default[f"{shape}, bfloat16"] = call(default[shape][0], dtype=torch.bfloat16), None
    return default | {case: row for case, row in cases.items() if case in picked}


def _print_case(args, case, x, way, ratios, errors):
    """Checks, times and prints a case, and notes its ratio and error where a kernel takes it."""
    from statistics import quantiles  # here, as it takes 5 ms
    call, within = way or functools.partial, contextlib.nullcontext
    ours, theirs = call(sigmoid, x), call(torch.sigmoid, x)
    if case.startswith("enable()"): ours, within = theirs, enable
    with within():
        torch.full_like(x, float("nan"))  # as in max_error_ulp()
        before, result = kernel_calls(), ours()
        is_taken = kernel_calls() > before
    if "bwd, " not in case: error = max_error_ulp(x, result)
    else: error = 0.0 if torch.equal(result, theirs()) else float("inf")  # PyTorch's bits
    timed, replays = {"sigmoid": ours, "torch.sigmoid": theirs}, 1
    calls = max(1, min(100, (1 << (30 if args.cuda else 22)) // x.numel())) if way else 1
    if not way and args.cuda and x.numel() <= 1 << 24:  # the GPU's time, not the host's
        replays = 32
        for name, function in timed.items():
            with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):
                for _ in range(replays): function()
            timed[name] = graph.replay
    times = measure(timed, x.device, args.trials, calls, within=within).values()
    quartiles = [quantiles(us * 2, n=4) for us in times]  # of 2 at least
    differ = min(map(len, times)) < 3 or any(c - a > 0.1 * b for a, b, c in quartiles)
    medians = [median / replays for _, median, _ in quartiles]
    *columns, nbytes = _of_ranks(args, error, *medians, differ, 2 * x.nbytes)
    error, us, torch_us, differ = map(max, columns)
    speed, shown = f"{us:.1f} us" if way else f"{sum(nbytes) / us / 1e3:.0f} GB/s", "torch"
    if is_taken:
        shown, dtype = ("~" if differ else "") + f"{torch_us / us:.3f}"[:5] + "x", str(x.dtype)[6:]
        label = f"{dtype}, {case}" if len(args.dtype) > 1 else case
        ratios.append((torch_us / us, f"{shown} ({label})"))
        errors.append((error, dtype, case))
        if error >= _BOUND_ULP[dtype]: shown = "WRONG"
    print(f"{case:35}{shown:>8}{speed:>13}", flush=True)


def main(argv=()):
    """Checks sigmoid against float64 and times it beside torch.sigmoid: in 20 s, or
    with --sweep in 3 minutes a data type at most. A wrong result ends in FAILED, status 1.

    ratio  torch.sigmoid's time over sigmoid's, by medians; torch: no kernel takes x
           ~: the middle half of the rounds spans 10 %, or they are under 3
    speed  of sigmoid: bytes read and written a second, or the time of a call"""
    parser = argparse.ArgumentParser("sigmoid_inline.py", add_help=False)
    def refuse(message):
        if _IS_COMMAND: parser.exit(2, f"{parser.prog}: error: {message}\n")
        refusal = ValueError(f"sigmoid_inline: {message}")
        refusal._render_traceback_ = lambda *_: [str(refusal)]  # a notebook shows the line alone
        raise refusal from None
    parser.error, add = refuse, parser.add_argument
    known = {"choices": _BOUND_ULP, "metavar": "T", "help": "%(choices)s"}
    add("--dtype", nargs="+", default=["float32"], **known)
    add("--device", choices=("cuda", "cpu"), help="cuda by default, where there is one")
    add("--shape", nargs=2, type=int, metavar=("ROWS", "COLS"), help="time this shape alone")
    add("--trials", type=int, default=30, help="timed rounds at most (30)")
    add("--sweep", action="store_true", help="time many sizes, views and eager calls")
    add("-h", "--help", action="store_true", help="show this")
    args = parser.parse_args(argv)
    if args.help: return print(f"{inspect.getdoc(main) or ''}\n\n{parser.format_help()}")

    torchrun = os.environ if "TORCHELASTIC_RUN_ID" in os.environ else {}
    rank, args.ranks = int(torchrun.get("RANK", 0)), int(torchrun.get("WORLD_SIZE", 1))
    gpus, gpu = torch.cuda.device_count(), int(torchrun.get("LOCAL_RANK", 0))
    args.cuda = args.device == "cuda" if args.device else torch.cuda.is_available()
    args.device = torch.device("cuda", gpu) if args.cuda else torch.device("cpu")
    rows, args.columns = args.shape or (4096 if args.cuda else 256, 393216)
    if args.cuda and gpu >= gpus: refuse(f"PyTorch sees {gpus} GPUs: none for rank {rank}")
    before, _ = kernel_calls(), torch.sigmoid(torch.zeros(1, device=args.device))
    if kernel_calls() > before: refuse("torch.sigmoid is this file's: disable() first")
    if not torch.tensor(1e-310, dtype=torch.float64, device="cpu") * 1:
        refuse("subnormals are flushed: torch.set_flush_denormal(False) first")
    if args.sweep and (args.shape or args.ranks > 1): refuse("--sweep: no --shape, no torchrun")
    if rows < args.ranks or args.columns < 1 or args.trials < 1:
        refuse(f"--shape and --trials are positive, a row for each of {args.ranks} ranks")
    args.room, args.rows = 1 << 26, (rows + rank) // args.ranks  # elements; this rank's share
    has_kernel, cpu = _CPU_BITS > 0, torch.backends.cpu.get_cpu_capability()
    machine = f"{torch.get_num_threads()} CPU threads ({cpu})"
    ratios, errors, failures = [], [], []
    with torch.inference_mode(False), torch.enable_grad(), contextlib.ExitStack() as stack:
        if args.cuda:
            stack.enter_context(torch.cuda.device(gpu))
            has_kernel = torch.cuda.get_device_capability() >= (7, 0)
            machine = f"{args.ranks} x {torch.cuda.get_device_name()}"
            widest = max(getattr(torch, name).itemsize for name in args.dtype)
            args.room = int(0.3 * torch.cuda.mem_get_info()[0] / widest)  # an input and two outputs
            args.rows = max(1, min(args.rows, args.room // args.columns))
        if args.ranks > 1:  # rank 0 speaks for all
            stack.enter_context(contextlib.redirect_stdout(None if rank else sys.stdout))
            torch.distributed.init_process_group("nccl" if args.cuda else "gloo")
            stack.callback(torch.distributed.destroy_process_group)
        machine += f", PyTorch {torch.__version__.partition('+')[0]}"
        machine += f", CUDA {torch.version.cuda}" if args.cuda else ""
        print(textwrap.fill(f"{machine}, sigmoid_inline {__version__}", 80))
        print(f"medians of up to {args.trials} rounds (~: too different to cite)")
        for name in args.dtype:
            dtype, before = getattr(torch, name), kernel_calls()
            bits = torch.arange(-(1 << 15), 1 << 15, device=args.device).short()
            x = bits.view(dtype if dtype.itemsize == 2 else torch.bfloat16).to(dtype)
            (error,) = _of_ranks(args, max_error_ulp(x))
            if kernel_calls() > before: errors.append((max(error), name, "all 16-bit numbers"))
            elif _moved or has_kernel and (args.cuda or name != "float16"):
                failures.append(f"no kernel computed a dense {name} tensor. {_moved}")
            print(f"\n{name:35}{'ratio':>8}{'speed':>13}", flush=True)
            for case, (make, way) in _cases(args, dtype).items():
                _print_case(args, case, make(), way, ratios, errors)
        failures += [f"an error of {error:.3g} ulp in {name}, {case}"
                     for error, name, case in errors if error >= _BOUND_ULP[name]]
        if failures:
            print(f"\nFAILED: {failures[0]}")
            raise SystemExit(1) if _IS_COMMAND else RuntimeError(f"sigmoid_inline: {failures[0]}")
        if not ratios: return print("\nRIGHT  torch.sigmoid took every call: see README.md")
        print("\n" + textwrap.fill(f"SPEED  {min(ratios)[1]} to {max(ratios)[1]}", 80))
        worst = {_BOUND_ULP[name]: error for error, name, _ in sorted(errors)}  # the last counts
        told = (f"{worst[b]:.3g} ulp from exact, where {b} is allowed" for b in worst)
        print(textwrap.fill(f"RIGHT  at most {'; '.join(told)}", 80))


if __name__ == "__main__":
    main(sys.argv[1:] if "__file__" in globals() else [])
