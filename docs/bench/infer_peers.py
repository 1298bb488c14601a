"""Forward passes of small networks on the processor: onmart beside onnxruntime and PyTorch, in turns.

    python3 docs/bench/infer_peers.py --onmart ONMART [--rounds 5] [--threads 2] [--out FILE.json]

32-128-128-1 and 15-500-1 with ReLU and a sigmoid behind them, float32 in, a probability out. One row: the median and
the 99th percentile of a call on one thread, two readings of the clock included; a peer is called from Python, with
bound buffers onnxruntime has nothing to convert. 1,024 rows: rows a second on one thread and on --threads, the median of
seven parts. Every round measures each system once, the figure is the median over rounds. With ONMART_CPU=avx2 as a
column of its own where the processor has more. It needs onnx, onnxruntime, torch and numpy.
"""
import argparse, json, os, statistics, sys, time
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
import peers

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--onmart", help="the binary")
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--seconds", type=float, default=.7, help="of a piece with 1,024 rows")
ap.add_argument("--calls", type=int, default=20000, help="calls with one row in a piece")
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--nets", default="32-128-128-1,15-500-1")
ap.add_argument("--tries", type=int, default=1, help="times that a piece is timed at most until the machine is quiet")
ap.add_argument("--lock", help="file that is locked while the systems are timed on one network")
ap.add_argument("--realtime", action="store_true", help="time all systems at real-time priority: for a machine that others use; needs root")
ap.add_argument("--out", help="JSON file to write")
ap.add_argument("--serve", help=argparse.SUPPRESS)
a = ap.parse_args()
BATCH, PARTS = 1024, 7
SYSTEMS = {"one row": ["onmart", "onmart avx2", "onnxruntime", "onnxruntime bound", "torch", "torch traced"],
           "1 thread": ["onmart", "onmart avx2", "onnxruntime", "onnxruntime bound", "torch"]}
SYSTEMS[f"{a.threads} threads"] = SYSTEMS["1 thread"]


def weights(widths):
    import numpy as np
    rng = np.random.default_rng(0)
    return [((rng.standard_normal((i, o)) / i ** .5).astype("f4"), np.zeros(o, "f4")) for i, o in zip(widths, widths[1:])]


def onnx_session(widths, threads):
    import onnx, onnxruntime as ort
    from onnx import TensorProto, helper as h, numpy_helper as nh
    nodes, init, x, layers = [], [], "x", weights(widths)
    for i, (w, b) in enumerate(layers):
        init += [nh.from_array(w, f"w{i}"), nh.from_array(b, f"b{i}")]
        nodes.append(h.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"g{i}"]))
        x = f"a{i}"
        nodes.append(h.make_node("Relu" if i < len(layers) - 1 else "Sigmoid", [f"g{i}"], [x]))
    g = h.make_graph(nodes, "mlp", [h.make_tensor_value_info("x", TensorProto.FLOAT, [None, widths[0]])],
                     [h.make_tensor_value_info(x, TensorProto.FLOAT, [None, 1])], init)
    m = h.make_model(g, opset_imports=[h.make_opsetid("", 17)]); m.ir_version = 9; onnx.checker.check_model(m)
    o = ort.SessionOptions(); o.intra_op_num_threads = threads; o.inter_op_num_threads = 1
    return ort.InferenceSession(m.SerializeToString(), o, providers=["CPUExecutionProvider"]), x


def onnx_call(widths, threads, bound, rows):
    """A function of the index of a call."""
    import numpy as np, onnxruntime as ort
    s, out = onnx_session(widths, threads)
    if not bound: return lambda i: s.run(None, {"x": rows[i % len(rows)]})
    x = ort.OrtValue.ortvalue_from_numpy(rows[0]); y = ort.OrtValue.ortvalue_from_numpy(np.zeros((len(rows[0]), 1), "f4"))
    b = s.io_binding(); b.bind_ortvalue_input("x", x); b.bind_ortvalue_output(out, y)
    return lambda i: s.run_with_iobinding(b)


made, guards = {}, []  # a guard ends when it is collected


def torch_call(widths, threads, traced, rows):
    import torch
    layers = []
    for w, b in weights(widths):
        l = torch.nn.Linear(*w.shape); l.weight.data = torch.from_numpy(w.T.copy()); l.bias.data = torch.from_numpy(b)
        layers += [l, torch.nn.ReLU()]
    m = torch.nn.Sequential(*layers[:-1], torch.nn.Sigmoid()).eval()
    torch.set_num_threads(threads)
    if traced: m = torch.jit.freeze(torch.jit.trace(m, torch.from_numpy(rows[0])))
    if not guards: guards.append(torch.inference_mode()); guards[0].__enter__()
    return lambda i: m(torch.from_numpy(rows[i % len(rows)])).numpy()


def answer(net, what, system, threads, ready):
    import numpy as np
    key = net, what, system
    if key not in made:
        widths = [int(w) for w in net.split("-")]
        rng = np.random.default_rng(1)
        n = 1 if what == "one row" else BATCH
        rows = [rng.standard_normal((n, widths[0]), dtype="f4") for _ in range(256 if n == 1 else 1)]
        lib, _, how = system.partition(" ")
        made[key] = (onnx_call if lib == "onnxruntime" else torch_call)(widths, threads, bool(how), rows)
        for i in range(300 if n == 1 else 20): made[key](i)
    call = made[key]
    if system.startswith("torch"):
        import torch
        torch.set_num_threads(threads)
    if ready: return {}
    clock = time.perf_counter_ns
    if what == "one row":
        for i in range(300): call(i)
        v = np.empty(a.calls)
        for i in range(a.calls):
            t = clock(); call(i); v[i] = clock() - t
        p50, p99 = np.percentile(v, [50, 99]) / 1e3
        return {"p50": float(p50), "p99": float(p99)}
    t = clock()
    for i in range(20): call(i)
    n = max(5, int(a.seconds / PARTS / ((clock() - t) / 20e9)))
    def part():
        t = clock()
        for i in range(n): call(i)
        return BATCH * n / (clock() - t) * 1e9
    return {"rows_s": statistics.median(part() for _ in range(PARTS))}


def onmart(net, env=None):
    """All of a network in one process: three pieces."""
    r = peers.command([a.onmart, "bench", "infer", "--json", "--case", net, "--threads", str(a.threads), "--single", str(a.calls),
                       "--seconds", str(a.seconds / PARTS), "--rounds", str(PARTS)], realtime=a.realtime, env=env)
    backends[env is not None] = r["backend"]
    c = r["cases"][0]
    return {"one row": (c["single_p50_us"], c["single_p99_us"]), "1 thread": c["batch1024_rows_per_second"]["median"],
            f"{a.threads} threads": c["batch1024_parallel_rows_per_second"]["median"]}


def ask(w, ready=False, **request):
    r = (w.ask if ready else w.timed)(ready=ready, **request)
    return r.get("rows_s") or r and (r["p50"], r["p99"])


if a.serve:
    peers.serve(answer); sys.exit()
if not a.onmart: ap.error("--onmart is missing")
backends, workers = {}, {}
nets = a.nets.split(",")
onmart(nets[0]); onmart(nets[0], {"ONMART_CPU": "avx2"})
ours = ["onmart"] if backends[False] == backends[True] else ["onmart", "onmart avx2"]
pieces = {}
for net in nets:
    for s in ours:
        env = {"ONMART_CPU": "avx2"} if s != "onmart" else None
        pieces[net, s] = lambda net=net, env=env: onmart(net, env)
    for what, systems in SYSTEMS.items():
        n = a.threads if what.endswith("threads") else 1
        for s in systems:
            if s.startswith("onmart"): continue
            # A process for each number of threads: a pool that was made stays.
            key = s.split()[0], n
            if key not in workers:
                workers[key] = peers.Worker([sys.executable, __file__, "--serve", key[0], "--seconds", str(a.seconds), "--calls", str(a.calls)],
                                            realtime=a.realtime, cores=set(sorted(os.sched_getaffinity(0))[:n]),
                                            env={"OMP_NUM_THREADS": str(n)})
            request = dict(net=net, what=what, system=s, threads=n)
            ask(workers[key], ready=True, **request)
            pieces[net, (what, s)] = lambda w=workers[key], request=request: ask(w, **request)
print("ready", file=sys.stderr, flush=True)
values, shares = peers.in_turns(pieces, a.rounds, peers.Lock(a.lock), lambda: [w.p.pid for w in workers.values()], a.tries,
                                lambda i: print("round", i + 1, file=sys.stderr, flush=True))
print(f"{peers.cpu()}, {a.rounds} rounds, {backends[False]}\n")
rows, cases = [], []
for net in nets:
    for what, systems in SYSTEMS.items():
        v = {}
        for s in systems:
            if s in ours: v[s] = [r[what] for r in values[net, s]]
            elif (net, (what, s)) in values: v[s] = values[net, (what, s)]
        if what == "one row":
            m = {s: peers.median(x for x, _ in r) for s, r in v.items()}
            cell = {s: f"{m[s]:.2f} ({peers.median(x for _, x in r):.2f})" for s, r in v.items()}
            ratio = min(m[s] for s in m if s.startswith("onnx")) / m["onmart"]
        else:
            m = {s: peers.median(r) for s, r in v.items()}
            cell = {s: peers.si(m[s]) for s in m}
            ratio = m["onmart"] / max(m[s] for s in m if s.startswith("onnx"))
        head = ["onmart"] + ours[1:] + SYSTEMS["one row"][2:]
        rows.append([net, "one row, us p50 (p99)" if what == "one row" else f"1,024 rows, {what}, rows/s"]
                    + [cell.get(s, "") for s in head] + [f"{ratio:.2f}"])
        cases.append({"net": net, "what": what, "median": m, "to_onnxruntime": ratio, "rounds": v})
print(peers.table(["network", "what"] + head + ["to onnxruntime's best"], rows))
if a.out:
    json.dump({"cpu": peers.cpu(), "threads": a.threads, "rounds": a.rounds, "realtime": a.realtime, "backend": backends[False],
               "versions": peers.versions("torch", "onnxruntime", "onnx", "numpy"), "cases": cases}, open(a.out, "w"), indent=1)
