import json, numpy as np
from safetensors.numpy import load_file

def act(kind, z):
    return np.maximum(z, 0) if kind == "relu" else z / (1 + np.exp(-np.clip(z, -87, 87))) if kind == "silu" else z

def scores(model, X):  # X: one row a transaction, columns in the order of "features" in manifest.json
    weights, forward = load_file(model + "/weights.safetensors"), json.load(open(model + "/program.json"))["forward"]
    v = [X if b["kind"] == "input" else weights.get(b["name"]) for b in forward["buffers"]]
    for i in forward["instrs"]:
        v[i["outs"][0]] = {
            "standardize": lambda x, mean, scale, log: ((np.where(log == 1, np.log1p(np.maximum(x, 0)), x) - mean) * scale).astype("f4"),
            "matmul": lambda x, w, b=0: act(i["attr"].get("act"), x @ w + b),
            "activate": lambda z: act(i["attr"].get("act"), z),
            "add": lambda x, y: x + y,
            "scale": lambda x: x * np.float32(i["attr"]["scale"]),
            "calibrate": lambda z, ab: 1 / (1 + np.exp(-(ab[0] * z.astype("f8") + ab[1]))),
        }[i["op"]](*(v[k] for k in i["args"]))
    return v[i["outs"][0]][:, 0]
