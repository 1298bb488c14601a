"""Float32 matrix products at the shapes of the models: train/cpu beside OpenBLAS (numpy) and PyTorch, in turns.

    python3 docs/bench/gemm_peers.py [--rounds 9] [--threads 1,2] [--only REGEX] [--binary FILE] [--realtime]

The benchmark of train/cpu is built with go test -c, unless --binary names it. Every round runs each engine once on a shape,
about --ms milliseconds, and the peak: multiply-adds on registers and nothing else, one core. The table shows medians over
the rounds, in GFLOP/s (a multiply-add is two), our share of the peak of so many cores, and ratios of medians: of all
products of a round, and ("best") of the quickest half millisecond of each, which a busy machine disturbs less. A shape
is m x k x n; _ta and _tb mark a transposed side. ONMART_CPU is handed on.
"""
import argparse, os, re, statistics, subprocess, sys, tempfile, time


def parse():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rounds", type=int, default=9)
    ap.add_argument("--threads", default="1,2")
    ap.add_argument("--only", default="", help="a regular expression of shapes")
    ap.add_argument("--ms", type=float, default=20)
    ap.add_argument("--binary", help="the test binary of train/cpu")
    ap.add_argument("--engines", default="numpy,torch")
    ap.add_argument("--realtime", action="store_true",
                    help="time all at real-time priority, so that the threads of the others, which spin, do not count; needs root")
    ap.add_argument("--serve", help=argparse.SUPPRESS)
    return ap.parse_args()


def sizes(name):
    m, k, n = map(int, name.split("_")[0].split("x"))
    return m, k, n, "_ta" in name, "_tb" in name


def flop(name):
    m, k, n, _, _ = sizes(name)
    return 2.0 * m * k * n


def serve(engine, threads, ms):
    """A peer's process: reads names of shapes, prints seconds of a product, of all and of the quickest run."""
    import numpy as np
    if engine == "torch":
        import torch
        torch.set_num_threads(threads)
    products = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in products:
            m, k, n, ta, tb = sizes(name)
            rng = np.random.default_rng(1)
            a = rng.random((k, m) if ta else (m, k), dtype="f")
            b = rng.random((n, k) if tb else (k, n), dtype="f")
            y = np.empty((m, n), "f")
            if engine == "torch":
                a, b, y = map(torch.from_numpy, (a, b, y))
            a, b = a.T if ta else a, b.T if tb else b
            if engine == "torch":
                def run(a=a, b=b, y=y):
                    torch.mm(a, b, out=y)
            else:
                def run(a=a, b=b, y=y):
                    np.matmul(a, b, out=y)
            products[name] = run
        run = products[name]
        run()
        work, best, count = flop(name), float("inf"), 0
        n = max(1, int(4e7 / work))
        begin = start = time.perf_counter()
        while start - begin < ms / 1000:
            for _ in range(n):
                run()
            now = time.perf_counter()
            best, count, start = min(best, (now - start) / n), count + n, now
        print((start - begin) / count, best, flush=True)


class Peer:
    def __init__(self, engine, threads, ms):
        env = dict(os.environ, OPENBLAS_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
        self.p = subprocess.Popen([sys.executable, __file__, "--serve", engine, "--threads", str(threads), "--ms", str(ms)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def seconds(self, name, realtime):
        if realtime:
            self.schedule(os.SCHED_RR, 1)
        self.p.stdin.write(name + "\n")
        self.p.stdin.flush()
        answer = [float(x) for x in self.p.stdout.readline().split()]
        if realtime:
            self.schedule(os.SCHED_OTHER, 0)
        return answer

    def schedule(self, policy, priority):
        for tid in os.listdir(f"/proc/{self.p.pid}/task"):
            try:
                os.sched_setscheduler(int(tid), policy, os.sched_param(priority))
            except ProcessLookupError:
                pass  # a thread that has ended

    def close(self):
        self.p.stdin.close()
        self.p.wait()


def ours(binary, pattern, benchtime, realtime=False):
    """GFLOP/s by name of the benchmarks that match: of all and of the quickest run, where that is given."""
    def prepare():
        if realtime:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    text = subprocess.run([binary, "-test.run", "^$", "-test.bench", pattern, "-test.benchtime", benchtime],
                          capture_output=True, text=True, check=True, preexec_fn=prepare).stdout
    found = {}
    for line in text.splitlines():
        if name := re.match(r"Benchmark(\S+?)(?:-\d+)?\s", line):
            rates = {unit: float(rate) for rate, unit in re.findall(r"([\d.e+]+) (\S*GFLOP/s)", line)}
            if rates:
                found[name[1]] = rates["GFLOP/s"], rates.get("best-GFLOP/s", rates["GFLOP/s"])
    return found


def main(a):
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as tmp:
        binary = a.binary
        if not binary:
            binary = os.path.join(tmp, "cpu.test")
            subprocess.run(["go", "test", "-c", "-o", binary, "./train/cpu"], check=True, cwd=os.path.join(here, "../.."))
        binary = os.path.abspath(binary)
        names = [n.split("/")[1] for n in ours(binary, "MatMul/.*/^1$", "1x") if re.search(a.only, n.split("/")[1])]
        engines = []
        for engine in a.engines.split(","):
            try:
                __import__(engine)
                engines.append(engine)
            except ImportError:
                print(f"without {engine}: it is not installed", file=sys.stderr)
        print(f"{'shape':21} threads {'GFLOP/s':>8} {'of peak':>7}" + "".join(f" {e:>8} {'ratio':>6}" for e in engines) +
              f" | {'best':>8} {'of peak':>7}" + "".join(f" {e:>8} {'ratio':>6}" for e in engines))
        for threads in map(int, a.threads.split(",")):
            peers = {e: Peer(e, threads, a.ms) for e in engines}
            for name in names:
                rates = {e: [] for e in ["ours", "peak"] + engines}
                for _ in range(a.rounds):
                    rates["ours"] += ours(binary, f"^BenchmarkMatMul$/^{name}$/^{threads}$", f"{a.ms}ms", a.realtime).values()
                    rates["peak"] += ours(binary, "^BenchmarkPeak$", "5ms", a.realtime).values()
                    for e, p in peers.items():
                        rates[e].append([flop(name) / s / 1e9 for s in p.seconds(name, a.realtime)])
                row = f"{name:21} {threads:7}"
                for which in range(2):
                    med = {e: statistics.median(r[which] for r in rs) if rs else float("nan") for e, rs in rates.items()}
                    row += f"{' |' if which else ''} {med['ours']:8.1f} {100 * med['ours'] / med['peak'] / threads:6.0f}%"
                    row += "".join(f" {med[e]:8.1f} {med['ours'] / med[e]:6.2f}" for e in engines)
                print(row, flush=True)
            for p in peers.values():
                p.close()


args = parse()
if args.serve:
    serve(args.serve, int(args.threads), args.ms)
else:
    main(args)
