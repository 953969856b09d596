#!/usr/bin/env bash
# torch.onnx.export of LogSigmoid and of binary_cross_entropy_with_logits; torch 2.13.0, onnx 1.23.2,
# onnxscript 0.7.2, onnxruntime 1.32.0, 2026-11-28.
# Guess: functions that exist to avoid log(sigmoid(x)) are exported in a form that avoids it, too.
# Seen:  both exporters write Log(Sigmoid(x)). In ONNX Runtime LogSigmoid is -inf for x <= -18, where
#        PyTorch gives x; the loss is inf for a logit of -18 and a target of 1, where PyTorch gives
#        18, and for a logit of 20 the older exporter's is NaN (0 * log(1 - 1)).
# Hence: export the logits, and compute the loss outside; no tolerance helps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 \
    2> "$folder/pip" || { cat "$folder/pip"; exit 1; }
cat > "$folder/see.py" << 'PYTHON'
import logging
import sys
import warnings

import onnx
import onnxruntime
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")


class LogSigmoid(torch.nn.Module):
    def forward(self, x):
        return logsigmoid(x)


class Loss(torch.nn.Module):
    def forward(self, x, target):
        return binary_cross_entropy_with_logits(x, target, reduction="none")


def exported(module, inputs, dynamo):
    path = f"{sys.argv[1]}/model.onnx"
    torch.onnx.export(module, inputs, path, dynamo=dynamo, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs)}
    return [n.op_type for n in onnx.load(path).graph.node], torch.tensor(session.run(None, feed)[0])


print("torch", torch.__version__, "onnxruntime", onnxruntime.__version__)
x, target = torch.tensor([-50.0, -18, -1, 20]), torch.tensor([1.0, 1, 1, 1])
seen = True
for dynamo in True, False:
    for module, inputs in (LogSigmoid(), (x,)), (Loss(), (x, target)):
        nodes, y = exported(module, inputs, dynamo)
        print(f"dynamo={dynamo}", nodes, y.tolist(), "PyTorch:", module(*inputs).tolist())
        seen = seen and "Sigmoid" in nodes and "Log" in nodes and bool(y[:2].isinf().all())
raise SystemExit(not (seen and y[3].isnan()))
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder" 2> "$folder/err" || { cat "$folder/err"; exit 1; }
