"""Training small networks on the processor: onmart beside PyTorch and JAX, in turns.

    python3 docs/bench/train_peers.py --onmart ONMART [--rounds 5] [--seconds 1] [--threads 2] [--out FILE.json]

32-128-128-1 and 15-500-1 with ReLU, Adam, float32, the cross-entropy of a logit, batches of 64, 1,024 and 8,192. Every
round times each network in each system once, for --seconds (the median of seven parts), and the figure is the median
over rounds. PyTorch runs eagerly, with its fused optimizer, and by torch.compile with the fused optimizer; it takes its
batches as slices of 65,536 rows in memory. JAX runs one jitted step with donated state over eight batches in memory.
onmart gathers each batch by a permutation of 65,536 rows, which the others do not have to do. With ONMART_CPU=avx2 as a
column of its own where the processor has more. It needs torch, jax and numpy.
"""
import argparse, json, os, statistics, sys, time
os.environ.setdefault("CUDA_VISIBLE_DEVICES", ""); os.environ.setdefault("JAX_PLATFORMS", "cpu")
import peers

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--onmart", help="the binary")
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--seconds", type=float, default=1)
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--batches", default="64,1024,8192")
ap.add_argument("--nets", default="32-128-128-1,15-500-1")
ap.add_argument("--systems", default="onmart,onmart avx2,torch eager,torch fused,torch compile,jax jit")
ap.add_argument("--tries", type=int, default=1, help="times that a piece is timed at most until the machine is quiet")
ap.add_argument("--lock", help="file that is locked while the systems are timed on one network")
ap.add_argument("--realtime", action="store_true", help="time all systems at real-time priority: for a machine that others use; needs root")
ap.add_argument("--out", help="JSON file to write")
ap.add_argument("--serve", help=argparse.SUPPRESS)
a = ap.parse_args()
ROWS, PARTS = 8192 * 8, 7


def torch_step(widths, batch, mode):
    import torch
    torch.set_num_threads(a.threads); torch.manual_seed(0)
    layers = []
    for i, o in zip(widths[:-1], widths[1:-1]): layers += [torch.nn.Linear(i, o), torch.nn.ReLU()]
    m = torch.nn.Sequential(*layers, torch.nn.Linear(*widths[-2:]))
    x = torch.randn(ROWS, widths[0]); y = (torch.rand(ROWS, 1) < .1).float()
    adam = torch.optim.Adam(m.parameters(), lr=1e-3, fused=(mode != "eager") or None)
    loss = lambda x, y: torch.nn.functional.binary_cross_entropy_with_logits(m(x), y)
    if mode == "compile": loss = torch.compile(loss, dynamic=False)
    at = 0
    def step():
        nonlocal at
        j = at; at = (j + batch) % ROWS
        adam.zero_grad(); loss(x[j:j + batch], y[j:j + batch]).backward(); adam.step()
    return step, lambda: None


def jax_step(widths, batch, mode):
    import jax, jax.numpy as jnp, numpy as np
    keys = jax.random.split(jax.random.PRNGKey(0), len(widths))
    p = [(jax.random.normal(k, (i, o)) / i ** .5, jnp.zeros(o)) for k, i, o in zip(keys, widths, widths[1:])]
    zero = lambda: jax.tree.map(jnp.zeros_like, p)
    state = (p, zero(), zero(), jnp.zeros(()))
    rng = np.random.default_rng(0)
    x = [jnp.asarray(rng.standard_normal((batch, widths[0]), dtype="f4")) for _ in range(8)]
    y = [jnp.asarray((rng.random((batch, 1)) < .1).astype("f4")) for _ in range(8)]
    def loss(p, x, y):
        for w, c in p[:-1]: x = jax.nn.relu(x @ w + c)
        z = x @ p[-1][0] + p[-1][1]
        return jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))
    def update(s, x, y):
        p, m, v, t = s; l, g = jax.value_and_grad(loss)(p, x, y); t = t + 1
        m = jax.tree.map(lambda m, g: .9 * m + .1 * g, m, g)
        v = jax.tree.map(lambda v, g: .999 * v + .001 * g * g, v, g)
        k = jnp.sqrt(1 - .999 ** t) / (1 - .9 ** t)
        return (jax.tree.map(lambda p, m, v: p - 1e-3 * k * m / (jnp.sqrt(v) + 1e-8), p, m, v), m, v, t), l
    u = jax.jit(update, donate_argnums=0); i = 0
    def step():
        nonlocal state, i
        state, _ = u(state, x[i % 8], y[i % 8]); i += 1
    return step, lambda: jax.block_until_ready(state)


made = {}


def answer(net, batch, mode, seconds):
    """Rows a second of one network; seconds 0 only makes it ready."""
    key = net, batch, mode
    if key not in made:
        widths = [int(w) for w in net.split("-")]
        step, sync = (jax_step if mode == "jit" else torch_step)(widths, batch, mode)
        for _ in range(20): step()
        sync(); made[key] = step, sync
    step, sync = made[key]
    if not seconds: return {}
    def chunk(n):
        t = time.perf_counter()
        for _ in range(n): step()
        sync(); return time.perf_counter() - t
    chunk(3); per = chunk(5) / 5; n = max(2, int(seconds / PARTS / per))
    return {"rows_s": batch * n / statistics.median(chunk(n) for _ in range(PARTS))}


def onmart(net, batch, seconds, env=None):
    r = peers.command([a.onmart, "bench", "train", "--json", "--case", f"mlp-{net}-b{batch}", "--threads", str(a.threads),
                       "--seconds", str(seconds / PARTS), "--rounds", str(PARTS)], realtime=a.realtime, env=env)
    backends[env is not None] = r["backend"]; trips.setdefault((net, batch), []).append(max(r["round_trip_ns"]))
    return r["cases"][0]["rows_per_second"]["median"]


if a.serve:
    peers.serve(answer); sys.exit()
if not a.onmart: ap.error("--onmart is missing")
backends, trips = {}, {}
systems = a.systems.split(",")
if "onmart avx2" in systems:
    onmart("15-500-1", 64, .05); onmart("15-500-1", 64, .05, {"ONMART_CPU": "avx2"})
    trips.clear()
    if backends[False] == backends[True]: systems.remove("onmart avx2")
cores = set(sorted(os.sched_getaffinity(0))[:a.threads])
workers = {}
for lib in dict.fromkeys(s.split()[0] for s in systems if not s.startswith("onmart")):
    workers[lib] = peers.Worker([sys.executable, __file__, "--serve", lib, "--threads", str(a.threads)], cores=cores, realtime=a.realtime,
                                env={"OMP_NUM_THREADS": str(a.threads), "OPENBLAS_NUM_THREADS": str(a.threads)})
pieces = {}
for net in a.nets.split(","):
    for batch in map(int, a.batches.split(",")):
        for s in systems:
            lib, _, mode = s.partition(" ")
            if lib == "onmart":
                env = {"ONMART_CPU": mode} if mode else None
                pieces[(net, batch), s] = lambda net=net, batch=batch, env=env: onmart(net, batch, a.seconds, env)
            else:
                workers[lib].ask(net=net, batch=batch, mode=mode, seconds=0)
                pieces[(net, batch), s] = lambda net=net, batch=batch, w=workers[lib], mode=mode: \
                    w.timed(net=net, batch=batch, mode=mode, seconds=a.seconds)["rows_s"]
print("ready", file=sys.stderr, flush=True)
values, shares = peers.in_turns(pieces, a.rounds, peers.Lock(a.lock), lambda: [w.p.pid for w in workers.values()], a.tries,
                                lambda i: print("round", i + 1, file=sys.stderr, flush=True))


def medians(key, rounds):
    m = {s: peers.median(values[key, s][i] for i in rounds) for s in systems}
    torch, jax = max((m[s] for s in systems if s.startswith("torch")), default=None), m.get("jax jit")
    return m, m["onmart"] / torch if torch else None, m["onmart"] / jax if jax else None


def line(key, rounds, *more):
    m, *ratios = medians(key, rounds)
    return [*key, *more] + [peers.si(m[s]) for s in systems] + [f"{r:.2f}" if r else "" for r in ratios]


keys, every, head = list(dict.fromkeys(k for k, _ in pieces)), range(a.rounds), systems + ["to PyTorch's best", "to JAX"]
print(f"{peers.cpu()}, {a.threads} threads, {a.rounds} rounds, {backends.get(False)}\n")
print(peers.table(["network", "batch"] + head, [line(k, every) for k in keys]))
# A virtual machine's cores move: rounds in which they shared a cache, and others.
FAR = 200  # ns; a shared cache takes 60 to 120, another socket 400 and more
near = {k: [i for i in every if trips[k][i] < FAR] for k in keys} if a.threads > 1 and "onmart avx2" not in systems else {}
if any(near.values()) and any(len(v) < a.rounds for v in near.values()):
    rows = [line(k, group, name, len(group)) for k in keys for name, group in
            (("near", near[k]), ("far", [i for i in every if i not in near[k]])) if group]
    print("\nby how far the cores were apart\n\n" + peers.table(["network", "batch", "cores", "rounds"] + head, rows))
cases = []
for k in keys:
    m, torch, jax = medians(k, every)
    cases.append({"net": k[0], "batch": k[1], "rows_s": m, "to_torch": torch, "to_jax": jax, "rounds": {s: values[k, s] for s in systems},
                  "round_trip_ns": trips[k], "others": {s: peers.median(shares[k, s]) for s in systems}})
trips = [t for v in trips.values() for t in v]
worst = max((x for v in shares.values() for x in v), default=0)
print(f"\nothers used {peers.median([x for v in shares.values() for x in v]):.2f} of a core in the median piece, {worst:.2f} in the worst;")
print(f"a number went from one core to another and back in {peers.median(trips):.0f} ns ({min(trips):.0f} to {max(trips):.0f})")
if a.out:
    json.dump({"cpu": peers.cpu(), "threads": a.threads, "rounds": a.rounds, "seconds": a.seconds, "realtime": a.realtime, "backend": backends.get(False),
               "versions": peers.versions("torch", "jax", "jaxlib", "numpy"), "cases": cases}, open(a.out, "w"), indent=1)
