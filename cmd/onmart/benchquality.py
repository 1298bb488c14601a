"""The peers' side of `onmart bench recommend-quality`; it prints one JSON object.

python benchquality.py PEERS CSV_DIR CUT ALL.parquet NEW.parquet

PEERS is the folder with online_retail.py, retail.py, common.py and models.py; ALL and NEW are the ten items for every
customer that `onmart recommend --all` wrote, NEW with --exclude-bought. Ours are scored on the split of
online_retail.py's prepare() by its rank_metrics; the peers run themselves, each with the settings that its --grid chose
on the month before CUT (for CUT 2011-10-01: --valcut 2011-09-01), once for each of the two readings.
"""
import json
import re
import subprocess
import sys

peers, folder, cut, path_all, path_new = sys.argv[1:6]
sys.path.insert(0, peers)
sys.dont_write_bytecode = True
import numpy as np
import pandas as pd
import scipy.sparse as sp
from common import rank_metrics
from retail import purchases

# What --grid chose on September 2011, for all items and for new ones.
CHOSEN = [
    ("own", {"half": 0, "days": 28}),
    ("tifu", {"half": 120, "knn": 100, "mix": 0.5, "days": 14}),
    ("tifu", {"half": 60, "knn": 100, "mix": 0.9, "days": 14}),
    ("blend", {"half": 60, "w": 0.7, "days": 28, "pw": 0.2, "bparams": {"lam": 800}}),
    ("blend", {"half": 60, "w": 0.3, "days": 14, "pw": 0.2, "bparams": {"lam": 300}}),
    ("ease", {"lam": 100, "binary": False}),
    ("ease", {"lam": 300, "binary": False, "half": 90, "log": True}),
    ("als", {"factors": 128, "reg": 20, "alpha": 1, "binary": False}),
    ("als", {"factors": 64, "reg": 20, "alpha": 1, "binary": False}),
    ("knn", {"kind": "tfidf", "K": 300}),
    ("knn", {"kind": "bm25", "K": 300}),
    ("rp3beta", {"beta": 0.2, "K": 300}),
    ("pop_recent", {"days": 28}),
]


def ours():
    d = purchases(folder)
    tr, te = d[d["when"] < pd.Timestamp(cut)], d[d["when"] >= pd.Timestamp(cut)]
    cu, it = np.sort(tr["CustomerID"].unique()), np.sort(tr["StockCode"].unique())
    ci, ii = pd.Series(np.arange(len(cu)), cu), pd.Series(np.arange(len(it)), it)
    te = te[te["CustomerID"].isin(cu) & te["StockCode"].isin(it)]
    shape = (len(cu), len(it))

    def matrix(f):
        m = sp.csr_matrix((np.ones(len(f), np.float32), (ci[f["CustomerID"]].to_numpy(), ii[f["StockCode"]].to_numpy())), shape=shape)
        m.data[:] = 1
        return m

    X, Y = matrix(tr), matrix(te)
    rows = np.flatnonzero(np.diff(Y.indptr))
    new = Y - Y.multiply(X)
    new.eliminate_zeros()
    out = {}
    for name, path, truth in (("all", path_all, Y), ("new", path_new, sp.csr_matrix(new))):
        f = pd.read_parquet(path).sort_values(["user_id", "rank"])
        top = np.full((len(cu), 10), -1)
        f = f[f["user_id"].isin(cu) & (f["rank"] <= 10)]
        top[ci[f["user_id"]].to_numpy(), f["rank"].to_numpy() - 1] = ii[f["product_id"].str.upper()].to_numpy()
        out[name] = rank_metrics(top[rows], sp.csr_matrix(truth[rows]))
    return out


def peer(name, params):
    text = subprocess.run([sys.executable, "-B", "online_retail.py", folder, "--cut", cut, "--model", name, "--params", json.dumps(params)],
                          cwd=peers, check=True, capture_output=True, text=True).stdout
    figures = re.findall(r"nDCG@10 ([0-9.]+) R@10 ([0-9.]+) P@10 [0-9.]+ HR@10 ([0-9.]+)", text)
    both = {}
    for reading, (ndcg, recall, hr) in zip(("all", "new"), figures):
        both[reading] = {"ndcg": float(ndcg), "recall": float(recall), "hr": float(hr)}
    return {"name": name, "params": json.dumps(params), **both}


sys.stdout, real = sys.stderr, sys.stdout
result = {"ours": ours(), "peers": []}
for chosen in CHOSEN:
    result["peers"].append(peer(*chosen))
    print(result["peers"][-1], flush=True)
print(json.dumps(result), file=real)
