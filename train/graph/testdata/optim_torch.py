"""Trains the network of TestOptimizersAgainstPyTorch with torch.optim in float64 and prints the weights it came to.

    python optim_torch.py > optim_torch.json

Weights are decayed, biases are not, as onmart does it. Matrices are printed as [in, out], row by row.
"""
import json
import math

import torch

ROWS, STEPS = 40, 100


def f32(x):
    return torch.tensor(x, dtype=torch.float32).double()


x = f32([[math.sin(1.3 * i + 2.1 * j + .5) for j in range(3)] for i in range(ROWS)])
y = (x[:, 0:1] - .5 * x[:, 1:2] > .1).double()


def start(k, *shape):
    n = math.prod(shape)
    return f32([.6 * math.sin(1.7 * i + k) for i in range(n)]).reshape(shape).requires_grad_()


VARIANTS = {
    "sgd": (lambda g: torch.optim.SGD(g(.01), lr=.5), 0, 0),
    "momentum": (lambda g: torch.optim.SGD(g(.01), lr=.1, momentum=.9), 0, 0),
    "nesterov": (lambda g: torch.optim.SGD(g(.01), lr=.1, momentum=.9, nesterov=True), 0, 0),
    "adam": (lambda g: torch.optim.Adam(g(.02), lr=.02, betas=(.9, .999), eps=1e-8), 0, 0),
    "adamw": (lambda g: torch.optim.AdamW(g(.1), lr=.02, betas=(.9, .999), eps=1e-8), 0, 0),
    "adagrad": (lambda g: torch.optim.Adagrad(g(.01), lr=.1, eps=1e-10), 0, 0),
    "momentum, clipped": (lambda g: torch.optim.SGD(g(0), lr=.5, momentum=.9), .05, 0),
    "adamw, all": (lambda g: torch.optim.AdamW(g(.1), lr=.02, betas=(.9, .99), eps=1e-8), .1, .9),
    "adagrad, averaged": (lambda g: torch.optim.Adagrad(g(0), lr=.1, eps=1e-10), 0, .98),
}

out = {"torch": torch.__version__, "steps": STEPS, "variants": {}}
for name, (make, clip, decay) in VARIANTS.items():
    p = {"l1.weight": start(0, 3, 5), "l1.bias": start(1, 5), "out.weight": start(2, 5, 1), "out.bias": start(3, 1)}
    matrices, vectors = [p["l1.weight"], p["out.weight"]], [p["l1.bias"], p["out.bias"]]
    opt = make(lambda d: [{"params": matrices, "weight_decay": d}, {"params": vectors, "weight_decay": 0.}])
    history = []
    for _ in range(STEPS):
        opt.zero_grad()
        h = torch.nn.functional.silu(x @ p["l1.weight"] + p["l1.bias"])
        z = h @ p["out.weight"] + p["out.bias"]
        torch.nn.functional.binary_cross_entropy_with_logits(z, y).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(matrices + vectors, clip)
        opt.step()
        history.append({k: v.detach().clone() for k, v in p.items()})
    result = {"weights": {k: v.detach().flatten().tolist() for k, v in p.items()}}
    if decay:
        shares = [decay ** (STEPS - 1 - i) for i in range(STEPS)]
        result["average"] = {k: (sum(s * h[k] for s, h in zip(shares, history)) / sum(shares)).flatten().tolist() for k in p}
    out["variants"][name] = result
print(json.dumps(out, indent=1))
