"""Forecasts of Onmart beside the peers of a folder of scripts, on UCI Online Retail.

python docs/bench/demand_retail.py --onmart ./onmart --csv DIR --peers DIR [--cut 2011-10-04] [--models ...]

--csv has the transactions as CSV, of which onmart imports the first file; --peers has demandlib.py and
retail_demand.py. Both sides see the same days before --cut and are scored by demandlib on the same series, the 28 days
from --cut on. Ours is the panel online-retail-daily, `onmart train demand` and `onmart forecast` with their defaults.
The first line of each peer is as it is, the second with its Saturdays set to zero, where that changes anything.
"""
import argparse
import glob
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import pandas as pd

p = argparse.ArgumentParser()
p.add_argument("--onmart", default="./onmart")
p.add_argument("--csv", required=True)
p.add_argument("--peers", required=True)
p.add_argument("--cut", default="2011-10-04", help="first day that is forecast")
p.add_argument("--top", type=int, default=500)
p.add_argument("--work", default=None, help="folder for what onmart makes (default: a temporary one)")
p.add_argument("--threads", default="2")
p.add_argument("--set", action="append", default=[], help="a setting of train demand")
p.add_argument("--seed", default="1")
p.add_argument("--models", default="SeasonalNaive,WindowAverage,SeasonalWindowAverage,Croston,SBA,TSB,ADIDA,IMAPA,AutoETS,AutoTheta,climate,"
               "lgb_tweedie,lgb_tweedie_scaled,lgb_poisson,lgb_l1,lgb_recursive", help="peers; empty for none")
a = p.parse_args()
sys.path.insert(0, a.peers)
from demandlib import Panel, fmt, scores  # noqa: E402

work = a.work or tempfile.mkdtemp(prefix="onmart-demand-")
os.makedirs(work, exist_ok=True)


def onmart(*args):
    t = time.perf_counter()
    subprocess.run([a.onmart, *args, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - t


cut = pd.Timestamp(a.cut)
tx, panel, model, out = (os.path.join(work, n) for n in ("transactions", "panel", "model", "forecast.parquet"))
if not os.path.exists(tx):
    onmart("import", "--preset", "online-retail", "--out", tx, *sorted(glob.glob(os.path.join(a.csv, "*.csv"))))
before = (cut - pd.Timedelta(days=1)).strftime("%Y-%m-%d")
secs = onmart("features", "--spec", "online-retail-daily", "--in", tx, "--out", panel, "--range", f"..{before}", "--force")
fit = onmart("train", "demand", "--data", panel, "--out", model, "--train", f"..{before}", "--horizon", "28", "--threads", a.threads,
             "--seed", a.seed, "--device", "cpu", "--force", *[x for s in a.set for x in ("--set", s)])
say = onmart("forecast", "--model", model, "--out", out, "--threads", a.threads, "--force")

P = Panel(a.csv, a.top, cut=a.cut)
f = pd.read_parquet(out)
f["day"] = f["step"].dt.tz_convert("Europe/London").dt.tz_localize(None).dt.normalize() if f["step"].dt.tz is not None else \
    f["step"].dt.tz_localize("UTC").dt.tz_convert("Europe/London").dt.tz_localize(None).dt.normalize()
assert f["day"].min() == cut, (f["day"].min(), cut)


def get(column):
    w = f.pivot(index="series", columns="day", values=column)
    lost = [c for c in P.codes if c not in w.index]
    if lost:
        print("without a forecast, counted as zero:", lost)
    return w.reindex(P.codes).fillna(0.0).to_numpy()


Q = {0.5: get("q50"), 0.9: get("q90"), 0.95: get("q95")}
print(f"{'onmart':22s} D top{a.top} {fmt(scores(P, get('mean'), Q))} | panel {secs:.1f} s, training on all goods {fit:.1f} s, forecast {say:.1f} s", flush=True)
if a.models:
    subprocess.run([sys.executable, os.path.join(a.peers, "retail_demand.py"), a.csv, "--top", str(a.top), "--cut", a.cut, "--models", a.models], check=True)
