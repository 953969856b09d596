#!/usr/bin/env bash
# torch.sigmoid of a quantized tensor of type qint32 on a CPU; torch 2.13.0 (2.15.0 alike), 2026-11-28.
# Guess: as for quint8 and qint8, whose output scale of 1/256 spans [0, 1), but finer.
# Seen:  the output's scale is 2^-32 with zero point 0, and int32 is signed: no result can exceed 0.5.
#        sigmoid(3) is 0.5. Nothing warns.
# Hence: dequantize first; no tolerance helps for positive inputs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 2> "$folder/pip" || { cat "$folder/pip"; exit 1; }
cat > "$folder/see.py" << 'PYTHON'
import torch

x = torch.tensor([-3.0, -1, 0, 1, 3])
print(torch.__version__, "exact:", x.sigmoid().tolist())
error = {}
for dtype in torch.quint8, torch.qint8, torch.qint32:
    y = torch.quantize_per_tensor(x, 0.1, 128 if dtype == torch.quint8 else 0, dtype).sigmoid()
    error[dtype] = (y.dequantize() - x.sigmoid()).abs().max().item()
    print(dtype, y.dequantize().tolist(), "scale", y.q_scale(), "zero point", y.q_zero_point())
raise SystemExit(not (error[torch.qint32] > 0.4 and error[torch.quint8] < 1 / 256 > error[torch.qint8]))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/see.py"
