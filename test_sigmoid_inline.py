# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.10", "ninja", "pytest"]
# ///
"""What sigmoid_inline promises, on every device at hand:  pytest  (or  uv run FILE)."""

import contextlib
import ctypes
import decimal
import functools
import gc
import hashlib
import io
import itertools
import os
import pickle
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import autograd, func, nn
from torch.testing import assert_close
from torch.utils import checkpoint as ckpt

import sigmoid_inline
from sigmoid_inline import ModelNew, sigmoid

FILE = Path(sigmoid_inline.__file__).resolve()
TEXT = FILE.read_text()
README = FILE.with_name("README.md").read_text()
NVCC = shutil.which("nvcc", path="/usr/local/cuda/bin" + os.pathsep + os.environ["PATH"])
NVCC_SAYS = (
    subprocess.run([NVCC, "--version"], capture_output=True, text=True).stdout if NVCC else ""
)
FITTING_NVCC = NVCC if f"release {(torch.version.cuda or 'x')[:3]}" in NVCC_SAYS else ""
CAPABILITY = torch.backends.cpu.get_cpu_capability()
ARM = platform.machine() == "aarch64"
HAS_CPU_KERNEL = ARM or CAPABILITY in ("AVX2", "AVX512")
INF = float("inf")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
equal = functools.partial(torch.allclose, rtol=0, atol=0, equal_nan=True)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_gpu)])
def device(request):
    return request.param


@pytest.fixture(params=[torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def dtype(request):
    return request.param


@pytest.fixture
def kernel(device, dtype):
    """The built-in function; skips what the README promises no kernel for."""
    if device == "cpu" and (dtype == torch.float16 or not HAS_CPU_KERNEL):
        pytest.skip("no kernel of this type on this CPU")
    return sigmoid_inline._sigmoid


@pytest.fixture
def answers(monkeypatch):
    """What the built-in function has answered: None where torch.sigmoid had to take the call."""
    given, kernel = [], sigmoid_inline._sigmoid

    def note(*arguments):
        given.append(kernel(*arguments))
        return given[-1]

    monkeypatch.setattr(sigmoid_inline, "_sigmoid", note)
    return given


def error_ulp(y, x):
    """Largest error of `y`, in units of its last place, against torch.sigmoid in float64."""
    exact, info = torch.sigmoid(x.double()), torch.finfo(y.dtype)
    assert torch.equal(y.isnan(), exact.isnan())
    unit = torch.exp2(torch.frexp(exact)[1].double() - 1) * info.eps
    error = (y.double() - exact).abs() / unit.clamp(min=info.tiny * info.eps)
    return error.nan_to_num(0).max().item()


def check(y, x, message=""):
    """`y` is what torch.sigmoid(x) is, within 1 ulp of float64 (3 for it: torch.sigmoid errs by 2).

    What the kernel does not take is torch.sigmoid's own result.
    """
    like = torch.sigmoid(x)
    assert (y.dtype, y.device, y.shape) == (like.dtype, like.device, like.shape), message
    assert y.stride() == like.stride(), message
    if sigmoid_inline._sigmoid(x) is None:
        assert equal(y, like), message
    else:
        assert error_ulp(y, x) <= (3 if x.dtype == torch.float64 else 1), message


def numbers(shape, device, dtype):
    """Random numbers, every fifth of them special: in itself or in its result."""
    tiny, most = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    special = [INF - INF, INF, -INF, -0.0, tiny / 4, -tiny, most, -most, 40, -9.9, -88.5, -740]
    special = torch.tensor(special, dtype=torch.float64, device=device)
    which = torch.randint(5 * len(special), shape, device=device)
    x = torch.randn(shape, dtype=torch.float64, device=device) * 10
    return torch.where(which < len(special), special[which % len(special)], x).to(dtype)


# -- One value has one result, and it is right -----------------------------------------------------


@functools.cache
def exact_16bit(dtype):
    """sigmoid of all 65,536 numbers of a 16-bit type, in the order of their bits, rounded once.

    float64 errs by less than 2^-38 ulp of 16 bits; what it puts within 2^-12 ulp of a tie is decided
    with 60 digits instead.
    """
    x = torch.arange(1 << 16).to(torch.int16).view(dtype).double()
    y = 1 / (1 + torch.exp(-x))
    exponent = torch.frexp(y.clamp(min=torch.finfo(dtype).smallest_normal))[1].double() - 1
    ulp = torch.exp2(exponent) * torch.finfo(dtype).eps
    number = (y / ulp).round()  # of ulps, half to even; all but the sigmoid is exact here
    near_tie = ((y / ulp - number).abs() - 0.5).abs() < 2**-12
    with decimal.localcontext(prec=60):
        for n in near_tie.nonzero().flatten().tolist():
            exact = 1 / (1 + (-decimal.Decimal(x[n].item())).exp()) / decimal.Decimal(ulp[n].item())
            number[n] = int(exact.to_integral_value(decimal.ROUND_HALF_EVEN))
    return x.to(dtype), (number * ulp).to(dtype)


def test_the_reference_rounds_once():
    """PyTorch's conversion from float64 to float16 goes through float32 and rounds twice."""
    x, exact = exact_16bit(torch.float16)
    twice = torch.sigmoid(x.double()).to(torch.float16)
    wrong = x[(twice != exact) & ~x.isnan()]
    assert len(wrong) == 7 and 0.0014648 in {round(v, 7) for v in wrong.abs().tolist()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bits_are_correctly_rounded(device, dtype, kernel):
    """Of all 65,536 inputs, dense and strided; NaN stays NaN."""
    x, exact = exact_16bit(dtype)
    for layout in (x.to(device), torch.stack([x, x], 1).to(device)[:, 0]):
        assert equal(kernel(layout).cpu(), exact)


def test_float32_over_all_inputs(device):
    """At most 1 ulp, in [0, 1] and rising; of every 16th input on the CPU, of all with
    SIGMOID_EXHAUSTIVE=1. NaN is in other tests."""
    if device == "cpu" and not HAS_CPU_KERNEL:
        pytest.skip("no kernel on this CPU")
    step = 1 if device == "cuda" or "SIGMOID_EXHAUSTIVE" in os.environ else 16
    infinity = torch.tensor(INF).view(torch.int32).item()
    for sign in (1, -1):
        last = torch.tensor([0.5], device=device)
        for first in range(0, infinity + 1, step << 22):
            end = min(first + (step << 22), infinity + 1)
            x = torch.arange(first, end, step, device=device).int().view(torch.float32) * sign
            y = sigmoid_inline._sigmoid(x)
            assert error_ulp(y, x) <= 1
            assert ((y >= 0) & (y <= 1)).all()
            assert (torch.cat([last, y]).diff() * sign >= 0).all()
            last = y[-1:]


COUNT_WRONG = """
#include <cfloat>
#include <cmath>
static_assert(LDBL_MANT_DIG >= 64, "long double has to be more precise than double");
extern "C" long count_wrong(const double* y, const double* x, long count) {
  long wrong = 0;
  for (long n = 0; n < count; n++) {
    const long double exact = 1 / (1 + expl(-(long double)x[n]));
    const long double unit = fmaxl(scalbnl(1, ilogbl(exact) - 52), scalbnl(1, -1074));
    wrong += !(fabsl(y[n] - exact) <= unit);
  }
  return wrong;
}
"""


@pytest.mark.parametrize("dtype", [torch.float64], ids=str)
def test_float64_over_every_exponent(device, dtype, kernel, tmp_path):
    """At most 1 ulp against long double, for 10^8 inputs on a GPU and 4 * 10^6 on the CPU.

    Half of them lie between 2^-12 and 750, where the formula has most to do.
    """
    (tmp_path / "count.cpp").write_text(COUNT_WRONG)
    command = ["c++", "-O2", "-shared", "-fPIC", "count.cpp", "-o", "count"]
    subprocess.run(command, cwd=tmp_path, check=True)
    count_wrong = ctypes.CDLL(str(tmp_path / "count")).count_wrong
    count_wrong.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long]
    least, most = torch.tensor([2.0**-12, 750.0], dtype=dtype).view(torch.int64).tolist()
    torch.manual_seed(0)
    for i in range(100 if device == "cuda" else 4):
        bits = torch.randint(least if i % 2 else 0, most, (10**6,))
        x = bits.view(dtype)  # as many of every exponent
        x[::2].neg_()
        y = kernel(x.to(device)).cpu()
        assert count_wrong(y.data_ptr(), x.data_ptr(), len(x)) == 0


def test_a_value_has_one_result(device, dtype, kernel):
    """Whatever its index, alignment and stride and the size of the tensor.

    The lengths lie around those of vectors, tiles and what a thread takes.
    """
    torch.manual_seed(0)
    x = numbers((4096,), device, dtype)
    y = torch.stack([kernel(v) for v in x]).repeat(17)
    x = x.repeat(17)
    check(y, x)
    lengths = (1, 2, 3, 7, 15, 17, 33, 2047, 2049, 4099, 32767, 32769, 65541)
    for length, offset in itertools.product(lengths, range(17)):
        part = slice(offset, offset + length)
        assert equal(kernel(x[part]), y[part]), part
    for columns in (33, 80, 1024, 4096):
        rows, row_results = x.unfold(0, columns, 997), y.unfold(0, columns, 997)
        assert equal(kernel(rows), row_results), columns
        assert equal(kernel(rows[:, ::2].t()), row_results[:, ::2].t()), columns


def random_view(rng, device, dtype):
    """Up to 7 dimensions of 0, 1 and odd sizes: dense, gapped, permuted, expanded, channels last.

    One in four has any strides at all: overlapping, repeated, odd where the size is 1.
    """
    ndim = rng.choice([0, 1, 2, 2, 3, 3, 4, 4, 4, 5, 6, 7])
    sizes = [1, 1, 2, 3, 4, 5] + ([0, 7, 16, 33] if ndim < 5 else [])
    shape = [rng.choice(sizes) if rng.random() < 0.95 else 120 // (ndim + 1) for _ in range(ndim)]
    strides = [rng.choice([0, 1, 1, 2, 3, 4, 8, 15, 60, 199]) for _ in shape]
    order = rng.sample(range(ndim), ndim)  # innermost first
    if rng.random() < 0.5:
        order = [1, 3, 2, 0] if ndim == 4 and rng.random() < 0.3 else list(reversed(range(ndim)))
    step = 1
    for dim in order if rng.random() < 0.75 else []:
        step *= rng.choice([1] * 9 + [2, 3])
        if shape[dim] > 1 or rng.random() < 0.7:
            strides[dim] = step if rng.random() < 0.9 else 0
        step *= shape[dim] + rng.choice([0] * 9 + [1, 4])
    offset = rng.choice([0, 0, 1, 2, 4, 8, 9])
    last = sum((n - 1) * stride for n, stride in zip(shape, strides)) if 0 not in shape else 0
    return numbers((last + offset + 1,), device, dtype).as_strided(shape, strides, offset)


def test_any_layout_in_every_grad_mode(device, dtype):
    """2,500 random views: shape, strides, values and gradient are right, and the input stays.

    Without autograd, on inference tensors and where autograd records the same bits come from the
    kernel; most views are taken. The gradient is aten.sigmoid_backward's, to the last bit.
    """
    rng, taken = random.Random(0), 0
    torch.manual_seed(0)
    for case in range(2500):
        x = random_view(rng, device, dtype)
        message = f"case {case}: {tuple(x.shape)}, strides {x.stride()}, at {x.storage_offset()}"
        before, leaf = x.clone(), x.detach().requires_grad_()
        y, recorded = sigmoid(x), sigmoid(leaf)
        with torch.inference_mode():
            assert equal(sigmoid(x), y), message
        check(y, x, message)
        assert equal(recorded, y) and recorded.stride() == y.stride(), message
        assert recorded.grad_fn.name() == "SigmoidBackward0", message
        answers = [sigmoid_inline._sigmoid(tensor) is not None for tensor in (x, leaf)]
        assert answers[0] == answers[1], message
        taken += answers[0]
        upstream = torch.randn_like(y)
        (gradient,) = autograd.grad(recorded, leaf, upstream)
        assert equal(gradient, torch.ops.aten.sigmoid_backward(upstream, y)), message
        assert equal(x, before), message
    least = 2000 if device == "cpu" else 1500
    has_kernel = device == "cuda" or (HAS_CPU_KERNEL and dtype != torch.float16)
    assert taken >= least if has_kernel else taken == 0


def test_more_than_2_31_elements(device):
    """64-bit indices, of the output and of the input; a GPU refuses 2^31 units of a view."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    if (torch.cuda.mem_get_info()[0] if device == "cuda" else free) < 1 << 34:
        pytest.skip("needs 16 GiB of free memory")
    kernel = sigmoid_inline._sigmoid if device == "cuda" or HAS_CPU_KERNEL else sigmoid
    row = torch.randn(65_544, device=device).bfloat16()
    many = kernel(row.expand(1 << 15, 65_544))
    assert error_ulp(many[::97], row.expand_as(many)[::97]) <= 1
    assert device == "cpu" or error_ulp(kernel(many)[::97], many[::97]) <= 1
    del many
    far = torch.empty(1 << 32, device=device, dtype=row.dtype)[7 :: 1 << 20].copy_(row[:4096])
    check(kernel(far), far)
    del far
    if device == "cuda":
        assert kernel(row[:1].expand((1 << 31) - 1)) is not None
        assert kernel(row[:1].expand(1 << 31)) is None
        check(sigmoid(row[:1].expand(1 << 31))[-5:], row[:1].expand(5))


def test_a_choice_by_value_is_the_same_when_it_is_computed_again(device, dtype, kernel):
    """In a checkpoint's backward, which records what its forward did not: a choice by last bits."""
    torch.manual_seed(0)
    x = torch.randn(1000, device=device).to(dtype)
    integer = torch.int16 if dtype.itemsize == 2 else torch.int32

    def chosen(z):
        y = sigmoid(z)
        return y[y.detach().view(integer)[:: dtype.itemsize // integer.itemsize] % 2 == 0]

    for reentrant in (False, True):
        leaf = x.clone().requires_grad_()
        y = ckpt.checkpoint(chosen, leaf, use_reentrant=reentrant)
        y.sum().backward()
        assert 0 < len(y) < 1000 and (leaf.grad != 0).sum() == len(y)


# -- What runs here, and what is torch.sigmoid's ---------------------------------------------------


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_plain_call_takes_the_kernel(device, dtype, kernel):
    """Nothing plain takes the slow way in silence, up to 8 dimensions (on a GPU 3)."""
    most = 8 if device == "cpu" else 3
    x = torch.randn(6, 8, device=device).to(dtype)
    cube = torch.ones([4] * (most + 1), device=device, dtype=dtype)
    views = [x, x.t(), x[:, ::2], x[1:], x[0, 0], x[:, :1].expand(6, 9), cube]
    views.append(cube[0][(slice(2),) * most])
    autocast = functools.partial(torch.autocast, device, torch.bfloat16)
    modes = (contextlib.nullcontext, torch.no_grad, torch.inference_mode, autocast, deterministic)
    for mode in modes:
        with mode():
            views.append(x + 1)  # an inference tensor, once
            for view in views:
                check(kernel(view), view)
            assert kernel(cube[(slice(2),) * (most + 1)]) is None
    with torch.inference_mode(), torch.enable_grad():  # which records nothing
        check(kernel(x.requires_grad_()), x)
    check(kernel(nn.Parameter(x.detach(), requires_grad=False)), x.detach())


def test_plain_out_is_written_by_the_kernel(device, dtype, kernel):
    """With the bits of a call without it, and a version that tells a backward of the loss."""
    torch.manual_seed(0)
    x = numbers((33, 8), device, dtype)
    for view in (x, x.t(), x[:, 1:], x[:1].expand(9, 8), x[3]):
        want = kernel(view)
        out = torch.full_like(want, INF)
        version = out._version
        assert sigmoid(view, out=out) is out and kernel(view, out) is out
        assert out._version == version + 2 and equal(out, want)
    want = kernel(x)
    assert kernel(x, x) is x and equal(x, want)


def outcome(f, *args, **kwargs):
    """What `f` returns, or the type of its error."""
    try:
        return f(*args, **kwargs)
    except Exception as error:  # noqa: BLE001
        return str(type(error))


def alike(got, want):
    """Asserts that two results are the same in type, values, strides and what they record."""
    assert type(got) is type(want)
    if isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for pair in zip(got, want):
            alike(*pair)
    elif type(want) is torch.Tensor and want.layout is torch.strided and not want.is_meta:
        assert_close(got, want, check_stride=True)
        assert got.requires_grad == want.requires_grad
        assert (got.grad_fn and got.grad_fn.name()) == (want.grad_fn and want.grad_fn.name())
    else:
        assert str(got) == str(want)


def under(mode, f, x):
    with mode:
        return f(x)


def gradient(f, x, mode=None):
    leaf = x.clone().requires_grad_()
    y = under(mode or contextlib.nullcontext(), f, leaf)
    y.sin().sum().backward()
    return y, leaf.grad


def derivatives(f, x):
    """To the third order."""
    leaf = x.clone().requires_grad_()
    found = [f(leaf)]
    for _ in range(3):
        found += autograd.grad(found[-1].sum(), leaf, create_graph=True)
    return found


def saved_for_backward(f, x):
    """Where what autograd saves lies: it is the output."""
    saved = []
    with autograd.graph.saved_tensors_hooks(saved.append, lambda _: None):
        y = f(x.clone().requires_grad_())
    return [tensor.data_ptr() == y.data_ptr() for tensor in saved]


def failing_hook(f, x):
    with autograd.graph.saved_tensors_hooks(lambda _: 1 / 0, lambda _: None):
        return outcome(f, x.requires_grad_())


def overwritten(f, x):
    y = f(x.requires_grad_())
    y.detach().zero_()
    return outcome(y.sum().backward)


def compiled_autograd(f, x):
    torch._dynamo.reset()
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
        return gradient(f, x)


class Model(nn.Module):
    def __init__(self, f, like):
        super().__init__()
        torch.manual_seed(0)
        self.f, self.linear = f, nn.Linear(4, 4, device=like.device, dtype=like.dtype)

    def forward(self, x):
        return self.f(self.linear(x))


def trained(wrap, f, x):
    """The losses of three steps of a model that `wrap` has made parallel, in a group of one."""
    backend = "nccl" if x.is_cuda else "gloo"
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    model, losses = Model(f, x), []
    model = wrap(model) or model
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    for _ in range(3):
        losses.append(model(x).sum())
        losses[-1].backward()
        optimizer.step()
    torch.distributed.destroy_process_group()
    return [loss.detach() for loss in losses]


def fsdp2(model):
    from torch.distributed.fsdp import fully_shard

    mesh = torch.distributed.init_device_mesh(next(model.parameters()).device.type, (1,))
    fully_shard(model, mesh=mesh)


def graphed(f, x):
    """A captured training step."""
    if not x.is_cuda:
        pytest.skip("needs an NVIDIA GPU")
    model = torch.cuda.make_graphed_callables(Model(f, x), (x.clone().requires_grad_(),))
    return gradient(model, x)


def in_threads(f, x):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(functools.partial(gradient, f), [x + n for n in range(40)]))


checkpoint = functools.partial(ckpt.checkpoint, use_reentrant=False)
RECORDED = {
    "backward": gradient,
    "derivatives": derivatives,
    "parameter": lambda f, x: autograd.grad(f(p := nn.Parameter(x)).sum(), p),
    "saved-tensor hooks": saved_for_backward,
    "save_on_cpu": lambda f, x: gradient(f, x, autograd.graph.save_on_cpu()),
    "checkpoint": lambda f, x: gradient(functools.partial(checkpoint, f), x),
    "anomaly mode": lambda f, x: gradient(f, x, autograd.detect_anomaly()),
    "autocast": lambda f, x: gradient(f, x, torch.autocast(x.device.type, torch.bfloat16)),
    "overwritten output": overwritten,
    "compiled autograd": compiled_autograd,
    "DDP": functools.partial(trained, nn.parallel.DistributedDataParallel),
    "FSDP2": functools.partial(trained, fsdp2),
    "threads": in_threads,
    "captured step": graphed,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", RECORDED)
def test_what_autograd_records_runs_here(device, way, answers):
    """By PyTorch's own autograd: value, node, gradient and error are as torch.sigmoid's."""
    if device == "cpu" and not HAS_CPU_KERNEL:
        pytest.skip("no kernel on this CPU")
    x = torch.randn(3, 4, device=device, dtype=torch.float64)
    alike(RECORDED[way](sigmoid, x.clone()), RECORDED[way](torch.sigmoid, x.clone()))
    assert answers and all(answer is not None for answer in answers)


def kinds(script):
    """Another process can load a saved trace or script of these operators, but none in Python."""
    return [node.kind() for node in script.inlined_graph.nodes()]


def compiled(f, x, **options):
    torch._dynamo.reset()
    return gradient(torch.compile(lambda z: f(z) * z, fullgraph=True, **options), x)


def traced(f, x, **options):
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(f, **options)(x).code


def onnx(f, x):
    onnx = pytest.importorskip("onnx")
    torch.onnx.export(module[f], (x,), exported := io.BytesIO(), dynamo=False)
    return [node.op_type for node in onnx.load_from_string(exported.getvalue()).graph.node]


def fake(f, x):
    from torch._subclasses import FakeTensorMode

    return under(FakeTensorMode(allow_non_fake_inputs=True), f, x)


def function_mode(f, x):
    from torch.overrides import BaseTorchFunctionMode

    return under(BaseTorchFunctionMode(), f, x)


def dispatch_mode(f, x):
    from torch.utils._python_dispatch import BaseTorchDispatchMode

    return under(BaseTorchDispatchMode(), f, x)


def flop_counter(f, x):
    from torch.utils.flop_counter import FlopCounterMode

    return under(FlopCounterMode(display=False), f, x)


def two_tensor(f, x):
    from torch.testing._internal.two_tensor import TwoTensor

    return f(TwoTensor(x, x + 1))


def on_dual_numbers(f, x):
    with autograd.forward_ad.dual_level():
        y = outcome(f, autograd.forward_ad.make_dual(x, x.cos()))
        return y if isinstance(y, str) else tuple(autograd.forward_ad.unpack_dual(y))


def on_dtensor(f, x):
    """Of one rank: what wraps a tensor is as with many."""
    from torch.distributed import tensor as dtensor

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group(store=store, rank=0, world_size=1)
    mesh = dtensor.init_device_mesh(x.device.type, (1,))
    result = gradient(f, dtensor.DTensor.from_local(x, mesh, [dtensor.Partial()]))
    torch.distributed.destroy_process_group()
    return result


def on_freed_data(f, x):
    """As a CUDA graph's outputs are once a later run has overwritten them."""
    if not hasattr(torch._C, "_set_storage_access_error_msg"):
        pytest.skip("needs a PyTorch with CUDA")
    torch._C._set_storage_access_error_msg(x, "freed")
    return outcome(f, x), outcome(f, x.requires_grad_())


def into(f, x, out):
    """A backward notices by the version that values were lost."""
    y = outcome(f, x, out=out)
    return y, y is out, out._version


module = {sigmoid: nn.Sequential(ModelNew()), torch.sigmoid: nn.Sequential(nn.Sigmoid())}
export = functools.partial(torch.export.export, strict=False)
trace = functools.partial(torch.jit.trace, check_trace=False)
sigmoids = [torch.ops.aten.sigmoid.default]
contexts = functools.partial(ckpt.create_selective_checkpoint_contexts, sigmoids)
INTERCEPTED = {
    "jit.trace": lambda f, x: kinds(trace(module[f], x)),
    "trained trace": lambda f, x: gradient(trace(lambda z: f(z) * z, x), x),
    "jit.script": lambda f, x: kinds(torch.jit.script(module[f])),
    "fx": lambda f, x: torch.fx.symbolic_trace(lambda z: f(z) * z).code,
    "make_fx": lambda f, x: traced(lambda z: f(z) * z, x),
    "make_fx recorded": lambda f, x: traced(lambda z: f(z) * z, x.requires_grad_()),
    "make_fx fake": lambda f, x: traced(lambda z: f(z) * z, x, tracing_mode="fake"),
    "make_fx symbolic": lambda f, x: traced(lambda z: f(z) * z, x, tracing_mode="symbolic"),
    "make_fx of vmap": lambda f, x: traced(func.vmap(f), x),
    "make_fx of jacfwd": lambda f, x: traced(func.jacfwd(f), x),
    "profiled make_fx": lambda f, x: under(torch.profiler.profile(), lambda z: traced(f, z), x),
    "export": lambda f, x: export(module[f], (x,)).graph_module.code,
    "strict export": lambda f, x: export(module[f], (x,), strict=True).graph_module.code,
    "onnx": onnx,
    "compile": lambda f, x: compiled(f, x, backend="eager"),
    "compile dynamic": lambda f, x: compiled(f, x, backend="aot_eager", dynamic=True),
    "FakeTensorMode": fake,
    "TorchFunctionMode": function_mode,
    "recorded in a function mode": lambda f, x: function_mode(f, x.requires_grad_()),
    "TorchDispatchMode": dispatch_mode,
    "recorded in a dispatch mode": lambda f, x: dispatch_mode(f, x.requires_grad_()),
    "FlopCounterMode": flop_counter,
    "torch.device": lambda f, x: under(torch.device("meta"), f, x),
    "__torch_function__": lambda f, x: f(torch.masked.masked_tensor(x, x > 0)),
    "__torch_dispatch__": two_tensor,
    "DTensor": on_dtensor,
    "selective checkpoint": lambda f, x: checkpoint(f, x.requires_grad_(), context_fn=contexts),
    "a hook that fails": failing_hook,
    "dual numbers": on_dual_numbers,
    "dual numbers, recorded": lambda f, x: on_dual_numbers(f, x.requires_grad_()),
    "dual out": lambda f, x: on_dual_numbers(lambda d: f(x.clone(), out=d), x),
    "functionalize": lambda f, x: func.functionalize(f)(x),
    "vmap of grad": lambda f, x: func.vmap(func.grad(lambda z: f(z).sum()))(x),
    "jacfwd of jacfwd": lambda f, x: func.jacfwd(func.jacfwd(f))(x),
    "hessian": lambda f, x: func.hessian(lambda z: f(z).sum())(x),
    "jvp of jvp": lambda f, x: func.jvp(lambda z: func.jvp(f, (z,), (x,))[1], (x,), (x,)),
    "vjp": lambda f, x: func.vjp(f, x)[1](x.cos()),
    "negative": lambda f, x: f(torch.complex(x, x).conj().imag),
    "conjugate": lambda f, x: f(torch.complex(x, x).conj()),
    "integers": lambda f, x: (f(x.long()), f(x > 0)),
    "sparse": lambda f, x: (outcome(f, x.to_sparse()), outcome(f, x.to_sparse_csr())),
    "quantized": lambda f, x: outcome(f, torch.quantize_per_tensor(x.float(), 1, 9, torch.quint8)),
    "nested": lambda f, x: outcome(f, torch.nested.nested_tensor([x, x[:2]])),
    "meta": lambda f, x: f(x.to("meta").t()).stride(),
    "named": lambda f, x: outcome(lambda: f(x.refine_names("a", "b")).names),
    "not a tensor": lambda f, x: (outcome(f), outcome(f, 1.0), outcome(f, [x])),
    "freed data": on_freed_data,
    "out resized": lambda f, x: into(f, x, x.new_empty(0)),
    "out of another type": lambda f, x: into(f, x, x.int()),
    "out of other strides": lambda f, x: into(f, x, x.t().contiguous().t()),
    "out overlaps in part": lambda f, x: into(f, x[1:], x[:-1]),
    "out is the input of others": lambda f, x: into(f, x[:, 1:3], x.view(-1)[:6].view(3, 2)),
    "out requires a gradient": lambda f, x: into(f, x, x.clone().requires_grad_()),
    "out of what requires one": lambda f, x: into(f, x.requires_grad_(), torch.empty_like(x)),
    "out is an inference tensor": lambda f, x: outcome(
        f, x, out=under(inference(), torch.ones_like, x)
    ),
    "out is no tensor": lambda f, x: outcome(f, x, out=1),
    "out of memory": lambda f, x: outcome(f, x[0, :1].expand(1 << 45)),
    "out of memory, recorded": lambda f, x: outcome(f, x.requires_grad_()[0, :1].expand(1 << 45)),
}
inference = torch.inference_mode


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", INTERCEPTED)
def test_what_intercepts_operators_sees_torch_sigmoid(device, way, answers):
    """The kernel never runs there; result, gradient, graph and error are torch.sigmoid's."""
    x = torch.randn(3, 4, device=device, dtype=torch.float64)
    alike(INTERCEPTED[way](sigmoid, x.clone()), INTERCEPTED[way](torch.sigmoid, x.clone()))
    assert all(answer is None for answer in answers)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("key", ["Tracer", "PythonDispatcher", "TESTING_ONLY_GenericMode"])
def test_a_mode_that_nobody_thought_of(device, key, recorded):
    """Any dispatch key that the thread includes, as modes do, turns the kernel off."""
    x = torch.randn(5, device=device, requires_grad=recorded)

    def answer():
        with torch._C._IncludeDispatchKeyGuard(torch._C._dispatch_key_parse(key)):
            return sigmoid_inline._sigmoid(x)

    with ThreadPoolExecutor(1) as thread:  # of its own: PyTorch 2.11's guard leaves keys behind
        assert thread.submit(answer).result() is None


def test_compiled_call_is_one_fused_kernel(device):
    """Inductor fuses it with its neighbours."""
    from torch._inductor.utils import fresh_cache, run_and_get_code

    x, y = torch.randn(2, 100, device=device)
    torch._dynamo.reset()
    f = torch.compile(lambda x, y: sigmoid(x) * y + 1, fullgraph=True)
    with fresh_cache():  # it does not tell one ATEN_CPU_CAPABILITY from another
        got, (code, *_) = run_and_get_code(f, x, y)
    assert_close(got, torch.sigmoid(x) * y + 1)
    assert code.count("def triton_" if device == "cuda" else 'extern "C"') == 1


CALLS_OF_OTHERS = """
import torch
def calls(device):
    x = torch.linspace(-9, 9, 5000, device=device)
    leaf = x.clone().requires_grad_()
    y = torch.sigmoid(leaf)
    z = torch.compile(torch.sigmoid, backend="aot_eager")(x)
    same = [y, leaf.sigmoid(), torch.sigmoid(x, out=x.new_empty(5000)), x.clone().sigmoid_(), z]
    return torch.stack(same).detach(), y.grad_fn.name()
devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
before = [calls(device) for device in devices]
import sigmoid_inline
for device, (values, name) in zip(devices, before):
    ours = sigmoid_inline.sigmoid(torch.linspace(-9, 9, 5000, device=device, requires_grad=True))
    assert not HAS_KERNEL or not torch.equal(ours, values[0])
    assert torch.equal(calls(device)[0], values) and calls(device)[1] == name
"""


def test_nobody_elses_call_changes(cache):
    """torch.sigmoid, its method, out= and compiled code give the bits that they gave before."""
    run("-c", f"HAS_KERNEL = {HAS_CPU_KERNEL}\n{CALLS_OF_OTHERS}", cache=cache)


@pytest.mark.filterwarnings("ignore")
def test_a_whole_model_in_one_line(device, monkeypatch, answers):
    """torch.sigmoid = torch.nn.functional.sigmoid = sigmoid, also where it is torch.sigmoid's."""
    x = torch.randn(6, 4, device=device)
    model = Model(nn.Sigmoid(), x)
    want, exact = gradient(Model(torch.Tensor.sigmoid, x), x), torch.sigmoid
    monkeypatch.setattr(torch, "sigmoid", sigmoid)
    monkeypatch.setattr(nn.functional, "sigmoid", sigmoid)
    alike(gradient(model, x), want)
    assert not HAS_CPU_KERNEL or answers[-1] is not None
    alike(torch.sigmoid(x.long()), exact(x.long()))
    alike(torch.sigmoid(x, out=x.new_empty(0)), exact(x))
    alike(func.vmap(nn.functional.sigmoid)(x), exact(x))
    torch._dynamo.reset()
    for f in (model, lambda z: torch.sigmoid(nn.functional.sigmoid(z))):
        y = torch.compile(f, fullgraph=True, backend="aot_eager")(x)
        assert_close(y, f(x))


# -- In a program ----------------------------------------------------------------------------------


def test_profiler_shows_its_name(device, dtype, kernel):
    x = torch.randn(5, device=device, dtype=dtype)
    with torch.profiler.profile(record_shapes=True) as profile:
        sigmoid(x)
    keys = {event.key for event in profile.key_averages()}
    assert [[5]] in [event.input_shapes for event in profile.events()]
    assert "sigmoid_inline" in keys and "aten::sigmoid" not in keys
    assert device == "cpu" or any("sigmoid_kernel<" in key for key in keys)


def test_threads_call_at_once(device):
    """A call releases the interpreter's lock: within this interval nothing else does."""
    xs = [torch.randn(1 << 19, device=device) for _ in range(40)]
    theirs, gate = [], threading.Lock()

    def call_behind_gate():
        with gate:
            for x in xs:
                theirs.append(sigmoid(x))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    gate.acquire()
    thread = threading.Thread(target=call_behind_gate)
    thread.start()
    gate.release()
    ours = [sigmoid(x) for x in xs]
    meanwhile = len(theirs)
    sys.setswitchinterval(interval)
    thread.join()
    assert meanwhile > 0 or device == "cuda"  # a launch is too short to be sure
    for y, x in zip(ours + theirs, xs + xs):
        check(y, x)


def test_nothing_leaks(device):
    """5,000 calls of each kind, errors too, keep no memory and no reference."""
    x = torch.randn(1 << 16, device=device)

    def held():
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory = torch.cuda.memory_allocated() if device == "cuda" else pages << 12
        references = [sys.getrefcount(thing) for thing in (x, None, torch.Tensor)]
        return *references, x._use_count(), sys.getallocatedblocks(), memory // x.nbytes

    for argument in (x, x.clone().requires_grad_(), [x], x.int()):
        outcome(sigmoid, argument)
        before = held()
        for _ in range(5000):
            outcome(sigmoid, argument)
        assert all(after < start + 1000 for after, start in zip(held(), before))
    huge = x.clone().requires_grad_()[:1].expand(1 << 45)
    count = huge._use_count()
    for _ in range(20):
        assert isinstance(outcome(sigmoid, huge), str)  # it does not fit
    assert huge._use_count() == count


def test_module_is_as_nn_sigmoid():
    model, x = pickle.loads(pickle.dumps(ModelNew())), torch.randn(5)
    assert not model.state_dict() and equal(model(input=x), sigmoid(x))


@needs_gpu
def test_cuda_graph_streams_and_memory():
    """It is captured and replayed, runs on the current stream, and allocates its output alone."""
    x, big = torch.randn(1 << 20, device="cuda"), torch.zeros(1 << 28, device="cuda")
    kernel = sigmoid_inline._sigmoid  # which never falls back
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # the kernel's first call in a process, or not
        y = kernel(x.neg_())
        z = kernel(y)
    graph.replay()
    check(y, x)
    check(z, y)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(100_000_000)
        z = kernel(big.fill_(1))  # on the side stream: after fill_
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before == z.nbytes
    assert (z == sigmoid(torch.ones(1, device="cuda"))).all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs 2 NVIDIA GPUs")
def test_other_gpu_than_the_current():
    x = torch.randn(1000, device="cuda:1")
    check(sigmoid(x), x)
    alike(gradient(sigmoid, x), gradient(torch.sigmoid, x))
    assert torch.cuda.current_device() == 0


# -- The import, the cache and what may be broken there ------------------------------------------

COMPILED = r"sigmoid_inline: compiled the (GPU|CPU) kernel.* in \d+\.\d s\n"
SMALL = "--device cpu --shape 9 5003 --trials 2".split()
IMPORT = """import os, sys
exec(os.environ.get("FIRST", ""))
import torch, sigmoid_inline
exec(os.environ.get("LAST", ""))
assert sigmoid_inline.sigmoid(torch.tensor([0.0, torch.nan])).isnan().tolist() == [False, True]
assert sigmoid_inline.sigmoid(torch.tensor(-88.0)).item() > 0 < float("1e-310")"""


def start(*args, cache, before=(), **env):
    """Starts python with `args`, on the CPU unless told; None removes a variable."""
    own = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": FILE.parent, "PYTHONWARNINGS": "ignore"}
    own |= {"TORCH_EXTENSIONS_DIR": cache, "TMPDIR": cache.parent, **env}
    env = {name: str(v) for name, v in {**os.environ, **own}.items() if v is not None}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [*before, sys.executable, *args]
    return subprocess.Popen(command, env=env, cwd=cache, text=True, **pipes)


def run(*args, status=0, typed="", **options):
    """(stdout, stderr) of a process that has to end with this status."""
    process = start(*args, **options)
    out, err = process.communicate(typed)
    assert process.returncode == status, out + err
    return out, err


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with this machine's library, at a path that asks for quoting."""
    cache = tmp_path_factory.mktemp('a cache\'s "späces"')
    run("-c", IMPORT, cache=cache)
    return cache


@pytest.fixture
def execute(monkeypatch, tmp_path, capfd):
    """execute(text): its namespace, and whether it compiled (for the CPU, into tmp_path)."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))

    def execute(text):
        namespace = {}
        exec(text, namespace)
        assert namespace["ModelNew"]()(torch.zeros(3)).tolist() == [0.5, 0.5, 0.5]
        said = capfd.readouterr().err
        assert re.fullmatch(f"({COMPILED})?", said)
        return namespace, bool(said)

    return execute


@pytest.fixture
def small_tensors(monkeypatch):
    """torch.rand makes at most 40 elements a dimension, but for what is to be expanded."""
    rand = torch.rand

    def small(*shape, **options):
        shape = torch.empty(*shape, device="meta").shape
        most = 1 << 14 if 1 in shape else 40
        return rand([min(n, most) for n in shape], **options)

    monkeypatch.setattr(torch, "rand", small)


SETTINGS = """
import os, subprocess, sys, threading, warnings, torch
def settings():
    return (dict(os.environ), warnings.filters[:], torch.get_num_threads(), os.getcwd(),
            threading.active_count(), sys.stdout, sys.stderr)
before, run = settings(), subprocess.run
subprocess.run = lambda *args, **options: os.environ.update(THREAD="1") or run(*args, **options)
before[0]["THREAD"] = "1"  # as another thread may set it while the compiler runs
import sigmoid_inline
assert settings() == before
if os.fork() == 0:
    x = torch.zeros(1, device="cuda" if torch.cuda.device_count() else "cpu")
    os._exit(int(sigmoid_inline.sigmoid(x).item() != 0.5))
assert os.wait()[1] == 0
"""


@pytest.mark.parametrize("devices", ["", pytest.param(None, marks=needs_gpu)])
def test_import_compiles_once_says_so_and_changes_nothing_else(devices, tmp_path):
    """Processes may still fork."""
    out, err = run("-c", SETTINGS, cache=tmp_path, CUDA_VISIBLE_DEVICES=devices)
    assert out == "" and re.fullmatch(COMPILED, err)
    again = run("-c", "import sigmoid_inline", cache=tmp_path, CUDA_VISIBLE_DEVICES=devices)
    assert again == ("", "")


NO_LOCKS = "import fcntl; fcntl.flock = lambda *_: open('/')"  # an OSError


@pytest.mark.parametrize("first", ["", NO_LOCKS], ids=["locks", "no locks"])
def test_processes_that_import_at_once_all_succeed(first, tmp_path):
    """They build once where files can be locked. Another CPU or compiler is another library."""
    (tmp_path / "g++").symlink_to(shutil.which("c++"))
    machines = [{}, {}, *[{"ATEN_CPU_CAPABILITY": "default"}] * 2, {"CXX": tmp_path / "g++"}]
    processes = [start("-c", IMPORT, cache=tmp_path, FIRST=first, **m) for m in machines]
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 5, said
    kinds = 2 + (CAPABILITY != "DEFAULT" and not ARM)
    assert sum("compiled" in err for _, err in said) == kinds or first, said
    assert {p.suffix for p in (tmp_path / "sigmoid_inline").iterdir()} == {"", ".so"}


def test_interrupted_build_and_closed_pipe_end_quietly_and_leave_no_trap(tmp_path):
    """Ctrl-C and `| head` end the command as any program; an old build's remains are removed."""
    process = start(FILE, *SMALL, cache=tmp_path)
    while not list(tmp_path.rglob("main.cpp")):  # the compiler is about to start
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "") and process.returncode == -signal.SIGINT
    (left,) = tmp_path.glob("sigmoid_inline/build-*")
    os.utime(left, (0, 0))
    run("-c", IMPORT, cache=tmp_path)
    assert [p.suffix for p in sorted((tmp_path / "sigmoid_inline").iterdir())] == ["", ".so"]
    process = start(FILE, *SMALL, cache=tmp_path)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == -signal.SIGPIPE


THREAD = "import threading; t = threading.Thread(target=lambda: {}); t.start(); t.join()"
STREAMLIT = THREAD.format("__import__('runpy').run_path({0!r}, run_name='__main__')")
MARIMO = "exec(open({0!r}).read(), {{'__name__': '__main__', '__file__': {0!r}}})"
HANDLER = "import signal; print('SIGINT', signal.getsignal(2).__name__)"


@pytest.mark.parametrize("code", [STREAMLIT, MARIMO, ""], ids=["thread", "cell", "python -i"])
def test_ctrl_c_is_what_it_was(code, cache):
    args = ["-c", f"import sys; sys.argv[1:] = {SMALL}; {code}; {HANDLER}".format(str(FILE))]
    out, _ = run(*(args if code else ["-i", FILE, *SMALL]), cache=cache, typed=HANDLER)
    assert "GB/s" in out and "SIGINT default_int_handler" in out


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
    foreign = b"with the digest of its content, but not to be loaded on this machine"
    name = library.name[:-19] + hashlib.sha256(foreign).hexdigest()[:16] + ".so"
    for library in tmp_path.rglob("*.so"):
        library.unlink()
    library.with_name(name).write_bytes(foreign)
    assert execute(TEXT)[1] and not execute(TEXT)[1]


NVML = """
static int gpus[] = {GPUS};
int nvmlInit(void) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = sizeof gpus / sizeof *gpus; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **gpu) { *gpu = gpus + i; return 0; }
int nvmlDeviceGetCudaComputeCapability(int *g, int *a, int *b) { *a = *g; *b = 0; return 0; }
"""
MACHINE = r"""set -ea
program() { mkdir -p "${1%/*}"; printf '#!/bin/sh\n%s "$@" %s\n' "$2" "$3" > "$1"; chmod +x "$1"; }
cxx() { program w/c++ "$1 c++ $2" "$3"; CXX=$PWD/w/c++; }  # what stands before, behind and last
only() { for p; do program bin/$p "$(command -v $p)"; done; PATH=$PWD/bin; }
private() { unshare "$@" true || exit 77; RUN=(unshare "$@"); }
mounted() { private -rm; RUN+=(sh -c "mount $* \"\$PWD\" && exec \"\$@\"" sh); }
user() { private --map-user=12345 --map-group=12345; }  # of whom the system knows nothing
gpus() {  # of these major versions; of the toolkit nvcc alone
  [ "$NVCC" ] || exit 77
  echo "$NVML" | cc -shared -fPIC -DGPUS=$1 -x c - -o libnvidia-ml.so.1
  program bin/nvcc "$NVCC"
  LD_LIBRARY_PATH=$PWD; CUDA_HOME=$PWD; CUDA_VISIBLE_DEVICES=0; TORCH_CUDA_ARCH_LIST=
}
"""
WORKS, EITHER = "it works", ""  # or an error in one line
LIMIT = "FIRST='import resource, torch; resource.setrlimit(resource.RLIMIT_{0}, ({1}, {1}))'"
# What is odd: the shell commands that make it so, in the cache; a pattern of the last line.
COMPILERS = {
    "missing": ("CXX=/c++", "not found: install g.."),
    "clang": ("CXX=$(command -v clang++) || exit 77", WORKS),
    "clang, as c++": ("cd bin; ln -s $(command -v clang++ || exit 77) c++; PATH=$PWD:$PATH", WORKS),
    "-ffast-math": ("cxx '' -ffast-math", WORKS),
    "-ffast-math, last": ("cxx '' '' -ffast-math", WORKS),
    "old": ("cxx '' '' -std=c++98", "error: #error This file requires"),
    "without headers": ("cxx '' -nostdinc++", r"error: \w+: No such file .*: install g.."),
    "without memory": ("cxx 'ulimit -v 90000;'", "out of memory allocating|memory exhausted"),
    "another PyTorch": ("cxx '' -DTHPVariableClass=gone", "undefined symbol: gone: .* 'torch<"),
    "CXX is empty": ("CXX=", WORKS),
    "CXX with a space": ("program 'a b/g++' c++; CXX=$PWD'/a b/g++'", EITHER),
}
ONE_GPU = "FIRST='import torch; torch.version.cuda = \"13.0\"; torch.cuda.device_count = lambda: 1'"
NO_HOME = "CUDA_HOME=; FIRST='from torch.utils import cpp_extension as c; c.CUDA_HOME = None'"
IMAGE = (
    "CUDA_VISIBLE_DEVICES= TORCH_CUDA_ARCH_LIST='8.0;Hopper+PTX x' \"$@\" |& grep \"ignores 'x'\""
)
TOOLKITS = {
    "none": ("gpus 9; rm bin/nvcc", rf"nvcc is missing: .*\b{torch.version.cuda}\b"),
    "by pip": (f"gpus 9; mkdir -p nvidia/cu13; mv bin $_; PYTHONPATH+=:$PWD; {NO_HOME}", WORKS),
    "another CUDA": ("gpus 9; program bin/nvcc $NVCC -DPYTORCH_CUDA=8", "nvcc is not of PyTorch"),
    "old GPU beside": ("gpus 9,3", WORKS),
    "only an old GPU": ("gpus 3; rm bin/nvcc", WORKS),
    "built without a GPU": (f"gpus 9; {IMAGE}; rm bin/nvcc", WORKS),
    "new compiler": ("gpus 9; program g/gcc 'cc -U__GNUC__ -D__GNUC__=99'; CC=$PWD/g/gcc", "older"),
    "no NVML": (ONE_GPU, "libnvidia-ml.*: mend the NVIDIA driver"),
}
DIRECTORY, FULL = "set TORCH_EXTENSIONS_DIR to", "set TORCH_EXTENSIONS_DIR and TMPDIR"
CACHES = {
    "a file": ("touch a; TORCH_EXTENSIONS_DIR=$PWD/a", DIRECTORY),
    "of another": ("mkdir -m 500 sigmoid_inline; user", DIRECTORY),
    "read-only": ("mounted -t tmpfs -o ro x", DIRECTORY),
    "noexec": ("mounted -t tmpfs -o noexec x", DIRECTORY),
    "full disk": ("mounted -t tmpfs -o size=64k x", FULL),
    "file limit": (LIMIT.format("FSIZE", 20000), FULL),
    "no home": ("unset HOME XDG_CACHE_HOME TORCH_EXTENSIONS_DIR; user", DIRECTORY),
    "built, read-only": ("mounted --bind -o ro '\"$CACHE\"'", WORKS),
    "a dollar": ("TORCH_EXTENSIONS_DIR=$PWD'/a $b'", EITHER),
}
PRIVATE = "torch.autograd.forward_ad._current_level, torch.autograd.profiler._is_profiler_enabled"
PRIVATE += ", torch.jit._builtins._builtin_ops, torch._C._profiler._RecordFunctionFast"
PROCESSES = {
    "no ninja": (
        'only c++; FIRST=\'sys.executable = 6 * "/x"; sys.modules["ninja"] = None\'',
        "pip i",
    ),
    "ninja, not on PATH": ("only c++ as ld", WORKS),
    "no setuptools": ("echo \"raise ImportError('no \\'setuptools\\'')\" > setuptools.py", EITHER),
    "few files": (LIMIT.format("NOFILE", 9), "Too many open files"),
    "macOS": ("FIRST='import torch; sys.platform = \"darwin\"'", "needs Linux"),
    "PyTorch 2.9": ("FIRST='import torch; torch.__version__ = \"2.9.1\"'", "pip install -U torch"),
    "newer PyTorch": (f"FIRST='import torch; del {PRIVATE}'", WORKS),
    "stderr is None": ("FIRST='sys.stderr = None'", WORKS),
    "stderr is full": ("exec 2> /dev/full", WORKS),
    "1 and 2 are closed": ("exec >&- 2>&-", WORKS),
}
START_UP = COMPILERS | TOOLKITS | CACHES | PROCESSES


@pytest.mark.parametrize("name", START_UP)
def test_start_up(name, cache, tmp_path):
    """What is broken ends in one line of this program that says what and why; the rest works."""
    commands, says = START_UP[name]
    script = f'{MACHINE}mkdir bin; {commands}\nexec "${{RUN[@]}}" "$@"'
    options = {"before": ["bash", "-c", script, "bash"], "NVML": NVML, "NVCC": FITTING_NVCC}
    process = start("-c", IMPORT, cache=tmp_path, CACHE=cache, **options)
    _, err = process.communicate()
    if process.returncode == 77:
        pytest.skip("needs clang, nvcc of PyTorch's CUDA, or the right to make namespaces")
    if process.returncode == 0:
        assert says in (WORKS, EITHER)
    else:
        said = re.match(f"RuntimeError: sigmoid_inline: .*{says}", err.splitlines()[-1])
        log = re.search("; the whole log: (.*)", err)
        assert said and (log is None or Path(log[1]).read_text()), err


def test_harness_executes_the_text_and_an_edited_text_is_a_new_library(
    execute, monkeypatch, tmp_path
):
    """KernelBench executes it in a bare dict; cells are executed again. Errors name the line."""
    namespace, compiled = execute(TEXT)
    monkeypatch.setattr(torch, "rand", lambda *shape, device: (shape, device))
    assert namespace["get_inputs"]() == [((4096, 393216), "cuda")]
    assert compiled and namespace["get_init_inputs"]() == []
    assert not execute(TEXT.replace('"""', '"""\n\n', 1))[1]  # the lines are not part of it
    assert execute(TEXT.replace("-O2 ", "-O3 "))[1]
    for name in (name for name in namespace if name.endswith("_SOURCE")):
        source = namespace[name]
        assert execute(TEXT.replace(source, "\n// edited" + source))[1], name
        wrong = TEXT.replace(source, "\n#error wrong" + source)
        line = wrong.splitlines().index("#error wrong") + 1
        if name != "KERNEL_SOURCE":  # which is not compiled without a GPU
            path = tmp_path / f"{name}.py"
            path.write_text(wrong)
            with pytest.raises(RuntimeError, match=rf"\.py:{line}:2: error: #error wrong;"):
                exec(compile(wrong, path, "exec"), {})
    assert namespace["sigmoid"](torch.zeros(1)).item() == 0.5


def test_cell_checks_and_never_ends_the_kernel(execute, monkeypatch, capfd, small_tensors):
    """No __file__, the kernel's sys.argv; what is wrong is an error of one line, never an exit."""
    cell = {"__name__": "__main__"}
    monkeypatch.setattr(sys, "argv", ["kernel", "-f", "connection.json"])
    exec(TEXT, cell)
    out, _ = capfd.readouterr()
    assert "GB/s" in out and out.splitlines()[-1].startswith("RIGHT  ")
    assert cell["main"](SMALL) is None  # of which Jupyter would show more
    with pytest.raises(ValueError, match=r"^sigmoid_inline: .*--trials.*$"):
        cell["main"](["--trials", "0"])
    if HAS_CPU_KERNEL:
        monkeypatch.setattr(torch, "sigmoid", lambda x, **_: x.sigmoid() * 1.02)
        with pytest.raises(RuntimeError, match="^sigmoid_inline: an error of .* ulp in float32"):
            exec(TEXT, cell)
        assert capfd.readouterr().out.splitlines()[-1].startswith("FAILED: an error of ")


# -- The command line and torchrun -----------------------------------------------------------------

ROW = r"^{} +(~?\d+\.\d{{3}}x|torch) +\d+(\.\d us| GB/s)  [-#+| ]+$"


def table(out, *cases):
    """The output's lines: 80 columns at most, a row for each case, one verdict, at the end."""
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith(("RIGHT  ", "FAILED: ")) for line in lines) == 1
    assert lines[-1].startswith(("RIGHT  ", "FAILED: "))
    for case in cases:
        assert re.search(ROW.format(re.escape(case)), out, re.M), case
    return lines


@pytest.mark.parametrize("cpu", [CAPABILITY.lower(), "default"])
def test_first_command_shows_only_its_own_lines(cpu, tmp_path):
    """Not that NumPy is missing. That a CPU has no kernel is not a failure, and not a ratio."""
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('No module named numpy')")
    own = {"PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": None, "ATEN_CPU_CAPABILITY": cpu}
    dtypes = ["--dtype", "float32", "float64", "bfloat16", "float16"]
    out, err = run(FILE, *SMALL, *dtypes, cache=tmp_path, **own)
    assert re.fullmatch(COMPILED, err)
    lines = table(out, "9 x 5003", "one call, every float16 number")
    assert re.match(r"\d+ CPU threads \(\w+\), PyTorch [\d.]+, sigmoid_inline [\d.]+$", lines[0])
    without_kernel = 4 if cpu == "default" and not ARM else 1
    assert len(re.findall("^9 x 5003 +torch", out, re.M)) == without_kernel
    assert ("SPEED" in out) == (without_kernel == 1)


def test_default_run_on_a_cpu(capsys, monkeypatch, small_tensors):
    """A large tensor, 16 bits, a view, an eager call, the first call; without torch.distributed."""
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    monkeypatch.delattr(torch.distributed, "is_initialized")
    assert sigmoid_inline.main(["--device", "cpu", "--trials", "2"]) is None
    cases = ["256 x 393216", "256 x 393216, bfloat16", "half of rows of 8192"]
    table(capsys.readouterr().out, *cases, "one eager call, 2^10", "first call of a process, 2^24")


BAD = ["--sweep --shape 2 3", "--shape 0 5", "--shape 1", "--dtype int8", "--trials 0", "extra"]
if not torch.cuda.is_available():
    BAD += ["--device cuda"]


@pytest.mark.parametrize("bad", BAD)
def test_bad_arguments_are_refused_in_one_line(bad, capsys, monkeypatch):
    """In Python by a ValueError, on the command line by exit status 2."""
    with pytest.raises(ValueError, match=r"^sigmoid_inline: [^\n]+$"):
        sigmoid_inline.main(bad.split())
    monkeypatch.setattr(sigmoid_inline, "_IS_COMMAND", True)
    with pytest.raises(SystemExit, match="^2$"):
        sigmoid_inline.main(bad.split())
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"sigmoid_inline\.py: error: .+\n", err)


def test_sweep(monkeypatch, capsys, small_tensors):
    """Sizes, views, eager and recorded calls are checked and timed; a wrong result fails it."""
    sweep = ["--sweep", "--device", "cpu", "--trials", "1", "--dtype", "bfloat16", "float32"]
    sigmoid_inline.main(sweep)
    out = capsys.readouterr().out
    cases = ["2^23", "half of rows of 8192", "x[::2]", "one call with out=, 2^0"]
    lines = table(out, *cases, "one training step, 2^23", "fwd+bwd channels last, cropped")
    assert "in 2 minutes" in lines[1] and not lines[-1].startswith("FAILED")
    if HAS_CPU_KERNEL:
        monkeypatch.setattr(sigmoid_inline, "_torch_sigmoid", lambda x, **_: x.sigmoid() * 1.02)
        with pytest.raises(RuntimeError):
            sigmoid_inline.main(sweep[:-1])
        assert "FAILED: an error of" in table(capsys.readouterr().out, *cases)[-1]


@pytest.mark.parametrize(
    "ours, torchs, copy, ratio, bar",
    [
        ([10] * 4, [20] * 4, [10] * 4, "2.000x", "##############+++++++++++++|"),
        ([10] * 4, [20] * 4, [15] * 4, "2.000x", "##############++++|++++++++"),
        ([20] * 4, [10] * 4, [40] * 4, "0.500x", "#######|######-------------"),
        ([20] * 4, [21] * 4, [10] * 4, "1.050x", "#############+             |"),
        ([10] * 4, [10, 11, 11, 12], [10, 10, 12, 19], "~1.100x", "#########################|+"),
        ([10] * 2, [20] * 2, [10] * 2, "~2.000x", "##############+++++++++++++|"),
    ],
)
def test_row_shows_ratio_and_speeds(ours, torchs, copy, ratio, bar, monkeypatch, capsys):
    """The fastest of the three fills the bar; `~`: its rounds differ by 10 %, or are too few."""
    times = dict(zip(["sigmoid", "torch.sigmoid", "copy"], [ours, torchs, copy]))
    monkeypatch.setattr(sigmoid_inline, "measure", lambda of, *_: {k: times[k] for k in of})
    sigmoid_inline.main(["--device", "cpu", "--shape", "9", "10000"])
    (row,) = re.findall("^9 x 10000 .*", capsys.readouterr().out, re.M)
    assert row.split(maxsplit=6)[3:] == [ratio, f"{720 // ours[0]}", "GB/s", bar]


def test_measure_alternates_and_ends_in_time():
    order, cpu = [], torch.device("cpu")
    functions = {name: functools.partial(order.append, name) for name in "ab"}
    times = sigmoid_inline.measure(functions, cpu, trials=2)
    assert "".join(order) == "abbaabbaab" and {len(us) for us in times.values()} == {2}
    assert len(sigmoid_inline.measure(functions, cpu, 100, seconds=0)["a"]) == 1


def test_every_data_type_has_the_same_shape(monkeypatch):
    """On a GPU that holds less than the shape: by the widest of them, before anything is there."""
    for name, answer in {
        "is_available": True,
        "device_count": 1,
        "mem_get_info": (1 << 30, 0),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    args = sigmoid_inline._parse(["--dtype", "bfloat16", "float64"])
    assert args.rows == int(0.3 * 2**30 / 8) // 393216


WRONG = "exact = torch.sigmoid; torch.sigmoid = lambda x, **out: exact(x, **out) * (1 + 1e-6)"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.mark.parametrize("reference", ["pass", WRONG], ids=["right", "wrong"])
def test_ranks_of_torchrun_share_the_rows(reference, cache, tmp_path):
    """Rank 0 speaks; where the last rank is wrong, its process and torchrun end with status 1."""
    wrong = reference == WRONG and HAS_CPU_KERNEL
    code = f"""import os, runpy, sys, torch
if os.environ["RANK"] == "1": {reference}
sys.argv[1:] = {SMALL}
runpy.run_path({str(FILE)!r}, run_name="__main__")"""
    (tmp_path / "main.py").write_text(code)
    out, err = run(*TORCHRUN, tmp_path / "main.py", cache=cache, status=int(wrong))
    lines = table(out, "9 x 5003")
    assert lines[0].startswith("2 x ") and lines[-1].startswith("FAILED") == wrong


# -- The file and its README -----------------------------------------------------------------------


def test_contract():
    """torch alone; nothing that KernelBench's static checker rejects; 100 columns."""
    imported = set(re.findall(r"^ *(?:import|from) (\w+)", TEXT, re.M))
    assert imported - set(sys.stdlib_module_names) == {"torch", "sigmoid_inline"}
    code = "\n".join(line.split("#")[0].split("//")[0] for line in TEXT.splitlines())
    rejected = r"\btry\s*:|\bexcept\b|\bpass\b|import\s+threading|\b(time|cuda)\.[\w.]+ = "
    rejected += r"|multiprocessing|concurrent\.futures|class\s+\w+.*\((torch\.)?Tensor\)|_make_sub"
    assert not re.findall(rejected, code)
    assert max(map(len, TEXT.splitlines())) <= 100


GPUS = {  # multiprocessors, threads of one, kHz and bits of memory: units a thread, resident blocks
    "V100": (80, 2048, 877_000, 4096, 1, 12),
    "T4": (40, 1024, 5_001_000, 256, 1, 6),
    "A100": (108, 2048, 1_215_000, 5120, 1, 12),
    "L4": (58, 1536, 6_251_000, 192, 1, 9),
    "RTX 4090": (128, 1536, 10_501_000, 384, 1, 9),
    "H100": (132, 2048, 2_619_000, 5120, 1, 13),
    "H200": (132, 2048, 3_201_000, 6144, 1, 16),
    "B200": (148, 2048, 3_996_000, 8192, 2, 16),
    "an H100 that hides its memory clock": (132, 2048, 0, 5120, 1, 16),
}


def compile_with_gxx(source, directory, *options):
    (directory / "source.cpp").write_text(source)
    command = ["c++", "-std=c++20", "-fPIC", "-shared", "-o", "library", "source.cpp", *options]
    subprocess.run(command, cwd=directory, check=True)


def test_tuning_by_what_a_gpu_reports(tmp_path):
    """At least three quarters of the blocks stay; two units where one is too little by half."""
    call = 'extern "C" int tuned(int a, int b, int c, int d) { Tuning t = tune(a, b, c, d); '
    call += "return 100 * t.units_per_thread + t.resident_blocks; }"
    compile_with_gxx(sigmoid_inline.COMMON_SOURCE + call, tmp_path)
    tuned = ctypes.CDLL(str(tmp_path / "library")).tuned
    for name, (*reports, units, blocks) in GPUS.items():
        assert divmod(tuned(*reports), 100) == (units, blocks), name


def test_declarations_by_hand_are_those_of_python_and_pytorch(tmp_path):
    """Compiled beside the headers that the file does without."""
    from torch.utils.cpp_extension import include_paths

    paths = [*include_paths(), sysconfig.get_path("include")]
    if not Path(paths[-1], "Python.h").exists():
        pytest.skip("needs Python.h")
    of_python, struct, of_pytorch = re.fullmatch(
        r".*(extern \"C\" {.*?)(struct PyMethodDef {.*?};)(.*?)using at::TensorBase.*",
        sigmoid_inline.CALL_SOURCE,
        re.DOTALL,
    ).groups()
    headers = ("Python.h", "ATen/ExpandUtils.h", "torch/csrc/autograd/python_variable.h")
    checks = f"""namespace by_hand {{ {struct} }}
static_assert(sizeof(by_hand::PyMethodDef) == sizeof(PyMethodDef));
static_assert(offsetof(by_hand::PyMethodDef, function) == offsetof(PyMethodDef, ml_meth));
static_assert(offsetof(by_hand::PyMethodDef, flags) == offsetof(PyMethodDef, ml_flags));
static_assert(METH_FASTCALL == 0x80 && sizeof(intptr_t) == sizeof(Py_ssize_t));
"""
    includes = "".join(f"#include <{header}>\n" for header in headers)
    includes += "#undef PyCFunction_NewEx\n#undef Py_NewRef\n"
    source = (
        includes + checks + of_python.replace("typedef struct _object PyObject;", "") + of_pytorch
    )
    compile_with_gxx(source, tmp_path, "-fsyntax-only", *(f"-I{path}" for path in paths))


def test_nothing_is_exported_but_what_is_called(cache):
    """Beside the weak symbols of C++'s templates and the linker's own."""
    (library,) = cache.rglob("*.so")
    command = ["nm", "-D", "--defined-only", library]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    exported = [line.split() for line in listed.splitlines()]
    strong = {name for _, kind, name in exported if kind not in "WVu"}
    assert strong - {"_init", "_fini", "_edata", "_end", "__bss_start"} == {
        "sigmoid_inline_function"
    }


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
def test_cuda_source_compiles_without_a_warning_and_waits_before_it_reads(tmp_path):
    """For the oldest and the newest GPU that nvcc knows; on the newest, kernels start early."""
    listed = subprocess.run([NVCC, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    known = sorted(int(name.partition("_")[2]) for name in listed.stdout.split())
    names = ("COMMON", "FORMULA", "KERNEL")
    sources = [getattr(sigmoid_inline, f"{name}_SOURCE") for name in names]
    (tmp_path / "kernels.cu").write_text("\n".join(sources))
    options = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in (known[0], known[-1])]
    options += ["-std=c++17", "-split-compile=0", "-Werror=all-warnings", "-c", "kernels.cu"]
    subprocess.run([NVCC, "-keep", "-DPYTORCH_CUDA=13.0", *options], cwd=tmp_path, check=True)
    _, *kernels = (tmp_path / f"kernels.compute_{known[-1]}.ptx").read_text().split(".entry")
    assert kernels and all("griddepcontrol.wait" in k.partition("ld.global")[0] for k in kernels)


COMMANDS = "".join(re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)).splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_command(command, cache):
    """On the CPU and a small shape; installs nothing, and only collects tests."""
    if "--sweep" in command:
        pytest.skip("takes minutes; test_sweep does it")
    command = re.sub(r"^pip install [^&]*&& ", "", command)
    command = re.sub(r"pytest(?= |$)", "pytest --collect-only -q", command)
    command = command.replace(FILE.name, f"{FILE.name} --shape 9 5003 --trials 2")
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    env = {"PATH": path, "TORCH_EXTENSIONS_DIR": str(cache), "CUDA_VISIBLE_DEVICES": ""}
    bash = ["bash", "-euo", "pipefail", "-c", command]
    out = subprocess.check_output(bash, text=True, env={**os.environ, **env}, cwd=FILE.parent)
    assert re.search(r"^[1-9].* collected" if "pytest" in command else "GB/s", out, re.M), out


def test_readme_names_every_option_and_message(capsys):
    with pytest.raises(SystemExit):
        sigmoid_inline.main(["--help"])
    options = set(re.findall(r"--\w+", capsys.readouterr().out)) - {"--help"}
    named = re.findall(r"`(--.*?)`", README) + [c for c in COMMANDS if FILE.name in c]
    assert options <= set(re.findall(r"--\w+", " ".join(named)))
    table = README.partition("| it says | do |\n")[2].partition("\n\n")[0]
    for message in re.findall(r"^\| `(.*?)`", table, re.M):
        assert all(part.strip() in TEXT for part in message.split("...")), message


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, *sys.argv[1:]]))
