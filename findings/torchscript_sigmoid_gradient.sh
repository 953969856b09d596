#!/usr/bin/env bash
# The gradient of sigmoid in a scripted function, call by call; torch 2.13.0, CPU, 2026-11-28.
# Guess: a scripted function is differentiated by the operators that eager code uses, so a kernel or a
#        mode that replaces aten::sigmoid_backward sees it, and each call gives the same gradient.
# Seen:  so it is in the first call. From the second on TorchScript differentiates by formulas of its
#        own, a few multiplications: aten::sigmoid_backward is never called, and 12 % of a bfloat16
#        gradient change, since each product is rounded.
# Hence: call twice before comparing; allow 2 units (rtol=1.6e-2 in bfloat16).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 2> "$folder/pip" || { cat "$folder/pip"; exit 1; }
cat > "$folder/see.py" << 'PYTHON'
import torch
from torch.profiler import profile


@torch.jit.script
def gate(x):
    return torch.sigmoid(x) * 2


print(torch.__version__)
x = torch.linspace(-5, 5, 1001, dtype=torch.bfloat16).requires_grad_()
gradients, calls = [], []
for _ in range(3):
    with profile() as profiled:
        gradients += torch.autograd.grad(gate(x), x, torch.ones_like(x))
    counts = {event.key: event.count for event in profiled.key_averages()}
    calls.append(counts.get("aten::sigmoid_backward", 0))
    differ = int((gradients[-1] != gradients[0]).sum())
    close = torch.allclose(gradients[-1], gradients[0], rtol=1.6e-2, atol=0)
    print(f"sigmoid {counts['aten::sigmoid']}, sigmoid_backward {calls[-1]} calls, {differ} of "
          f"{len(x)} gradients are not the first call's; within 1.6e-2: {close}")
raise SystemExit(not (calls == [1, 0, 0] and differ and close))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/see.py" 2> "$folder/err" || { cat "$folder/err"; exit 1; }
