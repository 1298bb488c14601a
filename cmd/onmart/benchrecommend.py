"""The peers' side of `onmart bench recommend`; it prints one JSON object.

python benchrecommend.py search DIR DIM QUERIES     faiss IndexFlatIP over DIR/items, one query a call, one thread
python benchrecommend.py split DIR PEERS CSV CUT    Online Retail before CUT as a matrix, in DIR
python benchrecommend.py score DIR PEERS SEEDS ...  nDCG@10 of implicit's ALS, and of the factors in DIR
"""
import contextlib
import json
import sys
import time

import numpy as np


def search(d, dim, repeats):
    import faiss
    faiss.omp_set_num_threads(1)
    items = np.fromfile(d + "/items", "<f4").reshape(-1, dim)
    queries = np.fromfile(d + "/queries", "<f4").reshape(-1, dim)
    index = faiss.IndexFlatIP(dim)
    index.add(items)
    ids = index.search(queries, 10)[1]
    times = []
    for k in range(repeats):
        q = queries[k % len(queries)][None]
        t = time.perf_counter()
        index.search(q, 10)
        times.append(time.perf_counter() - t)
    return {"version": faiss.__version__, "seconds": float(np.median(times)), "ids": ids.tolist()}


def split(d, peers, csv, cut):
    sys.path.insert(0, peers)
    import pandas as pd
    from retail import purchases
    with contextlib.redirect_stdout(sys.stderr):
        p = purchases(csv)
    cut = pd.Timestamp(cut)
    train, test = p[p["when"] < cut], p[(p["when"] >= cut) & (p["when"] < cut + pd.DateOffset(months=1))]
    users, items = np.sort(train["CustomerID"].unique()), np.sort(train["StockCode"].unique())
    u, i = pd.Series(np.arange(len(users)), users), pd.Series(np.arange(len(items)), items)
    test = test[test["CustomerID"].isin(users) & test["StockCode"].isin(items)]
    for name, part in (("train", train), ("test", test)):
        pairs = part[["CustomerID", "StockCode"]].drop_duplicates()
        cells = np.stack([u[pairs["CustomerID"]].to_numpy(), i[pairs["StockCode"]].to_numpy()], 1)
        cells.astype("<i4").tofile(f"{d}/{name}")
    return {"users": len(users), "items": len(items)}


def score(d, peers, seeds, users, items, factors, regularization, alpha, iterations):
    sys.path.insert(0, peers)
    import scipy.sparse as sp
    from common import rank_metrics, topk
    from threadpoolctl import threadpool_limits
    cells = {n: np.fromfile(f"{d}/{n}", "<i4").reshape(-1, 2) for n in ("train", "test")}
    X, Y = (sp.csr_matrix((np.ones(len(c), np.float32), (c[:, 0], c[:, 1])), (users, items)) for c in cells.values())
    rows = np.flatnonzero(np.diff(Y.indptr))
    new = sp.csr_matrix(Y[rows] - Y[rows].multiply(X[rows]))
    new.eliminate_zeros()

    def ndcg(u, v):
        s = u[rows] @ v.T
        every = rank_metrics(topk(s, 10), Y[rows])["ndcg"]
        s[X[rows].nonzero()] = -np.inf
        return [every, rank_metrics(topk(s, 10), new)["ndcg"]]

    from implicit.cpu.als import AlternatingLeastSquares
    out = {"peer": [], "onmart": []}
    with threadpool_limits(1, "blas"):
        for seed in range(1, seeds + 1):
            m = AlternatingLeastSquares(factors=factors, regularization=regularization, alpha=alpha, iterations=iterations,
                                        num_threads=0, random_state=seed)
            m.fit(X, show_progress=False)
            out["peer"].append(ndcg(m.user_factors, m.item_factors))
            f = np.fromfile(f"{d}/factors{seed}", "<f4").reshape(-1, factors)
            out["onmart"].append(ndcg(f[:users], f[users:]))
    return out


mode, *args = sys.argv[1:]
if mode == "search":
    result = search(args[0], *map(int, args[1:]))
elif mode == "split":
    result = split(*args)
else:
    result = score(args[0], args[1], *map(int, args[2:6]), float(args[6]), float(args[7]), int(args[8]))
print(json.dumps(result))
