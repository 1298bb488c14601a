"""Fraud models on the features of shop-fraud and of fraud-handbook, on one generated shop, judged by kind of fraud.

python docs/bench/shop_fraud.py --onmart ./onmart --work DIR [--seeds 3] [--rows 1500000] [--days 180]

Both are trained with the defaults of `train fraud`, on the same days, delay and seeds. The kinds of the frauds are
those that the generator wrote beside the shop, in frauds.parquet: nothing is trained on them. A kind's recall is of its
lines that are among the 100 a day with the greatest scores, over the whole of the test; its average precision is that
of its lines among the lines without fraud. Both count all cards, the other figures leave out known ones, as
`onmart evaluate` does. Needs numpy, pyarrow and scikit-learn.
"""
import argparse
import json
import os
import subprocess

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import average_precision_score

p = argparse.ArgumentParser()
p.add_argument("--onmart", default="./onmart")
p.add_argument("--work", required=True)
p.add_argument("--rows", default="1500000")
p.add_argument("--days", default="180")
p.add_argument("--shop-seed", default="7")
p.add_argument("--seeds", type=int, default=3)
p.add_argument("--specs", default="fraud-handbook,shop-fraud")
p.add_argument("--train", default="2026-01-01..2026-02-28")
p.add_argument("--test", default="2026-03-08..2026-04-04")
p.add_argument("--set", action="append", default=[], help="a setting of train fraud")
a = p.parse_args()
KINDS = ["stolen_card", "large_amount", "bad_store"]
FIGURES = ["average_precision", "auc", "card_precision_at_100", "log_loss"]


def path(name):
    return os.path.join(a.work, name)


def onmart(*args):
    out = subprocess.run([a.onmart, *args, "--json", "--quiet"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out)


def by_kind(predictions, kinds):
    t = pq.read_table(predictions, columns=["trans_id", "trans_datetime", "is_fraud", "score"])
    y, score = t["is_fraud"].to_numpy().astype(int), t["score"].to_numpy()
    kind = np.array([kinds.get(i, "") if f else "" for i, f in zip(t["trans_id"].to_pylist(), y)])
    days = len(np.unique(t["trans_datetime"].to_numpy().astype("datetime64[D]")))
    alert = score >= np.sort(score)[-100 * days]
    out = {"all_cards_average_precision": average_precision_score(y, score)}
    for k in KINDS:
        of = (kind == k) | (y == 0)
        out["recall of " + k] = alert[kind == k].mean()
        out["average precision of " + k] = average_precision_score(y[of], score[of])
    return out


os.makedirs(a.work, exist_ok=True)
if not os.path.exists(path("shop")):
    onmart("mock", "--out", path("shop"), "--rows", a.rows, "--days", a.days, "--seed", a.shop_seed)
frauds = pq.read_table(path("shop/frauds.parquet"))
kinds = dict(zip(frauds["trans_id"].to_pylist(), frauds["kind"].to_pylist()))
for spec in a.specs.split(","):
    made = onmart("features", "--spec", spec, "--in", path("shop"), "--out", path(spec), "--force")
    print(f"{spec}: {made['features']} features, {made['rows']:,} lines at {made['rows_per_second']:,.0f} a second")
    rows = []
    for seed in range(1, a.seeds + 1):
        t = onmart("train", "fraud", "--data", path(spec), "--out", path("model"), "--train", a.train, "--test", a.test,
                   "--seed", str(seed), "--device", "cpu", "--force", *[x for s in a.set for x in ("--set", s)])
        onmart("predict", "--model", path("model"), "--data", path(spec), "--range", a.test,
               "--out", path("predictions.parquet"), "--force")
        r = {f: t["test"]["model"][f] for f in FIGURES} | by_kind(path("predictions.parquet"), kinds)
        r["epochs"], r["seconds"] = t["epochs"], t["train_seconds"]
        rows.append(r)
        print(f"  seed {seed}: {t['test']['model']['rows']:.0f} rows, {t['test']['model']['positives']:.0f} frauds;",
              ", ".join(f"{b['name']} {b['metrics']['average_precision']:.4f}" for b in t["test"]["baselines"]), flush=True)
    for f in rows[0]:
        v = np.array([r[f] for r in rows])
        print(f"  {f:36s} median {np.median(v):.4f}  least {v.min():.4f}  greatest {v.max():.4f}", flush=True)
