"""Makes golden.json: what statsforecast 2.1.1 and statsmodels 0.15.0 say about three series.

    pip install statsforecast==2.1.1 statsmodels==0.15.0
    python golden.py > golden.json

Series: the airline passengers of Box and Jenkins (1949-1960, monthly, 144 values, m = 12), an hourly series of two
seasons (24 and 168) made by a formula and a linear congruential generator, and counts with many zeros made the same way.
"""
import json
import math
import sys

import numpy as np
import statsforecast.models as sm
from statsforecast import ets as E
from statsforecast import theta as T
from statsmodels.tsa.seasonal import STL, seasonal_decompose

AIR = [112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118, 115, 126, 141, 135, 125, 149, 170, 170, 158, 133, 114, 140,
       145, 150, 178, 163, 172, 178, 199, 199, 184, 162, 146, 166, 171, 180, 193, 181, 183, 218, 230, 242, 209, 191, 172, 194,
       196, 196, 236, 235, 229, 243, 264, 272, 237, 211, 180, 201, 204, 188, 235, 227, 234, 264, 302, 293, 259, 229, 203, 229,
       242, 233, 267, 269, 270, 315, 364, 347, 312, 274, 237, 278, 284, 277, 317, 313, 318, 374, 413, 405, 355, 306, 271, 306,
       315, 301, 356, 348, 355, 422, 465, 467, 404, 347, 305, 336, 340, 318, 362, 348, 363, 435, 491, 505, 404, 359, 310, 337,
       360, 342, 406, 396, 420, 472, 548, 559, 463, 407, 362, 405, 417, 391, 419, 461, 472, 535, 622, 606, 508, 461, 390, 432]


def lcg(n, seed):
    out = []
    for _ in range(n):
        seed = (seed * 1103515245 + 12345) % 2**31
        out.append(seed / 2**31)
    return out


u = lcg(24 * 21, 7)
HOURLY = [round(200 + .05 * t + 60 * math.sin(2 * math.pi * t / 24) + 25 * math.cos(4 * math.pi * t / 24)
                + 30 * math.sin(2 * math.pi * t / 168) + 40 * (u[t] - .5), 2) for t in range(24 * 21)]
u, v = lcg(120, 3), lcg(120, 11)
COUNTS = [0 if u[t] < .6 else 1 + int(8 * v[t] ** 2) for t in range(120)]


def seasonal_test(x, m):
    d = x - x.mean()
    acf = np.array([(d[k:] * d[:-k]).sum() for k in range(1, m + 1)]) / (d * d).sum()
    return len(x) >= 3 * m and abs(acf[-1]) > 1.645 / np.sqrt(len(x)) * np.sqrt(1 + 2 * (acf[:-1] ** 2).sum())


def naive2(x, h, m):
    """The benchmark code of the M4 competition."""
    if not seasonal_test(x, m):
        return np.full(h, x[-1])
    s = seasonal_decompose(x, period=m, model="multiplicative").seasonal
    return x[-1] / s[-1] * np.resize(s[-m:], h)


def one(y, m, h):
    y = np.array(y, float)
    r = {"y": y.tolist(), "m": m, "h": h, "mean": {}}
    f = lambda model: model.forecast(y=y, h=h)["mean"].tolist()
    r["mean"]["seasonal-naive"] = f(sm.SeasonalNaive(m))
    r["mean"]["naive"] = f(sm.Naive())
    r["mean"]["seasonal-window-average"] = f(sm.SeasonalWindowAverage(m, 8))
    r["mean"]["ses"] = f(sm.SimpleExponentialSmoothingOptimized())
    r["mean"]["croston"] = f(sm.CrostonClassic())
    r["mean"]["sba"] = f(sm.CrostonSBA())
    r["mean"]["tsb"] = f(sm.TSB(.1, .1))
    r["mean"]["adida"] = f(sm.ADIDA())
    r["mean"]["imapa"] = f(sm.IMAPA())
    r["mean"]["naive2"] = naive2(y, h, m).tolist()
    for name, kind in (("theta", "STM"), ("dynamic-theta", "DOTM")):
        o = T.auto_theta(y, m, model=kind)
        r["mean"][name] = T.forecast_theta(o, h)["mean"].tolist()
        r[name + "_sse"] = float((np.array(T.thetamodel(y, m, kind, np.nan, np.nan, np.nan, 3)["residuals"])[3:] ** 2).sum())
    # ETS: each form by itself, with its likelihood, and the choice
    r["ets"] = []
    for e in "AM":
        for t, d in (("N", False), ("A", False), ("A", True)):
            for s in "NAM":
                if e == "A" and s == "M" or (e == "M" or s == "M") and y.min() <= 0:
                    continue
                o = E.ets_f(y, m, model=e + t + s, damped=d)
                p = o["par"]
                r["ets"].append({"form": f"ETS({e},{t}{'d' if d else ''},{s})", "loglik": o["loglik"], "aicc": o["aicc"],
                                 "par": [None if np.isnan(x) else float(x) for x in p[:4]], "state": p[4:].tolist(),
                                 "mean": E.forecast_ets(o, h)["mean"].tolist()})
    r["ets_best"] = E.ets_f(y, m)["method"]
    fit = STL(y, period=m, seasonal=11, seasonal_deg=0).fit()
    r["stl"] = {"season": fit.seasonal.tolist(), "trend": fit.trend.tolist()}
    # scores of the seasonal naive forecast of the last h values
    a, b = y[:-h], y[-h:]
    g = np.array(sm.SeasonalNaive(m).forecast(y=a, h=h)["mean"])
    n2 = naive2(a, h, m)
    smape = lambda y, f: float(200 * np.mean(np.abs(y - f) / np.maximum(np.abs(y) + np.abs(f), 1e-12)))
    mase = lambda f: float(np.mean(np.abs(b - f)) / np.mean(np.abs(a[m:] - a[:-m])))
    r["scores"] = {"smape": smape(b, g), "mase": mase(g), "owa": .5 * (smape(b, g) / smape(b, n2) + mase(g) / mase(n2)),
                   "rmsse": float(np.sqrt(np.mean((b - g) ** 2) / np.mean(np.diff(a) ** 2))),
                   "pinball90": float(np.mean(np.maximum(.9 * (b - g), -.1 * (b - g))) / np.mean(np.abs(np.diff(a))))}
    return r


def rounded(x):
    if isinstance(x, float):
        return float(f"{x:.10g}")
    if isinstance(x, dict):
        return {k: rounded(v) for k, v in x.items()}
    if isinstance(x, list):
        return [rounded(v) for v in x]
    return x


json.dump(rounded({"air": one(AIR, 12, 24), "hourly": one(HOURLY, 24, 48), "counts": one(COUNTS, 7, 14)}), sys.stdout,
          separators=(",", ":"))
print()
