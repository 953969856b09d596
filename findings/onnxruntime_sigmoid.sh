#!/usr/bin/env bash
# ONNX Runtime's Sigmoid on a CPU, onnxruntime 1.32.0, onnx 1.23.2, x86-64 with AVX2, 2026-11-28.
# Guess: results lie in [0, 1], rise with the input, and float64 is the type for small results.
# Seen:  float32 gives 1.0000001, falls between neighbouring inputs, and is 0 from -18 on, where
#        sigmoid is 1.5e-8. float64 is no cure: it is off by 1e-3 of its value at -30 and 0 at -37,
#        where sigmoid is 8.5e-17, a number that float32 would hold, too.
# Hence: compare with atol=2e-7 in float32 and 2.3e-16 in float64; no rtol holds for negative inputs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 2> "$folder/pip" || { cat "$folder/pip"; exit 1; }
cat > "$folder/see.py" << 'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def sigmoid(x, element):
    info = [helper.make_tensor_value_info(name, element, [None]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["y"])], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


print("onnxruntime", onnxruntime.__version__)
x = np.linspace(-20, 20, 4_000_001).astype(np.float32)
y = sigmoid(x, TensorProto.FLOAT)
largest, falls, last_zero = y.max(), int((np.diff(y) < 0).sum()), x[y != 0].min()
error = np.abs(y - 1 / (1 + np.exp(-x.astype(np.float64)))).max()
print(f"float32: largest {largest!r}, falls {falls} times, 0 below {last_zero}, off by {error:.2g} at most")
wide = np.array([-10.0, -20.0, -30.0, -37.0])
exact = 1 / (1 + np.exp(-wide))
relative = np.abs(sigmoid(wide, TensorProto.DOUBLE) / exact - 1)
print("float64: relative error", dict(zip(wide.tolist(), relative.tolist())))
seen = largest > 1 and falls > 0 and -18.1 < last_zero < -17 and error < 2e-7
raise SystemExit(not (seen and relative[2] > 1e-4 and relative[3] == 1))
PYTHON
"$folder/venv/bin/python" "$folder/see.py"
