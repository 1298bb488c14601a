"""Factors after one iteration, and losses of four, of the library implicit 0.7.3 on a small matrix, from the initial
factors of trainALS. Later factors of conjugate gradients in float32 are off from those in float64 by 4e-3, so that only
their losses can be compared.

python als_implicit.py > als_implicit.json
"""
import json

import numpy as np
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares

USERS, ITEMS, FACTORS, ITERATIONS, SEED = 30, 20, 6, 4, 7


def philox(seed, site, row, column):
    c = [column, row & 0xFFFFFFFF, row >> 32, site]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(b >> 32) ^ c[1] ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k1, a & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def initial(rows, site):
    x = np.zeros((rows, FACTORS), np.float32)
    for r in range(rows):
        for j in range(FACTORS):
            x[r, j] = np.float32(0.01) * np.float32((philox(SEED, site, r, j // 4)[j % 4] >> 8) * 2.0 ** -24)
    return x


g = np.random.default_rng(1)
dense = (g.random((USERS, ITEMS)) < 0.3) * (1 + g.poisson(0.7, (USERS, ITEMS)))
dense[4], dense[:, 9] = 0, 0        # a user without items, an item without users
X = sp.csr_matrix(dense.astype(np.float32))
out = {"made_by": "als_implicit.py, implicit 0.7.3", "factors": FACTORS, "iterations": ITERATIONS, "seed": SEED, "alpha": 2.0,
       "regularization": 0.05, "users": USERS, "items": ITEMS, "start": X.indptr.tolist(), "index": X.indices.tolist(),
       "value": X.data.tolist(), "runs": []}


def fit(cg, iterations):
    losses = []
    m = AlternatingLeastSquares(factors=FACTORS, regularization=0.05, alpha=2.0, iterations=iterations, use_cg=cg, num_threads=1,
                                calculate_training_loss=True, random_state=1)
    m.user_factors, m.item_factors = initial(USERS, 1), initial(ITEMS, 2)
    m.fit(X, show_progress=False, callback=lambda it, el, loss=None: losses.append(float(loss)))
    return m, losses


def numbers(x):
    return np.round(x, 6).astype(float).ravel().tolist()


for cg in (True, False):
    m, _ = fit(cg, 1)
    run = {"exact": not cg, "losses": fit(cg, ITERATIONS)[1], "user_factors": numbers(m.user_factors), "item_factors": numbers(m.item_factors)}
    if not cg:
        run["recalculated"] = numbers(m.recalculate_user(0, X[0]))
    out["runs"].append(run)
print(json.dumps(out))
