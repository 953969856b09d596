#!/usr/bin/env bash
# The bits of NaN in results of bfloat16, along one tensor, on one CPU thread; torch 2.13.0 with
# ATEN_CPU_CAPABILITY=avx2, 2026-11-28.
# Guess: x + 1, relu(x) and sigmoid(x) of a tensor that holds one NaN everywhere are one bit pattern
#        everywhere, the quiet NaN 0x7fc0 that went in.
# Seen:  whole vectors get 0xffff, with the sign bit set, and the elements behind them 0x7fc0: of 67
#        elements the last 3. So torch.signbit() tells them apart, and slices have other bytes than
#        the whole. Without vectors (default) all are 0x7fc0. In float32 all are alike with both.
# Hence: look for NaN by isnan(); do not hash results that may hold one, or fill it in first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 2> "$folder/pip" || { cat "$folder/pip"; exit 1; }
cat > "$folder/see.py" << 'PYTHON'
import sys

import torch

torch.set_num_threads(1)
print(torch.__version__, torch.backends.cpu.get_cpu_capability())
differ = []
for dtype, bits in ((torch.bfloat16, torch.int16), (torch.float32, torch.int32)):
    x = torch.full((67,), float("nan"), dtype=dtype)
    for name, y in (("x + 1", x + 1), ("relu", torch.relu(x)), ("sigmoid", torch.sigmoid(x))):
        seen = [f"{v & 0xFFFFFFFF >> (32 - 8 * dtype.itemsize):#x}" for v in y.view(bits).tolist()]
        signs = torch.signbit(y).sum().item()
        print(f"{str(dtype)[6:]:9}{name:8} first {seen[0]}, last {seen[-1]}, {signs} of 67 signs set")
        assert y.isnan().all()
        differ.append(len(set(seen)) > 1)
raise SystemExit(differ != ([True] * 3 if sys.argv[1] == "vectors" else [False] * 3) + [False] * 3)
PYTHON
ATEN_CPU_CAPABILITY=avx2 "$folder/venv/bin/python" -W ignore "$folder/see.py" vectors
ATEN_CPU_CAPABILITY=default "$folder/venv/bin/python" -W ignore "$folder/see.py" scalars
