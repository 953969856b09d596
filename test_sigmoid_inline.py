# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.10", "ninja", "pytest"]
# ///
"""What sigmoid_inline promises, on every device at hand:  pytest  (or  uv run test_sigmoid_inline.py)."""

import ast
import copy
import json
import math
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import sigmoid_inline
from sigmoid_inline import ModelNew, max_error_ulp, sigmoid, ulp

FILE = Path(sigmoid_inline.__file__).resolve()
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"))
on_each_device = pytest.mark.parametrize("device", ["cpu", GPU])
on_each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])


def check(y, x, message=""):
    """`y` has the metadata of torch.sigmoid(x) and lies within 1 ulp (float64: 2, and 2 of torch.sigmoid's) of float64."""
    like = torch.sigmoid(x)
    assert (y.shape, y.stride(), y.dtype, y.device) == (like.shape, like.stride(), like.dtype, like.device), message
    assert max_error_ulp(y, x) <= (4 if x.dtype == torch.float64 else 1), message


def random_view(rng, device, dtype):
    """A view of up to 5 dimensions: sliced with steps and offsets, permuted, expanded, of 0, 1 and odd sizes."""
    shape = [rng.choice([0, 1, 1, 2, 3, 5, 7, 8, 16, 33]) if rng.random() < 0.9 else 128 for _ in range(rng.randint(0, 5))]
    x = torch.randn(shape, device=device, dtype=torch.float64).mul(10).to(dtype)
    for dim in range(x.dim()):
        if rng.random() < 0.5:
            x = x[(slice(None),) * dim + (slice(rng.randint(0, 2), None, rng.randint(1, 3)),)]
    x = x.permute(rng.sample(range(x.dim()), x.dim()))
    if x.dim() and rng.random() < 0.2:
        dim = rng.randrange(x.dim())
        x = x.narrow(dim, 0, min(1, x.shape[dim])).expand([rng.choice([4, 40]) if d == dim and x.shape[d] else n for d, n in enumerate(x.shape)])
    if x.dim() == 4 and rng.random() < 0.3:
        x = x.contiguous(memory_format=torch.channels_last)[:, rng.randint(0, 1) :]
    return x


# -- Values ---------------------------------------------------------------------------------------------------------------


@on_each_device
@on_each_dtype
def test_any_layout(device, dtype):
    rng = random.Random(0)
    torch.manual_seed(0)
    for case in range(600):
        x = random_view(rng, device, dtype)
        before = x.clone()
        check(sigmoid(x), x, f"case {case}: {tuple(x.shape)} strides {x.stride()} offset {x.storage_offset()}")
        assert torch.equal(x, before)


@on_each_device
@on_each_dtype
@pytest.mark.parametrize("columns", [33, 80, 1024, 4096])
def test_rows_of_a_wider_matrix_and_every_offset(device, dtype, columns):
    torch.manual_seed(0)
    wide = torch.randn(257, 2 * columns, device=device, dtype=dtype)
    check(sigmoid(wide.chunk(2, -1)[1]), wide.chunk(2, -1)[1])
    check(sigmoid(wide[:, ::2]), wide[:, ::2])
    flat = wide.view(-1)
    for offset in range(1, 17):
        x = flat[offset : offset + 4099]
        check(sigmoid(x), x)
        out = torch.full((4200,), float("nan"), device=device, dtype=dtype)
        assert sigmoid(x, out=out[17 - offset : 17 - offset + 4099]) is not None
        check(out[17 - offset : 17 - offset + 4099], x)
        assert out[: 17 - offset].isnan().all() and out[17 - offset + 4099 :].isnan().all()


@on_each_device
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:])
def test_all_16_bit_inputs(device, dtype):
    x = torch.arange(-(1 << 15), 1 << 15, device=device).to(torch.int16).view(dtype)
    y, exact = sigmoid(x), torch.sigmoid(x.double())
    assert max_error_ulp(y, x) <= 1
    order = x[~x.isnan()].double().argsort()
    assert (y[~x.isnan()][order].diff() >= 0).all()
    assert torch.equal(y.isnan(), x.isnan()) and ((y >= 0) & (y <= 1) | x.isnan()).all()
    if device == "cuda":
        assert ((y != exact.to(dtype)) & ~x.isnan()).sum() <= 3


@on_each_device
def test_all_float32_inputs(device):
    """All 2^32 on a GPU, or with SIGMOID_EXHAUSTIVE=1; else every 16th."""
    step = 1 if device == "cuda" or os.environ.get("SIGMOID_EXHAUSTIVE") else 16
    for sign in (0, 1):
        last = None
        for first in range(0, 0x7F800001, step << 24):
            bits = torch.arange(first, min(first + (step << 24), 0x7F800001), step, device=device) - (sign << 31)
            x = bits.to(torch.int32).view(torch.float32)
            y = sigmoid(x)
            assert max_error_ulp(y, x) <= 1
            assert ((y >= 0) & (y <= 1)).all()
            rising = (y if last is None else torch.cat([last, y])).diff()
            assert ((rising <= 0) if sign else (rising >= 0)).all()
            last = y[-1:]


@on_each_device
@on_each_dtype
def test_special_values(device, dtype):
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0], device=device, dtype=dtype)
    assert_close(sigmoid(x), torch.tensor([float("nan"), 1, 0, 0.5, 0.5], device=device, dtype=dtype), rtol=0, atol=0, equal_nan=True)


# ln 2 less the two parts below: ln 2 to 40 digits (OEIS A002162).
LN2_REST = float(Fraction("0.6931471805599453094172321214581765680755") - Fraction(0.693147180369123816490) - Fraction(1.90821492927058770002e-10))


def two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def two_product(a, b):
    """a * b as high + low (Dekker 1971)."""
    (ah, al), (bh, bl) = [(h, v - h) for v in (a, b) for h in [v * 134217729.0 - (v * 134217729.0 - v)]]
    return a * b, ((ah * bh - a * b) + ah * bl + al * bh) + al * bl


def scale(x, k):
    """x * 2^k exactly, for |k| <= 2000: torch.ldexp and exp2 may round on a GPU."""
    half = (k / 2).round()
    for part in (half, k - half):
        x = x * ((part.long() + 1023) << 52).view(torch.float64)
    return x


def float64_error_ulp(y, x):
    """Error of `y` in ulp against sigmoid(x) in two-term float64 arithmetic, good to 2^-90 or so; |x| < 760."""
    a = -x.abs()
    k = (a / 0.6931471805599453).round()
    # ln 2 in three parts; the first has 32 bits, so that its product with k is exact.
    r, low = two_sum(a - k * 0.693147180369123816490, -k * 1.90821492927058770002e-10)
    low = low - k * LN2_REST
    tail = torch.zeros_like(r)
    for n in range(22, 6, -1):
        tail = tail * r + 1 / math.factorial(n)
    p, p_low = tail, torch.zeros_like(r)
    for n in range(6, -1, -1):  # p = 1/n! + r * p
        product, rest = two_product(p, r)
        p, rest2 = two_sum(torch.full_like(r, 1 / math.factorial(n)), product)
        p_low = rest + rest2 + p_low * r + tail_of_inverse_factorial(n)
        if n == 0:
            p_low = p_low + p * low  # e^(r + low) = e^r (1 + low)
    e, e_low = scale(p, k), scale(p_low, k)
    d, d_low = two_sum(torch.ones_like(e), e)
    d_low = d_low + e_low
    n, n_low = torch.where(x < 0, p, 1.0), torch.where(x < 0, p_low, 0.0)
    q = n / d
    product, rest = two_product(q, d)
    q_low = ((n - product) - rest + n_low - q * d_low) / d
    k = torch.where(x < 0, k, 0.0)
    scaled = scale(y, -k)  # the result as if its exponent had no limit
    ulp = scale(torch.ones_like(q), torch.maximum(torch.frexp(q)[1] - 53, -1074 - k))
    return ((scaled - q) - q_low).abs() / ulp


def tail_of_inverse_factorial(n):
    """What is left of 1 / n! after rounding to float64, as float64."""
    exact = Fraction(1, math.factorial(n))
    return float(exact - Fraction(float(exact)))


def test_reference_of_float64():
    """The two-term reference agrees with mpmath, which comes with torch through sympy."""
    mpmath = pytest.importorskip("mpmath")
    torch.manual_seed(0)
    x = torch.cat([torch.linspace(-746, 36, 2000, dtype=torch.float64), torch.randn(1000, dtype=torch.float64)])
    with mpmath.workprec(200):
        exact = [1 / (1 + mpmath.exp(-mpmath.mpf(v))) for v in x.tolist()]
        y = torch.tensor([float(v) for v in exact], dtype=torch.float64)
        ulp = [mpmath.ldexp(1, max(mpmath.frexp(v)[1] - 53, -1074)) for v in exact]
        error = torch.tensor([float(abs(mpmath.mpf(a) - b) / u) for a, b, u in zip(y.tolist(), exact, ulp)])
    assert_close(float64_error_ulp(y, x).float(), error, rtol=0, atol=1e-5)


@on_each_device
def test_float64_over_every_exponent(device):
    """10^8 inputs on a GPU, 4 * 10^6 on the CPU; half of them between 2^-12 and 2^9.6, where rounding is hardest."""
    generator = torch.Generator(device).manual_seed(0)
    chunk = 10**7 if device == "cuda" else 10**6
    for i in range(10 if device == "cuda" else 4):
        mantissa = 1 + torch.rand(chunk, device=device, dtype=torch.float64, generator=generator)
        exponent = torch.randint(-1074 if i % 2 else -12, 10, (chunk,), device=device, generator=generator)
        x = scale(mantissa, exponent.double())
        x = torch.where(torch.rand(chunk, device=device, generator=generator) < 0.5, x, -x)
        x = torch.where(x.abs() < 750, x, x / 2)
        assert float64_error_ulp(sigmoid(x), x).max() <= 1


@on_each_device
def test_symmetry(device):
    x = torch.linspace(-20, 20, 1_000_001, device=device)
    assert ((sigmoid(x).double() + sigmoid(-x).double() - 1).abs() <= torch.finfo(torch.float32).eps).all()


@on_each_device
@on_each_dtype
def test_a_value_has_one_result(device, dtype):
    """Whatever its index, alignment, stride and the size of the tensor."""
    torch.manual_seed(0)
    values = torch.randn(1000, device=device, dtype=dtype) * 8
    results = torch.stack([sigmoid(v) for v in values])
    windows = values.unfold(0, 7, 3)  # overlapping
    assert torch.equal(sigmoid(windows), results.unfold(0, 7, 3))
    wide = torch.stack([values, values], -1)
    for x in (values, values[1:], values[3:], values.repeat(5000)[:999_983], wide[:, 1], wide.t().contiguous().t()[:, 0]):
        assert torch.equal(sigmoid(x), results[-x.numel() :] if x.numel() <= 1000 else results.repeat(5000)[:999_983])


@on_each_device
@pytest.mark.parametrize("strided", [False, True])
def test_more_than_2_31_elements(device, strided):
    n = (1 << 31) + 77
    free = sigmoid_inline._free_bytes(torch.device(device))
    if free < 8 * n:
        pytest.skip(f"needs {8 * n >> 30} GiB of memory")
    x = torch.zeros((2, n // 2 + 1, 2) if strided else n, dtype=torch.bfloat16, device=device)
    x = x[..., 0] if strided else x  # two rows of 2^30 and some, every other element
    spots = [0, (1 << 30) - 1, 1 << 30, x.shape[-1] - 1]
    x[..., spots] = torch.tensor([1, -1, 2, -2], dtype=x.dtype, device=device)
    y = sigmoid(x)
    assert y.shape == x.shape and y.is_contiguous()
    assert max_error_ulp(y[..., spots], x[..., spots]) <= 1
    assert sum(int((part != 0.5).sum()) for part in y.reshape(-1).split(1 << 26)) == y[..., spots].numel()


# -- Gradients and transforms -----------------------------------------------------------------------------------------------


@on_each_device
@on_each_dtype
def test_backward_of_any_layout(device, dtype):
    rng = random.Random(1)
    torch.manual_seed(1)
    for _ in range(150):
        x = random_view(rng, device, dtype).detach().clone(memory_format=torch.preserve_format).requires_grad_()
        y = sigmoid(x)
        transposed = torch.randn(y.shape[::-1], device=device).to(dtype).permute(list(range(y.dim()))[::-1])
        grad = rng.choice([torch.randn_like(y), torch.ones((), device=device, dtype=dtype).expand_as(y), transposed])
        (got,) = torch.autograd.grad(y, x, grad)
        like = torch.ops.aten.sigmoid_backward(grad, y.detach())
        assert got.stride() == like.stride()
        wide, grad = y.detach().double(), grad.double()
        exact = grad * (1 - wide) * wide
        # 16 bits: rounded once, from float32.
        assert ((got.double() - exact).abs() <= ulp(exact, dtype) * {2: 0.501, 4: 2, 8: 4}[dtype.itemsize]).all()


@on_each_device
def test_derivatives(device):
    x = torch.randn(3, 5, device=device, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sigmoid, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(sigmoid, x, check_fwd_over_rev=True)


@on_each_device
@pytest.mark.parametrize("transform", ["grad", "vmap", "vmap_dim1", "vmap_grad", "jacrev", "jacfwd", "hessian", "jvp", "vmap_vmap", "grad_grad", "vmap_jvp"])
def test_functorch(device, transform):
    f = torch.func
    transforms = {
        "grad": lambda s: f.grad(lambda x: s(x).sum()),
        "vmap": lambda s: f.vmap(s),
        "vmap_dim1": lambda s: f.vmap(s, in_dims=1, out_dims=1),
        "vmap_grad": lambda s: f.vmap(f.grad(lambda x: s(x).sum())),
        "jacrev": lambda s: f.jacrev(s),
        "jacfwd": lambda s: f.jacfwd(s),
        "hessian": lambda s: f.hessian(lambda x: s(x).sum()),
        "jvp": lambda s: lambda x: f.jvp(s, (x,), (x.cos(),)),
        "vmap_vmap": lambda s: f.vmap(f.vmap(s)),
        "grad_grad": lambda s: f.grad(lambda x: f.grad(lambda z: s(z).sum())(x).square().sum()),
        "vmap_jvp": lambda s: f.vmap(lambda x: f.jvp(s, (x,), (x.cos(),))[1]),
    }[transform]
    x = torch.randn(3, 4, device=device, dtype=torch.float64)
    assert_close(transforms(sigmoid)(x), transforms(torch.sigmoid)(x))


@on_each_device
def test_saves_only_the_output(device):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = sigmoid(torch.randn(8, device=device, requires_grad=True))
    assert len(saved) == 1 and saved[0].data_ptr() == y.data_ptr()
    x = torch.randn(8, device=device, dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.save_on_cpu():
        a = torch.autograd.grad(sigmoid(x).sum(), x)
    assert_close(a, torch.autograd.grad(torch.utils.checkpoint.checkpoint(sigmoid, x, use_reentrant=False).sum(), x))
    with torch.no_grad():
        assert sigmoid(x).grad_fn is None


# -- Where torch.sigmoid can be, this can be ---------------------------------------------------------------------------------


def outcome(f, *args, **kwargs):
    try:
        return f(*args, **kwargs)
    except Exception as e:  # noqa: BLE001
        return type(e)


KINDS = {
    "int64": lambda: torch.arange(-3, 3),
    "bool": lambda: torch.tensor([True, False]),
    "complex64": lambda: torch.randn(3, dtype=torch.complex64),
    "conjugate": lambda: torch.randn(3, dtype=torch.complex64).conj(),
    "complex gradient": lambda: torch.randn(3, dtype=torch.complex64, requires_grad=True),
    "negative view": lambda: torch.randn(3, dtype=torch.complex64).conj().imag,
    "float8": lambda: torch.randn(3).to(torch.float8_e5m2),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.linspace(-3, 3, 7), 0.1, 10, torch.quint8),
    "nested": lambda: torch.nested.nested_tensor([torch.randn(2), torch.randn(3)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "masked": lambda: torch.masked.masked_tensor(torch.ones(3), torch.tensor([True, False, True])),
    "meta": lambda: torch.randn(3, 4, device="meta").t(),
    "parameter": lambda: torch.nn.Parameter(torch.randn(3)),
    "named": lambda: torch.ones(2, 3, names=("a", "b")),
    "list": lambda: [1.0],
    "number": lambda: 1.0,
    "none": lambda: None,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_other_inputs_get_what_torch_sigmoid_gives(kind):
    if kind == "named" and not hasattr(torch.Tensor, "has_names"):
        pytest.skip("this PyTorch has no named dimensions")
    x = KINDS[kind]()
    want, got = outcome(torch.sigmoid, x), outcome(sigmoid, x)
    assert type(got) is type(want)
    if not isinstance(want, torch.Tensor):
        assert got is want
    elif kind in ("int64", "bool", "complex64", "conjugate", "complex gradient", "negative view", "parameter", "named"):
        assert_close(got.rename(None) if kind == "named" else got, want.rename(None) if kind == "named" else want)
        assert got.requires_grad == want.requires_grad and (kind != "named" or got.names == want.names)
    else:
        assert (got.dtype, got.layout, got.device) == (want.dtype, want.layout, want.device) and str(got) == str(want)


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
@on_each_device
def test_out(device):
    def cases():
        x = torch.randn(6, 8, device=device)
        yield x, torch.full((6, 8), float("nan"), device=device)
        yield x, torch.empty(0, device=device)  # resized
        yield x, torch.empty(8, 6, device=device).t()
        yield x, torch.empty(6, 16, device=device)[:, ::2]
        yield x, torch.empty(6, 8, device=device, dtype=torch.float64)
        yield x, torch.empty(6, 8, device=device, dtype=torch.int32)  # not castable
        yield x, torch.empty(5, device=device)  # resized with a warning
        yield x, x
        yield x[:, ::2], x[:, ::2]
        yield x[1:], x[:-1]  # partial overlap
        yield x, torch.empty(1, device=device).expand(6, 8)  # overlaps itself
        yield x.clone().requires_grad_(), torch.empty(6, 8, device=device)
        yield x, torch.empty(6, 8, device=device, requires_grad=True)
        yield x, torch.empty(6, 8, device="meta")
        yield x, [1]

    for (x, out), (x2, out2) in zip(cases(), cases()):
        with torch.no_grad():
            x2.copy_(x)
        versions = [getattr(o, "_version", 0) for o in (out, out2)]
        got, want = outcome(sigmoid, x, out=out), outcome(torch.sigmoid, x2, out=out2)
        assert type(got) is type(want)
        if isinstance(want, torch.Tensor):
            assert got is out and (got._version > versions[0]) == (want._version > versions[1])
            assert got.stride() == want.stride() and got.dtype == want.dtype
            assert_close(got, want)
        else:
            assert got is want


@on_each_device
def test_compiled_call_is_one_fused_kernel(device):
    from torch._inductor.utils import run_and_get_code

    f = torch.compile(lambda x, y: sigmoid(x) * y + 1, fullgraph=True, dynamic=True)
    for n in (100, 333):
        x, y = torch.randn(n, device=device), torch.randn(n, device=device)
        got, code = run_and_get_code(f, x, y) if n == 100 else (f(x, y), None)
        assert_close(got, torch.sigmoid(x) * y + 1)
        if code:
            assert code[0].count("def triton_" if device == "cuda" else 'extern "C"') == 1 and "sigmoid_inline" not in code[0].replace(str(FILE.parent), "")
    train = torch.compile(lambda x: (sigmoid(x) * x).sum(), fullgraph=True)
    x.requires_grad_()
    assert_close(torch.autograd.grad(train(x), x), torch.autograd.grad((torch.sigmoid(x) * x).sum(), x))
    exported = torch.export.export(ModelNew(), (x.detach(),))
    assert "aten.sigmoid" in exported.graph_module.code


@on_each_device
def test_operators_pass_opcheck(device):
    ops, x = sigmoid_inline._operators, torch.randn(3, 8, device=device)
    for args in ((x,), (x[:, ::2],), (x.t(),)):
        torch.library.opcheck(ops.sigmoid.default, args)
        torch.library.opcheck(ops.sigmoid_backward.default, args * 2)
    fx = torch.fx.experimental.proxy_tensor.make_fx(lambda x: sigmoid(x))(x)
    assert_close(fx(x), sigmoid(x))


@on_each_device
def test_opinfo_samples(device):
    pytest.importorskip("expecttest"), pytest.importorskip("numpy")  # torch.testing._internal wants them
    from torch.testing._internal.common_methods_invocations import op_db

    (info,) = [op for op in op_db if op.name == "sigmoid"]
    for dtype in info.supported_dtypes(device):
        for sample in info.sample_inputs(device, dtype, requires_grad=dtype in info.supported_backward_dtypes(device)):
            x = sample.input
            got, want = sigmoid(x), torch.sigmoid(x)
            assert_close(got, want, check_stride=True)
            if want.requires_grad:
                g = torch.randn_like(want)
                assert_close(torch.autograd.grad(got, x, g), torch.autograd.grad(want, x, g), check_stride=True)


def test_module():
    model = ModelNew()
    assert list(model.state_dict()) == list(model.buffers()) == []
    x = torch.randn(5)
    for m in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.nn.Sequential(model)):
        assert torch.equal(m(x), sigmoid(x))
    calls = []
    model.register_forward_hook(lambda m, args, out: calls.append(out))
    model(x)
    assert len(calls) == 1


class Sub(torch.Tensor):
    pass


class Override(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return "overridden" if func is torch.sigmoid else super().__torch_function__(func, types, args, kwargs or {})


class Wrapper(torch.Tensor):
    """Stands for another tensor and knows PyTorch's own operators only, as DTensor does."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        self = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        self.inner = inner
        return self

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        assert func.namespace == "aten"
        return func(*[a.inner if isinstance(a, cls) else a for a in args], **(kwargs or {}))


def test_subclasses_and_modes():
    x = torch.randn(5)
    assert_close(sigmoid(Wrapper(x)), torch.sigmoid(x))
    assert type(sigmoid(x.as_subclass(Sub))) is Sub
    assert sigmoid(x.as_subclass(Override)) == "overridden"
    with torch.device("meta"):
        assert torch.equal(sigmoid(x), ModelNew()(x))
    with torch._subclasses.FakeTensorMode():
        fake = sigmoid(torch.empty(5)[::2])
        assert type(fake).__name__ == "FakeTensor" and fake.stride() == (1,)
    with torch.inference_mode():
        assert sigmoid(x).is_inference()
    with torch.autocast("cpu", torch.bfloat16):
        assert sigmoid(x).dtype == torch.float32
    torch.use_deterministic_algorithms(True)
    deterministic = sigmoid(x)
    torch.use_deterministic_algorithms(False)
    assert torch.equal(deterministic, sigmoid(x))
    with torch.profiler.profile() as profile:
        sigmoid(x)
    assert any(re.match(r"sigmoid_inline_\w+::sigmoid$", e.key) for e in profile.key_averages())


@on_each_device
def test_threads(device):
    x = [torch.randn(100_003, device=device) for _ in range(8)]
    y = [None] * 8
    threads = [threading.Thread(target=lambda i=i: y.__setitem__(i, [sigmoid(x[i]) for _ in range(20)][-1])) for i in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    for a, b in zip(x, y):
        check(b, a)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_cuda_graph_streams_and_memory():
    x = torch.randn(1 << 20, device="cuda")
    sigmoid(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = sigmoid(x)
    x.copy_(torch.randn(1 << 20, device="cuda"))
    graph.replay()
    check(y, x)
    stream = torch.cuda.Stream()
    big = torch.zeros(1 << 28, device="cuda")
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        big.fill_(1)
        z = sigmoid(big)  # on the side stream: after fill_
    stream.synchronize()
    assert (z == sigmoid(torch.ones(1, device="cuda"))).all()
    del z
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    z = ModelNew()(big)
    assert torch.cuda.max_memory_allocated() - before == z.nbytes
    (replica,) = torch.nn.parallel.replicate(ModelNew().cuda(), [0])
    assert torch.equal(replica(x), sigmoid(x))
    with pytest.raises(torch.OutOfMemoryError):
        sigmoid(torch.zeros(1, device="cuda").expand(1 << 38))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_other_gpu_than_the_current():
    x = torch.randn(1000, device="cuda:1")
    y = sigmoid(x)
    assert torch.cuda.current_device() == 0 and y.device == x.device
    assert max_error_ulp(y.cpu(), x.cpu()) <= 1
    x.requires_grad_()
    sigmoid(x).sum().backward()
    assert_close(x.grad.cpu(), torch.ops.aten.sigmoid_backward(torch.ones(1000), y.cpu()))


# -- Several ranks ------------------------------------------------------------------------------------------------------------


def start_rank(rank, ranks, function, store, device):
    if device == "cuda":
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    function(device, ranks)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # at the interpreter's exit PyTorch 2.15 with gloo and its profiler aborted once in 40 runs


def gpus(n, *values):
    return pytest.param("cuda", *values, marks=pytest.mark.skipif(torch.cuda.device_count() < n, reason=f"needs {n} NVIDIA GPUs"))


def operators_in(f):
    """f(), and the names of the operators and collectives that it ran."""
    with torch.profiler.profile() as profile:
        y = f()
    return y, {e.key.rpartition("::")[2] if "sigmoid_inline" in e.key else e.key for e in profile.key_averages()}


def check_dtensors(device, ranks):
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor, init_device_mesh

    torch.manual_seed(0)
    if ranks == 2:
        mesh = init_device_mesh(device, (2,))
        cases = [([p], shape) for p in (Shard(0), Shard(1), Replicate()) for shape in ((4, 6), (5, 7), (2, 2, 3))]
        cases += [([Shard(0)], (1, 7)), ([Replicate()], ()), ([Partial()], (4, 6))]
    else:
        mesh = init_device_mesh(device, (2, 2))
        cases = [(p, (5, 7)) for p in ([Shard(0), Shard(1)], [Replicate(), Shard(0)], [Shard(0), Shard(0)], [Partial(), Shard(1)])]
        cases += [([Shard(0), Shard(0)], (3, 7))]
    for placements, shape in cases:
        full = torch.randn(shape, device=device)
        torch.distributed.broadcast(full, 0)
        x = distribute_tensor(full, mesh, [Replicate() if p.is_partial() else p for p in placements])
        partial = placements[0].is_partial()
        if partial:
            x = DTensor.from_local(x.to_local() / 2, mesh, placements, shape=x.shape, stride=x.stride())
        x.requires_grad_()
        sigmoid(x)  # the first call of a kind propagates its sharding
        (y, ran), like = operators_in(lambda: sigmoid(x)), torch.sigmoid(x)
        assert (y.placements, y.shape, y.stride()) == (like.placements, like.shape, like.stride())
        ours = not partial or ranks == 2  # sums on a grid: PyTorch's versions differ in what they give
        assert max_error_ulp(y.full_tensor().detach(), full) <= (1 if ours else 4)
        (got,), (want,) = (torch.autograd.grad(z, x, torch.ones_like(z), retain_graph=True) for z in (y, like))
        assert got.placements == want.placements
        assert_close(got.full_tensor(), want.full_tensor())
        _, ran_backward = operators_in(lambda: torch.autograd.grad(y, x, torch.ones_like(y)))
        communicated = any(word in key for key in ran for word in ("gather", "reduce", "scatter"))
        assert communicated == partial
        assert not any(word in key for key in ran_backward for word in ("gather", "reduce", "scatter"))
        assert ("sigmoid" in ran and "sigmoid_backward" in ran_backward) or not ours, (placements, shape)
        assert_close(sigmoid(x.detach().int()).full_tensor(), torch.sigmoid(x.detach().int()).full_tensor())


@pytest.mark.parametrize("device, ranks", [("cpu", 2), ("cpu", 4), gpus(2, 2), gpus(4, 4)])
def test_dtensor(device, ranks, tmp_path):
    torch.multiprocessing.spawn(start_rank, (ranks, check_dtensors, tmp_path / "store", device), nprocs=ranks)


def check_parallel_models(device, ranks):
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh(device, (ranks,))
    wrappers = {
        "DDP": torch.nn.parallel.DistributedDataParallel,
        "FSDP2": lambda m: fully_shard(m, mesh=mesh),
        "tensor parallel": lambda m: parallelize_module(m, mesh, {"0": ColwiseParallel(use_local_output=False), "2": RowwiseParallel()}),
    }
    for name, wrap in wrappers.items():
        for compiled in (False, True):
            results = []
            for activation in (ModelNew(), torch.nn.Sigmoid()):
                torch.manual_seed(0)
                model = wrap(torch.nn.Sequential(torch.nn.Linear(8, 16), activation, torch.nn.Linear(16, 4)).to(device))
                y = (torch.compile(model) if compiled else model)(torch.randn(6, 8, device=device))
                y.square().sum().backward()
                results.append([y.detach(), *(p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad for p in model.parameters())])
            assert_close(*results, msg=f"{name}, compiled: {compiled}")


@pytest.mark.parametrize("device", ["cpu", gpus(2)])
def test_parallel_models(device, tmp_path):
    torch.multiprocessing.spawn(start_rank, (2, check_parallel_models, tmp_path / "store", device), nprocs=2)


# -- The file, its build and its command line ---------------------------------------------------------------------------------


def run(*args, cache, status=0, before=(), input=None, **env):
    """Runs python with `args`, and `input` to read, in a process of its own; returns (stdout, stderr)."""
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(cache), **env}
    command = [*before, sys.executable, "-W", "ignore", *args]
    p = subprocess.run(command, input=input, capture_output=True, text=True, env=environment, cwd=FILE.parent, timeout=600)
    assert p.returncode == status, p.stdout + p.stderr
    return p.stdout, p.stderr


def last_line(*args, **options):
    return run(*args, status=1, **options)[1].strip().splitlines()[-1]


def executable(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("a cache with späces")


SETTINGS = """
import logging, os, warnings, torch
settings = lambda: (dict(os.environ), warnings.filters[:], logging.root.level, logging.getLogger("torch.utils.cpp_extension").disabled,
                    torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.cuda.is_initialized())
before = settings()
import sigmoid_inline
assert settings() == before
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        os._exit(int(sigmoid_inline.sigmoid(torch.zeros(1, device="cuda" if torch.cuda.is_available() else "cpu")).item() != 0.5))
    assert os.waitpid(child, 0)[1] == 0
"""


def test_import_compiles_once_says_so_and_changes_nothing_else(cache):
    torch_says = run("-W", "default", "-c", "import torch", cache=cache)[1]
    out, err = run("-W", "default", "-c", "import torch, sigmoid_inline", cache=cache)
    assert out == "" and err.startswith(torch_says)
    assert re.fullmatch(r"sigmoid_inline: compiled the CPU kernel.* in \d+\.\d s\n", err[len(torch_says) :])
    assert run("-W", "default", "-c", "import torch, sigmoid_inline", cache=cache) == ("", torch_says)
    assert run("-c", SETTINGS, cache=cache) == ("", "")


def test_settings_survive_the_build(tmp_path):
    assert "compiled" in run("-c", SETTINGS, cache=tmp_path)[1]


def test_truncated_library_is_built_again(cache):
    for library in Path(cache).rglob("*.so"):
        library.write_bytes(library.read_bytes()[:5000])
    _, err = run("-c", "import sigmoid_inline, torch; assert sigmoid_inline.sigmoid(torch.zeros(3))[0] == 0.5", cache=cache)
    assert "compiled" in err


def test_killed_build_leaves_no_trap(tmp_path):
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    p = subprocess.Popen([sys.executable, "-c", "import sigmoid_inline"], env=environment, cwd=FILE.parent)
    while not list(tmp_path.rglob("main.cpp")):  # the compiler is about to start
        assert p.poll() is None
    p.kill()
    p.wait()
    assert "compiled" in run("-c", "import sigmoid_inline", cache=tmp_path)[1]


def test_processes_that_import_at_once_build_once(tmp_path):
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    command = [sys.executable, "-c", "import sigmoid_inline, torch; print(sigmoid_inline.sigmoid(torch.zeros(1)).item())"]
    processes = [subprocess.Popen(command, env=environment, cwd=FILE.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    results = [p.communicate(timeout=600) for p in processes]
    assert [r[0] for r in results] == ["0.5\n"] * 8
    assert sum("compiled" in r[1] for r in results) == 1


def test_cache_shared_by_machines(cache, tmp_path):
    """Another CPU, compiler or list of GPUs is another library; CXX is the compiler that runs."""
    compiler = tmp_path / "my-c++"
    executable(compiler, f"#!/bin/sh\necho >> {tmp_path}/used\nexec c++ \"$@\"\n")
    code = "import sigmoid_inline as s, torch; assert s.sigmoid(torch.zeros(100)).eq(0.5).all(); print(s._operators.__name__)"
    machines = [{"ATEN_CPU_CAPABILITY": "default"}, {"ATEN_CPU_CAPABILITY": "avx2"}, {"CXX": str(compiler)}, {"TORCH_CUDA_ARCH_LIST": "9.0"}]
    first = [run("-c", code, cache=cache, **machine) for machine in machines]
    assert all("compiled" in err for _, err in first) and len({name for name, _ in first}) == len(machines)
    assert (tmp_path / "used").exists()
    assert [run("-c", code, cache=cache, **machine) for machine in machines] == [(name, "") for name, _ in first]


@pytest.mark.parametrize("missing, environment", [("ninja", {"PATH": "/nowhere"}), ("C++ compiler", {"CXX": "no-such-compiler"})])
def test_missing_tool_is_named(tmp_path, missing, environment):
    code = "import sys; sys.executable = '/nowhere/python'; import sigmoid_inline"
    line = last_line("-c", code, cache=tmp_path, **environment)
    assert line.startswith("RuntimeError: sigmoid_inline needs") and missing in line


def test_old_pytorch_is_named(tmp_path):
    line = last_line("-c", "import torch; torch.__version__ = '2.9.1'; import sigmoid_inline", cache=tmp_path)
    assert line == "RuntimeError: sigmoid_inline needs PyTorch 2.10 or newer and finds 2.9.1: pip install -U torch"


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert "set TORCH_EXTENSIONS_DIR" in last_line("-c", "import sigmoid_inline", cache=tmp_path / "file")


def mounted(options, folder):
    """The start of a command that runs in a mount namespace of its own, in which `folder` is a small file system."""
    before = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'mount -t tmpfs -o {options} tmpfs "{folder}" && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    return before


def test_read_only_cache(tmp_path, cache):
    before = mounted("ro", tmp_path)
    assert "set TORCH_EXTENSIONS_DIR" in last_line("-c", "import sigmoid_inline", cache=tmp_path, before=before)
    run("-c", "import sigmoid_inline", cache=cache)
    before[5] = f'mount --bind "{cache}" "{tmp_path}" && mount -o remount,bind,ro "{tmp_path}" && exec "$@"'
    assert run("-c", "import sigmoid_inline", cache=tmp_path, before=before) == ("", "")  # a full one needs no writing


@pytest.mark.parametrize("kilobytes", [4, 64])  # not a directory more; not the library
def test_full_disk(tmp_path, kilobytes):
    line = last_line("-c", "import sigmoid_inline", cache=tmp_path, before=mounted(f"size={kilobytes}k", tmp_path))
    assert line.startswith("RuntimeError: sigmoid_inline: the disk is full: free some space")


NVCC = shutil.which("nvcc", path="/usr/local/cuda/bin")


def ask_nvcc(option):
    return subprocess.run([NVCC, option], capture_output=True, text=True, check=True).stdout


NVML = """
int nvmlInit(void) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **gpu) { *gpu = 0; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *gpu, int *major, int *minor) { *major = MAJOR; *minor = 0; return 0; }
"""


def shared_library(path, code, *options):
    subprocess.run(["cc", "-shared", "-fPIC", *options, "-x", "c", "-", "-o", path], input=code, text=True, check=True)


@pytest.fixture
def machine(tmp_path):
    """machine(major, nvcc): the environment of a machine whose driver reports a GPU of that compute capability, and its nvcc."""
    if torch.version.cuda is None:
        pytest.skip("needs a PyTorch with CUDA")

    def make(major, nvcc=None):
        shared_library(tmp_path / "libnvidia-ml.so.1", NVML, f"-DMAJOR={major}")
        if nvcc is None and NVCC is None:
            pytest.skip("needs nvcc")
        home = str(nvcc or "/usr/local/cuda")
        return {"LD_LIBRARY_PATH": str(tmp_path), "CUDA_HOME": home, "TORCH_CUDA_ARCH_LIST": "", "CUDA_VISIBLE_DEVICES": "0", "cache": tmp_path}

    return make


def test_gpu_without_nvcc(machine):
    assert "needs nvcc for the GPU" in last_line("-c", "import sigmoid_inline", **machine(9, "/nowhere"))


def test_nvcc_of_another_cuda(machine, tmp_path):
    executable(tmp_path / "bin" / "nvcc", "#!/bin/sh\necho Cuda compilation tools, release 8.0, V8.0.61\n")
    assert "is of CUDA 8.0; it has to be of CUDA " + torch.version.cuda in last_line("-c", "import sigmoid_inline", **machine(9, tmp_path))


def nvcc_fits():
    return bool(NVCC and torch.version.cuda) and ask_nvcc("--version").partition("release ")[2].split(".")[0] == torch.version.cuda.split(".")[0]


needs_fitting_nvcc = pytest.mark.skipif(not nvcc_fits(), reason="needs nvcc of PyTorch's CUDA")


@needs_fitting_nvcc
@pytest.mark.parametrize("major, says", [(9, "for sm_90 in"), (99, "for sm_990 in"), (2, "has given up GPUs of compute capability 2.0")])
def test_gpu_that_nvcc_knows_or_not(machine, major, says):
    """A GPU newer than nvcc gets PTX; one that is too old is named."""
    code = "import sigmoid_inline as s, torch; print(s.sigmoid(torch.zeros(1)).item(), *s._check_tools(s._gpu_architectures()))"
    if major == 2:
        assert says in last_line("-c", code, **machine(major))
        return
    out, err = run("-c", code, **machine(major))
    assert says in err and out.startswith("0.5") and ("code=sm_90" if major == 9 else "code=compute_") in out


@needs_fitting_nvcc
def test_driver_that_is_too_old(machine, tmp_path):
    """The import and the CPU work, and PyTorch's own error says what to update."""
    driver = "int cuInit(unsigned flags) { return 0; } int cuDriverGetVersion(int *version) { *version = 11000; return 0; }"
    shared_library(tmp_path / "libcuda.so.1", driver)
    code = "import sigmoid_inline as s, torch; assert s.sigmoid(torch.zeros(1)).item() == 0.5; s.sigmoid(torch.zeros(1, device='cuda'))"
    assert "driver on your system is too old" in last_line("-c", code, **machine(9))


@needs_fitting_nvcc
def test_nvcc_without_its_toolkit(machine, tmp_path):
    executable(tmp_path / "bin" / "nvcc", f'#!/bin/sh\nexec {NVCC} "$@"\n')  # as a wrapper in /usr/local/bin
    line = last_line("-c", "import sigmoid_inline", **machine(9, tmp_path))
    assert line == "RuntimeError: sigmoid_inline: no CUDA runtime beside nvcc: set CUDA_HOME to the toolkit's directory, such as /usr/local/cuda"


@needs_fitting_nvcc
def test_compiler_that_nvcc_refuses(machine, tmp_path):
    gcc = tmp_path / "gcc-99"
    executable(gcc, '#!/bin/sh\nexec cc -U__GNUC__ -D__GNUC__=99 "$@"\n')
    line = last_line("-c", "import sigmoid_inline", **machine(9), CC=str(gcc))
    assert line.startswith("RuntimeError: sigmoid_inline: nvcc does not take this g++: set CC and CXX")


def test_command_line(cache):
    out, _ = run(str(FILE), "--shape", "64", "4099", "--device", "cpu", "--trials", "2", cache=cache)
    assert "all right" in out and re.search(r"^torch.sigmoid .* 1\.000x", out, re.M)
    for bad in (["--sweep", "--shape", "2", "3"], ["--json", "x"], ["--shape", "0", "5"], ["--dtype", "int8"], ["--device", "nowhere"], ["--device", "cuda:99"], ["--trials", "0"], ["--shape", "1", "9" * 13]):
        out, err = run(str(FILE), "--device", "cpu", *bad, cache=cache, status=2)
        assert out == "" and err.startswith("sigmoid_inline.py: error: ") and err.count("\n") == 1


def test_self_check_finds_a_wrong_result(cache):
    code = "import sigmoid_inline as s, torch, sys; f = s.sigmoid; s.ModelNew.forward = lambda m, x: f(x) * (1 + 1e-6); sys.exit(s.main(['--device', 'cpu', '--shape', '9', '99']))"
    assert "FAILED" in run("-c", code, cache=cache, status=1)[0]


SMALL = FILE.read_text().replace("[256, 393216]", "[16, 4096]").replace("[4096, 393216]", "[16, 4096]")
CELLS = {  # edits to the pasted file; whether they compile again
    "as it is": (SMALL, True),
    "again": (SMALL, False),
    "C++ edited": (SMALL.replace("if (!exact) return power / d;", "return power / d * T(0.5);"), True),
    "Python edited": (SMALL.replace("        return sigmoid(x)\n", "        return 2 * sigmoid(x)\n"), False),
}
assert len({text for text, _ in CELLS.values()}) == 3
ASK = "print(int(4 * ModelNew()(torch.zeros(1)).item()))"  # 2, 1 with the C++ edited (but for the CUDA kernel), 4 with the Python


def test_jupyter_notebook(tmp_path):
    """A real kernel: the cell checks and times, or says that the (edited) result is wrong, and never ends the kernel."""
    pytest.importorskip("ipykernel", reason="needs ipykernel: pip install ipykernel")
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(env={**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"})
    for name, (text, compiles) in CELLS.items():
        said = {"stdout": "", "stderr": ""}

        def listen(message):
            if message["msg_type"] == "stream":
                said[message["content"]["name"]] += message["content"]["text"]

        reply = client.execute_interactive(text, output_hook=listen, timeout=600)["content"]
        right = "edited" not in name
        assert (reply["status"], reply.get("ename")) == (("ok", None) if right else ("error", "RuntimeError")), (name, reply)
        assert ("all right" in said["stdout"] and "GB/s" in said["stdout"]) == right and ("compiled" in said["stderr"]) == compiles, (name, said)
        said["stdout"] = ""
        client.execute_interactive(ASK, output_hook=listen, timeout=60)
        assert said["stdout"] == {"C++ edited": "1\n", "Python edited": "4\n"}.get(name, "2\n"), name
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_executed_twice_edited_and_reloaded(tmp_path):
    code = """if True:
        import importlib, sys, torch
        texts = eval(sys.stdin.read())
        names = []
        for text in texts:
            context = {}
            exec(text, context)
            names.append((context["_operators"].__name__, int(4 * context["ModelNew"]()(torch.zeros(1)).item())))
        import sigmoid_inline
        first = sigmoid_inline.ModelNew()
        assert importlib.reload(sigmoid_inline)._operators.__name__ == names[0][0]
        assert first(torch.zeros(1)) == sigmoid_inline.sigmoid(torch.zeros(1)) == 0.5
        print(names[0] == names[1], names[0][0] == names[2][0], names[0][0] == names[3][0], *(value for _, value in names))"""
    out, err = run("-c", code, cache=tmp_path, input=repr([text for text, _ in CELLS.values()]))
    assert out == "True False True 2 2 1 4\n", err
    assert err.count("compiled") == 2


def test_harness_loads_the_text():
    """KernelBench executes the text in a bare dict, makes the inputs and the model, and compares with torch.sigmoid."""
    context = {}
    exec(FILE.read_text(), context)
    assert context["get_init_inputs"]() == []
    x = torch.rand(4, 5)
    assert_close(context["ModelNew"](*context["get_init_inputs"]())(x), torch.sigmoid(x))


def test_contract():
    names = {p.name for p in FILE.parent.iterdir() if not p.name.startswith((".", "_"))}
    assert names == {"sigmoid_inline.py", "test_sigmoid_inline.py", "README.md"}
    source = FILE.read_text()
    text = "\n".join(line.split("#")[0].split("//")[0] for line in source.splitlines())
    for pattern in (r"\btry\s*:", r"\bexcept\b", r"\bpass\b", r"import\s+threading", r"multiprocessing", r"concurrent\.futures", r"class\s+\w+.*\((torch\.)?Tensor\)", r"time\.\w+ = "):
        assert not re.search(pattern, text), pattern
    nodes = list(ast.walk(ast.parse(source)))
    imported = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names} | {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) <= {"torch", "ninja"}


def test_cuda_source_compiles_without_pytorch(tmp_path):
    """For each dtype, access and operator, on the oldest and the newest GPU that nvcc knows, without a warning."""
    if NVCC is None:
        pytest.skip("needs nvcc")
    known = sorted(int(name.partition("_")[2]) for name in ask_nvcc("--list-gpu-arch").split())
    (tmp_path / "kernels.cu").write_text(sigmoid_inline.CUDA_SOURCE)
    architectures = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in (known[0], known[-1])]
    options = ["-shared", "-Xcompiler", "-fPIC", "-std=c++17", *architectures, "-Werror=all-warnings"]
    subprocess.run([NVCC, *options, "-o", tmp_path / "kernels.so", tmp_path / "kernels.cu"], check=True)
    torch.ops.load_library(tmp_path / "kernels.so")


# -- torchrun and the sweep -----------------------------------------------------------------------------------------------------


def torchrun(*args, cache, status=0, script=FILE):
    return run("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script), *args, cache=cache, status=status)


def test_torchrun(cache):
    out, _ = torchrun("--device", "cpu", "--shape", "9", "5003", "--trials", "2", cache=cache)
    assert re.search(r"^2 x ", out, re.M) and out.count("all right") == out.count("ModelNew") == 1
    assert re.search(r"all together: \d\.\d+x", out)


def test_rank_that_fails_ends_all(cache, tmp_path):
    script = tmp_path / "fails.py"
    script.write_text(
        f"import os, sys; sys.path.insert(0, {str(FILE.parent)!r}); import sigmoid_inline as s\n"
        "s.self_check = s.self_check if os.environ['RANK'] == '0' else lambda x: [][0]\n"
        "s.main(['--device', 'cpu', '--shape', '9', '5003', '--trials', '2'])"
    )
    start = time.perf_counter()
    _, err = torchrun(cache=cache, status=1, script=script)
    assert "IndexError: list index out of range" in err and time.perf_counter() - start < 60


def test_rank_that_finds_a_wrong_result(cache, tmp_path):
    script = tmp_path / "wrong.py"
    script.write_text(
        f"import os, sys; sys.path.insert(0, {str(FILE.parent)!r}); import sigmoid_inline as s\n"
        "f = s.sigmoid; s.ModelNew.forward = lambda m, x: f(x) * (1 + 1e-6 * int(os.environ['RANK']))\n"
        "sys.exit(s.main(['--device', 'cpu', '--shape', '9', '5003', '--trials', '2']))"
    )
    out, _ = torchrun(cache=cache, status=1, script=script)
    assert "FAILED: rank 1: an error of" in out and "rank 0" not in out


def test_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sigmoid_inline, "_free_bytes", lambda device: 1 << 27)
    assert sigmoid_inline.main(["--sweep", "--trials", "2", "--json", str(tmp_path / "samples.json")]) == 0
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines()[1:])
    samples = json.loads((tmp_path / "samples.json").read_text())
    assert {case["dtype"] for case in samples["cases"]} == {str(d)[6:] for d in DTYPES} and samples["machine"]["device"]
    assert all(len(ms) == 2 and min(ms) > 0 for case in samples["cases"] for ms in case["ms"].values())
    monkeypatch.setattr(sigmoid_inline, "sigmoid", lambda x: torch.sigmoid(x) * (1 + 1e-3))
    assert sigmoid_inline.main(["--sweep", "--trials", "1", "--dtype", "float64"]) == 1


# -- The README -------------------------------------------------------------------------------------------------------------------

README = FILE.with_name("README.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.*)\n```$", README, re.M) + re.findall(r"`(uv run .*?)`", README)


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_command(command, cache, tmp_path):
    """As printed, but in a copy of the files; where it would run these tests again it only collects them."""
    if "ipykernel" in command:
        pytest.skip("installs more than the other tests have; .ci/run runs it")
    if "EXHAUSTIVE" in command and os.cpu_count() < 8:
        pytest.skip("takes minutes on this machine")
    if "run_and_check" in command:
        pytest.skip("needs a GPU and a checkout of KernelBench")
    if command.startswith("uv") and shutil.which("uv") is None:
        pytest.skip("needs uv")
    if "torchrun" in command and 0 < torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs, or none")
    for name in (FILE.name, Path(__file__).name, "README.md"):
        shutil.copy(FILE.with_name(name), tmp_path)
    machines = 2 if "--nnodes=2" in command else 1
    port = random.Random(os.getpid()).randrange(20000, 30000)
    printed = command.replace("HOST:29500", f"localhost:{port}")
    printed = re.sub(r"(&& pytest|uv run test_sigmoid_inline.py)", r"\1 --collect-only -q", printed)
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(cache), "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]}
    options = dict(env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    processes = [subprocess.Popen(["bash", "-euo", "pipefail", "-c", printed], **options) for _ in range(machines)]
    outputs = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0] * machines, outputs
    says = {"EXHAUSTIVE": "passed", "&& pytest": "tests collected", "run test_": "tests collected", "--sweep": r"\n2\^10 ", "torchrun": r"all together: \d\.\d+x"}
    assert re.search(next((says[word] for word in says if word in command), "all right"), "".join(out for out, _ in outputs))


def test_readme_names():
    """Every option and every message that the README names is the file's, and the other way round."""
    source = FILE.read_text()
    options = set(re.findall(r'add_argument\("(--\w+)"', source))
    named = set(re.findall(r"(--\w[\w-]*)", README)) - {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--help"}
    assert named == options
    messages = [m.rstrip(" .") for m in re.findall(r"^\| `(.*?)` \| ", README.partition("| it says | do |")[2], re.M)]
    assert len(messages) == 11 and all(m in source or m == "Error building extension" for m in messages), messages


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, *sys.argv[1:]]))
