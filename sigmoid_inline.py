# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.10", "ninja"]
# ///
"""Sigmoid at the memory limit: a drop-in for torch.sigmoid in one file.

    python sigmoid_inline.py              # build, check against float64, time (--help lists the options)
    from sigmoid_inline import ModelNew   # ModelNew()(x) == torch.sigmoid(x), faster; sigmoid(x, out=None) is the function
    %run or paste into a notebook cell    # the same check and timing

The C++ and CUDA sources below are compiled by torch.utils.cpp_extension.load_inline on the first import and cached.
Read on from the top: the formula, the layouts, the CPU kernel, the CUDA kernel, the build, the public functions, and
the self-check with the timing.
"""

import argparse
import contextlib
import ctypes
import functools
import hashlib
import json
import logging
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import unittest.mock
import warnings
from pathlib import Path

import torch
from torch.autograd import forward_ad

# ---------------------------------------------------------------------------------------------------------------------
# The formula and the layout of a call, shared by both devices
# ---------------------------------------------------------------------------------------------------------------------

SHARED_SOURCE = r"""
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#define INLINE __device__ __forceinline__
// 1/d for a normal d, to 2^-23 (float) or 2^-20 (double): the formula squares or cubes what is left. `1 / d` in CUDA C++ is
// an IEEE division: 4 % slower in float32 and 9 % in bfloat16 at 2^29 elements, 17 and 27 % in the L2 cache.
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
constexpr bool kCubic = true;  // in double
#else
#define INLINE static inline
template <class T> INLINE T reciprocal(T d) { return 1 / d; }
constexpr bool kCubic = false;
#endif

template <class To, class From> INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// sigmoid(x) = 2^k / (2^k + e^-u) with x = k ln 2 + u and |u| <= ln 2 / 2, for T = float or double.
//
// e^-u = 1 - u + u^2 q(u), q the minimax polynomial (relative error of e^-u: 2^-28.2 with 5 coefficients for float, 2^-57.9
// with 10 for double; Remez in 200-bit arithmetic). The denominator is carried as high + low, and one Newton step with
// both parts (of third order for double on the GPU) divides, so that the error is at most 0.99 ulp over all 2^32 floats.
// Numerator and denominator are scaled by 2^24 (2^53), and the last product rounds into the subnormal range where the
// result lies there: no range needs its own path.
//
// Without `exact`, for 16-bit results on the CPU, the low parts and most of q are left out (relative error 2^-17).
template <bool exact, class T> INLINE T sigmoid(T x) {
  constexpr bool f32 = sizeof(T) == 4;
  using Bits = std::conditional_t<f32, uint32_t, uint64_t>;
  constexpr int mantissa = f32 ? 23 : 52, bias = f32 ? 127 : 1023;
  constexpr T log2e = 1.4426950408889634;
  constexpr T ln2_high = f32 ? 0x1.62e4p-1 : 0x1.62e42feep-1;  // trailing zeros: x - k * ln2_high is exact
  constexpr T ln2_low = f32 ? 0x1.7f7d1cf8p-20 : 0x1.a39ef35793c76p-33;
  constexpr T to_integer = f32 ? 0x1.8p23 : 0x1.8p52;  // adding it leaves the nearest integer in the low bits
  constexpr T scale = f32 ? 0x1p24 : 0x1p53;
  constexpr T low = f32 ? -104 : -745.2, high = 40;  // the result rounds to 0 below and to 1 above
  x = x < low ? low : x;                             // written so that NaN stays NaN
  x = x > high ? high : x;
  const T t = std::fma(x, log2e, to_integer), k = t - to_integer;
  T u = std::fma(-k, exact ? ln2_high : T(0.6931471805599453), x);
  if (exact) u = std::fma(-k, ln2_low, u);
  const T power = bit_cast<T>((bit_cast<Bits>(t) << mantissa) + (Bits(bias + mantissa + 1) << mantissa));  // scale * 2^k
  T q;
  if constexpr (!exact) {
    q = std::fma(std::fma(T(0x1.522566p-5), u, T(-0x1.571cd8p-3)), u, T(0x1.0006b6p-1));
  } else if constexpr (f32) {
    q = std::fma(T(0x1.6a2418p-10), u, T(-0x1.1239f2p-7));
    q = std::fma(q, u, T(0x1.5558f2p-5));
    q = std::fma(q, u, T(-0x1.555492p-3));
    q = std::fma(q, u, T(0x1.fffffcp-2));
  } else {
    q = std::fma(T(-2.5000050934278011557e-8), u, T(2.7630262850793720766e-7));
    q = std::fma(q, u, T(-2.7557586481251374744e-6));
    q = std::fma(q, u, T(2.4801493061586293507e-5));
    q = std::fma(q, u, T(-1.9841269506377646404e-4));
    q = std::fma(q, u, T(1.3888888943662572739e-3));
    q = std::fma(q, u, T(-8.3333333334945904278e-3));
    q = std::fma(q, u, T(4.1666666666530051014e-2));
    q = std::fma(q, u, T(-1.6666666666666412269e-1));
    q = std::fma(q, u, T(0.50000000000000106375));
  }
  const T s = std::fma(u * u, q, -u);
  const T d = std::fma(s, scale, scale + power);
  if (!exact) return power / d;
  const T d_low = std::fma(s, scale, power - (d - scale));
  const T r = reciprocal(d);
  T e = std::fma(-d_low, r, std::fma(-d, r, T(1)));  // 1/d = r / (1 - e) = r (1 + e + e^2 + ...)
  if (kCubic && !f32) e = std::fma(e, e, e);
  return std::fma(e, r, r) * power;
}

// The gradient from the saved output y (derivatives.yaml of PyTorch: grad * (1 - y) * y).
template <class T> INLINE T sigmoid_backward(T grad, T y) { return grad * ((1 - y) * y); }

// 16-bit types as bits: cuda_bf16.h and cuda_fp16.h would add 0.5 s to the build.
struct BFloat16 { uint16_t bits; };
INLINE float widen(BFloat16 x) { return bit_cast<float>(uint32_t(x.bits) << 16); }
INLINE uint32_t round_bfloat16(float x) {  // to nearest, ties to even: the upper half of what it returns
  const uint32_t b = bit_cast<uint32_t>(x);
  return x != x ? 0x7fc00000 : b + 0x7fff + (b >> 16 & 1);
}
INLINE void narrow(float x, BFloat16& y) {
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
  y.bits = uint16_t(round_bfloat16(x) >> 16);
#endif
}

// How one call walks its tensors: dimensions collapsed, innermost first, strides in elements. Element i of the output is
// at out[i]; `stride` holds the inputs' (x, or grad and y).
constexpr int kMaxDims = 8;
struct Layout {
  int64_t numel;
  int ndim;
  int64_t size[kMaxDims];
  int64_t stride[2][kMaxDims];
};
enum Dtype { kFloat, kDouble, kBFloat16, kHalf };
"""

CPP_SOURCE = SHARED_SOURCE + r"""
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/version.h>

#include <stdexcept>

#ifdef __linux__
#include <sys/mman.h>
#endif

// -- Tensors through PyTorch's C shim, which compiles in half the time of the C++ headers over it --------------

#define CHECK(call) \
  if ((call) != AOTI_TORCH_SUCCESS) throw std::runtime_error("sigmoid_inline: failed in PyTorch: " #call)

struct TensorInfo {
  int64_t ndim, *sizes, *strides;
  int32_t dtype;
  bool contiguous;
  explicit TensorInfo(AtenTensorHandle t) {
    CHECK(aoti_torch_get_dim(t, &ndim));
    CHECK(aoti_torch_get_sizes(t, &sizes));
    CHECK(aoti_torch_get_strides(t, &strides));
    CHECK(aoti_torch_get_dtype(t, &dtype));
    CHECK(aoti_torch_is_contiguous(t, &contiguous));
  }
};

// -- From tensors to a Layout: the order of dimensions and the output's strides are those of at::TensorIterator ---------

constexpr int kMaxTensorDims = 64;

struct Iteration {
  int64_t ndim = 0, numel = 1, sizes[kMaxTensorDims], out_strides[kMaxTensorDims];
  int perm[kMaxTensorDims];  // innermost dimension first
  int inputs;
  const TensorInfo* in;

  Iteration(const TensorInfo* in, int inputs) : inputs(inputs), in(in) {
    ndim = in[0].ndim;
    memcpy(sizes, in[0].sizes, ndim * sizeof *sizes);
    for (int d = 0; d < ndim; d++) numel *= sizes[d];
    bool contiguous = true, same = true;
    for (int i = 0; i < inputs; i++) {
      contiguous &= in[i].contiguous;
      same &= memcmp(in[0].strides, in[i].strides, ndim * sizeof *sizes) == 0;
    }
    for (int d = 0; d < ndim; d++) perm[d] = int(ndim) - 1 - d;
    if (!contiguous) sort();
    int64_t stride = 1;
    bool dense = same;  // and without overlap
    for (int d = 0; d < ndim; d++) {
      out_strides[perm[d]] = stride;
      dense &= sizes[perm[d]] == 1 || in[0].strides[perm[d]] == stride;
      stride *= sizes[perm[d]] > 1 ? sizes[perm[d]] : 1;
    }
    if (contiguous || channels_last()) return;
    if (dense) memcpy(out_strides, in[0].strides, ndim * sizeof *sizes);  // a dimension of size 1 keeps its stride
  }

  bool channels_last() {
    if (ndim != 4) return false;
    const int order[] = {1, 3, 2, 0};
    int64_t expected[4], stride = 1;
    for (int d : order) {
      expected[d] = stride;
      stride *= sizes[d];
      for (int i = 0; i < inputs; i++)
        if (sizes[d] != 1 && in[i].strides[d] != expected[d]) return false;
    }
    memcpy(out_strides, expected, sizeof expected);
    return true;
  }

  // > 0: dimension a must come after b; < 0: it is in order; 0: no input can tell.
  int compare(int a, int b) const {
    for (int i = 0; i < inputs; i++) {
      const int64_t sa = in[i].strides[a], sb = in[i].strides[b];
      if (sa == 0 || sb == 0) continue;
      if (sa != sb) return sa < sb ? -1 : 1;
      if (sizes[a] > sizes[b]) return 1;
    }
    return 0;
  }

  void sort() {  // insertion sort that steps over undecided pairs
    for (int i = 1; i < ndim; i++)
      for (int a = i, b = i - 1; b >= 0; b--) {
        const int order = compare(perm[b], perm[a]);
        if (order < 0) break;
        if (order > 0) {
          const int moved = perm[b];
          perm[b] = perm[a];
          perm[a] = moved;
          a = b;
        }
      }
  }

  bool collapse(Layout& l) const {
    l.numel = numel;
    l.ndim = 0;
    for (int j = 0; j < ndim; j++) {
      const int d = perm[j], last = l.ndim - 1;
      if (sizes[d] == 1) continue;
      bool merge = last >= 0;
      for (int i = 0; merge && i < inputs; i++) merge = in[i].strides[d] == l.stride[i][last] * l.size[last];
      if (merge) {
        l.size[last] *= sizes[d];
        continue;
      }
      if (l.ndim == kMaxDims) return false;
      l.size[l.ndim] = sizes[d];
      for (int i = 0; i < inputs; i++) l.stride[i][l.ndim] = in[i].strides[d];
      l.ndim++;
    }
    if (l.ndim == 0) {
      l.ndim = 1;
      l.size[0] = 1;
      l.stride[0][0] = l.stride[1][0] = 1;
    }
    return true;
  }
};

// -- The CPU kernel ------------------------------------------------------------------------------------------------------

// malloc takes an output of this size fresh from the system, one page fault for each 4 KiB: with huge pages the call is 2.5
// times as fast on two cores. Smaller outputs are recycled. Stores that go past the cache gain nothing beside it.
constexpr int64_t kHugePagesBytes = 32 << 20;
constexpr int64_t kTile = 1024;         // elements; a tile stays in the L1 cache
constexpr int64_t kLongRow = 128;       // elements; shorter rows are gathered, unless 64-byte vectors fill them
constexpr int64_t kGrain = 32 * kTile;  // elements a thread takes at least, as in at::TensorIterator

#if defined(__GNUC__) && defined(__FLT16_MAX__)
#define HAS_HALF 1
using Half = _Float16;
#else
#define HAS_HALF 0
#endif

struct Forward {
  static constexpr int inputs = 1;
  template <bool exact, class T> static T apply(T x, T) { return sigmoid<exact>(x); }
};
struct Backward {
  static constexpr int inputs = 2;
  template <bool exact, class T> static T apply(T grad, T y) { return sigmoid_backward(grad, y); }
};

#if HAS_HALF
#ifdef __F16C__  // GCC and Clang leave the plain loop scalar
typedef short Short8 __attribute__((vector_size(16)));
typedef float Float8 __attribute__((vector_size(32)));
#endif
static void widen(const Half* x, float* y, int64_t n) {
  int64_t i = 0;
#ifdef __F16C__
  for (Short8 h; i + 8 <= n; i += 8) {
    memcpy(&h, x + i, sizeof h);
    const Float8 f = __builtin_ia32_vcvtph2ps256(h);
    memcpy(y + i, &f, sizeof f);
  }
#endif
  for (; i < n; i++) y[i] = x[i];
}
static void narrow(const float* x, Half* y, int64_t n) {
  int64_t i = 0;
#ifdef __F16C__
  for (Float8 f; i + 8 <= n; i += 8) {
    memcpy(&f, x + i, sizeof f);
    const Short8 h = __builtin_ia32_vcvtps2ph256(f, 0);  // 0: to nearest
    memcpy(y + i, &h, sizeof h);
  }
#endif
  for (; i < n; i++) y[i] = Half(x[i]);
}
#endif

// The output is an input or apart from it, which IVDEP says: no test for every row.
#ifdef __GNUC__
#define IVDEP _Pragma("GCC ivdep")
#define PREFETCH(p) __builtin_prefetch(p)
#else
#define IVDEP
#define PREFETCH(p)
#endif

template <class Op, class T> static void compute_row(const T* a, const T* b, T* y, int64_t n) {
  IVDEP for (int64_t i = 0; i < n; i++) y[i] = Op::template apply<true>(a[i], b[i]);
}
// Two at a time, each half of a word: without shuffles 1.1 (forward) to 1.4 times (backward) as fast as one by one.
template <class Op> static void compute_row(const BFloat16* a, const BFloat16* b, BFloat16* y, int64_t n) {
  auto upper = [](uint32_t word) { return bit_cast<float>(word & 0xffff0000); };
  IVDEP for (int64_t i = 0; i < n / 2; i++) {
    uint32_t p, q;
    memcpy(&p, a + 2 * i, sizeof p);
    memcpy(&q, b + 2 * i, sizeof q);
    const float first = Op::template apply<false>(upper(p << 16), upper(q << 16)), second = Op::template apply<false>(upper(p), upper(q));
    const uint32_t both = round_bfloat16(first) >> 16 | (round_bfloat16(second) & 0xffff0000);
    memcpy(y + 2 * i, &both, sizeof both);
  }
  if (n % 2) narrow(Op::template apply<false>(widen(a[n - 1]), widen(b[n - 1])), y[n - 1]);
}

struct Rows { int64_t count, size; };  // size: elements of each

// Computes rows, of at most kTile elements in all for float16; input k steps by pitch[k] from row to row, the output is dense.
using ComputeFn = void (*)(const char* const (&in)[2], const int64_t (&pitch)[2], char* out, Rows rows);
template <class Op, class T> static void compute(const char* const (&in)[2], const int64_t (&pitch)[2], char* out, Rows rows) {
  const T *a = reinterpret_cast<const T*>(in[0]), *b = reinterpret_cast<const T*>(in[1]);
  T* y = reinterpret_cast<T*>(out);
  if constexpr (sizeof(T) > 2 || std::is_same_v<T, BFloat16>) {
    for (; rows.count > 0; rows.count--, a += pitch[0], b += pitch[1], y += rows.size) {
      // The hardware does not foresee the jumps between short rows: 3 times as fast (float64, rows of 16, 2^22 elements).
      for (int line = 0; line < 2; line++) PREFETCH(reinterpret_cast<const char*>(a + 16 * pitch[0]) + 64 * line);
      compute_row<Op>(a, b, y, rows.size);
    }
  } else {
    float x[2][kTile];
    for (int64_t r = 0; r < rows.count; r++) {
      widen(a + r * pitch[0], x[0] + r * rows.size, rows.size);
      if (Op::inputs == 2) widen(b + r * pitch[1], x[1] + r * rows.size, rows.size);
    }
    const int64_t n = rows.count * rows.size;
    for (int64_t i = 0; i < n; i++) x[0][i] = Op::template apply<false>(x[0][i], x[Op::inputs - 1][i]);
    narrow(x[0], y, n);
  }
}

// A place in input `k`: row and column, where a row runs along the innermost dimension. Steps from row to row without a
// division, which costs as much as 20 elements.
struct Place {
  const Layout& l;
  const int64_t* stride;
  int64_t column, at[kMaxDims], row = 0;  // row: its offset in elements

  Place(const Layout& l, int k, int64_t i) : l(l), stride(l.stride[k]), column(i % l.size[0]) {
    i /= l.size[0];
    for (int d = 1; d < l.ndim; i /= l.size[d++]) {
      at[d] = i % l.size[d];
      row += at[d] * stride[d];
    }
  }
  int64_t offset() const { return row + column * stride[0]; }
  // What comes next of at most `n` elements: whole rows before dimension 1 ends, or (a part of) one row.
  Rows next(int64_t n) const {
    const int64_t left = l.size[0] - column;
    if (column > 0 || n < 2 * left || l.ndim == 1) return {1, n < left ? n : left};
    const int64_t fit = n / left, rows = l.size[1] - at[1];
    return {fit < rows ? fit : rows, left};
  }
  void advance(Rows rows) {  // past what next() returned
    column += rows.size;
    if (column < l.size[0]) return;
    column = 0;
    for (int d = 1; d < l.ndim; d++, rows.count = 1) {
      row += rows.count * stride[d];
      at[d] += rows.count;
      if (at[d] < l.size[d]) return;
      at[d] = 0;
      row -= stride[d] * l.size[d];
    }
  }
};

// Copies `n` elements, in the order of the output, to `tile` and moves `place` past them.
template <class T> static void gather(const char* in, Place& place, int64_t n, char* tile_) {
  T* tile = reinterpret_cast<T*>(tile_);
  const int64_t stride = place.stride[0], pitch = place.stride[1];
  while (n > 0) {
    const T* p = reinterpret_cast<const T*>(in) + place.offset();
    const Rows rows = place.next(n);
    T* const end = tile + rows.count * rows.size;
    n -= rows.count * rows.size;
    if (stride == 1) {
      for (; tile < end; tile += rows.size, p += pitch) memcpy(tile, p, rows.size * sizeof(T));
    } else if (stride == 0) {
      for (; tile < end; tile += rows.size, p += pitch) {
        const T value = *p;
        for (int64_t i = 0; i < rows.size; i++) tile[i] = value;
      }
    } else {
      for (; tile < end; tile += rows.size, p += pitch)
        for (int64_t i = 0; i < rows.size; i++) tile[i] = p[i * stride];
    }
    place.advance(rows);
  }
}

static void run_cpu(ComputeFn compute, int inputs, int64_t itemsize, char* out, const char* const (&in)[2], const Layout& l) {
#ifdef __linux__
  if (l.numel * itemsize >= kHugePagesBytes) {  // advice for the pages wholly inside the output; a kernel that does not take it changes nothing
    const uintptr_t page = 4096, begin = (uintptr_t(out) + page - 1) / page * page;
    madvise(reinterpret_cast<void*>(begin), uintptr_t(out + l.numel * itemsize) / page * page - begin, MADV_HUGEPAGE);
  }
#endif
  const auto copy = itemsize == 2 ? gather<uint16_t> : itemsize == 4 ? gather<uint32_t> : gather<uint64_t>;
  const bool by_row = l.size[0] >= kLongRow || l.size[0] * itemsize % 64 == 0, dense = by_row && l.stride[0][0] == 1 && l.stride[inputs - 1][0] == 1;
  // Where nothing changes along the innermost dimension, each value is computed once and written `times` times.
  const int64_t times = l.stride[0][0] == 0 && l.stride[inputs - 1][0] == 0 ? l.size[0] : 1;
  Layout values = l;
  values.size[0] /= times;
  const Layout repeated{l.numel, 2, {times, l.numel / times}, {{0, 1}}};
  auto tiles = [&](int64_t begin, int64_t end) {
    alignas(64) char tile[2][kTile * sizeof(double)];
    const int64_t last = end * kTile < l.numel ? end * kTile : l.numel, most = dense && itemsize > 2 ? last : kTile;
    Place place[2] = {Place(l, 0, begin * kTile), Place(l, 1, begin * kTile)};
    for (int64_t i = begin * kTile, n; i < last; i += n) {
      n = last - i < most ? last - i : most;
      char* const to = out + i * itemsize;
      if (times > 1) {
        const int64_t before = i % times, count = (before + n + times - 1) / times;
        for (int k = 0; k < inputs; k++) {
          Place from(values, k, i / times);
          copy(in[k], from, count, tile[k]);
        }
        compute({tile[0], tile[inputs - 1]}, {}, tile[0], {1, count});
        Place from(repeated, 0, before);
        copy(tile[0], from, n, to);
        continue;
      }
      const Rows rows = by_row ? place[0].next(n) : Rows{1, n};
      n = rows.count * rows.size;
      const char* p[2] = {tile[0], tile[1]};
      int64_t pitch[2] = {rows.size, rows.size};
      for (int k = 0; k < inputs; k++) {
        if (!by_row || l.stride[k][0] != 1) {
          copy(in[k], place[k], n, tile[k]);
          continue;
        }
        p[k] = in[k] + place[k].offset() * itemsize;
        pitch[k] = l.stride[k][1];
        place[k].advance(rows);
      }
      compute({p[0], p[inputs - 1]}, {pitch[0], pitch[inputs - 1]}, to, rows);
    }
  };
  const int64_t count = (l.numel + kTile - 1) / kTile;  // whole tiles, so that threads do not share a cache line
  auto body = [](int64_t begin, int64_t end, void* context) { (*static_cast<decltype(tiles)*>(context))(begin, end); };
  CHECK(torch_parallel_for(0, count, kGrain / kTile, body, &tiles));
}

// -- The operators ---------------------------------------------------------------------------------------------------------

#ifdef WITH_CUDA
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
extern "C" const char* sigmoid_cuda(Dtype, bool backward, void* out, const void* a, const void* b, const Layout&, int device, void* stream);
#endif

// Runs on `out`, or on a new tensor where `out` is null, and returns it: null where torch.sigmoid has to do the work (more
// than kMaxDims dimensions after collapsing, an output that is not dense in the order of the inputs, no memory, a compiler
// without float16 for the CPU).
template <class Op> static AtenTensorHandle run(const AtenTensorHandle* in, AtenTensorHandle out) {
  const TensorInfo info[2] = {TensorInfo(in[0]), TensorInfo(in[Op::inputs - 1])};
  if (info[0].dtype != info[1].dtype || info[0].ndim != info[1].ndim || info[0].ndim > kMaxTensorDims) return nullptr;
  if (memcmp(info[0].sizes, info[1].sizes, info[0].ndim * sizeof(int64_t)) != 0) return nullptr;
  const Iteration iteration(info, Op::inputs);
  Layout layout{};
  if (!iteration.collapse(layout)) return nullptr;
  const int32_t codes[] = {aoti_torch_dtype_float32(), aoti_torch_dtype_float64(), aoti_torch_dtype_bfloat16(), aoti_torch_dtype_float16()};
  const int64_t itemsize[] = {4, 8, 2, 2};
  int dtype = 0;
  while (dtype < 4 && codes[dtype] != info[0].dtype) dtype++;
  if (dtype == 4) return nullptr;
  int32_t device_type, device;
  CHECK(aoti_torch_get_device_type(in[0], &device_type));
  CHECK(aoti_torch_get_device_index(in[0], &device));
  const bool cpu = device_type == aoti_torch_device_type_cpu();
  if (cpu && dtype == kHalf && !HAS_HALF) return nullptr;
  if (out) {
    const TensorInfo to(out);
    for (int d = 0; d < to.ndim; d++)
      if (to.sizes[d] != 1 && to.strides[d] != iteration.out_strides[d]) return nullptr;
  } else if (aoti_torch_empty_strided(iteration.ndim, iteration.sizes, iteration.out_strides, codes[dtype], device_type, device, &out) != AOTI_TORCH_SUCCESS) {
    return nullptr;
  }
  if (layout.numel == 0) return out;
  void *to, *from[2];
  CHECK(aoti_torch_get_data_ptr(out, &to));
  for (int i = 0; i < 2; i++) CHECK(aoti_torch_get_data_ptr(in[i % Op::inputs], &from[i]));
#ifdef WITH_CUDA
  if (!cpu) {
    void* stream;
    CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
    const char* error = sigmoid_cuda(Dtype(dtype), Op::inputs == 2, to, from[0], from[1], layout, device, stream);
    if (error) throw std::runtime_error(error);
    return out;
  }
#endif
#if HAS_HALF
  const ComputeFn compute_fn[] = {compute<Op, float>, compute<Op, double>, compute<Op, BFloat16>, compute<Op, Half>};
#else
  const ComputeFn compute_fn[] = {compute<Op, float>, compute<Op, double>, compute<Op, BFloat16>};
#endif
  run_cpu(compute_fn[dtype], Op::inputs, itemsize[dtype], static_cast<char*>(to), {static_cast<char*>(from[0]), static_cast<char*>(from[1])}, layout);
  return out;
}

// Boxed kernels: the stack holds tensor handles to be freed here; the result, a handle or a bool, takes their place.
template <bool has_out> static void finish(StableIValue* stack, const AtenTensorHandle* in, uint64_t arguments, AtenTensorHandle result) {
  for (uint64_t i = 0; i < arguments; i++) CHECK(aoti_torch_delete_tensor_object(in[i]));
  if (has_out) {
    stack[0] = result != nullptr;
    return;
  }
  if (!result) CHECK(aoti_torch_new_uninitialized_tensor(&result));  // None in Python
  memcpy(stack, &result, sizeof result);
}
template <class Op, bool has_out> static void boxed(StableIValue* stack, uint64_t arguments, uint64_t) {
  AtenTensorHandle in[2];
  memcpy(in, stack, arguments * sizeof *in);
  finish<has_out>(stack, in, arguments, run<Op>(in, has_out ? in[Op::inputs] : nullptr));
}
// Other devices; sparse, nested and quantised tensors.
template <bool has_out> static void declined(StableIValue* stack, uint64_t arguments, uint64_t) {
  AtenTensorHandle in[2];
  memcpy(in, stack, arguments * sizeof *in);
  finish<has_out>(stack, in, arguments, nullptr);
}

#define STRING_(x) #x
#define STRING(x) STRING_(x)
static const bool registered = [] {
  constexpr const char* name = STRING(TORCH_EXTENSION_NAME);
  TorchLibraryHandle library;
  CHECK(aoti_torch_library_init_def(name, __FILE__, __LINE__, &library));
  CHECK(aoti_torch_library_def(library, "sigmoid(Tensor input) -> Tensor"));
  CHECK(aoti_torch_library_def(library, "sigmoid_out(Tensor input, Tensor(a!) out) -> bool"));
  CHECK(aoti_torch_library_def(library, "sigmoid_backward(Tensor grad, Tensor output) -> Tensor"));
  auto implement = [&](const char* key, auto forward, auto forward_out, auto backward) {
    CHECK(aoti_torch_library_init_impl(name, key, __FILE__, __LINE__, &library));
    CHECK(torch_library_impl(library, "sigmoid", forward, TORCH_ABI_VERSION));
    CHECK(torch_library_impl(library, "sigmoid_out", forward_out, TORCH_ABI_VERSION));
    CHECK(torch_library_impl(library, "sigmoid_backward", backward, TORCH_ABI_VERSION));
  };
#ifdef HAS_CPU
  implement("CPU", boxed<Forward, false>, boxed<Forward, true>, boxed<Backward, false>);
#endif
#ifdef WITH_CUDA
  implement("CUDA", boxed<Forward, false>, boxed<Forward, true>, boxed<Backward, false>);
#endif
  for (const char* key : {"CompositeExplicitAutograd", "AutogradNestedTensor"}) implement(key, declined<false>, declined<true>, declined<false>);
  return true;
}();
"""

# ---------------------------------------------------------------------------------------------------------------------
# The CUDA kernel
# ---------------------------------------------------------------------------------------------------------------------

CUDA_SOURCE = SHARED_SOURCE + r"""
struct Half { uint16_t bits; };
INLINE float widen(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
INLINE void narrow(float x, Half& y) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
INLINE float widen(float x) { return x; }
INLINE double widen(double x) { return x; }
INLINE void narrow(float x, float& y) { y = x; }
INLINE void narrow(double x, double& y) { y = x; }

// For a 16-bit result the hardware's exponential and reciprocal suffice (at most 1 ulp; all but 3 of the 65,536 float16 and
// 1 of the bfloat16 inputs are correctly rounded), and its speed is needed: the formula for float costs 20 to 29 % there.
// exp2f is ex2.approx without flush-to-zero.
INLINE float sigmoid_16bit(float x) {
  const float e = exp2f(-1.44269504f * fabsf(x));
  return (x < 0 ? e : 1) * reciprocal(1 + e);
}

struct Forward {
  static constexpr int inputs = 1;
  template <class T> static INLINE T apply(T x, T) {
    T y;
    if constexpr (sizeof(T) == 2) narrow(sigmoid_16bit(widen(x)), y);
    else y = sigmoid<true>(x);
    return y;
  }
};
struct Backward {
  static constexpr int inputs = 2;
  template <class T> static INLINE T apply(T grad, T output) {
    T y;
    narrow(sigmoid_backward(widen(grad), widen(output)), y);
    return y;
  }
};

template <class T, int kSize> struct alignas(kSize * sizeof(T)) Vector { T v[kSize]; };

constexpr int kBlock = 128;  // threads; 256 take 1.3 % longer in float32

template <class Op, class V> INLINE V apply(const V& a, const V& b) {
  V y;
#pragma unroll
  for (int k = 0; k < int(sizeof y.v / sizeof *y.v); k++) y.v[k] = Op::apply(a.v[k], b.v[k]);
  return y;
}

// Dense, aligned tensors: `count` 16-byte vectors a thread, all loaded before the first is used. In the last block the threads
// after the last vector take an element each of the rest. Asked for 8 blocks a multiprocessor, the compiler gives float64 the
// registers to overlap its elements: 5 % faster in the L2 cache.
template <class T, class Op, int count>
__global__ void __launch_bounds__(kBlock, sizeof(T) == 8 ? 8 : 0) kernel_dense(T* out, const T* a, const T* b, int64_t numel) {
  constexpr int kSize = 16 / sizeof(T), kTile = kBlock * count;
  using V = Vector<T, kSize>;
  const int64_t first = int64_t(blockIdx.x) * kTile + threadIdx.x;
  const V* const in[2] = {reinterpret_cast<const V*>(a) + first, reinterpret_cast<const V*>(b) + first};
  V* const to = reinterpret_cast<V*>(out) + first;
  if (numel >= (int64_t(blockIdx.x) + 1) * (kTile * kSize)) {
    V x[Op::inputs][count];
#pragma unroll
    for (int n = 0; n < count; n++)
      for (int i = 0; i < Op::inputs; i++) x[i][n] = in[i][n * kBlock];
#pragma unroll
    for (int n = 0; n < count; n++) to[n * kBlock] = apply<Op>(x[0][n], x[Op::inputs - 1][n]);
    return;
  }
  const int64_t vectors = uint64_t(numel) / kSize;
#pragma unroll 1
  for (int n = 0; n < kTile; n += kBlock) {
    const int64_t element = first + n + vectors * (kSize - 1);
    if (first + n < vectors) {
      const V x = in[0][n], z = in[1][n];
      to[n] = apply<Op>(x, z);
    } else if (element < numel) {
      out[element] = Op::apply(a[element], b[element]);
    }
  }
}

// What the other tensors allow. The output is always written in aligned 16-byte vectors.
enum Access {
  kUnaligned,  // one dense run, whose 16-byte vectors need not line up with the output's
  kRows,       // strided, but every 16-byte vector is dense and aligned
  kGather,     // any strides, element by element
};

// A Layout with 32-bit indices in units of the access (vectors for kRows, elements for kGather) and division by
// multiplication: n / size = (mulhi(n, magic) + n) >> shift for n < 2^31 (Granlund and Montgomery 1994). At least two
// dimensions.
struct Steps {
  int ndim;
  uint32_t size[kMaxDims], magic[kMaxDims], shift[kMaxDims];
  int64_t stride[2][kMaxDims], jump[2];  // jump: from the last element of a row to the first of the next
};

// Walks the inputs in the order of the output. The next row costs an addition, as long as the next dimension does not wrap
// too: dividing for every element instead made rows of 33 run at 86 % (float32) and 39 % (bfloat16) of the speed.
template <class T, int inputs> struct Walk {
  const Steps& s;
  const T* p[2];
  uint32_t column, row, row_in_slice;

  INLINE Walk(const Steps& s, const T* a, const T* b, uint32_t index) : s(s), p{a, b} {
    row = divide(index, 0);
    column = index - row * s.size[0];
    for (int i = 0; i < inputs; i++) p[i] += column * s.stride[i][0];
    to_row();
  }
  INLINE uint32_t divide(uint32_t n, int d) const { return (__umulhi(n, s.magic[d]) + n) >> s.shift[d]; }
  INLINE void to_row() {
    uint32_t rest = row;
#pragma unroll 1
    for (int d = 1; d < s.ndim; d++) {
      const uint32_t quotient = divide(rest, d), coordinate = rest - quotient * s.size[d];
      if (d == 1) row_in_slice = coordinate;
      for (int i = 0; i < inputs; i++) p[i] += coordinate * s.stride[i][d];
      rest = quotient;
    }
  }
  INLINE void next(const T* a, const T* b) {
    const bool wrap = ++column == s.size[0];
    for (int i = 0; i < inputs; i++) p[i] += wrap ? s.jump[i] : s.stride[i][0];
    if (wrap) {
      column = 0;
      row++;
      if (++row_in_slice == s.size[1]) {
        p[0] = a, p[1] = b;
        to_row();
      }
    }
  }
};

// One aligned 16-byte output vector a thread: enough loads are in flight (two vectors a thread: 1.4 % slower). Threads
// after the first `vectors` take an element each of the `head` before the first 16-byte boundary and of the rest at the end.
template <class T, class Op, Access access>
__global__ void __launch_bounds__(kBlock) kernel(T* out, const T* a, const T* b, int64_t numel, int64_t vectors, int head, const __grid_constant__ Steps steps) {
  constexpr int kSize = 16 / sizeof(T);
  constexpr bool strided = access == kRows || access == kGather;
  using V = Vector<T, kSize>;
  const int64_t t = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  int64_t i = head + t * kSize;
  if (t >= vectors) {
    i = t - vectors;
    if (i >= head) i += vectors * kSize;
    if (i >= numel) return;
    if constexpr (strided) {
      const Walk<T, Op::inputs> walk(steps, a, b, uint32_t(i));
      out[i] = Op::apply(*walk.p[0], *walk.p[Op::inputs - 1]);
    } else {
      out[i] = Op::apply(a[i], b[i]);
    }
    return;
  }
  const T* const in[2] = {a + i, b + i};
  V x[2];
#pragma unroll
  for (int n = 0; n < (strided ? 0 : Op::inputs); n++) {
    if (sizeof(T) == 2 && t > 0 && t + 1 < vectors) {
      // Five aligned words, and a shift where the run starts on an odd element: 1.17x as fast as eight 2-byte loads.
      const int odd = uintptr_t(n ? b : a) / 2 % 2 ^ head % 2;
      const uint32_t* p = reinterpret_cast<const uint32_t*>(in[n] - odd);
      uint32_t w[5], shifted[4];
#pragma unroll
      for (int k = 0; k < 5; k++) w[k] = p[k];
#pragma unroll
      for (int k = 0; k < 4; k++) shifted[k] = __funnelshift_r(w[k], w[k + 1], odd * 16);
      memcpy(&x[n], shifted, sizeof(V));
    } else {
#pragma unroll
      for (int k = 0; k < kSize; k++) x[n].v[k] = in[n][k];
    }
  }
  if constexpr (access == kRows) {
    const Walk<T, Op::inputs> walk(steps, a, b, uint32_t(t));
#pragma unroll
    for (int n = 0; n < Op::inputs; n++) x[n] = *reinterpret_cast<const V*>(walk.p[n]);
  }
  if constexpr (access == kGather) {
    Walk<T, Op::inputs> walk(steps, a, b, uint32_t(i));
#pragma unroll
    for (int k = 0; k < kSize; k++) {
#pragma unroll
      for (int n = 0; n < Op::inputs; n++) x[n].v[k] = *walk.p[n];
      if (k + 1 < kSize) walk.next(a, b);
    }
  }
  *reinterpret_cast<V*>(out + i) = apply<Op>(x[0], x[Op::inputs - 1]);
}

// Outputs of this size stay in the L2 cache beside the input: there two vectors a thread are 4 to 8 % faster (beyond: 1 % slower).
constexpr int64_t kTwoVectorsFrom = 4 << 20, kTwoVectorsUpTo = 32 << 20;  // bytes

template <class T, class Op>
static cudaError_t launch(T* out, const T* const (&in)[2], const Layout& l, cudaStream_t stream) {
  constexpr int kSize = 16 / sizeof(T);
  const int before = int((16 - uintptr_t(out) % 16) % 16 / sizeof(T)), head = before < l.numel ? before : int(l.numel);
  const int64_t vectors = (l.numel - head) / kSize, threads = l.numel - vectors * (kSize - 1);
  const dim3 grid((threads + kBlock - 1) / kBlock);
  Steps steps{};
  bool dense = true, aligned = true, rows = head == 0 && l.size[0] % kSize == 0;
  for (int i = 0; i < Op::inputs; i++) {
    dense &= l.ndim == 1 && l.stride[i][0] == 1;
    aligned &= uintptr_t(in[i] + head) % 16 == 0;
    rows &= uintptr_t(in[i]) % 16 == 0 && l.stride[i][0] == 1;
    for (int d = 1; d < l.ndim; d++) rows &= l.stride[i][d] % kSize == 0;
  }
  if (dense && aligned && head == 0) {
    constexpr int most = Op::inputs == 1 ? 2 : 1;
    const int64_t bytes = l.numel * int64_t(sizeof(T));
    const int count = bytes >= kTwoVectorsFrom && bytes <= kTwoVectorsUpTo ? most : 1;
    const auto f = count == most ? kernel_dense<T, Op, most> : kernel_dense<T, Op, 1>;
    f<<<(threads + kBlock * count - 1) / (kBlock * count), kBlock, 0, stream>>>(out, in[0], in[1], l.numel);
    return cudaGetLastError();
  }
  if (dense) {
    kernel<T, Op, kUnaligned><<<grid, kBlock, 0, stream>>>(out, in[0], in[1], l.numel, vectors, head, steps);
    return cudaGetLastError();
  }
  if (l.numel > (int64_t(1) << 30)) {  // indices are 32-bit: halve the outermost dimension
    Layout half = l;
    const int d = l.ndim - 1;
    const int64_t first = l.size[d] / 2;
    half.size[d] = first;
    half.numel = l.numel / l.size[d] * first;
    const cudaError_t error = launch<T, Op>(out, in, half, stream);
    if (error != cudaSuccess) return error;
    const T* const rest[2] = {in[0] + first * l.stride[0][d], in[1] + first * l.stride[1][d]};
    T* const rest_out = out + half.numel;
    half.size[d] = l.size[d] - first;
    half.numel = l.numel - half.numel;
    return launch<T, Op>(rest_out, rest, half, stream);
  }
  const int unit = rows ? kSize : 1;
  steps.ndim = l.ndim > 1 ? l.ndim : 2;
  for (int d = 0; d < steps.ndim; d++) {
    steps.size[d] = d < l.ndim ? uint32_t(l.size[d] / (d ? 1 : unit)) : 1;
    while (uint64_t(1) << steps.shift[d] < steps.size[d]) steps.shift[d]++;
    steps.magic[d] = uint32_t((uint64_t(1) << 32) * ((uint64_t(1) << steps.shift[d]) - steps.size[d]) / steps.size[d] + 1);
    for (int i = 0; i < Op::inputs && d < l.ndim; i++) steps.stride[i][d] = l.stride[i][d] * (d ? 1 : unit);
  }
  for (int i = 0; i < Op::inputs; i++) steps.jump[i] = steps.stride[i][1] - (steps.size[0] - 1) * steps.stride[i][0];
  const auto f = rows ? kernel<T, Op, kRows> : kernel<T, Op, kGather>;
  f<<<grid, kBlock, 0, stream>>>(out, in[0], in[1], l.numel, vectors, head, steps);
  return cudaGetLastError();
}

template <class T>
static cudaError_t dispatch(bool backward, void* out, const void* a, const void* b, const Layout& l, cudaStream_t stream) {
  const T* const in[2] = {static_cast<const T*>(a), static_cast<const T*>(b)};
  return backward ? launch<T, Backward>(static_cast<T*>(out), in, l, stream) : launch<T, Forward>(static_cast<T*>(out), in, l, stream);
}

// Null, or what CUDA says went wrong. The tensors' device is current during the launch.
extern "C" const char* sigmoid_cuda(Dtype dtype, bool backward, void* out, const void* a, const void* b, const Layout& l, int device, void* stream_) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  int current = device;
  cudaError_t error = cudaGetDevice(&current);
  if (error == cudaSuccess && current != device) error = cudaSetDevice(device);
  if (error == cudaSuccess) {
    if (dtype == kFloat) error = dispatch<float>(backward, out, a, b, l, stream);
    if (dtype == kDouble) error = dispatch<double>(backward, out, a, b, l, stream);
    if (dtype == kBFloat16) error = dispatch<BFloat16>(backward, out, a, b, l, stream);
    if (dtype == kHalf) error = dispatch<Half>(backward, out, a, b, l, stream);
  }
  if (current != device) cudaSetDevice(current);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
"""

# ---------------------------------------------------------------------------------------------------------------------
# The build: a library per sources, versions and hardware, compiled once and then only loaded
# ---------------------------------------------------------------------------------------------------------------------


def _cpu_flags():
    """Compiler flags for this CPU. Without fused multiply-add the CPU kernel would be slow and is left out."""
    arm = platform.machine() in ("aarch64", "arm64")
    capability = torch.backends.cpu.get_cpu_capability()  # "AVX512", "AVX2", "DEFAULT", ...
    fma, avx512 = capability in ("AVX2", "AVX512"), capability == "AVX512"
    if sys.platform == "win32":
        return ["/O2"] + ["/DHAS_CPU", "/arch:" + capability] * fma
    # Without jump threading: it turns the formula's two clamps into 10 instructions instead of 4.
    flags = ["-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fno-thread-jumps", "-fno-split-paths"]
    flags += ["-mavx2", "-mfma", "-mf16c"] * fma
    # On an Intel Xeon the formula takes half the time (0.42 ns instead of 0.83 an element in float32).
    return flags + ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"] * avx512 + ["-DHAS_CPU"] * (fma or arm)


def _gpu_architectures():
    """Compute capabilities of the machine's NVIDIA GPUs, such as ["9.0"]; empty where PyTorch sees none.

    Asks NVML, as torch.cuda.device_count() does: to initialise CUDA takes 0.2 s, and no process forked later could use it.
    """
    if torch.version.cuda is None or torch.cuda.device_count() == 0:
        return []
    found = set()
    with contextlib.suppress(OSError):  # no NVML
        nvml = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        count, gpu, major, minor = ctypes.c_uint(), ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        nvml.nvmlInit_v2()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for i in range(count.value):
            error = nvml.nvmlDeviceGetHandleByIndex_v2(i, ctypes.byref(gpu))
            if not error and not nvml.nvmlDeviceGetCudaComputeCapability(gpu, ctypes.byref(major), ctypes.byref(minor)):
                found.add(f"{major.value}.{minor.value}")
    return sorted(found or {"%d.%d" % torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())})


def _check_tools(architectures):
    """Returns nvcc's flags for the GPUs of these compute capabilities.

    Raises RuntimeError, one line that names the remedy, where a tool that the build needs is missing or does not fit.
    """
    from torch.utils import cpp_extension

    compiler = os.environ.get("CXX", "cl" if sys.platform == "win32" else "c++").split()[0]
    if shutil.which("ninja") is None:
        raise RuntimeError("sigmoid_inline needs ninja: pip install ninja")
    if shutil.which(compiler) is None:
        raise RuntimeError(f"sigmoid_inline needs a C++ compiler and finds no {compiler!r}: install g++, or set CXX to yours")
    if not architectures:
        return []
    folder = Path(cpp_extension.CUDA_HOME or "/usr/local/cuda", "bin")
    nvcc = shutil.which("nvcc", path=folder)
    wanted = f"CUDA {torch.version.cuda}, which this PyTorch is built with: install that toolkit, or set CUDA_HOME to it"
    if nvcc is None:
        raise RuntimeError(f"sigmoid_inline needs nvcc for the GPU and finds none in {folder}; it has to be of {wanted}")
    ask = lambda option: subprocess.run([nvcc, option], capture_output=True, text=True).stdout
    version = ask("--version").partition("release ")[2].partition(",")[0]
    if version.split(".")[0] != torch.version.cuda.split(".")[0]:
        raise RuntimeError(f"sigmoid_inline: {nvcc} is of CUDA {version or '(unknown)'}; it has to be of {wanted}")
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):  # load_inline reads it
        return []
    known, flags = [int(name.partition("_")[2]) for name in ask("--list-gpu-arch").split()], []
    for gpu in (int(a.replace(".", "")) for a in architectures):
        if gpu >= min(known):  # else PyTorch built with the same CUDA has given it up too
            nearest = max(k for k in known if k <= gpu)
            # A GPU newer than nvcc gets PTX, which its driver compiles.
            flags.append(f"-gencode=arch=compute_{nearest},code={'sm' if nearest == gpu else 'compute'}_{nearest}")
    if not flags:
        raise RuntimeError(f"sigmoid_inline: CUDA {version} has given up GPUs of compute capability {architectures[-1]}: set CUDA_VISIBLE_DEVICES= (empty) to use the CPU")
    return flags


# What a compiler or the system says: what to do about it.
_REMEDIES = {
    "unsupported GNU version": "nvcc does not take this g++: set CC and CXX to an older one, such as gcc-13 and g++-13",
    "unsupported clang version": "nvcc does not take this clang: set CC and CXX to an older one, or to gcc and g++",
    "cannot find -lcudart": "no CUDA runtime beside nvcc: set CUDA_HOME to the toolkit's directory, such as /usr/local/cuda",
    "No space left on device": "the disk is full: free some space, or set TORCH_EXTENSIONS_DIR and TMPDIR to directories on another",
}


def _explain(kind, error, traceback):
    """Exit callback of an ExitStack: raises RuntimeError with the remedy for an error that is known."""
    for sign, remedy in _REMEDIES.items():
        if sign in str(error):
            raise RuntimeError(f"sigmoid_inline: {remedy}") from error


@contextlib.contextmanager
def _exclusive(path):
    """A file lock that the operating system drops when its holder ends, killed or not."""
    with open(path, "w") as file:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(name, cpu_flags, architectures, directory):
    """Compiles and loads the operators; leaves the library in `directory` under a name that holds its size in bytes."""
    patch = unittest.mock.patch
    with contextlib.ExitStack() as stack:
        stack.push(_explain)
        # pip puts ninja beside python, which need not be on PATH. cpp_extension asks for a GPU, and by NVML CUDA stays untouched.
        path = os.environ.get("PATH", "") + os.pathsep + os.path.dirname(sys.executable)
        stack.enter_context(patch.dict(os.environ, PATH=path, PYTORCH_NVML_BASED_CUDA_CHECK="1"))
        stack.enter_context(patch.object(logging.getLogger("torch.utils.cpp_extension"), "disabled", True))
        stack.enter_context(warnings.catch_warnings(action="ignore") if sys.version_info >= (3, 11) else warnings.catch_warnings())
        scratch = stack.enter_context(tempfile.TemporaryDirectory(dir=directory, ignore_cleanup_errors=True))
        gencode = _check_tools(architectures)
        from torch.utils.cpp_extension import load_inline

        start = time.perf_counter()
        load_inline(
            name,
            CPP_SOURCE,
            CUDA_SOURCE if architectures else None,
            extra_cflags=cpu_flags + ["-DWITH_CUDA"] * bool(architectures),
            # On all cores, and with smaller standard headers: 1.25 s instead of 1.85 s on 16 cores.
            extra_cuda_cflags=["-split-compile=0", "-std=c++17", *gencode],
            build_directory=scratch,
            with_cuda=bool(architectures),
            is_python_module=False,
            no_implicit_headers=True,
        )
        seconds = time.perf_counter() - start
        (built,) = [p for p in Path(scratch).iterdir() if p.stem == name and p.suffix in (".so", ".pyd", ".dll")]
        built.replace(directory / f"{name}-{built.stat().st_size}{built.suffix}")
    what = "CPU kernel" + (f" and the CUDA kernels for sm_{', sm_'.join(a.replace('.', '') for a in architectures)}" if architectures else "")
    print(f"sigmoid_inline: compiled the {what} in {seconds:.1f} s", file=sys.stderr)


def _load(architectures):
    """Returns the torch.ops namespace of the operators, compiled if need be. Its name holds what the code depends on.

    Raises RuntimeError where a tool is missing or the cache cannot be written.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
        raise RuntimeError(f"sigmoid_inline needs PyTorch 2.10 or newer and finds {torch.__version__}: pip install -U torch")
    cpu_flags = _cpu_flags()
    facts = [CPP_SOURCE, CUDA_SOURCE, torch.__version__, platform.machine(), cpu_flags, architectures]
    facts += [os.environ.get(k) for k in ("CC", "CXX", "CUDA_HOME", "TORCH_CUDA_ARCH_LIST")]
    name = "sigmoid_inline_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
    namespace = getattr(torch.ops, name)
    if hasattr(namespace, "sigmoid"):  # loaded before by this process: a cell run again, importlib.reload
        return namespace
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path(cache, "torch_extensions"), "sigmoid_inline").absolute()

    def load_cached():
        for path in directory.glob(f"{name}-*"):
            if path.stem == f"{name}-{path.stat().st_size}":  # else cut short, by a full disk or a copy
                torch.ops.load_library(path)
        return hasattr(namespace, "sigmoid")

    if not load_cached():
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise RuntimeError(f"sigmoid_inline cannot write to {directory}: set TORCH_EXTENSIONS_DIR to a directory that you can write to")
        with _exclusive(directory / f"{name}.lock"):
            if not load_cached():
                _compile(name, cpu_flags, architectures, directory)
    _register(name)
    return namespace


def _register(name):
    """What fake tensors, and with them the compiler, need to know of the operators."""

    @torch.library.register_fake(f"{name}::sigmoid")
    def _(input):
        return torch.sigmoid(input)

    @torch.library.register_fake(f"{name}::sigmoid_out")
    def _(input, out):
        return True

    @torch.library.register_fake(f"{name}::sigmoid_backward")
    def _(grad, output):
        return torch.ops.aten.sigmoid_backward(grad, output)


_operators = _load(_gpu_architectures())
# Without OpOverload.__call__, which only passes its arguments on to _op and takes 0.4 us.
_forward, _forward_out, _backward = (getattr(_operators, n).default._op for n in ("sigmoid", "sigmoid_out", "sigmoid_backward"))
_is_compiling, _has_torch_function = torch.compiler.is_compiling, torch.overrides.has_torch_function_unary
_has_names = hasattr(torch.Tensor, "has_names")  # PyTorch 2.10 has named dimensions, and operators cannot take them
_functorch_level = torch._C._functorch.maybe_current_level

# ---------------------------------------------------------------------------------------------------------------------
# The public functions
# ---------------------------------------------------------------------------------------------------------------------

# What the operators run on; all else (integers, bool, complex, other dtypes, layouts, devices) goes to torch.sigmoid. They
# decline by themselves, with None: this list serves only calls that want a derivative.
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def _covered(x):
    """Whether the operators take the tensor `x`."""
    return (x.is_cpu or x.is_cuda) and x.dtype in _DTYPES and x.layout is torch.strided and not x.is_nested and not (_has_names and x.has_names())


def _is_one_tensor(x):
    """False for subclasses that stand for other tensors, such as DTensor: they know aten.sigmoid, not this operator."""
    return type(x).__torch_dispatch__ is torch.Tensor.__torch_dispatch__


def _is_dtensor(x):
    module = sys.modules.get("torch.distributed.tensor")  # imported by whoever made one
    return module is not None and isinstance(x, module.DTensor)


@functools.cache
def _register_sharding():
    """Tells DTensor that the operators run on each rank's shard, whatever the dimension, and leave the sharding as it is."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.experimental import register_sharding

    @register_sharding([_operators.sigmoid.default, _operators.sigmoid_backward.default])
    def _(x, *rest):
        return [([p], [p] * (1 + len(rest))) for p in (Replicate(), *map(Shard, range(x.ndim)))]


def _run(operator, *tensors):
    """operator(*tensors), on each rank's shard where they are DTensors placed alike; None where it declines or they differ."""
    if all(map(_is_one_tensor, tensors)):
        return operator(*tensors)
    x = tensors[0]
    alike = all(_is_dtensor(t) and t.placements == x.placements and t.device_mesh == x.device_mesh for t in tensors)
    if not alike or any(p.is_partial() for p in x.placements):
        return None
    distributed, ranks = torch.distributed.tensor, [1] * x.ndim
    for placement, size in zip(x.placements, x.device_mesh.shape):
        if not placement.is_replicate():
            ranks[placement.dim] *= size if type(placement) is distributed.Shard else x.numel() + 1
    if all(n >= r for n, r in zip(x.shape, ranks)):
        _register_sharding()
        return operator(*tensors)
    # More ranks than elements, or strided shards: DTensor would gather these for any operator but its own.
    y = operator(*(t.to_local() for t in tensors))
    stride = torch.empty_strided(x.shape, x.stride(), device="meta").sigmoid().stride()
    return y if y is None else distributed.DTensor.from_local(y, x.device_mesh, x.placements, shape=x.shape, stride=stride)


class _Sigmoid(torch.autograd.Function):
    """Entered only where a derivative or a functorch transform is wanted; saves the output alone."""

    @staticmethod
    def forward(x):
        y = _run(_forward, x)
        return torch.sigmoid(x) if y is None else y

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        x = None if torch.is_grad_enabled() or _transforming() else _run(_backward, grad, y)
        return torch.ops.aten.sigmoid_backward(grad, y) if x is None else x  # differentiable again

    @staticmethod
    def jvp(ctx, tangent):
        (y,) = ctx.saved_tensors
        return torch.ops.aten.sigmoid_backward(tangent, y)

    @staticmethod
    def vmap(info, in_dims, x):
        return _Sigmoid.apply(x), in_dims[0]


def sigmoid(input, *, out=None):
    """torch.sigmoid(input), at the memory limit.

    Args:
        input: what torch.sigmoid takes, of any shape, strides and device. Dense float32, float64, bfloat16 and float16
            tensors on the CPU and on NVIDIA GPUs run on the kernels of this file, all else on torch.sigmoid's.
        out: as for torch.sigmoid; may be `input` itself.

    Returns:
        A tensor of the shape, strides, device and (for floating-point input) dtype of torch.sigmoid's. The error is at most
        1 ulp over all inputs (float64: at most 2, and 1 over 10^8 of them); NaN gives NaN.

    Raises:
        What torch.sigmoid raises for the same arguments.
    """
    if _is_compiling():
        return torch.sigmoid(input, out=out)  # Inductor fuses it with its neighbours, which saves more than any kernel
    if type(input) is not torch.Tensor or out is not None or _has_torch_function(input) or (_has_names and input.has_names()):
        return _sigmoid_rare(input, out)
    if (input.requires_grad and torch.is_grad_enabled()) or _functorch_level() is not None or forward_ad._current_level >= 0:
        return _Sigmoid.apply(input) if _covered(input) else torch.sigmoid(input)
    y = _forward(input)
    return torch.sigmoid(input) if y is None else y


def _transforming():
    """Whether a functorch transform (vmap, grad, ...) or forward-mode differentiation is under way."""
    return _functorch_level() is not None or forward_ad._current_level >= 0


def _sigmoid_rare(x, out):
    """Subclasses, function modes and `out`, whose rules (dtype, resizing, overlap, gradients) torch.sigmoid enforces."""
    options = {} if out is None else {"out": out}
    if isinstance(x, torch.Tensor) and _has_torch_function(x):
        own = type(x).__torch_function__ not in (torch.Tensor.__torch_function__, torch._C._disabled_torch_function_impl)
        return torch.overrides.handle_torch_function(torch.sigmoid if own else sigmoid, (x,), x, **options)
    if out is None and _is_dtensor(x) and tuple(x.placements) == (torch.distributed.tensor.Partial(),):
        return sigmoid(x.redistribute(placements=[torch.distributed.tensor.Replicate()]))  # others: as PyTorch decides
    tensors = [x] if out is None else [x, out]
    if not all(isinstance(t, torch.Tensor) and _covered(t) and (out is None or _is_one_tensor(t)) for t in tensors):
        return torch.sigmoid(x, **options)
    derivative = _transforming() or torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if out is None:
        y = _Sigmoid.apply(x) if derivative else _run(_forward, x)
        return torch.sigmoid(x) if y is None else y
    if not derivative:
        alike = x.dtype == out.dtype and x.device == out.device and x.shape == out.shape
        same = x.data_ptr() == out.data_ptr() and x.stride() == out.stride()
        apart = x.untyped_storage().data_ptr() != out.untyped_storage().data_ptr()
        plain = not (x.is_neg() or out.is_neg()) and out.is_inference() <= torch.is_inference_mode_enabled()
        if alike and (same or apart) and plain and _forward_out(x, out):
            if not out.is_inference():
                torch.autograd.graph.increment_version(out)  # so that a backward that needs the old values says so
            return out
    return torch.sigmoid(x, **options)


class ModelNew(torch.nn.Module):
    """torch.nn.Sigmoid, at the memory limit."""

    def forward(self, x):
        return sigmoid(x)


def get_inputs(device="cuda"):
    """The inputs of KernelBench's level 1, problem 21: one float32 tensor of 4096 x 393216 (6.44 GB)."""
    return [torch.rand(4096, 393216, device=device)]


def get_init_inputs():
    """The arguments of ModelNew(): none."""
    return []


# ---------------------------------------------------------------------------------------------------------------------
# The self-check, the timing and the command line
# ---------------------------------------------------------------------------------------------------------------------

_BLOCK = 1 << 24  # elements compared at a time: the float64 reference never needs a tensor of the whole shape
_BOUND_ULP = {**dict.fromkeys(_DTYPES, 1), torch.float64: 4}  # float64: torch.sigmoid's 2 and our 2


def ulp(exact, dtype):
    """The unit in the last place of `dtype` at each element of `exact` (float64), subnormal numbers included."""
    info = torch.finfo(dtype)
    # Not torch.ldexp, which is wrong on another GPU than the current one (PyTorch 2.11).
    return torch.exp2(torch.frexp(exact)[1].double() - 1).mul_(info.eps).clamp_(min=info.smallest_normal * info.eps)


def max_error_ulp(y, x):
    """Largest error of `y`, an approximation of sigmoid(x), in units in the last place (ulp) of `y.dtype`; inf where one of
    the two is NaN and the other is not. Takes tensors of equal shape; the reference is torch.sigmoid in float64."""
    worst = 0.0
    for yb, xb in zip(y.reshape(-1).split(_BLOCK), x.reshape(-1).split(_BLOCK)) if x.numel() else ():
        exact = torch.sigmoid(xb.double())
        error = (yb.double() - exact).abs_().div_(ulp(exact, y.dtype))
        error[exact.isnan() & yb.isnan()] = 0
        worst = max(worst, error.nan_to_num_(nan=float("inf")).max().item())
    return worst


def _special_values(dtype, device):
    """Infinities, NaN, zeros, subnormals, the extremes, and a sweep over the range in which the result is subnormal."""
    info = torch.finfo(dtype)
    edge = {torch.float32: 88, torch.bfloat16: 88, torch.float16: 10, torch.float64: 709}[dtype]
    some = [float("inf"), 0.0, info.smallest_normal, info.smallest_normal * info.eps, info.max, info.eps, 1.0, edge, edge + 17]
    values = torch.tensor([float("nan"), *some, *(-v for v in some)], dtype=torch.float64, device=device)
    sweep = torch.linspace(-1.2 * edge - 2, 1.2 * edge + 2, 100_003, dtype=torch.float64, device=device)
    return torch.cat([values, sweep]).to(dtype)


def self_check(x):
    """Compares the kernels with float64 at the shape of `x` and on what tends to break them.

    Returns (largest error in ulp of ModelNew, the same of torch.sigmoid, list of what is wrong).
    """
    model, wrong, bound = ModelNew(), [], _BOUND_ULP[x.dtype]
    bits = x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.itemsize]).view(-1)
    checksum = lambda: sum(int(block.sum(dtype=torch.int64)) for block in bits.split(_BLOCK))
    before = checksum()
    poison = torch.full_like(x, float("nan"))  # freed for the output to take: what is left unwritten shows
    del poison
    y = model(x)
    ours = max_error_ulp(y, x)
    if (y.shape, y.stride(), y.dtype, y.device) != (x.shape, x.stride(), x.dtype, x.device):
        wrong.append("the output's shape, strides, dtype or device differ from the input's")
    if checksum() != before:
        wrong.append("the input was changed")
    del y
    theirs = max_error_ulp(torch.sigmoid(x), x)
    special = _special_values(x.dtype, x.device)
    ours, theirs = max(ours, max_error_ulp(model(special), special)), max(theirs, max_error_ulp(torch.sigmoid(special), special))
    if ours > bound:
        wrong.append(f"an error of {ours:.2f} ulp is more than {bound}")
    source = special[-5000:].repeat(2)
    for length in [*range(1, 40), 1023, 1025, 4097]:
        for offset in (0, 1, 2, 3, 5, 8):
            view = source[offset : offset + length]
            out = torch.full((length + 16,), float("nan"), dtype=x.dtype, device=x.device)
            sigmoid(view, out=out[offset : offset + length])
            if max_error_ulp(out[offset : offset + length], view) > bound or max_error_ulp(model(view), view) > bound:
                wrong.append(f"wrong for {length} elements at offset {offset}")
            if not (out[:offset].isnan().all() and out[offset + length :].isnan().all()):
                wrong.append(f"wrote outside the output for {length} elements at offset {offset}")
    return ours, theirs, wrong


def measure(contenders, device, trials, prepare=None):
    """Times functions in turn, one call of each a trial, after three calls to warm up.

    Args:
        contenders: {name: function of no arguments}.
        device: torch.device; CUDA is timed with events on the current stream, the CPU with a wall clock.
        trials: calls timed of each.
        prepare: function of no arguments called before each timed call, to empty the cache or to line up the ranks.

    Returns {name: list of milliseconds}.
    """
    cuda, spans = device.type == "cuda", {name: [] for name in contenders}

    def now():
        if not cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    for _ in range(3 + trials):  # without waiting in between: the GPU never idles, and the host's time stays out
        for name, function in contenders.items():
            if prepare is not None:
                prepare()
            start = now()
            function()
            spans[name].append((start, now()))
    if cuda:
        torch.cuda.synchronize()
    return {name: [a.elapsed_time(b) if cuda else (b - a) * 1e3 for a, b in span[3:]] for name, span in spans.items()}


def _free_bytes(device):
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    text = meminfo.read_text() if meminfo.exists() else "MemAvailable: 4194304 kB"  # elsewhere: what any machine has
    return int(text.partition("MemAvailable:")[2].split()[0]) * 1024


def _machine(device, ranks=1):
    """What computes, as many times as there are ranks, and the versions."""
    versions, cpuinfo, models = f"PyTorch {torch.__version__}", Path("/proc/cpuinfo"), []
    if device.type == "cuda":
        name, versions = torch.cuda.get_device_name(device), f"{versions}, CUDA {torch.version.cuda}"
    else:
        if cpuinfo.exists():
            models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = f"{models[0] if models else platform.machine() + ' CPU'} ({torch.get_num_threads()} threads)"
    return f"{ranks} x {name}, {versions}" if ranks > 1 else f"{name}, {versions}"


def _parse(argv):
    """The options, completed by what the machine has and by torchrun's environment, and the parser for later errors."""
    launched = "TORCHELASTIC_RUN_ID" in os.environ  # by torchrun
    rank, ranks, local_rank, local_ranks = (int(os.environ[k]) if launched else d for k, d in [("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1)])
    parser = argparse.ArgumentParser(
        prog="sigmoid_inline.py", usage=argparse.SUPPRESS, description="Checks the sigmoid kernels against float64 and times them beside torch.sigmoid and a copy."
    )
    names = [str(d)[6:] for d in _DTYPES]
    parser.add_argument("--shape", nargs=2, type=int, metavar=("ROWS", "COLS"), help="shape of the input, of all ranks together (4096 393216; 256 393216 on the CPU)")
    parser.add_argument("--dtype", choices=names, help="data type (float32; with --sweep: each)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda, cuda:1, ..., or cpu (cuda where there is one)")
    parser.add_argument("--trials", type=int, help="timed calls of each contender (30; 10 on the CPU)")
    parser.add_argument("--compile", action="store_true", help="time torch.compile(torch.sigmoid) too")
    parser.add_argument("--sweep", action="store_true", help="time many sizes and layouts instead of one shape")
    parser.add_argument("--json", metavar="FILE", help="write every sample of --sweep to FILE")
    args = parser.parse_args(argv)
    kind, colon, index = args.device.partition(":")
    if kind not in ("cuda", "cpu") or not (index or "0").isdecimal() or args.device.endswith(":"):
        parser.error(f"--device {args.device!r} is neither cuda, cuda:N nor cpu")
    if launched and colon:
        parser.error(f"--device {args.device} under torchrun: give cuda or cpu, each rank takes the GPU of its LOCAL_RANK")
    index = int(index or local_rank)
    if kind == "cuda" and max(index + 1, local_ranks) > torch.cuda.device_count() or kind == "cpu" and colon and index:
        parser.error(f"--device {args.device} for {local_ranks} ranks: PyTorch sees {torch.cuda.device_count()} GPUs here")
    if args.sweep and (args.shape or launched) or args.json and not args.sweep:
        parser.error("--sweep has shapes of its own and runs in one process, and --json goes with --sweep")
    args.device = torch.device(kind, index) if kind == "cuda" else torch.device("cpu")
    args.dtypes = [getattr(torch, name) for name in names if name == (args.dtype or (name if args.sweep else "float32"))]
    args.shape = args.shape or ([4096, 393216] if kind == "cuda" else [256, 393216])
    args.trials = (30 if kind == "cuda" else 10) if args.trials is None else args.trials
    if args.shape[0] < ranks or args.shape[1] < 1:
        parser.error(f"--shape takes two positive numbers, and a row for each of {ranks} ranks")
    if args.trials < 1:
        parser.error("--trials takes a positive number")
    args.rank, args.ranks, args.free = rank, ranks, _free_bytes(args.device) // (local_ranks if kind == "cpu" else 1)
    return args, parser


@contextlib.contextmanager
def _ranks(args):
    """Yields gather(value), which returns the values of all ranks in a list. Where a rank fails, torchrun ends all."""
    if args.ranks == 1:
        yield lambda value: [value]
        return
    import torch.distributed as dist

    cuda = args.device.type == "cuda"
    dist.init_process_group("nccl" if cuda else "gloo", device_id=args.device if cuda else None)

    def gather(value):  # all_gather_object would need NumPy
        text = json.dumps(value).encode()
        width = torch.tensor(len(text), device=args.device)
        dist.all_reduce(width, dist.ReduceOp.MAX)
        mine = torch.tensor(list(text.ljust(width.item())), dtype=torch.uint8, device=args.device)
        texts = [torch.empty_like(mine) for _ in range(args.ranks)]
        dist.all_gather(texts, mine)
        return [json.loads(bytes(t.tolist())) for t in texts]

    yield gather
    dist.destroy_process_group()


def main(argv):
    """Runs the self-check and the timing; returns the exit status, 1 where the check finds anything."""
    args, parser = _parse(argv)
    with contextlib.ExitStack() as stack:
        if args.device.type == "cuda":
            stack.enter_context(torch.cuda.device(args.device))
        return _sweep(args) if args.sweep else _headline(args, parser, stack.enter_context(_ranks(args)))


def _headline(args, parser, gather):
    """One shape, its rows dealt out to the ranks of torchrun: the check, then the times of ModelNew, torch.sigmoid, a copy."""
    device, (dtype,), (rows, columns) = args.device, args.dtypes, args.shape
    say = print if args.rank == 0 else lambda *_: None
    # In rows of this rank: the memory, less the blocks in float64; the input; what is computed at a time, output beside input.
    row_bytes = columns * dtype.itemsize
    memory = int(0.9 * args.free - 10 * 8 * _BLOCK) // row_bytes
    mine = rows * (args.rank + 1) // args.ranks - rows * args.rank // args.ranks
    mine = min(mine, memory * 4 // 5)
    if mine < 1:
        parser.error(f"not enough memory for a row of {columns} elements: give fewer columns with --shape")
    dealt = gather(mine)
    total = sum(dealt)
    if total < rows:
        say(f"memory for {total} of {rows} rows: taking those")
    x = torch.rand(mine, columns, device=device, dtype=dtype, generator=torch.Generator(device).manual_seed(args.rank))
    parts = x.split(min(mine, memory - mine))
    megabytes = total * row_bytes / 1e6
    say(f"{_machine(device, args.ranks)}\n{str(dtype)[6:]} {total} x {columns}: {megabytes:,.0f} MB read, {megabytes:,.0f} MB written\n")

    ours, theirs, wrong = 0, 0, []
    for rank, found in enumerate(gather([self_check(part) for part in parts])):
        for a, b, problems in found:
            ours, theirs = max(ours, a), max(theirs, b)
            wrong += [f"rank {rank}: {p}" if args.ranks > 1 else p for p in problems]
    say(f"check   largest error against float64: {ours:.2f} ulp (torch.sigmoid: {theirs:.6g} ulp)")
    for problem in wrong:
        say(f"check   FAILED: {problem}")
    if wrong:
        return 1
    say("check   every element, special values, odd lengths and offsets: all right\n")

    each = lambda function: lambda: [function(part) is None for part in parts]  # no output outlives its call
    contenders = {"ModelNew": each(ModelNew()), "torch.sigmoid": each(torch.sigmoid), "copy": each(torch.clone)}
    if args.compile:
        contenders["torch.compile"] = each(torch.compile(torch.sigmoid))
    scratch = torch.empty(256 << 20, dtype=torch.uint8, device=device) if x.nbytes < 128 << 20 else None
    token = torch.zeros(1, device=device)

    def empty_cache():
        if scratch is not None:
            scratch.zero_()

    def line_up():
        empty_cache()
        torch.distributed.all_reduce(token)  # on the GPU's stream: no rank starts before the last is ready

    if args.rank == 0 and args.ranks > 1:
        (alone,) = measure({"ModelNew": contenders["ModelNew"]}, device, args.trials, empty_cache).values()
    gather(None)
    times = gather(measure(contenders, device, args.trials, line_up if args.ranks > 1 else empty_cache))
    slowest = {name: [max(ms) for ms in zip(*(t[name] for t in times))] for name in contenders}
    median = {name: statistics.median(ms) for name, ms in slowest.items()}
    say(f"{'':14}{'ms':>10}{'min':>10}{'max':>10}{'GB/s':>8}{'vs torch':>10}{'of copy':>9}")
    for name, ms in slowest.items():
        gbs, ratio, share = 2 * megabytes / median[name], median["torch.sigmoid"] / median[name], median["copy"] / median[name]
        say(f"{name:14}{median[name]:10.4g}{min(ms):10.4g}{max(ms):10.4g}{gbs:8.4g}{ratio:9.3f}x{share:9.1%}")
    say(f"\nmedians of {args.trials} interleaved calls; GB/s counts bytes read and written; copy is x.clone()")
    if args.ranks > 1:
        speed = [2 * n * row_bytes / statistics.median(t["ModelNew"]) / 1e6 for n, t in zip(dealt, times)]
        say(f"times of the slowest of {args.ranks} ranks, GB/s of all together; each by itself: {min(speed):.4g} to {max(speed):.4g} GB/s")
        if args.rank == 0:
            single = 2 * x.nbytes / statistics.median(alone) / 1e6
            say(f"rank 0 while the others wait: {single:.4g} GB/s; all together: {2 * megabytes / median['ModelNew'] / single:.3f}x that")
    return 0


def _sweep_cases(device, dtype, free):
    """Yields (name, input of any layout, whether to time the backward) from small to large."""
    cuda, size = device.type == "cuda", dtype.itemsize
    new = lambda *shape: torch.rand(shape, device=device, dtype=dtype)
    largest = min(int(0.4 * free / size).bit_length() - 1, 60 if cuda else 25)  # beside it the output
    for exponent in sorted({*range(10, largest, 2), largest}):
        yield f"2^{exponent}", new(1 << exponent), False
    n = 1 << min(largest - 1, 28 if cuda else 24)
    yield "half of rows of 8192", new(n // 4096, 8192).chunk(2, -1)[1], False
    yield "half of rows of 160", new(n // 80, 160).chunk(2, -1)[1], False
    yield "x[1:]", new(n)[1:], False
    yield "every other element", new(2 * n)[::2], False
    yield "channels last, crop", new(n >> 20, 128, 128, 64).permute(0, 3, 1, 2)[:, :, 1:-1, 1:-1], False
    yield "backward", new(n), True


def _sweep(args):
    """Sizes and layouts, each checked and then timed beside torch.sigmoid and a contiguous copy of as many bytes."""
    device, cuda, cases, status = args.device, args.device.type == "cuda", [], 0
    head = f"{'us':>10}{'GB/s':>7}{'vs torch':>10}" + f"{'compiled':>10}" * args.compile + f"{'of copy':>9}"
    print(f"{_machine(device)}\nmedians of {args.trials} interleaved calls; GB/s counts bytes read and written")
    for dtype in args.dtypes:
        print(f"\n{str(dtype)[6:]:21}{head}")
        for name, x, backward in _sweep_cases(device, dtype, args.free):
            if sys.stderr.isatty():
                print(f"{name} ...", end="\r", file=sys.stderr)
            error = max_error_ulp(sigmoid(x), x)
            if error > _BOUND_ULP[dtype]:
                print(f"{name:21}FAILED: an error of {error:.2f} ulp")
                status = 1
                continue
            contenders = {"ModelNew": ModelNew(), "torch.sigmoid": torch.sigmoid}
            if args.compile and not backward:
                torch.compiler.reset()  # else its limit of recompilations would turn it into torch.sigmoid
                contenders["torch.compile"] = torch.compile(torch.sigmoid)
            if backward:
                x.requires_grad_()
                outputs, grad = {key: f(x) for key, f in contenders.items()}, torch.rand_like(x)
                contenders = {key: functools.partial(torch.autograd.grad, y, x, grad, retain_graph=True) for key, y in outputs.items()}
            else:
                contenders = {key: functools.partial(f, x) for key, f in contenders.items()}
            moved = (3 if backward else 2) * x.numel() * dtype.itemsize
            source = torch.rand(moved // 2 // dtype.itemsize, device=device, dtype=dtype) if backward or not x.is_contiguous() else x
            contenders["copy"] = source.clone
            calls = 32 if cuda and x.numel() <= 1 << 22 else 1
            if calls > 1:  # in a CUDA graph: without the host, which takes longer than the GPU
                contenders = {key: _replay(f, calls) for key, f in contenders.items()}
            times = {key: [ms / calls for ms in values] for key, values in measure(contenders, device, args.trials).items()}
            median = {key: statistics.median(values) for key, values in times.items()}
            ours, share = median["ModelNew"], median["copy"] / median["ModelNew"]
            line = f"{name:21}{ours * 1e3:10.2f}{moved / ours / 1e6:7.4g}{median['torch.sigmoid'] / ours:9.2f}x"
            if args.compile:
                line += f"{median['torch.compile'] / ours:9.2f}x" if "torch.compile" in median else f"{'':10}"
            print(f"{line}{share:9.0%}  {'#' * min(11 if args.compile else 20, round(10 * share))}")
            cases.append({"dtype": str(dtype)[6:], "case": name, "numel": x.numel(), "bytes": moved, "calls_per_graph": calls, "ms": times})
    print("\n# is a tenth of the speed of copying as many bytes")
    if args.compile:
        print("compiled: torch.compile's time over ours")
    if cuda:
        print("up to 2^22 elements: replayed from a CUDA graph, data in the cache")
    if args.json:
        machine = {"device": _machine(device), "python": platform.python_version(), "system": platform.platform(), "date": time.strftime("%Y-%m-%d")}
        Path(args.json).write_text(json.dumps({"machine": machine, "trials": args.trials, "cases": cases}))
    return status


def _replay(function, calls):
    """A function that replays `calls` calls of `function` from one CUDA graph."""
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            function()
    return graph.replay


if __name__ == "__main__":
    if "__file__" not in globals():  # a notebook cell: sys.argv is the kernel's, and leaving is not wanted
        if main([]):
            raise RuntimeError("sigmoid_inline: the self-check failed")
    elif main(sys.argv[1:]):
        sys.exit(1)
