# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.10", "ninja", "pytest"]
# ///
"""What sigmoid_inline promises, on every device at hand:  pytest  (or  uv run FILE)."""

import ast
import contextlib
import copy
import ctypes
import functools
import gc
import importlib
import io
import itertools
import math
import os
import pickle
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.distributed.tensor.parallel as tp
from torch._inductor.utils import fresh_cache, run_and_get_code
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.distributed import tensor as dtensor
from torch.distributed.fsdp import fully_shard
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils import checkpoint as ckpt
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import sigmoid_inline
from sigmoid_inline import ModelNew, sigmoid

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
FMA = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
NAN, INF = float("nan"), float("inf")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])


def has_kernel(device, dtype):
    """What the README promises: every type on a GPU; on the CPU not float16, and with FMA only."""
    return device == "cuda" or (dtype != torch.float16 and (FMA or platform.machine() == "aarch64"))


def on_each(*dtypes, kernel=False):
    cases = []
    for device, dtype in itertools.product(("cpu", "cuda"), dtypes):
        lacks = pytest.mark.skipif(kernel and not has_kernel(device, dtype), reason="no kernel")
        marks = [needs_gpu] if device == "cuda" else [lacks]
        cases.append(pytest.param(device, dtype, marks=marks, id=f"{device}-{str(dtype)[6:]}"))
    return pytest.mark.parametrize("device, dtype", cases)


def equal(a, b):
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def scale(x, k):
    """x * 2^k exactly, for |k| <= 2000: torch.ldexp and exp2 may round on a GPU."""
    half = (k / 2).round()
    for part in (half, k - half):
        x = x * ((part.long() + 1023) << 52).view(torch.float64)
    return x


def error_ulp(y, x):
    """Largest error of `y`, in units of its last place, against torch.sigmoid in float64."""
    exact, info = torch.sigmoid(x.double()), torch.finfo(y.dtype)
    assert torch.equal(y.isnan(), exact.isnan())
    unit = scale(torch.full_like(exact, info.eps), torch.frexp(exact)[1].double() - 1)
    error = (y.double() - exact).abs() / unit.clamp_(min=info.tiny * info.eps)
    return error.nan_to_num_(0).max().item() if x.numel() else 0


def check(y, x, message=""):
    """`y` is what torch.sigmoid(x) is, within 1 ulp of float64 (3 for it: torch.sigmoid errs by 2).

    What the kernel does not take is torch.sigmoid's own result.
    """
    like, bound = torch.sigmoid(x), 3 if x.dtype == torch.float64 else 1
    for of in (torch.Tensor.size, torch.Tensor.stride, torch.Tensor.type, torch.Tensor.get_device):
        assert of(y) == of(like), message
    taken = sigmoid_inline._sigmoid(x) is not None
    assert error_ulp(y, x) <= bound if taken else equal(y, like), message


def numbers(shape, device, dtype):
    """Random numbers, every fifth of them special: in itself or in its result."""
    tiny, largest = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    special = [NAN, INF, -INF, -0.0, tiny / 4, -tiny, largest, -largest, 40, -9.9, -88.5, -740]
    special = torch.tensor(special, dtype=torch.float64, device=device)
    which = torch.randint(5 * len(special), shape, device=device)
    x = torch.randn(shape, dtype=torch.float64, device=device) * 10
    return torch.where(which < len(special), special[which % len(special)], x).to(dtype)


def random_view(rng, device, dtype):
    """Up to 7 dimensions of 0, 1 and odd sizes, as slices, permutations and expansions make them.

    One in four has any strides at all: overlapping, repeated, odd where the size is 1.
    """
    ndim = rng.choice([0, 1, 2, 2, 3, 3, 4, 4, 4, 5, 6, 7])
    sizes = [1, 1, 2, 3, 4, 5] + ([0, 7, 16, 33] if ndim < 5 else [])
    shape = [rng.choice(sizes) if rng.random() < 0.95 else 120 // (ndim + 1) for _ in range(ndim)]
    if rng.random() < 0.25:
        stride, offset = (
            [rng.choice([0, 1, 1, 2, 3, 4, 8, 15, 60]) for _ in shape],
            rng.randrange(9),
        )
        last = sum((n - 1) * s for n, s in zip(shape, stride)) if 0 not in shape else 0
        return numbers((last + offset + 1,), device, dtype).as_strided(shape, stride, offset)
    x = numbers(shape, device, dtype)
    for dim in rng.sample(range(ndim), ndim // 3):
        x = x[(slice(None),) * dim + (slice(rng.randint(0, 2), None, rng.randint(1, 3)),)]
    x = x.permute(rng.sample(range(ndim), ndim))
    if ndim in (4, 5) and rng.random() < 0.4:
        last = torch.channels_last if ndim == 4 else torch.channels_last_3d
        x = x.contiguous(memory_format=last)[:, rng.randint(0, 1) :]
    if rng.random() < 0.3:
        x = x.expand([rng.choice([1, 2, 9]) if n == 1 else n for n in x.shape])
    odd = [rng.randrange(200) if n == 1 else s for n, s in zip(x.shape, x.stride())]
    return x.as_strided(x.shape, odd) if rng.random() < 0.3 else x


@on_each(torch.float32, torch.bfloat16, torch.float16, kernel=True)
def test_all_inputs(device, dtype):
    """Rising; of float32 every 16th on the CPU but with SIGMOID_EXHAUSTIVE=1. NaN is elsewhere."""
    narrow = dtype.itemsize == 2
    integer = torch.int16 if narrow else torch.int32
    step = 1 if narrow or device == "cuda" or "SIGMOID_EXHAUSTIVE" in os.environ else 16
    infinity, wrong = torch.tensor(INF, dtype=dtype).view(integer).item(), 0
    for sign in (1, -1):
        last = torch.tensor([0.5], device=device, dtype=dtype)
        for first in range(0, infinity + 1, step << 22):
            end = min(first + (step << 22), infinity + 1)
            x = torch.arange(first, end, step, device=device).to(integer).view(dtype) * sign
            y = sigmoid(x)
            assert error_ulp(y, x) <= 1 and ((y >= 0) & (y <= 1)).all()
            assert (torch.cat([last, y]).diff() * sign >= 0).all()
            last = y[-1:]
            wrong += (y != torch.sigmoid(x.double()).to(dtype)).sum() if narrow else 0
        assert last == (sign + 1) / 2
    assert device == "cpu" or wrong <= 3


# ln 2 in three parts, the first of 32 bits; to 40 digits it is OEIS A002162.
LN2 = [0.693147180369123816490, 1.90821492927058770002e-10]
LN2.append(float(Fraction("0.6931471805599453094172321214581765680755") - sum(map(Fraction, LN2))))


def two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def two_product(a, b):
    """a * b as high + low (Dekker 1971)."""
    highs = [v * 134217729.0 - (v * 134217729.0 - v) for v in (a, b)]
    (ah, al), (bh, bl) = [(h, v - h) for v, h in zip((a, b), highs)]
    return a * b, ((ah * bh - a * b) + ah * bl + al * bh) + al * bl


def float64_error_ulp(y, x):
    """Error of `y` in ulp against two-term float64 arithmetic, good to 2^-90 or so; |x| < 760."""
    a = -x.abs()
    k = (a / LN2[0]).round()
    r, low = two_sum(a - k * LN2[0], -k * LN2[1])
    low = low - k * LN2[2]
    p, p_low = torch.zeros_like(r), torch.zeros_like(r)
    for n in range(22, 6, -1):
        p = p * r + 1 / math.factorial(n)
    for n in range(6, -1, -1):  # p = 1/n! + r * p
        exact = Fraction(1, math.factorial(n))
        product, rest = two_product(p, r)
        p, rest2 = two_sum(torch.full_like(r, float(exact)), product)
        p_low = rest + rest2 + p_low * r + float(exact - Fraction(float(exact)))
    p_low = p_low + p * low  # e^(r + low) = e^r (1 + low)
    d, d_low = two_sum(torch.ones_like(p), scale(p, k))
    d_low = d_low + scale(p_low, k)
    n, n_low, k = [torch.where(x < 0, v, w) for v, w in ((p, 1.0), (p_low, 0.0), (k, 0.0))]
    q = n / d
    product, rest = two_product(q, d)
    q_low = ((n - product) - rest + n_low - q * d_low) / d
    unit = scale(torch.ones_like(q), torch.maximum(torch.frexp(q)[1] - 53, -1074 - k))
    return ((scale(y, -k) - q) - q_low).abs() / unit  # as if the exponent had no limit


def test_reference_of_float64():
    """The two-term reference agrees with mpmath, which comes with torch through sympy."""
    mpmath = pytest.importorskip("mpmath")
    x = torch.linspace(-746, 36, 3000, dtype=torch.float64)
    with mpmath.workprec(200):
        exact = [1 / (1 + mpmath.exp(-mpmath.mpf(v))) for v in x.tolist()]
        unit = [mpmath.ldexp(1, max(mpmath.frexp(v)[1] - 53, -1074)) for v in exact]
        error = [float(abs(mpmath.mpf(float(v)) - v) / u) for v, u in zip(exact, unit)]
    got = float64_error_ulp(torch.tensor([float(v) for v in exact], dtype=torch.float64), x)
    assert_close(got.float(), torch.tensor(error), rtol=0, atol=1e-5)


@on_each(torch.float64, kernel=True)
def test_float64_over_every_exponent(device, dtype):
    """10^8 inputs on a GPU, 4 * 10^6 on the CPU; half between 2^-12 and 2^9.6: the hardest."""
    like = {"device": device, "generator": torch.Generator(device).manual_seed(0)}
    chunk = 10**7 if device == "cuda" else 10**6
    for i in range(10 if device == "cuda" else 4):
        mantissa = torch.rand(chunk, dtype=dtype, **like) + 1
        x = scale(mantissa, torch.randint(-1074 if i % 2 else -12, 10, (chunk,), **like).double())
        x = torch.where(torch.rand(chunk, **like) < 0.5, x, -x)
        x = torch.where(x.abs() < 750, x, x / 2)
        assert float64_error_ulp(sigmoid(x), x).max() <= 1


@on_each(*DTYPES, kernel=True)
def test_a_value_has_one_result(device, dtype):
    """Whatever its index, alignment, stride and the size of the tensor."""
    torch.manual_seed(0)
    x = numbers((1000,), device, dtype)
    y = torch.stack([sigmoid(v) for v in x])
    views = [lambda t: t[3:], lambda t: t.unfold(0, 7, 3), lambda t: t.expand(9, 1000).t()]
    for view in [*views, lambda t: t.repeat(1000)[1:], lambda t: torch.stack([t, t], 1)[:, 1]]:
        assert equal(sigmoid(view(x)), view(y))


@on_each(*DTYPES)
def test_any_layout(device, dtype):
    """2,500 random views: metadata, values, gradient; the input stays; `out=` gives the same."""
    rng = random.Random(0)
    torch.manual_seed(0)
    for case in range(2500):
        x = random_view(rng, device, dtype)
        message = f"case {case}: {tuple(x.shape)}, strides {x.stride()}, at {x.storage_offset()}"
        before, leaf = x.clone(), x.detach().requires_grad_()
        y = sigmoid(x)
        check(y, x, message)
        out = torch.full_like(y, NAN, memory_format=torch.contiguous_format)
        assert sigmoid(x, out=out) is out and equal(x, before), message
        near = 2 * torch.finfo(dtype).eps  # another order of dimensions may be torch.sigmoid's
        assert torch.allclose(out, y, near, 1e-30, equal_nan=True), message
        if case % 5 == 0:
            (got,) = torch.autograd.grad(sigmoid(leaf), leaf, torch.full_like(y, 3))
            assert (
                got.stride() == torch.ops.aten.sigmoid_backward(torch.full_like(y, 3), y).stride()
            )
            exact, eps = 3 * (1 - y.double()) * y.double(), torch.finfo(dtype).eps
            assert torch.allclose(got.double(), exact, 2 * eps, 2 * eps, equal_nan=True), message


@on_each(*DTYPES)
def test_rows_lengths_and_offsets(device, dtype):
    """Rows of wider matrices; lengths around vectors, tiles and threads at every offset, written
    into the middle of NaN: nothing beside it changes."""
    torch.manual_seed(0)
    for columns in (33, 80, 1024, 4096):
        wide = numbers((257, 2 * columns), device, dtype)
        for x in (wide.chunk(2, -1)[1], wide[:, ::2], wide.t(), wide[:, 4:-1]):
            check(sigmoid(x), x)
    flat = numbers((70_000,), device, dtype)
    lengths = (1, 2, 3, 7, 15, 17, 33, 2047, 2049, 4099, 32767, 32769, 65541)
    for length, offset in itertools.product(lengths, range(17)):
        x, start = flat[offset : offset + length], 3 * offset % 17
        check(sigmoid(x), x)
        around = torch.full((length + 40,), NAN, device=device, dtype=dtype)
        sigmoid(x, out=around[start : start + length])
        assert equal(around[start : start + length], sigmoid(x))
        assert around[:start].isnan().all() and around[start + length :].isnan().all()


@on_each_device
def test_more_than_2_31_elements(device):
    """64-bit indices, of the output and of the input; on a GPU of a dense tensor too."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    if (torch.cuda.mem_get_info()[0] if device == "cuda" else free) < 1 << 34:
        pytest.skip("needs 16 GiB of free memory")
    row = torch.randn(65_539, device=device).bfloat16()
    many = sigmoid(row.expand(1 << 15, 65_539))
    assert error_ulp(many[::97], row.expand_as(many)[::97]) <= 1
    assert device == "cpu" or error_ulp(sigmoid(many)[::97], many[::97]) <= 1
    del many
    far = torch.empty(1 << 32, device=device, dtype=row.dtype)[7 :: 1 << 20].copy_(row[:4096])
    check(sigmoid(far), far)


@on_each(*DTYPES, kernel=True)
def test_plain_call_takes_the_kernel(device, dtype):
    """Nothing plain takes the slow way in silence."""
    kernel, x = sigmoid_inline._sigmoid, torch.randn(6, 8, device=device).to(dtype)
    views = [x, x.t(), x[:, ::2], x[1:], x[0, 0], x[:, :1].expand(6, 9)]
    ndim = 8 if device == "cpu" or dtype == torch.float64 else 3
    views.append(torch.ones([4] * ndim, device=device, dtype=dtype)[(slice(2),) * ndim])
    autocast = functools.partial(torch.autocast, device, torch.bfloat16)
    for mode in (contextlib.nullcontext, torch.no_grad, torch.inference_mode, autocast):
        for view in views:
            with mode():
                check(y := kernel(view), view)
                takes = y.is_contiguous() and not y.is_inference()
                assert kernel(view, y) is (y if takes else None)


@on_each(*DTYPES, kernel=True)
def test_large_leaf_is_recorded(device, dtype):
    """From these sizes on the kernel computes what autograd records, and saves the output alone."""
    large = (1 << 24 if device == "cuda" else 1 << 20) + 5
    x = torch.randn(large, device=device, dtype=dtype)
    leaf, saved = x.clone().requires_grad_(), []
    assert sigmoid_inline._sigmoid(leaf) is True and sigmoid_inline._sigmoid(leaf[6:]) is None
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = sigmoid(leaf)
    assert [t.data_ptr() for t in saved] == [y.data_ptr()] and equal(y.detach(), sigmoid(x))
    (first,) = torch.autograd.grad(y, leaf, x, create_graph=True)
    assert_close(first.detach(), torch.ops.aten.sigmoid_backward(x, y.detach()), rtol=0, atol=0)
    second = [torch.autograd.grad(g.sum(), leaf)[0] for g in (first, first_gradient(leaf, x))]
    assert_close(*second, rtol=0.1 if dtype.itemsize == 2 else 1e-5, atol=1e-3)
    lost = torch._C._functions.UndefinedGrad()(sigmoid(leaf))
    assert torch.autograd.grad(lost.sum(), leaf, allow_unused=True) == (None,)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        sigmoid(leaf).mul_(2).sum().backward()
    with torch.no_grad():
        assert equal(sigmoid(leaf), y.detach())


# -- Where torch.sigmoid goes, this goes -----------------------------------------------------------


def record(self, function, types, args=(), kwargs=None):
    self.seen = [*getattr(self, "seen", []), str(function)]
    return function(*args, **kwargs or {})


Functions = type("Functions", (TorchFunctionMode,), {"__torch_function__": record})
Operators = type("Operators", (TorchDispatchMode,), {"__torch_dispatch__": record})
Override = type(
    "Override", (torch.Tensor,), {"__torch_function__": lambda *args, **_: str(args[1])}
)


def outcome(f, *args, **kwargs):
    try:
        return f(*args, **kwargs)
    except Exception as error:  # noqa: BLE001
        return str(type(error))


def alike(got, want):
    assert type(got) is type(want)
    if isinstance(want, (tuple, list)):
        for pair in itertools.zip_longest(got, want):
            alike(*pair)
    elif type(want) is torch.Tensor and want.layout is torch.strided and not want.is_meta:
        assert_close(got, want, check_stride=True)
        assert got.requires_grad == want.requires_grad
    else:
        assert str(got) == str(want)


def under(mode, f, x):
    with mode:
        return f(x), getattr(mode, "seen", None)


def gradient(f, x, mode=contextlib.nullcontext()):
    with mode:
        leaf = x.clone().requires_grad_()
        y = f(leaf)
        return y, *torch.autograd.grad(y.sin().sum(), leaf, allow_unused=True)


def first_gradient(leaf, grad):
    return torch.autograd.grad(torch.sigmoid(leaf), leaf, grad, create_graph=True)[0]


def compiled_backward(f, x):
    torch._dynamo.reset()
    loss = f(x.requires_grad_()).sin().sum()
    compiler = torch.compile(backend="aot_eager", fullgraph=True)
    with torch._dynamo.compiled_autograd._enable(compiler):
        loss.backward()
    return x.grad


def in_dual_level(f, x):
    with forward_ad.dual_level():
        return tuple(forward_ad.unpack_dual(f(forward_ad.make_dual(x, x.cos()))))


def with_default_device(f, x):
    torch.set_default_device("meta")
    y = outcome(f, x)
    torch.set_default_device(None)
    return y


def selective(f, x):
    def policy(ctx, operator, *args, **kwargs):
        seen.append(operator)
        return ckpt.CheckpointPolicy.MUST_SAVE

    seen, contexts = [], functools.partial(ckpt.create_selective_checkpoint_contexts, policy)
    return gradient(functools.partial(checkpoint, f, context_fn=contexts), x), seen


def in_inference_mode(f, x):
    x.requires_grad_()
    with torch.inference_mode(), torch.enable_grad():
        return f(x) * 2


def module(f):
    return torch.nn.Sequential(ModelNew() if f is sigmoid else torch.nn.Sigmoid())


def compiled(f, x, **options):
    torch._dynamo.reset()
    return gradient(torch.compile(lambda z: f(z) * z, fullgraph=True, **options), x)


def onnx(f, x):
    onnx = pytest.importorskip("onnx")
    torch.onnx.export(module(f), (x,), buffer := io.BytesIO(), dynamo=False)
    return [n.op_type for n in onnx.load_from_string(buffer.getvalue()).graph.node]


A, F, aten = torch.autograd, torch.func, torch.ops.aten
export = functools.partial(torch.export.export, strict=False)
trace = functools.partial(torch.jit.trace, check_trace=False)
checkpoint = functools.partial(ckpt.checkpoint, use_reentrant=False)
reentrant = functools.partial(ckpt.checkpoint, use_reentrant=True)
flops = FlopCounterMode(display=False, custom_mapping={aten.sigmoid: lambda shape, **_: 7})
new_hooks = torch.autograd.graph.saved_tensors_hooks
GRADIENTS = {
    "backward": gradient,
    "gradcheck": lambda f, x: A.gradcheck(f, x.requires_grad_(), check_batched_grad=True),
    "second": lambda f, x: A.gradgradcheck(f, x.requires_grad_(), check_fwd_over_rev=True),
    "vectorized": lambda f, x: A.functional.jacobian(f, x, vectorize=True),
    "checkpoint": lambda f, x: gradient(functools.partial(checkpoint, f), x),
    "reentrant": lambda f, x: reentrant(f, x.requires_grad_()).sum().backward() or x.grad,
    "save_on_cpu": lambda f, x: gradient(f, x, A.graph.save_on_cpu()),
    "saved": lambda f, x: (s := [], under(new_hooks(s.append, s.append), f, x.requires_grad_())),
    "anomaly": lambda f, x: gradient(f, x, A.detect_anomaly()),
    "no_grad": lambda f, x: outcome(gradient, f, x, torch.no_grad()),
    "inference_mode": lambda f, x: torch.inference_mode()(f)(x).is_inference(),
    "with enable_grad": in_inference_mode,
    "undefined": lambda f, x: gradient(lambda z: torch._C._functions.UndefinedGrad()(f(z)), x),
    "overwritten": lambda f, x: outcome(gradient, lambda z: f(z).mul_(2), x),
    "compiled autograd": compiled_backward,
    "linearize": lambda f, x: F.linearize(f, x)[1](x.cos()),
}
INTERCEPTED = {
    "jit.trace": lambda f, x: str(trace(module(f), x).inlined_graph).count("aten::sigmoid"),
    "trained trace": lambda f, x: gradient(trace(lambda z: f(z) * z, x), x),
    "fx": lambda f, x: torch.fx.symbolic_trace(lambda z: f(z) * z).code,
    "make_fx": lambda f, x: make_fx(lambda z: f(z) * z)(x).code,
    "make_fx fake": lambda f, x: make_fx(lambda z: f(z) * z, tracing_mode="fake")(x).code,
    "make_fx symbolic": lambda f, x: make_fx(lambda z: f(z) * z, tracing_mode="symbolic")(x).code,
    "make_fx of vmap": lambda f, x: make_fx(F.vmap(f))(x).code,
    "make_fx of jacfwd": lambda f, x: make_fx(F.jacfwd(f))(x).code,
    "export": lambda f, x: export(module(f), (x,)).graph_module.code,
    "strict export": lambda f, x: export(module(f), (x,), strict=True).graph_module.code,
    "onnx": onnx,
    "compile": lambda f, x: compiled(f, x, backend="eager"),
    "dynamic": lambda f, x: compiled(f, x, backend="aot_eager", dynamic=True),
    "FakeTensorMode": lambda f, x: under(FakeTensorMode(allow_non_fake_inputs=True), f, x),
    "TorchFunctionMode": lambda f, x: under(Functions(), f, x),
    "TorchDispatchMode": lambda f, x: under(Operators(), f, x),
    "FlopCounterMode": lambda f, x: (under(flops, f, x), flops.get_total_flops()),
    "torch.device": lambda f, x: under(torch.device("meta"), f, x),
    "default device": with_default_device,
    "__torch_function__": lambda f, x: f(x.as_subclass(Override)),
    "__torch_dispatch__": lambda f, x: f(TwoTensor(x, x + 1)),
    "selective checkpoint": selective,
    "dual numbers": in_dual_level,
    "functional": lambda f, x: torch._from_functional_tensor(f(torch._to_functional_tensor(x))),
    "functionalize": lambda f, x: F.functionalize(f)(x),
    "grad of grad": lambda f, x: F.grad(lambda z: F.grad(lambda v: f(v).sum())(z).norm())(x),
    "vmap": lambda f, x: F.vmap(F.vmap(f), in_dims=1, out_dims=1)(x),
    "vmap of grad": lambda f, x: F.vmap(F.grad(lambda z: f(z).sum()))(x),
    "jacrev": lambda f, x: F.jacrev(f)(x),
    "jacfwd of jacfwd": lambda f, x: F.jacfwd(F.jacfwd(f))(x),
    "hessian": lambda f, x: F.hessian(lambda z: f(z).sum())(x),
    "jvp of jvp": lambda f, x: F.jvp(lambda z: F.jvp(f, (z,), (z.cos(),))[1], (x,), (x,)),
    "vjp": lambda f, x: F.vjp(f, x)[1](x.cos()),
    "negative": lambda f, x: f(torch.complex(x, x).conj().imag),
    "conjugate": lambda f, x: f(torch.complex(x, x).conj()),
    "complex gradient": lambda f, x: f(torch.complex(x, x).requires_grad_()),
    "zero": lambda f, x: f(torch._efficientzerotensor(3, device=x.device)),
    "integers": lambda f, x: (f(x.long()), f(x > 0)),
    "nine dimensions": lambda f, x: f(x.new_ones([3] * 9)[(slice(2),) * 9]),
    "float8": lambda f, x: outcome(f, x.to(torch.float8_e5m2)),
    "sparse": lambda f, x: (outcome(f, x.to_sparse()), outcome(f, x.to_sparse_csr())),
    "mkldnn": lambda f, x: outcome(lambda: f(x.float().to_mkldnn()).to_dense()),
    "quantized": lambda f, x: outcome(
        f, torch.quantize_per_tensor(x.float(), 0.1, 9, torch.quint8)
    ),
    "nested": lambda f, x: outcome(f, torch.nested.nested_tensor([x, x[:2]])),
    "jagged": lambda f, x: f(torch.nested.nested_tensor([x], layout=torch.jagged)).values(),
    "masked": lambda f, x: f(torch.masked.masked_tensor(x, x > 0)),
    "meta": lambda f, x: f(x.to("meta").t()).stride(),
    "parameter": lambda f, x: f(torch.nn.Parameter(x)),
    "named": lambda f, x: outcome(lambda: f(x.refine_names("a", "b")).names),
    "not a tensor": lambda f, x: (outcome(f), outcome(f, 1.0), outcome(f, [x])),
    "out of memory": lambda f, x: outcome(f, x[0, :1].expand(1 << 45)),
}


@pytest.mark.filterwarnings("ignore")
@on_each_device
@pytest.mark.parametrize("way", [*GRADIENTS, *INTERCEPTED])
def test_goes_the_way_of_torch_sigmoid(device, way, monkeypatch):
    """Both do the same there; where operators are intercepted the kernel never runs."""
    answers, kernel = [], sigmoid_inline._sigmoid
    spy = lambda *args: answers.append(kernel(*args)) or answers[-1]  # noqa: E731
    monkeypatch.setattr(sigmoid_inline, "_sigmoid", spy)
    x = torch.randn(3, 4, device=device, dtype=torch.float64)
    go = {**GRADIENTS, **INTERCEPTED}[way]
    alike(go(sigmoid, x.clone()), go(torch.sigmoid, x.clone()))
    assert way in GRADIENTS or set(answers) <= {None}


@on_each_device
def test_a_mode_that_nobody_thought_of(device):
    """Any key that the thread includes turns the kernel off, but for those that let it through."""
    x, members = torch.randn(5, device=device), torch._C.DispatchKey.__members__
    through = ("BackendSelect", "ADInplaceOrView", "AutogradFunctionality", "Dense")

    def taken(guard, keys):
        with guard(keys):
            return sigmoid_inline._sigmoid(x) is not None

    for name, key in members.items():
        keys = torch._C.DispatchKeySet(key).raw_repr()
        if keys and keys % (1 << 15) == 0 and not name.startswith("Autocast"):  # of any backend
            bits = [torch._C.DispatchKeySet(members[n]).raw_repr() for n in through]
            passes = keys & ~sum(bits) == 0 and has_kernel(device, x.dtype)
            with ThreadPoolExecutor(1) as thread:  # of its own: PyTorch 2.11's guard leaves keys
                future = thread.submit(taken, torch._C._IncludeDispatchKeyGuard, key)
            assert future.result() == passes, name
    assert not taken(torch._C._ExcludeDispatchKeyGuard, torch._C.DispatchKeySet(members["Dense"]))


def test_key_set_offset():
    """It names the word with the dispatch keys of other tensors than those it was found with."""
    x, offset = torch.randn(2, 3), sigmoid_inline._key_set_offset()
    tensors = [x.requires_grad_(), x.to_sparse_csr(), x.detach().bfloat16(), x.detach().to_mkldnn()]
    tensors += [torch._efficientzerotensor(3), torch._to_functional_tensor(x.detach())]
    for tensor in [*tensors, TwoTensor(x, x), torch.inference_mode()(torch.ones)(2)]:
        word = ctypes.c_uint64.from_address(tensor._cdata + offset).value
        assert word == torch._C._dispatch_keys(tensor).raw_repr()


OUTS = {  # the first four are the kernel's
    "new": lambda x: (x, torch.empty_like(x)),
    "in place": lambda x: (x, x),
    "apart in one buffer": lambda x: (x[:3], x[3:]),
    "of a transposed": lambda x: (x.t(), x.new_empty(8, 6)),
    "transposed": lambda x: (x, x.new_empty(8, 6).t()),
    "no elements": lambda x: (x[:0], x[3:3]),
    "resized": lambda x: (x, x.new_empty(0)),
    "resized with a warning": lambda x: (x, x.new_empty(5)),
    "not dense": lambda x: (x, x.new_empty(6, 16)[:, ::2]),
    "in place, not dense": lambda x: (x[:, ::2], x[:, ::2]),
    "overlaps in part": lambda x: (x[1:], x[:-1]),
    "overlaps in part, upwards": lambda x: (x[:-1], x[1:]),
    "in place, transposed": lambda x: (x[:, :6], x[:, :6].t()),
    "overlaps itself": lambda x: (x, x.new_empty(1).expand(6, 8)),
    "float64": lambda x: (x, x.new_empty(6, 8, dtype=torch.float64)),
    "int32": lambda x: (x, x.new_empty(6, 8, dtype=torch.int32)),
    "requires a gradient": lambda x: (x, torch.empty_like(x, requires_grad=True)),
    "input requires a gradient": lambda x: (x.clone().requires_grad_(), torch.empty_like(x)),
    "inference tensor": lambda x: (x, torch.inference_mode()(torch.empty_like)(x)),
    "meta": lambda x: (x, torch.empty_like(x, device="meta")),
    "subclass": lambda x: (x, torch.empty_like(x).as_subclass(Override)),
    "list": lambda x: (x, [1]),
}


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
@on_each_device
@pytest.mark.parametrize("case", OUTS)
def test_out(device, case):
    """As torch.sigmoid in result, strides, error and version: a backward notices lost values."""
    values, results = torch.randn(6, 8, device=device), []
    for f in (sigmoid, torch.sigmoid):
        x, out = OUTS[case](values.clone())
        y = outcome(f, x, out=out)
        results.append((y, y is out, out, outcome(lambda: out._version > 0)))
    alike(*[r if isinstance(r[0], torch.Tensor) else r[:2] + r[3:] for r in results])
    taken = sigmoid_inline._sigmoid(*OUTS[case](values.clone())) is not None
    assert taken == (case in list(OUTS)[:4] and has_kernel(device, torch.float32))


@on_each_device
def test_compiled_call_is_one_fused_kernel(device):
    x, y = torch.randn(2, 100, device=device)
    torch._dynamo.reset()
    f = torch.compile(lambda x, y: sigmoid(x) * y + 1, fullgraph=True)
    with fresh_cache():  # it does not tell one ATEN_CPU_CAPABILITY from another
        got, (code, *_) = run_and_get_code(f, x, y)
    assert_close(got, torch.sigmoid(x) * y + 1)
    assert code.count("def triton_" if device == "cuda" else 'extern "C"') == 1


@pytest.mark.filterwarnings("ignore")
def test_saved_trace_and_script_need_no_file(tmp_path):
    """They load and compute in a process that cannot import this file."""
    model, x = torch.nn.Sequential(torch.nn.Linear(4, 4), ModelNew()), torch.randn(3, 4)
    for name, convert in (("script.pt", torch.jit.script), ("trace.pt", lambda m: trace(m, x))):
        convert(model).save(tmp_path / name)
        torch.save((x, model(x).detach()), tmp_path / "x.pt")
        code = "import torch; x, y = torch.load('x.pt')\n"
        code += f"assert torch.jit.load('{name}')(x).allclose(y)"
        subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", code], cwd=tmp_path, check=True)


@on_each(*DTYPES[:3], kernel=True)
def test_profiler_shows_its_name(device, dtype):
    x = torch.randn(5, device=device, dtype=dtype)
    with torch.profiler.profile() as profile:
        y = sigmoid(x)
    keys = {event.key for event in profile.key_averages()}
    assert "sigmoid_inline" in keys and "aten::sigmoid" not in keys and equal(y, sigmoid(x))
    assert device == "cpu" or any("kernel<" in key for key in keys)


@on_each_device
def test_threads(device):
    xs = [torch.randn(100_003, device=device) for _ in range(8)] * 20
    with ThreadPoolExecutor(8) as pool:
        for x, y in zip(xs, pool.map(sigmoid, xs)):
            check(y, x)


@on_each_device
def test_nothing_leaks(device):
    """20,000 calls of each kind, errors too: no memory, no reference to a tensor or to None."""

    def held():
        gc.collect()
        pages = int(open("/proc/self/statm").read().split()[1])
        memory = torch.cuda.memory_allocated() if device == "cuda" else pages >> 12
        return [t._use_count() for t in tensors], *map(sys.getrefcount, tensors), memory

    x = torch.randn(1024, device=device)
    tensors = x, out, leaf = x, torch.empty_like(x), x.clone().requires_grad_()
    calls = [(x, None), (x, out), (leaf, None), ([x], None), (x, [x]), (leaf, out), (x.int(), None)]
    [outcome(sigmoid, t, out=o) for t, o in calls]
    for t, o in calls:
        before, none = held(), sys.getrefcount(None)
        for _ in range(20_000):
            outcome(sigmoid, t, out=o)
        assert abs(sys.getrefcount(None) - none) < 1000
        assert held()[:-1] == before[:-1] and held()[-1] <= before[-1] + (device == "cpu")


def test_module():
    model, x, calls = ModelNew(), torch.randn(5), []
    assert list(model.state_dict()) == list(model.buffers()) == []
    for m in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert equal(m(x), sigmoid(x)) and equal(m(input=x), sigmoid(x))
    model.register_forward_hook(lambda m, args, out: calls.append(out))
    assert model(x) is calls[0]


@needs_gpu
def test_cuda_graph_streams_and_memory():
    x, big = torch.randn(1 << 20, device="cuda"), torch.zeros(1 << 28, device="cuda")
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    sigmoid(x)
    with torch.cuda.graph(graph):
        y = sigmoid(x)
    x.copy_(torch.randn(1 << 20, device="cuda"))
    graph.replay()
    check(y, x)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        z = sigmoid(big.fill_(1))  # on the side stream: after fill_
    stream.synchronize()
    assert torch.cuda.max_memory_allocated() - before == z.nbytes
    assert (z == sigmoid(torch.ones(1, device="cuda"))).all()


def gpus(n):
    lacks = pytest.mark.skipif(torch.cuda.device_count() < n, reason=f"needs {n} NVIDIA GPUs")
    return pytest.param("cuda", marks=lacks)


@pytest.mark.parametrize("device", [gpus(2)])
def test_other_gpu_than_the_current(device):
    x = torch.randn(1000, device=f"{device}:1")
    check(sigmoid(x), x)
    assert_close(gradient(sigmoid, x), gradient(torch.sigmoid, x))
    assert torch.cuda.current_device() == 0


def check_dtensors(mesh):
    shards = [dtensor.Shard(0), dtensor.Shard(1), dtensor.Replicate(), dtensor.Partial()]
    for placement, shape in itertools.product(shards, ((4, 6), (5, 7), (1, 7))):
        local = torch.randn(shape, device=mesh.device_type)
        x = dtensor.DTensor.from_local(local, mesh, [placement])
        for got, want in zip(gradient(sigmoid, x), gradient(torch.sigmoid, x)):
            assert (got.placements, got.shape) == (want.placements, want.shape)
            assert got.stride() == want.stride()
            assert_close(got.full_tensor(), want.full_tensor())


def check_parallel_models(mesh):
    plan = {"0": tp.ColwiseParallel(use_local_output=False), "2": tp.RowwiseParallel()}
    wrappers = {
        "DDP": torch.nn.parallel.DistributedDataParallel,
        "FSDP2": functools.partial(fully_shard, mesh=mesh),
        "tensor parallel": lambda model: tp.parallelize_module(model, mesh, plan),
    }
    for name, compiled in itertools.product(wrappers, (False, True)):
        results = []
        for activation in (ModelNew(), torch.nn.Sigmoid()):
            torch.manual_seed(0)
            layers = [torch.nn.Linear(8, 16), activation, torch.nn.Linear(16, 4)]
            model = wrappers[name](torch.nn.Sequential(*layers).to(mesh.device_type))
            run = torch.compile(model, backend="aot_eager") if compiled else model
            y = run(torch.randn(6, 8, device=mesh.device_type))
            y.square().sum().backward()
            gradients = [p.grad for p in model.parameters()]
            results.append([y, *(getattr(g, "full_tensor", lambda g=g: g)() for g in gradients)])
        assert_close(*results, msg=f"{name}, compiled: {compiled}")


def start_rank(rank, store, device):
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, f"file://{store}", rank=rank, world_size=2)
    mesh = dtensor.init_device_mesh(device, (2,))
    torch.manual_seed(0)
    check_dtensors(mesh)
    check_parallel_models(mesh)
    torch.distributed.barrier()
    os._exit(0)  # at the interpreter's exit PyTorch 2.15 with gloo and its profiler aborted once


@pytest.mark.parametrize("device", ["cpu", gpus(2)])
def test_two_ranks(device, tmp_path):
    """DTensor has torch.sigmoid's results, placements and gradients; DDP, FSDP2 and tensor
    parallel models with ModelNew are those with nn.Sigmoid, compiled and not."""
    torch.multiprocessing.spawn(start_rank, (tmp_path / "store", device), nprocs=2)


FILE = Path(sigmoid_inline.__file__).resolve()
TEXT = FILE.read_text()
README = FILE.with_name("README.md").read_text()
NVCC = shutil.which("nvcc", path="/usr/local/cuda/bin" + os.pathsep + os.environ["PATH"])
HAS_CPU_KERNEL = sigmoid_inline._sigmoid(torch.zeros(1)) is not None
needs_cpu_kernel = pytest.mark.skipif(not HAS_CPU_KERNEL, reason="needs AVX2 or NEON")
RIGHT = "all right" if HAS_CPU_KERNEL else "torch.sigmoid takes this data type"
SMALL = "--device cpu --shape 9 5003 --trials 2".split()
COMPILED = r"sigmoid_inline: compiled the (GPU|CPU) kernel.* in \d+\.\d s\n"
IMPORT = """import os, sys; exec(os.environ.get("FIRST", ""))
import torch, sigmoid_inline; y = sigmoid_inline.sigmoid(torch.zeros(3)).tolist()
exec(os.environ.get("THEN", "print(y)"))"""
HALVES = "[0.5, 0.5, 0.5]\n"
WRONG = "torch.sigmoid = lambda x, **options: exact(x, **options) * (1 + 1e-6)"  # the reference


def start(*args, cache, cwd=FILE.parent, before=(), **env):
    """Starts python with `args`, on the CPU unless told; None removes a variable."""
    own = {"CUDA_VISIBLE_DEVICES": "", "TORCH_EXTENSIONS_DIR": str(cache)}
    own |= {"PYTHONPATH": str(FILE.parent), "PYTHONWARNINGS": "ignore", **env}
    env = {name: value for name, value in {**os.environ, **own}.items() if value is not None}
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([*before, sys.executable, *args], env=env, cwd=cwd, text=True, **pipes)


def run(*args, status=0, **options):
    """(stdout, stderr) of a process that has to end with this status."""
    process = start(*args, **options)
    out, err = process.communicate()
    assert process.returncode == status, out + err
    return out, err


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with this machine's library, at a path that asks for quoting."""
    cache = tmp_path_factory.mktemp('a cache\'s "späces"')
    run("-c", IMPORT, cache=cache)
    return cache


@pytest.fixture
def no_numpy(tmp_path):
    """Options for a process without NumPy, where PyTorch's warnings are shown, in a fresh cache."""
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('No module named numpy')")
    path = os.pathsep.join([str(tmp_path), str(FILE.parent)])
    return {"cache": tmp_path, "PYTHONPATH": path, "PYTHONWARNINGS": None}


@pytest.fixture
def execute(monkeypatch, tmp_path, capfd):
    """execute(text): its namespace, and whether it compiled (for the CPU, into tmp_path)."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))

    def execute(text):
        namespace = {}
        exec(text, namespace)
        assert str(namespace["ModelNew"]()(torch.zeros(3)).tolist()) + "\n" == HALVES
        return namespace, re.fullmatch(COMPILED, capfd.readouterr().err) is not None

    return execute


# -- The import and the cache ----------------------------------------------------------------------

SETTINGS = """
import logging, os, sys, threading, warnings, torch
def settings():
    log = logging.getLogger("torch.utils.cpp_extension")
    return (dict(os.environ), warnings.filters[:], logging.root.level, logging.root.handlers[:],
            log.level, log.disabled, torch.get_num_threads(), threading.active_count(),
            torch.get_default_dtype(), torch.is_grad_enabled(), torch.cuda.is_initialized(),
            sys.stdout, sys.stderr, os.getcwd())
before = settings()
import sigmoid_inline
assert settings() == before
warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
child = os.fork()
if child == 0:
    x = torch.zeros(1, device="cuda" if torch.cuda.device_count() else "cpu")
    os._exit(int(sigmoid_inline.sigmoid(x).item() != 0.5))
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("devices", ["", pytest.param(None, marks=needs_gpu)])
def test_import_compiles_once_says_so_and_changes_nothing_else(devices, no_numpy):
    """PyTorch's own warnings stay, the one about NumPy too; processes may still fork."""
    options = {"CUDA_VISIBLE_DEVICES": devices, **no_numpy}
    torch_says = run("-c", "import torch", **options)[1]
    assert "Failed to initialize NumPy" in torch_says
    out, err = run("-c", SETTINGS, **options)
    assert out == "" and err.startswith(torch_says)
    assert re.fullmatch(COMPILED, err[len(torch_says) :])
    assert run("-c", "import sigmoid_inline", **options) == ("", torch_says)


def test_processes_that_import_at_once_build_once_and_machines_share_a_cache(tmp_path):
    """Another CPU or compiler is another library."""
    (tmp_path / "g++").symlink_to(shutil.which("c++"))
    other_cpu, other_compiler = {"ATEN_CPU_CAPABILITY": "default"}, {"CXX": str(tmp_path / "g++")}
    machines = [{}, {}, other_cpu, other_cpu, other_compiler]
    then = "print(torch.backends.cpu.get_cpu_capability(), open('/proc/self/maps').read())"
    started = [(m, start("-c", IMPORT, cache=tmp_path, THEN=then, **m)) for m in machines]
    found = {}
    for machine, process in started:
        out, err = process.communicate()
        assert process.returncode == 0, err
        name = re.search(r"sigmoid_inline_\w+-\w+\.so", out).group()
        found.setdefault((out.split()[0], machine.get("CXX")), []).append((name, "compiled" in err))
    for runs in found.values():
        assert len(dict(runs)) == 1 and sum(compiled for _, compiled in runs) == 1, found
    assert len({runs[0][0] for runs in found.values()}) == len(found)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_killed_build_says_nothing_and_leaves_no_trap(stop, tmp_path):
    """The next build works, and removes what the dead one left."""
    process = start(FILE, *SMALL, cache=tmp_path)
    while not list(tmp_path.rglob("main.cpp")):  # the compiler is about to start
        assert process.poll() is None
    process.send_signal(stop)
    assert process.communicate() == ("", "") and process.returncode == -stop
    assert run("-c", IMPORT, cache=tmp_path)[0] == HALVES
    assert [p.suffix for p in sorted((tmp_path / "sigmoid_inline").iterdir())] == ["", ".so"]


def test_wrong_library_is_built_again_and_of_two_one_is_loaded(execute, tmp_path):
    """In one process too, as where a notebook's cell is executed again after a failed build."""
    assert execute(TEXT)[1]
    (library,) = tmp_path.rglob("*.so")
    right = library.read_bytes()
    flipped = bytearray(right)
    flipped[len(right) // 2] ^= 1
    for wrong in (bytes(len(right)), flipped, right[:5000]):
        for library in tmp_path.rglob("*.so"):
            library.unlink()  # it is in use
            library.write_bytes(wrong)
        assert execute(TEXT)[1] and not execute(TEXT)[1]
    library.with_name(library.name.replace("-", "-0")).write_bytes(right)
    assert not execute(TEXT)[1]


# -- Start-up: what is broken, and what is odd but works -------------------------------------------

NVML = """
int nvmlInit(void) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **gpu) { *gpu = 0; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *g, int *a, int *b) { *a = MAJOR; *b = 0; return 0; }
"""
MACHINE = r"""set -e
library() { cc -shared -fPIC -x c - -o "$@"; }
program() { mkdir -p "${1%/*}"; printf '#!/bin/sh\nexec %s "$@"\n' "$2" > "$1"; chmod +x "$1"; }
private() { unshare "$@" true || exit 77; RUN=(unshare "$@"); }
mounted() { private --map-root-user --mount; RUN+=(sh -c "mount $* && exec \"\$@\"" sh); }
user() { private --map-user=12345 --map-group=12345; }  # of whom the system knows nothing
only() { mkdir bin; ln -s "$(command -v $1)" bin; PATH=$PWD/bin; FIRST="sys.executable = '/'"; }
own() { mkdir sigmoid_inline; cd sigmoid_inline; }
gpu() {  # of this compute capability; of the toolkit nvcc alone
  [ "$NVCC" ] || exit 77
  echo "$NVML" | library libnvidia-ml.so.1 -DMAJOR=$1
  program bin/nvcc "$NVCC"
  LD_LIBRARY_PATH=$PWD; CUDA_HOME=$PWD; CUDA_VISIBLE_DEVICES=0; TORCH_CUDA_ARCH_LIST=
}
runtime() {  # and a CUDA runtime of this version, with a symbol so that the linker takes it
  gpu 9; mkdir lib64
  echo "int cudaLaunchKernel(void) { return 0; }" | library lib64/libcudart.so -Wl,-soname,$1
}
"""
OWN, TOOLKIT = "set TORCH_EXTENSIONS_DIR to a", f"install the toolkit of CUDA {torch.version.cuda}"
WORKS, EITHER = "works", "works, or names the remedy"
START_UP = {  # what is odd: the shell commands that make it so, in the cache; what the line says
    "no ninja": ("only c++", "ninja is missing: pip install ninja"),
    "no compiler": (
        "unset CXX; only ninja",
        "the C++ compiler 'c++' is missing: install g++, or set CXX",
    ),
    "no such CXX": ("CXX=/x/g++", "the C++ compiler '/x/g++' is missing: install g++, or set CXX"),
    "old PyTorch": ("FIRST='import torch; torch.__version__ = \"2.9.1\"'", "pip install -U torch"),
    "no nvcc": ("gpu 9; rm bin/nvcc", f"nvcc is missing: {TOOLKIT}"),
    "another CUDA": ("runtime libcudart.so.8.0", f"nvcc and PyTorch differ in CUDA: {TOOLKIT}"),
    "no toolkit": ("gpu 9", f"the CUDA runtime is missing beside nvcc: {TOOLKIT}"),
    "new compiler": ("gpu 9; program g/gcc 'cc -U__GNUC__ -D__GNUC__=99'; CC=$PWD/g/gcc", "g++-13"),
    "new GPU": ("gpu 99", f"nvcc does not know this GPU: {TOOLKIT}"),
    "old GPU": ("gpu 2", f"nvcc does not know this GPU: {TOOLKIT}"),
    "cache is a file": ("touch a; TORCH_EXTENSIONS_DIR=$PWD/a", OWN),
    "cache is a dangling link": ("ln -s /x/y sigmoid_inline", OWN),
    "lock is a folder": ("own; mkdir lock", OWN),
    "lock of another": ("own; touch lock; chmod 0 lock; user", OWN),
    "cache of another": ("own; chmod 555 .; user", OWN),
    "read-only": ("mounted -t tmpfs -o ro x '\"$PWD\"'", OWN),
    "full disk": ("mounted -t tmpfs -o size=4k x '\"$PWD\"'", "the disk is full: free some of it"),
    "fuller disk": (
        "mounted -t tmpfs -o size=64k x '\"$PWD\"'",
        "the disk is full: free some of it",
    ),
    "noexec": ("mounted -t tmpfs -o noexec x '\"$PWD\"'", OWN),
    "no home": ("unset HOME XDG_CACHE_HOME TORCH_EXTENSIONS_DIR; user", OWN),
    "no home, but a cache": ("unset HOME XDG_CACHE_HOME; user", WORKS),
    "full cache, read-only": ("mounted --bind -o ro '\"$CACHE\"' '\"$PWD\"'", WORKS),
    "CXX is empty": ("CXX=", WORKS),
    "CXX with an option": ("CXX='c++ -m64'", EITHER),
    "CXX behind ccache": ("program c/ccache env; CXX=$PWD'/c/ccache c++'", EITHER),
    "CXX with a space": ("program 'a b/g++' c++; CXX=$PWD'/a b/g++'", EITHER),
    "a dollar": ("TORCH_EXTENSIONS_DIR=$PWD'/a $b'", EITHER),
    "a colon": ("TORCH_EXTENSIONS_DIR=$PWD/a:b", EITHER),
    "a newline": ("TORCH_EXTENSIONS_DIR=$PWD$'/a\\nb'", EITHER),
    "stderr is None": ("FIRST='sys.stderr = None'", WORKS),
    "stdout is closed": ("FIRST='sys.stdout.close()' THEN='os.write(1, b\"1\")'", WORKS),
    "1 and 2 are closed": ("exec 9>&1 >&- 2>&-; THEN='os.write(9, b\"1\")'", WORKS),
}


@pytest.fixture(scope="module")
def outcomes(request, cache, tmp_path_factory):
    """{what is odd: future of an import}: two at once, most of the time is `import torch`."""
    nvcc = (NVCC and torch.version.cuda and NVCC) or ""
    env = {"NVML": NVML, "NVCC": nvcc, "FIRST": "", "THEN": "print(y)", "CACHE": str(cache)}

    def outcome(commands):
        folder = tmp_path_factory.mktemp("case")
        script = f'{MACHINE}set -a\n{commands}\nexec "${{RUN[@]}}" "$@"'
        before = ["bash", "-c", script, "bash"]
        process = start("-c", IMPORT, cache=folder, cwd=folder, before=before, **env)
        return *process.communicate(), process.returncode

    pool = ThreadPoolExecutor(2)
    selected = [
        i.callspec.params["name"] for i in request.session.items if i.name[:13] == "test_start_up"
    ]
    yield {name: pool.submit(outcome, START_UP[name][0]) for name in selected}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", START_UP)
def test_start_up(name, outcomes):
    """What is broken ends in one line of this program that names the remedy; the rest works."""
    (out, err, status), says = outcomes[name].result(), START_UP[name][1]
    if status == 77:
        pytest.skip("needs nvcc and a PyTorch with CUDA, or the right to make namespaces")
    if says is WORKS or (says is EITHER and status == 0):
        assert status == 0 and out in (HALVES, "1"), err
    else:
        last = err.splitlines()[-1]
        assert last.startswith("RuntimeError: sigmoid_inline: ") and status == 1, err
        assert (" set " if says is EITHER else says) in last


# -- Notebooks and harnesses -----------------------------------------------------------------------


def test_harness_executes_the_text_and_an_edited_text_is_a_new_library(execute, monkeypatch):
    """KernelBench executes it in a bare dict; cells are executed again, modules reloaded."""
    namespace, compiled = execute(TEXT)
    monkeypatch.setattr(torch, "rand", lambda *shape, device: (shape, device))
    assert namespace["get_inputs"]() == [((4096, 393216), "cuda")]
    assert compiled and namespace["get_init_inputs"]() == []
    for name in ("FORMULA_SOURCE", "ARGUMENTS_SOURCE", "CPU_SOURCE", "CALL_SOURCE"):
        edited = TEXT.replace(f'\n{name} = r"""\n', f'\n{name} = r"""\n// edited\n')
        assert edited != TEXT and execute(edited)[1], name
    assert not execute(TEXT)[1]
    monkeypatch.delitem(sys.modules, "sigmoid_inline")
    module = importlib.import_module("sigmoid_inline")
    before = module.ModelNew()
    assert importlib.reload(module).sigmoid(torch.zeros(1)) == before(torch.zeros(1)) == 0.5


CELLS = [
    f"""import argparse, sys, torch
sys.argv = ["kernel", "-f", "connection.json"]
parse, exact = argparse.ArgumentParser.parse_args, torch.sigmoid
argparse.ArgumentParser.parse_args = lambda parser, argv: parse(parser, argv + {SMALL})""",
    f"exec(open({str(FILE)!r}).read(), globals())",
    WRONG,
]
NOTEBOOK = """import sys
cell = {"__name__": "__main__"}
for text in eval(sys.argv[1]):
    try: exec(text, cell), print("ok")
    except BaseException as error: print(type(error).__name__)"""


@pytest.mark.parametrize("jupyter", [False, True])
def test_cell_checks_and_times_and_never_ends_the_kernel(jupyter, cache):
    """No __file__, the kernel's sys.argv; a wrong result is a RuntimeError, never a SystemExit."""
    cells = [*CELLS, CELLS[1]]
    if jupyter:
        pytest.importorskip("ipykernel", reason="needs ipykernel: pip install ipykernel")
        from jupyter_client.manager import run_kernel

        own = {"TORCH_EXTENSIONS_DIR": str(cache), "CUDA_VISIBLE_DEVICES": ""}
        with run_kernel(env={**os.environ, **own}) as client:
            said, cells[1] = [], TEXT
            options = {"output_hook": said.append, "timeout": 600}
            replies = [client.execute_interactive(cell, **options)["content"] for cell in cells]
        out, status = str(said), [reply.get("ename", reply["status"]) for reply in replies]
    else:
        out, _ = run("-c", NOTEBOOK, repr(cells), cache=cache)
        status = re.findall(r"^\w+$", out, re.M)
    assert status == ["ok"] * 3 + ["RuntimeError" if HAS_CPU_KERNEL else "ok"]
    assert RIGHT in out and "GB/s" in out and ("FAILED" in out) == HAS_CPU_KERNEL


# -- The command line and torchrun -----------------------------------------------------------------


@pytest.mark.parametrize("cpu", [None, "default"])
def test_first_command_shows_only_its_own_lines(cpu, no_numpy):
    """The check, the table, a line on stderr. That a CPU has no kernel is not a failure."""
    out, err = run(FILE, *SMALL, **no_numpy, **({"ATEN_CPU_CAPABILITY": cpu} if cpu else {}))
    assert re.fullmatch(COMPILED, err)
    says = "check   nothing: torch.sigmoid takes this data type here" if cpu else RIGHT
    assert out.startswith("CPU with ") and says in out
    assert re.search(r"^float32 9 x 5003  .* \d+\.\d{3}x .*%$", out, re.M)


BAD = "--sweep --shape 2 3, --shape 0 5, --shape 1 0, --shape x 1, --shape 1, --dtype int8, "
BAD += "--device nowhere, --trials 0, --nonsense, extra"


@pytest.mark.parametrize("bad", BAD.split(", "))
def test_bad_arguments_are_refused_in_one_line(bad, capsys):
    with pytest.raises(SystemExit) as error:
        sigmoid_inline.main(["--device", "cpu", *bad.split()])
    out, err = capsys.readouterr()
    assert error.value.code == 2 and out == ""
    assert re.fullmatch(r"sigmoid_inline\.py: error: .+\n", err)


def test_closed_pipe_and_interrupt_end_quietly(cache):
    """`| head` and Ctrl-C end it as they end any program."""
    process = start(FILE, *SMALL, cache=cache)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == -signal.SIGPIPE
    process = start("-u", FILE, *SMALL, "--trials", "100000000", cache=cache)
    assert process.stdout.readline().startswith("CPU with ")
    process.send_signal(signal.SIGINT)
    assert process.stderr.read() == "" and process.wait() == -signal.SIGINT


def test_sweep(monkeypatch, capsys):
    """Layouts and eager calls are checked and timed; a wrong result fails it."""
    sweep = ["--sweep", "--device", "cpu", "--trials", "1", "--dtype", "bfloat16"]
    rand = torch.rand

    def small(*shape, **options):
        shape = torch.empty(*shape, device="meta").shape
        return rand([min(n, 40 if 1 not in shape[:2] else 1 << 14) for n in shape], **options)

    eager = sigmoid_inline._eager
    monkeypatch.setattr(torch, "rand", small)
    monkeypatch.setattr(sigmoid_inline, "_eager", lambda *args: itertools.islice(eager(*args), 7))
    assert sigmoid_inline.main(sweep) == 0
    out = capsys.readouterr().out
    for case in ("2^23 ", "half of rows of 66 ", "sigmoid(x, out=y), 2^0 ", "forward and back"):
        assert re.search(rf"^{re.escape(case)}.* \d+\.\d{{3}}x", out, re.M), out
    if HAS_CPU_KERNEL:
        monkeypatch.setattr(sigmoid_inline, "_eager", lambda *_: [])
        monkeypatch.setattr(sigmoid_inline, "sigmoid", lambda x: torch.sigmoid(x) * 1.02)
        assert sigmoid_inline.main(sweep) == 1
        assert re.search(r"^2\^10 +FAILED: an error of", capsys.readouterr().out, re.M)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    "before, says",
    [
        ("", RIGHT),
        ("torch.rand = None", "'NoneType' object is not callable"),
        pytest.param(WRONG, "FAILED: ", marks=needs_cpu_kernel),
    ],
    ids=["right", "fails", "wrong"],
)
def test_status_of_a_process_and_of_torchrun(ranks, before, says, cache, tmp_path):
    """Ranks share the rows, and rank 0 speaks; where the last one fails or is wrong, all end."""
    code = "import os, runpy, sys, torch\nexact = torch.sigmoid\n"
    code += f"if os.environ.get('RANK', '1') == '1': {before or 0}\n"
    code += f"sys.argv[1:] = {SMALL}\nrunpy.run_path({str(FILE)!r}, run_name='__main__')\n"
    (tmp_path / "main.py").write_text(code)
    torchrun = "-m torch.distributed.run --standalone --nproc-per-node=2".split()
    command = [*(torchrun if ranks == 2 else []), tmp_path / "main.py"]
    out, err = run(*command, cache=cache, status=int(before != ""))
    assert says in out + err
    if not before:
        assert ("2 x CPU with" in out) == (ranks == 2)
        assert len(re.findall(r"^float32 9 x 5003  .*%$", out, re.M)) == 1


# -- The contract of the file ----------------------------------------------------------------------


def test_contract():
    """Three files; torch alone; nothing that KernelBench's static checker rejects; 100 columns."""
    names = {p.name for p in FILE.parent.iterdir() if not p.name.startswith((".", "_"))}
    assert names == {"sigmoid_inline.py", "test_sigmoid_inline.py", "README.md"}
    nodes = list(ast.walk(ast.parse(TEXT)))
    imported = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    imported |= {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
    assert {n.split(".")[0] for n in imported} - set(sys.stdlib_module_names) == {"torch"}
    code = "\n".join(line.split("#")[0].split("//")[0] for line in TEXT.splitlines())
    rejected = r"\btry\s*:|\bexcept\b|\bpass\b|import\s+threading|\b(time|cuda)\.[\w.]+ = "
    rejected += r"|multiprocessing|concurrent\.futures|class\s+\w+.*\((torch\.)?Tensor\)|_make_sub"
    assert not re.findall(rejected, code)
    assert not [line for line in TEXT.splitlines() if len(line) > 100]


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
def test_cuda_source_compiles_without_a_warning(tmp_path):
    """For the oldest and the newest GPU that nvcc knows, without PyTorch."""
    listed = subprocess.run([NVCC, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    known = sorted(int(name.partition("_")[2]) for name in listed.stdout.split())
    source = sigmoid_inline.FORMULA_SOURCE + sigmoid_inline.ARGUMENTS_SOURCE
    (tmp_path / "kernels.cu").write_text(source + sigmoid_inline.CUDA_SOURCE)
    options = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in (known[0], known[-1])]
    options += ["-std=c++17", "-split-compile=0", "-Werror=all-warnings", "-c", "kernels.cu"]
    subprocess.run([NVCC, *options], cwd=tmp_path, check=True)


# -- The README ------------------------------------------------------------------------------------

COMMANDS = "".join(re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)).splitlines()
SKIPPED = {  # part of a command: why it is not run
    "run_and_check": "needs a GPU and a checkout of KernelBench",
    "--sweep": "takes minutes; test_sweep does it",
    "HOST": "needs two machines",
    "uv ": "" if shutil.which("uv") else "needs uv",
    "--compile": "" if torch.cuda.is_available() else "takes 20 s on a CPU",
    "torchrun": "needs two GPUs, or none" if torch.cuda.device_count() == 1 else "",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_command(command, cache, tmp_path):
    """In a copy of the files, on a small shape; installs nothing, and only collects tests."""
    for why in [why for part, why in SKIPPED.items() if part in command and why]:
        pytest.skip(why)
    for name in (FILE.name, "test_sigmoid_inline.py", "README.md"):
        shutil.copy(FILE.with_name(name), tmp_path)
    command = re.sub(r"^pip install [^&]*(&&|$)", "", command)
    command = re.sub(r"(pytest|test_sigmoid_inline\.py)(?= |$)", r"\1 --collect-only -q", command)
    if "--shape" not in command:
        command = re.sub(r" sigmoid_inline\.py", r"\g<0> --shape 9 5003 --trials 2", command)
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    env = {**os.environ, "PATH": path, "TORCH_EXTENSIONS_DIR": str(cache)}
    bash = ["bash", "-euo", "pipefail", "-c", command]
    process = subprocess.run(bash, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    assert ("collected" if "collect" in command else "GB/s" * bool(command)) in process.stdout


def test_readme_names_every_option_and_message(capsys):
    with contextlib.suppress(SystemExit):
        sigmoid_inline.main(["--help"])
    options = set(re.findall(r"--\w+", capsys.readouterr().out)) - {"--help"}
    named = re.findall(r"sigmoid_inline\.py(.*)", "\n".join(COMMANDS))
    named = " ".join(named + re.findall(r"`(--.*?)`", README))
    assert set(re.findall(r"--\w+", named)) - {"--help"} == options
    table = README.partition("| it says | do |\n")[2].partition("\n\n")[0]
    messages = re.findall(r"^\| `(.*?)`", table, re.M)
    constants = [n.value for n in ast.walk(ast.parse(TEXT)) if isinstance(n, ast.Constant)]
    texts = "\n".join(filter(lambda value: isinstance(value, str), constants))
    assert messages
    for part in sum((message.split("...") for message in messages), []):
        assert part.strip() in texts


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, *sys.argv[1:]]))
