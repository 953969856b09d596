#!/usr/bin/env bash
# DeepLift over a subclass of torch.nn.Sigmoid; captum 0.9.0, torch 2.13.0, 2026-11-28.
# Guess: a subclass that changes nothing (for a name, a default, a faster forward) is a Sigmoid to the
#        tools that look for one, or they say that they do not know it.
# Seen:  captum looks up type(module): for the subclass it silently uses the gradient in place of
#        DeepLift's rule. Of an output that changes by 0.251 it attributes 0.053 to the only input; the
#        convergence delta that tells is returned only on request.
# Hence: give type(module) is torch.nn.Sigmoid to such tools, or ask for the convergence delta.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 captum==0.9.0 2> "$folder/pip" || { cat "$folder/pip"; exit 1; }
cat > "$folder/see.py" << 'PYTHON'
import warnings
from importlib.metadata import version

import torch
from captum.attr import DeepLift
from torch.nn import Linear, Sequential, Sigmoid


class Gate(Sigmoid):
    pass


print("captum", version("captum"), "torch", torch.__version__)
x, baseline, result, said = torch.tensor([[3.0]]), torch.zeros(1, 1), {}, {}
for activation in Sigmoid, Gate:
    model = Sequential(Linear(1, 1), activation(), Linear(1, 1))
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
    change = (model(x) - model(baseline)).item()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result[activation] = DeepLift(model).attribute(x, baseline).item()
    said[activation] = {" ".join(str(w.message).split())[:50] for w in caught}
    print(activation.__name__, "attribution", result[activation], "of", change, said[activation])
silent = said[Gate] == said[Sigmoid]
raise SystemExit(not (abs(result[Sigmoid] - change) < 1e-4 and result[Gate] < 0.1 and silent))
PYTHON
"$folder/venv/bin/python" "$folder/see.py"
