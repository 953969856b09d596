"""What sigmoid_inline promises, on every device at hand."""

import contextlib
import ctypes
import inspect
import os
import pickle
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from torch import autograd, func, inf, nan, nn
from torch.utils import checkpoint as ckpt

import sigmoid_inline
from sigmoid_inline import ModelNew, disable, enable, kernel_calls, max_error_ulp, sigmoid

FILE = Path(sigmoid_inline.__file__).resolve()
TEXT = FILE.read_text()
README = FILE.with_name("README.md").read_text()
HEADERS = "-isystem", f"{torch.__path__[0]}/include"
COMMANDS = "".join(re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)).splitlines()
NVCC = shutil.which("nvcc", path="/usr/local/cuda/bin" + os.pathsep + os.environ["PATH"])
NVCC_SAYS = subprocess.run([NVCC or "true", "--version"], capture_output=True, text=True).stdout
FITTING_NVCC = NVCC if f"release {(torch.version.cuda or 'x')[:3]}" in NVCC_SAYS else ""
CAPABILITY = torch.backends.cpu.get_cpu_capability()
ARM = os.uname().machine == "aarch64"
HAS_CPU_KERNEL = ARM or CAPABILITY in ("AVX2", "AVX512")
pytestmark = pytest.mark.filterwarnings("ignore")  # of PyTorch, on what is deprecated or slow
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
overrides, dispatch = torch.overrides, torch.utils._python_dispatch
equal = partial(torch.allclose, rtol=0, atol=0, equal_nan=True)
each = lambda n, *of: pytest.fixture(params=of, name=n, ids=str)(lambda request: request.param)
device = each("device", "cpu", pytest.param("cuda", marks=needs_gpu))
dtype = each("dtype", torch.float32, torch.float64, torch.bfloat16, torch.float16)


def counted(f, *args, calls=kernel_calls, **options):
    """What `f` returns, and how many calls this file's kernels have computed meanwhile."""
    before = calls()
    return f(*args, **options), calls() - before


def by_kernel(x, **out):
    """sigmoid(x), or None where PyTorch's kernel has computed it."""
    y, calls = counted(sigmoid, x, **out)
    return y if calls == 1 else None


@pytest.fixture
def kernel(device, dtype):
    """sigmoid by this file's kernel; skips what the README promises no kernel for."""
    if device == "cpu" and (dtype == torch.float16 or not HAS_CPU_KERNEL):
        pytest.skip("no kernel of this type on this CPU")
    return by_kernel


@pytest.fixture(scope="module")
def cpp(tmp_path_factory):
    """The source's rule for GPUs that are not here, and a check of float64 by long double."""
    source = """extern "C" int tuned(int a, int b, int c, int d) {
  const Tuning t = tune(a, b, c, d);
  return 100 * t.units_per_thread + t.resident_blocks;
}
extern "C" long count_wrong(const double* y, const double* x, long count) {
  static_assert(__LDBL_MANT_DIG__ >= 64, "long double has to be more precise than double");
  long wrong = 0;
  for (long n = 0; n < count; n++) {
    const long double exact = 1 / (1 + expl(-(long double)x[n]));
    wrong += !(fabsl(y[n] - exact) <= fmaxl(scalbnl(1, ilogbl(exact) - 52), scalbnl(1, -1074)));
  }
  return wrong;
}"""
    path = tmp_path_factory.mktemp("cpp") / "tests.cpp"
    path.write_text(sigmoid_inline.COMMON_SOURCE + source)
    command = ["c++", "-std=c++20", "-fPIC", "-shared", *HEADERS, path, "-o", f"{path}.so"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(f"{path}.so")


def error_ulp(y, x):
    """Largest error of `y`, in units of its last place, against float64."""
    x, info = x.double(), torch.finfo(y.dtype)
    exact = torch.where(x < -40, x.exp(), torch.sigmoid(x))  # which is 0 below -709
    assert torch.equal(y.isnan(), exact.isnan())
    ulp = torch.exp2(torch.frexp(exact.clamp(min=info.tiny))[1].double() - 1) * info.eps
    return ((y.double() - exact).abs() / ulp).nan_to_num(0).max().item()


def check(y, x, message=""):
    """`y` is torch.sigmoid(x), or the kernel's within 1 ulp of it (float64: 3, as it errs by 2)."""
    like = torch.sigmoid(x)
    assert (y.dtype, y.device, y.shape) == (like.dtype, like.device, like.shape), message
    assert y.stride() == like.stride(), message
    most = 3 if x.dtype == torch.float64 else 1
    assert equal(y, like) if by_kernel(x) is None else error_ulp(y, x) <= most, message


def numbers(shape, device, dtype):
    """Random numbers, every fifth of them special: in itself or in its result."""
    tiny, most = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    special = [nan, inf, -inf, -0.0, tiny / 4, -tiny, most, -most, 40, -9.9, -88.5, -740]
    special = torch.tensor(special, dtype=torch.float64, device=device)
    which = torch.randint(5 * len(special), shape, device=device)
    x = torch.randn(shape, dtype=torch.float64, device=device) * 10
    return torch.where(which < len(special), special[which % len(special)], x).to(dtype)


# -- One value has one result, and it is right -----------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bits_are_correctly_rounded(device, dtype, kernel):
    """Of all 65,536 inputs, dense and strided: none is so near to a tie that float64 errs."""
    x = torch.arange(1 << 16, device=device).short().view(dtype)
    for layout in (x, torch.stack([x, x], 1)[:, 0]):
        assert error_ulp(kernel(layout), x) < 0.5


@pytest.mark.parametrize("dtype", [torch.float32], ids=str)
def test_float32_over_all_inputs(device, dtype, kernel):
    """At most 1 ulp, in [0, 1] and rising; on the CPU every 61st, unless SIGMOID_EXHAUSTIVE=1."""
    step = 1 if device == "cuda" or "SIGMOID_EXHAUSTIVE" in os.environ else 61
    for sign in (1, -1):
        last = torch.tensor([0.5], device=device)
        for first in range(0, 0x7F800001, step << 22):  # up to infinity
            end = min(first + (step << 22), 0x7F800001)
            x = torch.arange(first, end, step, device=device).int().view(dtype) * sign
            y = kernel(x)
            assert error_ulp(y, x) < 1 and ((y >= 0) & (y <= 1)).all()
            assert (torch.cat([last, y]).diff() * sign >= 0).all()
            last = y[-1:]


@pytest.mark.parametrize("dtype", [torch.float64], ids=str)
def test_float64_over_every_exponent(device, dtype, kernel, cpp):
    """At most 1 ulp from long double, for 10^8 inputs (CPU: 4 * 10^6), half in [2^-12, 750]."""
    least, most = torch.tensor([2.0**-12, 750.0], dtype=dtype).view(torch.int64).tolist()
    torch.manual_seed(0)
    for i in range(100 if device == "cuda" else 4):
        x = torch.randint(least if i % 2 else 0, most, (10**6,)).view(dtype)
        x[::2].neg_()
        y = kernel(x.to(device)).cpu()
        assert cpp.count_wrong(*map(ctypes.c_void_p, [y.data_ptr(), x.data_ptr(), len(x)])) == 0


def test_gradients_have_pytorchs_bits(device, dtype, kernel):
    """Of all 65,536 outputs of a 16-bit type: a gradient each, for all, a row, a column; a view."""
    torch.manual_seed(0)
    bits = torch.arange(1 << 16, device=device).short().view(128, 512)
    y = bits.view(dtype) if dtype.itemsize == 2 else numbers(bits.shape, device, dtype)
    for shape in ((128, 512), (1, 1), (128, 1), (1, 512), (128, 1024)):
        view = numbers(shape, device, dtype)[:, -512:].expand_as(y)
        for operands in ((view, y), (y, view)):
            got, calls = under(enable(), counted, torch.ops.aten.sigmoid_backward, *operands)
            assert equal(got, torch.ops.aten.sigmoid_backward(*operands)) and calls == 1
    _, calls = under(enable(), counted, torch.ops.aten.sigmoid_backward, y, y.t().contiguous().t())
    assert calls == (device == "cpu" and dtype == torch.bfloat16)  # PyTorch's is as fast or faster


def test_a_value_has_one_result(device, dtype, kernel):
    """Whatever its index, alignment, stride and the length: around vectors, tiles and threads."""
    torch.manual_seed(0)
    x = numbers((4096,), device, dtype)
    x, y = x.repeat(17), torch.stack([kernel(v) for v in x]).repeat(17)
    check(y, x)
    lengths = (1, 2, 3, 7, 15, 17, 33, 2047, 2049, 4099, 32767, 32769, 65541)
    for part in (slice(offset, offset + n) for n in lengths for offset in range(17)):
        assert equal(kernel(x[part]), y[part]), part
        kernel(x[part], out=(room := torch.full_like(x, 7))[part])
        assert equal(room[part], y[part]) and (room != 7).sum() == part.stop - part.start, part
    for columns in (33, 80, 1024, 4096):
        rows, row_results = x.unfold(0, columns, 997), y.unfold(0, columns, 997)
        assert equal(kernel(rows), row_results), columns
        assert equal(kernel(rows[:, ::2].t()), row_results[:, ::2].t()), columns


@pytest.mark.skipif(not HAS_CPU_KERNEL, reason="no kernel on this CPU")
def test_all_threads_compute_in_the_callers_mode():
    """Whose own mode was set before or after the pool's threads started."""
    x, libm = torch.full((1 << 20,), -90.0), ctypes.CDLL("libm.so.6")
    for flushed in (False, True, False):
        torch.set_flush_denormal(flushed)
        y = sigmoid(x)
        torch.set_flush_denormal(False)
        assert y.min() == y.max() and (y[0] == 0) == flushed
        assert (x.fill_(1e-39) * 2).min() > 0 and x.fill_(-90).any()  # as it was before
    libm.fesetround(0x800000 if ARM else 0x400)  # downward
    assert ((sigmoid(x.fill_(-inf)), libm.fesetround(0))[0] == 0).all()


# -- Any layout, and which of them have a kernel ---------------------------------------------------
def random_view(rng, device, dtype):
    """Up to 7 dimensions: dense, gapped, permuted, expanded, channels last, or of any strides."""
    ndim = rng.choice([0, 1, 2, 2, 3, 3, 4, 4, 4, 5, 6, 7])
    sizes = [1, 1, 2, 3, 4, 5] + ([0, 7, 16, 33] if ndim < 5 else [])
    shape = [rng.choice(sizes) if rng.random() < 0.95 else 120 // (ndim + 1) for _ in range(ndim)]
    strides = [rng.choice([0, 1, 1, 2, 3, 4, 8, 15, 60, 199]) for _ in shape]
    orders = [rng.sample(range(ndim), ndim), range(ndim)[::-1], [1, 3, 2, 0][:ndim]]
    order, step = rng.choice(orders[: 2 + (ndim == 4)]), 1  # innermost first
    for dim in order if rng.random() < 0.75 else []:
        step *= rng.choice([1] * 9 + [2, 3])
        if shape[dim] > 1 or rng.random() < 0.7:
            strides[dim] = step if rng.random() < 0.9 else 0
        step *= shape[dim] + rng.choice([0] * 9 + [1, 4])
    offset = rng.choice([0, 0, 1, 2, 4, 8, 9])
    last = sum((n - 1) * stride for n, stride in zip(shape, strides)) if 0 not in shape else 0
    return numbers((last + offset + 1,), device, dtype).as_strided(shape, strides, offset)


def test_any_layout_in_every_grad_mode(device, dtype):
    """Shape, strides and values are right, bits the same in every mode, gradients PyTorch's."""
    rng, taken, backward = random.Random(0), 0, 0
    torch.manual_seed(0)
    for case in range(1200):
        x = random_view(rng, device, dtype)
        where = f"case {case}: {tuple(x.shape)}, strides {x.stride()}, at {x.storage_offset()}"
        before, leaf = x.clone(), x.detach().requires_grad_()
        (y, calls), (recorded, recorded_calls) = counted(sigmoid, x), counted(sigmoid, leaf)
        check(y, x, where)
        check(recorded, leaf, where)
        assert equal(under(torch.inference_mode(), sigmoid, x), y) and equal(recorded, y), where
        assert recorded.grad_fn.name() == "SigmoidBackward0" and recorded_calls == calls, where
        taken += calls
        grad = numbers([rng.choice([n, n, n, 1]) for n in x.shape], device, dtype).expand(x.shape)
        if x.dim() > 0 and rng.random() < 0.5:  # half of rows
            grad = torch.cat([grad, grad], -1)[..., x.shape[-1] :]
        if x.dim() > 0 and rng.random() < 0.3:
            grad = grad.transpose(0, -1).contiguous().transpose(0, -1)
        want = torch.ops.aten.sigmoid_backward(grad, y)
        got, calls = under(enable(), counted, torch.ops.aten.sigmoid_backward, grad, y)
        backward += calls
        assert equal(got, want) and got.stride() == want.stride(), where
        assert equal(autograd.grad(recorded, leaf, grad)[0], want) and equal(x, before), where
    has_kernel = device == "cuda" or (HAS_CPU_KERNEL and dtype != torch.float16)
    assert (taken >= 720 and backward >= 480) if has_kernel else taken == backward == 0


def test_more_than_2_31_elements(device):
    """64-bit indices, of the output and of the input; a GPU refuses 2^31 units of a view."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    if (torch.cuda.mem_get_info()[0] if device == "cuda" else free) < 1 << 34:
        pytest.skip("needs 16 GiB of free memory")
    row = torch.randn(65_544, device=device).bfloat16()
    many = sigmoid(row.expand(1 << 15, 65_544))
    assert error_ulp(many[::97], row.expand_as(many)[::97]) <= 1
    far = torch.empty(1 << 32, device=device, dtype=row.dtype)[7 :: 1 << 20].copy_(row[:4096])
    check(sigmoid(far), far)
    if device == "cuda":
        assert [by_kernel(row[:1].expand((1 << 31) - n)) is None for n in (1, 0)] == [False, True]


def test_plain_call_takes_the_kernel(device, dtype, kernel, request):
    """Up to 8 dimensions that do not merge (on a GPU 3), in any mode; `out` gets the same bits."""
    most, x = 8 if device == "cpu" else 3, numbers((6, 8), device, dtype)
    cube = torch.ones([4] * (most + 1), device=device, dtype=dtype)[(slice(2),) * (most + 1)]
    request.addfinalizer(lambda: torch.use_deterministic_algorithms(False))
    torch.use_deterministic_algorithms(True)
    views = x, x.t(), x[:, ::2], x[1:], x[0, 0], x[:1].expand(6, 8), cube[:1]
    for mode in (torch.inference_mode(), torch.autocast(device, torch.bfloat16)):
        with mode:
            for view in (*views, x + 1):
                check(kernel(view), view)
            assert kernel(cube) is None
    for view in views:
        out = torch.full_like(want := kernel(view), inf)
        version = out._version
        assert kernel(view, out=out) is out and out._version == version + 1 and equal(out, want)
    assert equal(kernel(x), kernel(x, out=x)) and kernel(x, out=x) is x


def test_tuning_by_what_a_gpu_reports(cpp):
    """At least three quarters of the blocks stay; more units where they are too little by half."""
    # multiprocessors, threads of one, kHz and bits of memory: units a thread and resident blocks
    assert cpp.tuned(58, 1536, 6_251_000, 192) == 109  # L4
    assert cpp.tuned(132, 2048, 2_619_000, 5120) == 113  # H100
    assert cpp.tuned(132, 2048, 3_201_000, 6144) == 116  # H200
    for multiprocessors, bits in ((148, 8192), (148, 7680), (160, 8192)):  # B200, both kinds; B300
        assert cpp.tuned(multiprocessors, 2048, 3_996_000, bits) == 216
    assert cpp.tuned(224, 1024, 5_370_000, 16384) == 808  # Rubin, by what is announced
    assert cpp.tuned(148, 2048, 12_000_000, 8192) == 416  # registers for eight halve the threads
    assert cpp.tuned(132, 2048, 0, 5120) == 116  # an H100 that hides its memory clock


# -- All that PyTorch does with a call, it does as with torch.sigmoid's ----------------------------
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
        assert not any(alike(*pair) for pair in zip(got, want, strict=True))
    elif type(want) is torch.Tensor and want.layout is torch.strided and not want.is_meta:
        torch.testing.assert_close(got, want, check_stride=True)
        assert (got.grad_fn and got.grad_fn.name()) == (want.grad_fn and want.grad_fn.name())
    else:
        assert str(got) == str(want)


def under(mode, f, *args):
    with mode:
        return f(*args)


def gradient(f, x, mode=None):
    y = under(mode or contextlib.nullcontext(), f, leaf := x.clone().requires_grad_())
    y.sin().sum().backward()
    return y, leaf.grad


def alone(f, x, g):
    """A model by g(model, x, mesh), in a group of one rank: wrappers are as with many."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4, device=x.device, dtype=x.dtype), module[f])
    store, backend = torch.distributed.HashStore(), "nccl" if x.is_cuda else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    result = gradient(*g(model, x, torch.distributed.init_device_mesh(x.device.type, (1,))))
    torch.distributed.destroy_process_group()
    return result


def hooks_that_compute(f, x):
    """Hooks of saved tensors run Python, below autograd and within the call, with its mark."""
    packed = lambda y: torch.quantize_per_tensor(y.detach().float(), 1, 0, torch.quint8).clone()
    ran, hook = [], lambda y: (ran.append((torch.sigmoid(y + 1) @ y.t()).sum()), packed(y), y)[2]
    return gradient(f, x, autograd.graph.saved_tensors_hooks(hook, lambda y: y)), ran


class ModeThatCalls(overrides.TorchFunctionMode):
    def __torch_function__(self, function, types, arguments=(), options=None):
        seen = function.__qualname__
        function = torch.sigmoid if function is torch.Tensor.sigmoid else function
        torch.quantize_per_tensor(torch.ones(3), 1, 0, torch.quint8).clone()  # has its own kernel
        return function(*arguments, **(options or {})) * 2, seen


named = type("Named", (), {"__torch_function__": lambda _, f, *__, **___: f.__qualname__})()
module = {sigmoid: nn.Sequential(ModelNew()), torch.sigmoid: nn.Sequential(nn.Sigmoid())}
both = lambda f, x: (f(x.clone()), f(x.clone().requires_grad_()))  # plain and recorded
both_under = lambda mode, f, x: both(partial(under, mode, f), x)
into = lambda f, x, out: (y := outcome(f, x, out=out), y is out, out._version)
gated = lambda f: lambda z: f(z) * z
inference, fails = torch.inference_mode(), autograd.graph.saved_tensors_hooks(lambda _: 1 / 0, str)
checkpoint = lambda f, x, way: gradient(partial(ckpt.checkpoint, f, use_reentrant=way), x)
export = lambda f, x, way: torch.export.export(module[f], (x,), strict=way).graph_module.code
kinds = lambda script: [node.kind() for node in script.inlined_graph.nodes()]  # none in Python
operators = lambda graph: [str(node.target) for node in graph.nodes if node.op != "placeholder"]
compiled = partial(torch.compile, fullgraph=True, backend="aot_eager", dynamic=True)
at = lambda name: resolve_name(f"torch.{name}")  # where it has moved, its own row fails, not all
make_fx = lambda *args, **options: at("fx.experimental.proxy_tensor:make_fx")(*args, **options)
traced = lambda f, x, way="real": operators(make_fx(f, tracing_mode=way)(x).graph)
sharded = lambda f, x, on: (at("distributed.fsdp:fully_shard")(f, mesh=on), x)
as_dtensor = lambda f, x, on: (f[1], at("distributed.tensor:DTensor").from_local(x, on))
fake_mode = lambda: at("_subclasses:FakeTensorMode")(allow_non_fake_inputs=True)

# The operator that is left in the end is sigmoid of a dense tensor, which the kernel computes.
REACHING = {
    "parameter": lambda f, x: autograd.grad(f(p := nn.Parameter(x)).sum(), p),
    "hooks that compute": hooks_that_compute,
    "a hook that fails": lambda f, x: outcome(under, fails, f, x.requires_grad_()),
    "checkpoint": lambda f, x: [checkpoint(f, x, reentrant) for reentrant in (True, False)],
    "overwritten": lambda f, x: (
        (y := f(x.requires_grad_())).detach().zero_(), outcome(y.sum().backward)),
    "FSDP2, DTensor": lambda f, x: [alone(f, x, wrap) for wrap in (sharded, as_dtensor)],
    "threads": lambda f, x: list(ThreadPoolExecutor(4).map(partial(gradient, f), [x] * 40)),
    "jit.trace": lambda f, x: kinds(torch.jit.trace(module[f], x, check_trace=False)),
    "__torch_dispatch__": lambda f, x: f(at("testing._internal.two_tensor:TwoTensor")(x, x + 1)),
    "functionalize": lambda f, x: func.functionalize(f)(x),
    "hessian": lambda f, x: func.hessian(lambda z: f(z).sum())(x),
    "vmap": lambda f, x: func.vmap(f, in_dims=1, out_dims=1)(x),
    "jvp": lambda f, x: func.jvp(f, (x,), (x.cos(),)),
    "inference out": lambda f, x: outcome(f, x, out=inference(torch.ones_like)(x)),
    "out is x, a view": lambda f, x: (f(v := (z := x.repeat(9, 99))[:, 1:], out=v), z),
    "out is x, columns": lambda f, x: (f(v := (z := x.repeat(99, 9))[:, ::3], out=v), z),
    "out is x, copied on write": lambda f, x: f(v := x._lazy_clone()[:, 1:], out=v),
    "TorchFunctionMode": lambda f, x: both_under(overrides.BaseTorchFunctionMode(), f, x),
    "a mode that calls": lambda f, x: both_under(ModeThatCalls(), f, x),
    "__torch_function__": lambda f, x: f(torch.masked.masked_tensor(x, x > 0)),
    "make_fx": lambda f, x: both(partial(traced, gated(f)), x),
    "TorchDispatchMode": lambda f, x: both_under(dispatch.BaseTorchDispatchMode(), f, x),
    "negative": lambda f, x: (f((z := torch.complex(x, x).conj()).imag), f(z)),
}
# Nothing is left to compute, or PyTorch's kernel or refusal is wanted.
PYTORCHS = {
    "jit.script": lambda f, x: both(torch.jit.script(module[f]), x),
    "fx": lambda f, x: torch.fx.symbolic_trace(gated(f)).code,
    "make_fx fake, symbolic": lambda f, x: [traced(gated(f), x, w) for w in ("fake", "symbolic")],
    "export": lambda f, x: [export(f, x, strict) for strict in (True, False)],
    "compile dynamic": lambda f, x: (gradient(compiled(gated(f)), x), compiled(f)(x)),
    "FakeTensorMode": lambda f, x: under(fake_mode(), f, x),
    "quantized": lambda f, x: outcome(f, torch.quantize_per_tensor(x.float(), 1, 9, torch.quint8)),
    "nested": lambda f, x: outcome(f, torch.nested.nested_tensor([x, x[:2]])),
    "named": lambda f, x: outcome(lambda: f(x.refine_names("a", "b")).names),
    "integers, meta": lambda f, x: (f(x.long()), f(x > 0), f(x.to("meta").t()).stride()),
    "sparse": lambda f, x: (outcome(f, x.to_sparse()), outcome(f, x.to_sparse_csr())),
    "not a tensor": lambda f, x: (outcome(f), outcome(f, [x]), outcome(f, x, out=1), f(named)),
    "out of memory": lambda f, x: both(lambda z: outcome(f, z[0, :1].expand(1 << 45)), x),
    "out of another type, resized": lambda f, x: [
        into(f, x, y) for y in (x.int(), x.float(), x.new_empty(0), x.new_empty(2, 4))],
    "out of other strides": lambda f, x: into(f, x, x.t().contiguous().t()),
    "out overlaps": lambda f, x: (into(f, x[1:], x[:-1]), into(f, v := x[:, :1].expand(3, 4), v)),
    "out is x, whose rows overlap": lambda f, x: into(f, v := x.flatten().unfold(0, 4, 1), v),
    "out of another storage": lambda f, x: into(f, x[:, :2], torch.from_dlpack(x).resize_(3, 2)),
    "out of what requires one": lambda f, x: into(f, x.requires_grad_(), torch.empty_like(x)),
}


@pytest.mark.parametrize("way", REACHING | PYTORCHS)
def test_what_records_and_intercepts_sees_torch_sigmoid(device, way):
    """Result, node, gradient, graph and error are torch.sigmoid's; so are they under enable()."""
    f = (REACHING | PYTORCHS)[way]
    x = torch.randn(3, 4, device=device, dtype=torch.float64)
    want, without = counted(f, torch.sigmoid, x.clone())
    got, calls = counted(f, sigmoid, x.clone())
    with enable():
        enabled, enabled_calls = counted(f, torch.sigmoid, x.clone())
    alike(got, want)
    alike(enabled, want)
    reaches = way in REACHING and (HAS_CPU_KERNEL if device == "cpu" else "out is x" not in way)
    assert without == 0 and (calls > 0) == reaches and enabled_calls >= reaches


def test_profiler_sees_torch_sigmoid(device, dtype, kernel, tmp_path):
    """With its shapes and the number that links it to its backward, as the trace observer does."""
    x, trace = torch.randn(5, device=device, dtype=dtype, requires_grad=True), tmp_path / "a.json"
    observer = torch.profiler.ExecutionTraceObserver().register_callback(str(trace))
    with torch.profiler.profile(record_shapes=True, execution_trace_observer=observer) as profile:
        assert kernel(x) is not None
    (event,) = (event for event in profile.events() if event.key == "aten::sigmoid")
    assert event.input_shapes == [[5]] and event.sequence_nr >= 0
    assert '"aten::sigmoid"' in trace.read_text()
    assert device == "cpu" or "sigmoid_kernel<" in str([e.key for e in profile.key_averages()])


def test_sigmoid_is_a_python_function_and_modelnew_a_sigmoid(device):
    """For those who look: inspect, pickle, Dynamo, and packages with tables of modules by type."""
    assert str(inspect.signature(sigmoid)) == "(input, *, out=None)" and sigmoid.__doc__
    assert "torch" in inspect.getsource(sigmoid) and pickle.loads(pickle.dumps(sigmoid)) is sigmoid
    x, model, derived = torch.randn(6, 4, device=device), ModelNew(), type("A", (ModelNew,), {})()
    assert type(model) is nn.Sigmoid and repr(derived) == "A()"
    for f in (model, pickle.loads(pickle.dumps(model)), derived):
        y, calls = counted(f, x)
        assert equal(y, sigmoid(input=x)) and calls == (device == "cuda" or HAS_CPU_KERNEL)
    nodes = torch.fx.symbolic_trace(nn.Sequential(model)).graph.nodes
    assert [node.op for node in nodes] == ["placeholder", "call_module", "output"]
    assert equal(torch.jit.script(sigmoid)(x), torch.sigmoid(x)) and len(traced(sigmoid, x)) == 2
    twice = wraps(sigmoid)(lambda x: 2 * sigmoid(x))
    assert (torch.compile(lambda x: twice(x), backend="eager", fullgraph=True)(x * 0) == 1).all()


def test_nothing_leaks(device):
    """Calls of each kind, errors too, keep no reference and no object."""
    x = torch.randn(9, device=device)
    for argument in (x, nn.Parameter(x), [x]):
        held = []
        for _ in range(2):
            for _ in range(3000):
                outcome(sigmoid, argument)
            counts = [sys.getrefcount(thing) for thing in (x, None, torch.Tensor)]
            held.append((*counts, x._use_count(), sys.getallocatedblocks()))
        assert all(after < before + 1000 for before, after in zip(*held))


# -- A whole program -------------------------------------------------------------------------------
Tagged = type("Tagged", (torch.Tensor,), {})  # as MONAI's MetaTensor
SERVED = {
    "torch.sigmoid": torch.sigmoid, "operator": torch.ops.aten.sigmoid, "module": nn.Sigmoid(),
    "method": lambda x: x.sigmoid(), "in place": lambda x: x.clone().sigmoid_(),
    "expit": torch.special.expit, "script": torch.jit.script(nn.Sigmoid()),
    "out": lambda x: torch.sigmoid(x, out=torch.empty_like(x)),
    "subclass": lambda x: torch.sigmoid(x.as_subclass(Tagged)).as_subclass(torch.Tensor),
}


@pytest.mark.parametrize("way", SERVED)
def test_enable_serves_every_call_of_the_program(device, way):
    """The kernel computes it, and returns what it returns for sigmoid()."""
    x = torch.randn(4, 6, device=device)[:, 1:]
    y, calls = under(enable(), counted, SERVED[way], x)
    assert equal(y, sigmoid(x)) and (calls > 0) == (device == "cuda" or HAS_CPU_KERNEL)
    assert counted(SERVED[way], x)[1] == 0


def others_kernel(device):
    """Of another library, registered over aten::sigmoid as long as the result is not closed."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("sigmoid", lambda x: torch.full_like(x, 7), device.upper(), allow_override=True)
    library.close = library._destroy
    return library


def test_enable_is_undone_in_any_order(device):
    """Nested, repeated, left by an error, and beside another library's kernel."""
    registered = lambda: torch._C._dispatch_dump("aten::sigmoid")
    x, before = torch.randn(5, device=device), registered()
    assert {line[:13] for line in before.splitlines() if FILE.name in line} == {"BackendSelect"}
    calls, reached = lambda: counted(torch.sigmoid, x)[1], device == "cuda" or HAS_CPU_KERNEL
    with contextlib.suppress(ZeroDivisionError), enable(), enable():
        1 / 0
    assert calls() == 0 and registered() == before
    first, second = enable(), enable()
    with enable(), contextlib.suppress(ValueError):
        first.close(), sigmoid_inline.main(SMALL), disable()  # main refuses to time it
    assert calls() == reached and torch.sigmoid is torch._C._VariableFunctions.sigmoid
    disable(), (third := enable()), second.close()
    assert calls() == reached and third.close() is None and calls() == 0
    for opened in ([enable, others_kernel], [others_kernel, enable]):
        for order in (1, -1):
            contexts = [f(device) if f is others_kernel else f() for f in opened]
            assert calls() == reached and (torch.sigmoid(x.int()) == 7).all()  # by the other
            assert not any(context.close() for context in contexts[::order])
            assert calls() == 0 and registered() == before


@pytest.mark.filterwarnings("error")
def test_enable_and_import_are_safe_beside_running_calls(device, capfd):
    """In every call either this kernel or PyTorch's computes, all of it; nothing is said."""
    x, stop = torch.randn(1000, device=device), []
    allowed = torch.sigmoid(x), sigmoid(x)
    def call():
        while not stop:
            assert any(map(partial(equal, torch.sigmoid(x)), allowed))
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(call) for _ in range(3)]
        for _ in range(500):
            enable().close()
        exec(TEXT, copy := {})
        stop.append(True)
    assert not copy["_moved"] and not any(future.result() for future in running)
    assert capfd.readouterr() == ("", "")


# -- On GPUs alone ---------------------------------------------------------------------------------
@needs_gpu
def test_cuda_graph_streams_memory_and_another_gpu():
    """It is captured and replayed, runs on the current stream, and allocates its output alone."""
    x, big = torch.randn(1 << 20, device="cuda"), torch.zeros(1 << 28, device="cuda")
    with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):  # maybe the first call of a process
        z = by_kernel(y := by_kernel(x.neg_()))
    graph.replay()
    check(torch.stack([y, z]), torch.stack([x, y]))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(100_000_000)
        z = by_kernel(big.fill_(1))  # on the side stream: after fill_
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before == z.nbytes
    assert (z == sigmoid(torch.ones(1, device="cuda"))).all()
    other = torch.randn(9, device=f"cuda:{torch.cuda.device_count() - 1}")
    alike(gradient(sigmoid, other), gradient(torch.sigmoid, other))
    assert torch.cuda.current_device() == 0 and by_kernel(other) is not None


@needs_gpu
@pytest.mark.skipif(not FITTING_NVCC, reason="needs nvcc of PyTorch's CUDA")
def test_failed_launch_is_cleared(monkeypatch, tmp_path):
    """Of a library without code for this GPU: PyTorch's next launch would find the error."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    exec(re.sub(r"_\{\w+\},code=sm_\{\w+\}", "_75,code=sm_75", TEXT), copy := {})
    before, x = copy["kernel_calls"](), torch.randn(9, device="cuda")
    assert all(equal(copy["sigmoid"](z), torch.sigmoid(z)) for z in (x, nn.Parameter(x)))
    assert copy["kernel_calls"]() == before
    copy["_library"].sigmoid_inline_stop()


# -- The import, the cache and what may be broken there --------------------------------------------
COMPILED = r"sigmoid_inline: compiled for the CPU.* in \d+\.\d s\n"
SMALL = "--device cpu --shape 9 5003 --trials 2".split()
IMPORT = """import os, sys; exec(os.environ.get("FIRST", ""))
import torch, sigmoid_inline
assert sigmoid_inline.sigmoid(torch.tensor([0.0, torch.nan])).isnan().tolist() == [False, True]
assert sigmoid_inline.sigmoid(torch.tensor(-88.0)).item() > 0 < float("1e-310")"""


def start(*args, cache, before=(), **env):
    """Starts python with `args`, on the CPU unless told; None removes a variable."""
    own = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": FILE.parent, "PYTHONWARNINGS": "ignore"}
    own |= {"TORCH_EXTENSIONS_DIR": cache, "TMPDIR": cache.parent, **env}
    env = {name: str(v) for name, v in {**os.environ, **own}.items() if v is not None}
    options = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | {"env": env}
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # if CI ignores it
    return subprocess.Popen([*before, sys.executable, *args], cwd=cache, text=True, **options)


def run(*args, status=0, **options):
    """(stdout, stderr) of a process that has to end with this status."""
    out, err = (process := start(*args, **options)).communicate()
    assert process.returncode == status, out + err
    return out, err


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with this machine's library, at a path that asks for quoting."""
    cache = tmp_path_factory.mktemp('a cache\'s "späces"')
    out, err = run("-c", IMPORT, cache=cache)
    assert out == "" and re.fullmatch(COMPILED, err)
    return cache


@pytest.fixture
def execute(monkeypatch, tmp_path, cache, capfd):
    """execute(text): its names and what it says, on the CPU; its cache is a copy."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    copied, libraries = shutil.copytree(cache, tmp_path / "cache"), []
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(copied))
    def execute(text, **names):
        exec(text, names)
        libraries.append(names["_library"])
        return names, capfd.readouterr()
    yield execute
    for library in libraries:  # of two in a process the newer computes for both
        library.sigmoid_inline_stop()


@pytest.mark.parametrize("devices", ["", pytest.param(None, marks=needs_gpu)])
def test_import_compiles_once_and_changes_nothing_else(devices, cache):
    """Processes may still fork. The library's own names are the functions that it exports."""
    code = """import os, sys, threading, warnings, torch
settings = lambda: (dict(os.environ), warnings.filters[:], torch.get_num_threads(), os.getcwd(),
                    threading.active_count(), sys.stdout, sys.stderr, "_dynamo" in dir(torch))
before = settings()
import sigmoid_inline
assert settings() == before
if os.fork() == 0:
    x = torch.zeros(1, device="cuda" if torch.cuda.device_count() else "cpu")
    os._exit(int(sigmoid_inline.sigmoid(x).item() != 0.5))
assert os.wait()[1] == 0"""
    assert run("-c", code, cache=cache, CUDA_VISIBLE_DEVICES=devices) == ("", "")
    nm = ["nm", "-D", "--defined-only", *cache.rglob("*.so")]
    own = r"(?m)^\w+ [^WV] (.*(?:sigmoid|Gpu|View|least|most|populate|compute|launch|kernel).*)"
    exported = re.findall(own, subprocess.check_output(nm, text=True))
    assert exported and all(name.startswith("sigmoid_inline_") for name in exported)


failing = {"__torch_function__": lambda *_: 1 / 0, "__torch_dispatch__": lambda *_: 1 / 0}
MODES = [type("Fails", (overrides.TorchFunctionMode,), failing), lambda: fails, None, fake_mode]
MODES += [type("Fails", (dispatch.TorchDispatchMode,), failing), torch.inference_mode]


@pytest.mark.parametrize("mode", MODES, ids=range(len(MODES)))
def test_import_leaves_no_trace_in_the_mode_of_its_thread(mode, monkeypatch):
    """Of the probe's two calls; None: in a compiled function."""
    monkeypatch.delitem(sys.modules, "sigmoid_inline")
    before, load = kernel_calls(), lambda: resolve_name("sigmoid_inline")
    load = load if mode else torch.compile(load, backend="eager")
    with torch.profiler.profile() as profile, (mode or contextlib.nullcontext)():
        assert load()._moved == ""
    assert kernel_calls() == before + 2 * HAS_CPU_KERNEL
    assert "aten::sigmoid" not in {event.key for event in profile.events()}


MOVED = {
    "sigmoid of 0 is": lambda x: torch.sigmoid(x) * 0.9,
    "a recorded call makes None": lambda x: torch.sigmoid(x.detach()),
    "calls do not reach the kernel": lambda x: torch.sigmoid(x) if x.requires_grad else x + 0.5,
    "a call raises ZeroDivisionError": lambda x: 1 / 0 if x.requires_grad else torch.sigmoid(x),
}


@pytest.mark.skipif(not HAS_CPU_KERNEL, reason="no kernel on this CPU")
@pytest.mark.parametrize("what", MOVED)
def test_import_says_that_pytorch_has_moved(what, execute):
    """Then sigmoid is torch.sigmoid, and who asks for more gets an error."""
    own = "_functions.sigmoid, torch._C.TensorBase.sigmoid,"
    namespace, said = execute(TEXT.replace(own, "moved, moved,"), moved=MOVED[what])
    assert re.fullmatch(f"sigmoid_inline: PyTorch .* has moved, or this .*: {what}.*\n", said.err)
    assert equal(namespace["sigmoid"](x := torch.ones(9)), MOVED[what](x))
    for call in (namespace["enable"], partial(namespace["main"], SMALL)):
        with pytest.raises(RuntimeError, match=f"has moved, or this .*: {what}"):
            call()


@pytest.mark.parametrize("package", ["cloudpickle", "dill", "joblib.externals.cloudpickle"])
def test_pasted_functions_compute_in_workers(package, cache):
    """Where this file is not, what a notebook's cell sends is torch.sigmoid."""
    pytest.importorskip(package)
    options = ", recurse=True" if package == "dill" else ""
    code = f"""exec(open({str(FILE)!r}).read().rpartition("\\nif __name__")[0])
import {package}; gate = lambda x: (sigmoid(x) + ModelNew()(x)).tolist()
code = "import sys, pickle, torch; print(pickle.load(sys.stdin.buffer)(torch.zeros(1)))"
subprocess.run([sys.executable, "-c", code], input={package}.dumps(gate{options}))"""
    assert run("-c", code, cache=cache, PYTHONPATH=None) == ("[1.0]\n", "")


def test_processes_that_import_at_once_build_once_also_after_a_killed_build(tmp_path):
    """Two threads and another compiler, too. Ctrl-C and `| head` end the command quietly."""
    process = start(FILE, *SMALL, cache=tmp_path, CXX="sleep 60 #")  # writes nothing
    while not list(tmp_path.rglob("main.cpp")):  # the compiler is about to start
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "") and process.returncode == -signal.SIGINT
    os.utime(*tmp_path.glob("sigmoid_inline/build-*"), (0, 0))  # what is old is removed
    (tmp_path / "sigmoid_inline/build-young").mkdir()
    threads = f"""import runpy, threading
for _ in "ab": threading.Thread(target=runpy.run_path, args=[{str(FILE)!r}]).start()"""
    machines = {}, {"FIRST": threads}, {"CXX": "g++"}
    processes = [start("-c", IMPORT, cache=tmp_path, **machine) for machine in machines]
    said = "".join(process.communicate()[1] for process in processes)
    assert re.fullmatch(COMPILED, said) and not any(process.returncode for process in processes)
    assert [p.suffix for p in sorted((tmp_path / "sigmoid_inline").iterdir())] == ["", "", ".so"]
    process = start(FILE, *SMALL, cache=tmp_path)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == -signal.SIGPIPE


def test_wrong_library_is_built_again_and_the_newest_copy_computes(execute, tmp_path, monkeypatch):
    """As where a notebook's cell is executed again after a failed build, edited and undone."""
    first, x = execute(TEXT)[0], numbers((9999,), "cpu", torch.float32).requires_grad_()
    foreign = b"with the digest of its content, but not to be loaded"
    (library,) = tmp_path.rglob("*.so")
    flipped = bytearray(library.read_bytes())
    flipped[5000] ^= 1
    for wrong, digest in ((flipped, 16 * "0"), (foreign, "5f327d1a7c15e003")):
        library.with_name(f"{library.stem[:-16]}{digest}.so").write_bytes(wrong)
    library.rename(tmp_path / library.name)  # it is in use
    monkeypatch.setattr(torch.Tensor, "sigmoid", first["sigmoid"])  # as a program may
    with first["enable"]():
        second, said = execute(TEXT)
        assert counted(torch.sigmoid, x, calls=second["kernel_calls"])[1] == HAS_CPU_KERNEL
    assert re.fullmatch(COMPILED, said.err) and first["_library"] is not second["_library"]
    both, compute = 2 * HAS_CPU_KERNEL, lambda: equal(first["sigmoid"](x), second["sigmoid"](x))
    computed_by = lambda names: counted(compute, calls=names["kernel_calls"]) == (True, both)
    assert computed_by(second)
    list(map(Path.unlink, library.parent.glob("*.so")))
    (tmp_path / library.name).replace(library)  # which is loaded already
    assert computed_by(execute(TEXT)[0]) and computed_by(first)


# NVML and CUDA's driver, on a machine with these GPUs: compute capabilities 9.0 of 9.
STUBS = """static int gpus[] = {GPUS};
int nvmlInit(void) { return NO_NVML; } int nvmlInit_v2(void) { return NO_NVML; }
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(unsigned *n) { *n = sizeof gpus / sizeof *gpus; return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { return cuDeviceGetCount(n); }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **gpu) { *gpu = gpus + i; return 0; }
int nvmlDeviceGetCudaComputeCapability(int *g, int *a, int *b) { *a = *g; *b = 0; return 0; }
int cuDeviceGetAttribute(int *n, int a, int gpu) { *n = a == 75 ? gpus[gpu] : 0; return 0; }
"""
MACHINE = r"""set -ea; RUN=("$@")
says() { "${RUN[@]}" |& grep "$1"; }
program() { mkdir -p "${1%/*}"; printf '#!/bin/sh\n%s "$@" %s\n' "$2" "$3" > "$1"; chmod +x "$1"; }
cxx() { program w/c++ "$1 c++" "$2"; CXX=$PWD/w/c++; }  # what stands before and behind
only() { for p; do program bin/$p "$(command -v $p)"; done; PATH=$PWD/bin; }
vectors() { for name in $VECTORS; do objdump -d "$1"/*/*.so | grep "$name.*[yz]mm" > said; done; }
private() { unshare "$@" true || exit 77; RUN=(unshare "$@" "${RUN[@]}"); }
mounted() { RUN=(sh -c "mount $* \"\$PWD\" && exec \"\$@\"" sh "${RUN[@]}"); private -rm; }
user() { private --map-user=12345 --map-group=12345; }  # of whom the system knows nothing
nvcc() { program $1/bin/nvcc "$2" "$3"; }  # a toolkit of nvcc alone
older() { nvcc old "echo release $1, V$1.0 #"; CUDA_HOME=$PWD/old; }
gpus() {  # of these major versions, in a machine without a toolkit
  [ "$NVCC" ] || exit 77
  for name in nvidia-ml cuda; do
    echo "$STUBS" | cc -shared -fPIC -DGPUS=$1 -DNO_NVML=${2:-0} -x c - -o lib$name.so.1
  done
  LD_LIBRARY_PATH=$PWD; CUDA_HOME=$PWD; CUDA_VISIBLE_DEVICES=0; TORCH_CUDA_ARCH_LIST=
  FIRST='import subprocess; run = subprocess.getoutput
subprocess.getoutput = lambda command: "" if "/usr/local" in command else run(command)'
}
"""
LIST = "CUDA_VISIBLE_DEVICES= TORCH_CUDA_ARCH_LIST='8.0;9.0+PTX x' says 's .x. in'"
WORKS, NO_NVCC = "it works", f"nvcc of CUDA {torch.version.cuda} is missing"
LIMIT = "import resource, torch; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"
MOCKED = """from unittest.mock import MagicMock
sys.modules["torch"] = sys.modules["torch.compiler"] = MagicMock(__version__=2)
sys.modules["torch"].nn.Sigmoid = object
import sigmoid_inline; sys.exit(len(sigmoid_inline.sigmoid.__doc__) < 99)"""
ALARM = 'import signal; signal.signal(14, lambda *_: (e for e in ()).throw(TimeoutError("own")))'
OWN = 'type("Own", (OSError,), {})'
NO_NINJA = 'sys.executable = 6 * "/x"; sys.modules["ninja"] = None'
ODD = """import fcntl, signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)
fcntl.flock = lambda *_: (lock for lock in ()).throw(OSError(38, "not implemented"))"""
# What is odd: the shell commands that make it so, in the cache; a pattern of the last line.
START_UP = {
    "no compiler, loader's noise": ("CXX=/c++; LD_PRELOAD=/x.so", "not found: install g.."),
    "out of memory": ("cxx 'ulimit -v 90000;'", "out of memory allocating|memory exhausted"),
    "another PyTorch": ("cxx '' -Dempty_strided_generic=gone; FIRST='import torch; "
                        "torch.__version__ = \"2.16.0\"'", ".*undefined symbol: .*gone.* 2.10 to"),
    "old PyTorch": ("FIRST='import torch; torch.__version__ = \"2.9.1\"'", "pip install -U torch"),
    "mocked PyTorch, as in Sphinx": (f"CXX=/c++; FIRST='{MOCKED}'", WORKS),
    "clang": ("CXX=$(command -v clang++) || exit 77; says .; vectors .", WORKS),
    "GCC 11": ("CXX=$(command -v g++-11) || exit 77; says .; vectors .", WORKS),
    "no ninja": (f"only c++; FIRST='{NO_NINJA}'", "Ninja is required .*pip i"),
    "odd tools and places": (
        "cxx env '-ffast-math -Wall -Werror'; CXX=\"env $CXX\"; program bin/ccache false; "
        "program bin/ninja false; mkdir 'a b'; ln -s $TORCH a\\ b; PATH=$PWD/bin:$PATH; "
        f"\"$1\" -m zipfile -c a.zip $FILE; PYTHONPATH=$PWD/a.zip:$PWD/a\\ b; exec 2>/dev/full; "
        f"PYTHONUNBUFFERED=1; FIRST='{ODD}'", WORKS),  # else Python ends with 120
    "a handler's error": (f"cxx \"kill -14 $$; sleep 1;\"; FIRST='{ALARM}'", "TimeoutError: own"),
    "a handler's own error": (
        f"cxx \"kill -14 $$; sleep 1;\"; FIRST='{ALARM.replace('TimeoutError', OWN)}'", "Own: own"),
    "file limit": (f"FIRST='{LIMIT}'", ".*File too large .*in /"),
    "noexec": ("mounted -t tmpfs -o noexec x", ".*failed to map .*in /"),
    "a colon in the place": ("TORCH_EXTENSIONS_DIR=$PWD/a:b", ".*: set TORCH_EXT.* without"),
    "no home": ("unset HOME ${!XDG*} ${!TORCH_EXT*}; user", "home .*: set TORCH_EXTENSIONS_DIR"),
    "built, read-only": ("vectors \"$CACHE\"; mounted --bind -o ro '\"$CACHE\"'; CXX=/c++", WORKS),
    "no nvcc": ("gpus 9", f"{NO_NVCC}: .*{torch.version.cuda}"),
    "older nvcc": ("gpus 9; older 11.8", f"{NO_NVCC}, .*/old has 11.8: .*install"),
    "nvcc by pip, behind an older; an old GPU": (
        "gpus 3,9; older 11.8; nvcc nvidia/cu13 $NVCC; PYTHONPATH+=:$PWD; says missing.*cccl; "
        "install -D /dev/null nvidia/cu13/include/nv/target; says . > said; grep sm_90 said; "
        "grep leaves said && exit 1", WORKS),
    "nvcc without code, then newer": (
        "gpus 12; nvcc . $NVCC '| grep -v _12'; says 'leaves GPUs of 120'; says . && exit 1; "
        "nvcc new $NVCC; CUDA_PATH=$PWD/new; says sm_120", WORKS),
    "nvcc with a new compiler": (
        "gpus 9; nvcc . $NVCC; program g/gcc 'cc -U__GNUC__ -D__GNUC__=99'; CC=$PWD/g/gcc",
        "unsupported .*CC="),
    "built without a GPU": (f"gpus 9; nvcc . $NVCC; {LIST}; rm bin/nvcc", WORKS),
    "neither GPU nor toolkit": (
        "gpus '' 1; TORCH_CUDA_ARCH_LIST='9.0 12.0'; "
        f"says 'leaves GPUs of 120, 90 to .*: {NO_NVCC}'", WORKS),
    "no NVML": ("gpus 9 1; nvcc . $NVCC; says sm_90", WORKS),
}


@pytest.mark.parametrize("odd", START_UP)
def test_start_up(odd, cache, tmp_path):
    """What is broken ends in one line of this program that says what and why; the rest works."""
    commands, pattern = START_UP[odd]
    script = f'{MACHINE}mkdir bin; {commands}\nexec "${{RUN[@]}}"'
    vectors = "maxpd divpd" if HAS_CPU_KERNEL and not ARM else ""  # in loops of float64
    given = {"STUBS": STUBS, "NVCC": FITTING_NVCC, "TORCH": torch.__path__[0]}
    given |= {"VECTORS": vectors, "FILE": FILE, "CACHE": cache}
    process = start("-c", IMPORT, cache=tmp_path, before=["bash", "-c", script, "bash"], **given)
    _, err = process.communicate()
    if process.returncode == 77:
        pytest.skip("needs clang, nvcc of PyTorch's CUDA, or the right to make namespaces")
    said = WORKS if process.returncode == 0 else err.splitlines()[-1]
    assert re.match(f"(RuntimeError: sigmoid_inline: .*)?({pattern})", said), err


def test_each_edit_asks_for_a_build_and_an_error_names_the_line(execute, monkeypatch):
    """KernelBench executes the text in a bare dict."""
    monkeypatch.setattr(torch, "rand", lambda *shape, device: (shape, device))
    names, said = execute(TEXT.replace('"""', '"""\n\n', 1))  # where it stands does not count
    assert said.err == "" and names["get_inputs"]() == [((4096, 393216), "cuda")]
    unbuilt = TEXT.replace("        scratch =", "        1 / 0; scratch =")
    for part in ('"-O2 ', '"-std=c++17 ', *re.findall(r'\w+_SOURCE = _numbered\(r"""\n', TEXT)):
        with pytest.raises(RuntimeError, match="^sigmoid_inline: division by zero"):
            execute(unbuilt.replace(part, part + " "))
    with pytest.raises(RuntimeError, match="division by zero"), monkeypatch.context() as patched:
        patched.setattr(torch, "__version__", "2.99.0")
        execute(unbuilt)
    part = 'FORMULA_SOURCE = _numbered(r"""\n'
    line = TEXT.partition(part)[0].count("\n") + 2
    with pytest.raises(RuntimeError, match=rf"sigmoid_inline\.py:{line}:2: error: #error wrong"):
        text = TEXT.replace("cpp.load_inline(", "os.environ['MEANWHILE'] = '1'; cpp.load_inline(")
        execute(text.replace(part, part + "#error wrong\n").replace('"-O2', '"-Wfatal-errors'))
    assert os.environ.pop("MEANWHILE") == "1"  # as another thread may set it


def test_cell_checks_and_never_ends_the_kernel(execute, monkeypatch, capfd, small_tensors):
    """No __file__, the kernel's sys.argv, perhaps no torch.distributed; errors of one line."""
    monkeypatch.setattr(sys, "argv", ["kernel", "-f", "connection.json"])
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    monkeypatch.delattr(torch.distributed, "is_initialized")
    cell, said = execute(TEXT, __name__="__main__")
    cases = "256 x 393216, bfloat16", "one eager call, 2^10", "enable(), fwd+bwd half of rows"
    assert "\nRIGHT  " in table(said.out, *cases) and said.err == ""
    with torch.inference_mode():
        assert cell["main"]("--sweep --device cpu --trials 1".split()) is None  # Jupyter shows it
    cases = "half of rows", "x[::2]", "one call with out=, 2^0", "enable(), bwd, one scalar"
    assert "FAILED" not in table(capfd.readouterr().out, *cases)
    monkeypatch.setattr(sys, "argv", [FILE, *SMALL])
    runpy.run_path(str(FILE), None, "__main__")  # as a program may
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if HAS_CPU_KERNEL:
        cell["sigmoid"] = lambda x: sigmoid(x).where(x != 0, 0.5 + 2**-24)  # wrong by 1 ulp
        with pytest.raises(RuntimeError, match="^sigmoid_inline: an error of 1 ulp in float32, a"):
            cell["main"](SMALL)
        assert capfd.readouterr().out.splitlines()[-1].startswith("FAILED: an error of ")
    x = torch.cat([torch.tensor([nan]), torch.zeros(1 << 20)])  # more than a block
    assert (max_error_ulp(x, x.nan_to_num() + 0.5), max_error_ulp(x, x + 0.5)) == (inf, 0)
    with pytest.raises(ValueError, match="of another shape"):
        max_error_ulp(x, x[:1])


# -- The command line and torchrun -----------------------------------------------------------------
@pytest.fixture
def small_tensors(monkeypatch):
    """torch.rand makes at most four rows."""
    rand, shape = torch.rand, lambda *sizes: torch.empty(*sizes, device="meta")[:4].shape
    monkeypatch.setattr(torch, "rand", lambda *sizes, **options: rand(shape(*sizes), **options))


def table(out, *cases):
    """The output: lines of 80 columns at most, a row for each case, one verdict, at the end."""
    assert max(map(len, out.splitlines())) <= 80
    assert len(re.findall(r"^(?:RIGHT  |FAILED: )(?=(?:.+\n)+\Z)", out, re.M)) == 1
    rows = re.findall(r"^(.{35}) +(?:~?\d+\.\d+x|torch|WRONG) +\d+(?:\.\d us| GB/s)$", out, re.M)
    assert set(cases) <= {row.strip() for row in rows}, rows
    return out


@pytest.mark.parametrize("cpu", [CAPABILITY.lower(), "default"])
def test_command_shows_only_its_own_lines(cpu, cache, tmp_path):
    """Not that NumPy is missing. That a CPU has no kernel is not a failure, and not a ratio."""
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('No module named numpy')")
    own = {"PYTHONPATH": tmp_path, "PYTHONWARNINGS": None, "ATEN_CPU_CAPABILITY": cpu}
    out, err = run(FILE, *SMALL, "--dtype", *sigmoid_inline._BOUND_ULP, cache=cache, **own)
    assert re.fullmatch(f"({COMPILED})?", err) and re.match(r"\d+ CPU threads", out)
    without_kernel = 4 if cpu == "default" and not ARM else 1
    assert len(re.findall("^9 x 5003 +torch", table(out, "9 x 5003"), re.M)) == without_kernel
    assert (re.search("(?s)SPEED .* to ", out) is not None) == (without_kernel == 1)


BAD = "--sweep --shape 2 3,--shape 0 5,--trials 0,--dtype a,--device cuda,--shape 1 1"
@pytest.mark.parametrize("bad", BAD.split(","))
def test_bad_arguments_are_refused_in_one_line(bad, capsys, monkeypatch):
    """In Python by a ValueError, on the command line by exit status 2; and flushed subnormals."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    torch.set_flush_denormal(bad == "--shape 1 1")
    for is_command, kind in ((False, ValueError), (True, SystemExit)):
        monkeypatch.setattr(sigmoid_inline, "_IS_COMMAND", is_command)
        with pytest.raises(kind, match=r"^(sigmoid_inline: [^\n]+|2)$"):
            sigmoid_inline.main(bad.split())
    torch.set_flush_denormal(False)
    assert re.fullmatch(r"sigmoid_inline\.py: error: .+\n", capsys.readouterr().err)


def test_rounds_alternate_and_a_row_shows_ratio_and_speed(monkeypatch, capsys):
    """`~`: the middle half of its rounds differs by 10 %, or they are too few."""
    order, measure = [], sigmoid_inline.measure
    functions = {name: partial(order.append, name) for name in "ab"}
    assert len(measure(functions, torch.device("cpu"), trials=2)["a"]) == 2
    assert "".join(order) == "abbaabbaab"
    for ratio, *us in (("2.000x", [10] * 4, [20] * 4), ("~1.050x", [20] * 2, [21] * 2),
                       ("~1.100x", [10] * 4, [10, 11, 11, 12])):
        times = dict(zip(["sigmoid", "torch.sigmoid"], us))
        monkeypatch.setattr(sigmoid_inline, "measure", lambda *_, times=times, **__: times)
        sigmoid_inline.main(["--device", "cpu", "--shape", "9", "10000"])
        shown = [ratio if HAS_CPU_KERNEL else "torch", f"{720 // us[0][0]}", "GB/s"]
        assert f"9 x 10000 {' '.join(shown)}" in re.sub(" +", " ", capsys.readouterr().out)


@pytest.mark.skipif(not HAS_CPU_KERNEL, reason="no kernel on this CPU")
def test_ranks_of_torchrun_share_the_rows(cache, tmp_path):
    """Rank 0 speaks; where the last rank is wrong, its process and torchrun end with status 1."""
    (tmp_path / "main.py").write_text(f"""import os, sigmoid_inline as s
s.sigmoid = lambda x, f=s.sigmoid: f(x) * (1 + 1e-6 * int(os.environ["RANK"]) * (x.dim() > 1))
s.main({SMALL})""")
    torchrun = "-m torch.distributed.run --standalone --nproc-per-node=2".split()
    out, _ = run(*torchrun, tmp_path / "main.py", cache=cache, status=1)
    out = re.sub(r".*connected peer.*\n", "", out)  # PyTorch 2.10's gloo speaks too, into lines
    assert "FAILED: an error" in table(out, "9 x 5003")


# -- The file and its README -----------------------------------------------------------------------
def test_contract(capsys):
    """torch alone; nothing that KernelBench's checker rejects; the README names every option."""
    imported = set(re.findall(r"^ *(?:import|from) (\w+)", TEXT, re.M))
    assert imported - set(sys.stdlib_module_names) == {"torch", "sigmoid_inline"}
    code = "\n".join(line.split("#")[0].split("//")[0] for line in TEXT.splitlines())
    rejected = r"\btry\s*:|\bexcept\b|\bpass\b|import\s+threading|\b(time|cuda)\.[\w.]+ = "
    rejected += r"|multiprocessing|concurrent\.futures|class\s+\w+.*\((torch\.)?Tensor\)|_make_sub"
    assert not re.findall(rejected, code) and max(map(len, TEXT.splitlines())) <= 100
    assert sigmoid_inline.main(["--help"]) is None
    assert set(re.findall(r"--\w+", capsys.readouterr().out)) <= set(re.findall(r"--\w+", README))


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
def test_cuda_source_compiles_without_a_warning_and_waits_before_it_reads(tmp_path):
    """For the oldest and the newest GPU that nvcc knows; on the newest, kernels start early."""
    listed = subprocess.check_output([NVCC, "--list-gpu-arch"], text=True)
    known = sorted(map(int, re.findall(r"\d+", listed)))
    (tmp_path / "kernels.cu").write_text(sigmoid_inline._CUDA)
    options = "-std=c++17 -split-compile=0 -Werror=all-warnings -c".split()
    options += [f"-gencode=arch=compute_{n},code=sm_{n}" for n in (known[0], known[-1])]
    subprocess.run([NVCC, "-keep", *HEADERS, *options, "kernels.cu"], cwd=tmp_path, check=True)
    _, *kernels = (tmp_path / f"kernels.compute_{known[-1]}.ptx").read_text().split(".entry")
    assert kernels and all("griddepcontrol.wait" in k.partition("ld.global")[0] for k in kernels)


@pytest.mark.parametrize("command", [c for c in COMMANDS if "--sweep" not in c])
def test_readme_command(command, cache):
    """On the CPU and a small shape; installs nothing, and only collects tests."""
    command = re.sub(r"^pip install [^&]*&& ", "", command)
    command = re.sub(r"pytest(?= |$)", "pytest --collect-only -q", command)
    command = command.replace(FILE.name, f"{FILE.name} --shape 9 5003 --trials 2")
    command = f"PATH={Path(sys.executable).parent}:$PATH; cd {FILE.parent}; {command}"
    out, _ = run(cache=cache, before=["bash", "-euo", "pipefail", "-c", command])
    assert re.search(r"^[1-9].* collected" if "pytest" in command else "GB/s", out, re.M), out
