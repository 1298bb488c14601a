"""Forecasts of Onmart beside the peers of a folder of scripts, on the hourly series of the M4 competition.

python docs/bench/demand_m4.py --onmart ./onmart --m4 DIR --peers DIR [--hold 48] [--models lgb,AutoETS,...]

--m4 has Hourly-train.csv and Hourly-test.csv; --peers has m4lib.py, m4_global.py, m4_local.py and m4_score.py. Ours is
the panel m4-hourly, `onmart train demand` and `onmart forecast` with their defaults; both are timed together. With
--hold N the last N hours of the training file are forecast instead, 48 at a time at most: for choosing settings.
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
p.add_argument("--m4", required=True)
p.add_argument("--peers", required=True)
p.add_argument("--work", default=None, help="folder for what onmart makes (default: a temporary one)")
p.add_argument("--threads", default="2")
p.add_argument("--hold", type=int, default=0)
p.add_argument("--set", action="append", default=[], help="a setting of train demand")
p.add_argument("--seed", default="1")
p.add_argument("--method", default="combination")
p.add_argument("--models", default="lgb,AutoCES,DOT,AutoTheta,AutoETS", help="peers; empty for none")
a = p.parse_args()
sys.path.insert(0, a.peers)
from m4lib import naive2, read, score  # noqa: E402

work = a.work or tempfile.mkdtemp(prefix="onmart-m4-")
os.makedirs(work, exist_ok=True)


def onmart(*args):
    t = time.perf_counter()
    subprocess.run([a.onmart, *args, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - t


ids, train, test = read(a.m4, "Hourly")
until = []
tx, panel, model, out = (os.path.join(work, n) for n in ("values", "panel", "model", "forecast.parquet"))
onmart("import", "--preset", "m4-hourly", "--out", tx, "--force", os.path.join(a.m4, "Hourly-train.csv"))
secs = onmart("features", "--spec", "m4-hourly", "--in", tx, "--out", panel, "--force")
if a.hold:
    last = pd.read_parquet(sorted(glob.glob(os.path.join(panel, "*.parquet"))), columns=["step"])["step"].max()
    last = last.tz_localize("UTC") if last.tzinfo is None else last
    until = ["--train", ".." + (last - pd.Timedelta(hours=a.hold - 1)).strftime("%Y-%m-%dT%H:%M:%SZ")]
    test = np.stack([x[len(x) - a.hold:len(x) - a.hold + 48] for x in train])
    train = [x[:-a.hold] for x in train]
fit = onmart("train", "demand", "--data", panel, "--out", model, "--horizon", "48", "--threads", a.threads, "--seed", a.seed,
             "--device", "cpu", "--force", *until, *[x for s in a.set for x in ("--set", s)])
say = onmart("forecast", "--model", model, "--out", out, "--threads", a.threads, "--method", a.method, "--force")
f = pd.read_parquet(out).sort_values(["series", "step"])
F = np.stack([f[f["series"] == i]["mean"].to_numpy() for i in ids])
n2 = np.stack([naive2(x, 48, 24) for x in train])
s0, q0 = score(train, test, n2, 24)
s, q = score(train, test, F, 24)
print(f"{'onmart ' + a.method:34s} sMAPE {s:7.3f} MASE {q:6.3f} OWA {0.5 * (s / s0 + q / q0):.3f} n={len(ids)} {fit + say:8.2f} s "
      f"(training {fit:.1f}, forecast {say:.1f}; the panel before it {secs:.1f})", flush=True)
if a.models and not a.hold:
    keep = os.path.join(work, "peers")
    for m in a.models.split(","):
        script = "m4_global.py" if m.startswith("lgb") else "m4_local.py"
        subprocess.run([sys.executable, os.path.join(a.peers, script), a.m4, keep, "--freq", "Hourly", "--model", m], check=False)
    subprocess.run([sys.executable, os.path.join(a.peers, "m4_score.py"), a.m4, keep, "--freq", "Hourly"], check=False)
