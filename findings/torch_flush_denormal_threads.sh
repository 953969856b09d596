#!/usr/bin/env bash
# torch.set_flush_denormal(True) once a parallel operator has run; torch 2.13.0, Linux x86-64, 2026-11-28.
# Guess: it switches the process, or PyTorch's threads at least; it returns True.
# Seen:  it sets a register of the calling thread. Threads of the pool keep what they started with, so
#        that of one tensor of equal values some results are 0 and others subnormal, by position.
# Hence: call it before the first parallel operator, or compare with atol=1.2e-38.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 2> "$folder/pip" || { cat "$folder/pip"; exit 1; }
cat > "$folder/see.py" << 'PYTHON'
import sys

import torch

torch.set_num_threads(4)
late = sys.argv[1] == "late"
if late:
    torch.zeros(1 << 20) + 1  # starts the other threads
print(torch.__version__, sys.argv[1], "set_flush_denormal:", torch.set_flush_denormal(True), end="; ")
x = torch.full((1 << 20,), 1.2e-38)  # a normal number, and its half is none
half = (x * 0.5).view(torch.int32)  # to compare subnormal floats would flush them, too
zeros = int((half == 0).sum())
print(f"of {len(half)} equal products {zeros} are 0")
raise SystemExit(zeros != len(half) if not late else not 0 < zeros < len(half))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/see.py" early
"$folder/venv/bin/python" -W ignore "$folder/see.py" late
