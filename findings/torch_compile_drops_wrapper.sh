#!/usr/bin/env bash
# torch.compile of what functools.wraps makes of a torch.jit.script_if_tracing function;
# torch 2.13.0 (2.15.0 alike), 2026-11-28.
# Guess: a wrapper that doubles a result does so compiled and exported, as it does eagerly: wraps
#        copies a name, a docstring and attributes, and none of them is what the function computes.
# Seen:  script_if_tracing marks its function by an attribute, wraps copies the mark, and Dynamo
#        takes the function that was marked for the wrapper: torch.compile and a strict export give
#        0.5 for 1.0, without a warning. A wrapper of a plain function keeps its own body, and so
#        does an export that is not strict.
# Hence: where a wrapped function may be script_if_tracing's, delete __script_if_tracing_wrapper from
#        the wrapper's attributes, and compare a compiled result with an eager one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 2> "$folder/pip" || { cat "$folder/pip"; exit 1; }
cat > "$folder/see.py" << 'PYTHON'
import functools

import torch


def plain(x):
    return torch.sigmoid(x)


@torch.jit.script_if_tracing
def marked(x):
    return torch.sigmoid(x)


class Model(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


print("torch", torch.__version__)
x, seen = torch.zeros(1), {}
for name, function in (("plain", plain), ("script_if_tracing", marked)):
    doubled = functools.wraps(function)(lambda x, function=function: 2 * function(x))
    model = Model(doubled)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    strict, traced = (torch.export.export(model, (x,), strict=s).module() for s in (True, False))
    seen[name] = [f(x).item() for f in (doubled, compiled, strict, traced)]
    print(f"{name}: eager, compiled, strict export, export: {seen[name]}")
raise SystemExit(seen != {"plain": [1.0] * 4, "script_if_tracing": [1.0, 0.5, 0.5, 1.0]})
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/see.py"
