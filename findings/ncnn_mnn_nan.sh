#!/usr/bin/env bash
# Sigmoid of NaN and of infinity in ncnn 1.0.20261020 and MNN 3.6.1 on an x86-64 CPU, 2026-11-28.
# Guess: NaN stays NaN, as in every framework that the model came from, or at least is one value.
# Seen:  MNN gives 1 for NaN. ncnn gives 0 for NaN in each whole group of four values and NaN in what
#        is left over, and 0.99999994 for infinity in a group, where 1 is right.
# Hence: look for NaN before the last sigmoid: behind it a broken model says "surely" or "never".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ncnn==1.0.20261020 MNN==3.6.1 numpy 2> "$folder/pip" || { cat "$folder/pip"; exit 1; }
cat > "$folder/see.py" << 'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import MNN.expr
import ncnn
import numpy as np

param, weights = Path(sys.argv[1], "s.param"), Path(sys.argv[1], "s.bin")
param.write_text("7767517\n2 2\nInput x 0 1 x\nSigmoid s 1 1 x y\n")
weights.touch()


def ncnn_sigmoid(x):
    with ncnn.Net() as net:
        net.load_param(str(param))
        net.load_model(str(weights))
        with net.create_extractor() as extractor:
            extractor.input("x", ncnn.Mat(x).clone())
            return np.array(extractor.extract("y")[1]).copy()


def mnn_sigmoid(x):
    return np.array(MNN.expr.sigmoid(MNN.expr.const(x, list(x.shape))).read())


print("ncnn", version("ncnn"), "MNN", version("MNN"))
result = {}
for name, sigmoid in ("ncnn", ncnn_sigmoid), ("MNN", mnn_sigmoid):
    for value in "nan", "inf":
        result[name, value] = y = sigmoid(np.full(6, value, np.float32))
        print(name, f"sigmoid of six times {value}:", [float(v) for v in y])
nans = result["ncnn", "nan"]
seen = (nans[:4] == 0).all() and np.isnan(nans[4:]).all() and (result["ncnn", "inf"][:4] < 1).all()
raise SystemExit(not (seen and (result["MNN", "nan"] == 1).all()))
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder"
