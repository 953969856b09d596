#!/usr/bin/env bash
# Dispatch keys that fall through; torch 2.13.0, 2026-11-28.
# Guess: a backend key whose fallback is a fall-through changes nothing for a call that has it among
#        its keys: the tensor's own CPU kernel runs, as without it.
# Seen:  an operator with kernels for both CPU and CompositeExplicitAutograd runs the latter then,
#        as the alias, which stands for all backend keys, comes before the fallback. So layer_norm
#        has other bits, and torch.add, which has no such second kernel, the same ones.
# Hence: such a key is safe to include only where no other operator runs with it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q torch==2.13.0 2> "$folder/pip" || { cat "$folder/pip"; exit 1; }
"$folder/bin/python" -W ignore << 'P'
import torch

torch.manual_seed(0)
key = "CustomRNGKeyId"
library = torch.library.Library("_", "IMPL", key)
library.fallback(torch.library.fallthrough_kernel, key)
x = torch.randn(64, 384)
seen = []
for name, f in {"layer_norm": lambda: torch.layer_norm(x, (384,)), "add": lambda: x + x}.items():
    without = f()
    with torch._C._IncludeDispatchKeyGuard(torch._C._dispatch_key_parse(key)):
        within = f()
    seen.append(torch.equal(without, within))
    print(torch.__version__, name, "has the same bits with the key:", seen[-1],
          "largest difference", (without - within).abs().max().item())
assert seen == [False, True]
P
