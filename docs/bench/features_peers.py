"""The handbook's 15 features, Parquet in, Parquet out: onmart beside polars and DuckDB, in turns.

    python3 docs/bench/features_peers.py --onmart ONMART --peers DIR/fraud/features.py --data TRANSACTIONS [--rounds 5] [--threads 2]

TRANSACTIONS is a data set of onmart import --preset fraud-handbook. The peers read the same rows from one Parquet file
under the handbook's names. Seconds are of whole processes, from start to exit, and of what a peer itself times as its
computation, without reading, writing and the start of Python. Peak memory is the process's largest resident set; this script
stays small itself, because a child's begins with what its parent had.
"""
import argparse, glob, json, multiprocessing, os, statistics, subprocess, sys, tempfile, time

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--onmart", required=True)
ap.add_argument("--peers", required=True, help="features.py of the peers")
ap.add_argument("--data", required=True)
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--engines", default="onmart,polars,duckdb")
a = ap.parse_args()


def peers_file(path, rows):
    """The data set as one Parquet file with the handbook's names, made in a process of its own."""
    import pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq
    t = pa.concat_tables([pq.read_table(f) for f in sorted(glob.glob(os.path.join(a.data, "part-*.parquet")))])
    when = t["trans_datetime"].cast(pa.timestamp("us"))
    seconds = pc.divide(pc.subtract(when.cast(pa.int64()), pc.min(when.cast(pa.int64())).as_py() // 86_400_000_000 * 86_400_000_000), 1_000_000)
    pq.write_table(pa.table({
        "TRANSACTION_ID": t["trans_id"], "TX_DATETIME": when, "CUSTOMER_ID": t["user_id"], "TERMINAL_ID": t["store_id"],
        "TX_AMOUNT": t["amount"].cast(pa.float64()), "TX_TIME_SECONDS": seconds, "TX_FRAUD": t["is_fraud"].cast(pa.int64())}),
        path, compression="snappy")
    rows.value = t.num_rows


def run(command, env=None):
    """Seconds, CPU seconds, peak MiB and output of a command."""
    start = time.perf_counter()
    p = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    text = p.stdout.read().decode()
    _, status, use = os.wait4(p.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, use.ru_utime + use.ru_stime, use.ru_maxrss / 1024, text


with tempfile.TemporaryDirectory() as tmp:
    data = os.path.join(tmp, "tx.parquet")
    count = multiprocessing.Value("q")
    maker = multiprocessing.Process(target=peers_file, args=(data, count))
    maker.start()
    maker.join()
    if maker.exitcode != 0:
        sys.exit("the peers' file could not be made")
    rows = count.value
    figures = {e: [] for e in a.engines.split(",")}
    for _ in range(a.rounds):
        for engine in figures:
            if engine == "onmart":
                cmd = [a.onmart, "features", "--spec", "fraud-handbook", "--in", a.data, "--out", os.path.join(tmp, "onmart"),
                       "--threads", str(a.threads), "--force", "--json"]
                s, cpu, mib, text = run(cmd)
                figures[engine].append((s, cpu, mib, json.loads(text)["seconds"]))
            else:
                cmd = [sys.executable, a.peers, "--engine", engine, "--data", data, "--threads", str(a.threads),
                       "--out", os.path.join(tmp, engine + ".parquet")]
                s, cpu, mib, text = run(cmd, dict(os.environ, POLARS_MAX_THREADS=str(a.threads)))
                figures[engine].append((s, cpu, mib, json.loads(text)["compute_s"]))
    load = os.getloadavg()[0]
    print(f"{rows} rows, {a.threads} threads, medians of {a.rounds} rounds, load {load:.1f}")
    base = None
    for engine, f in figures.items():
        s, cpu, mib, own = (statistics.median(x[i] for x in f) for i in range(4))
        ratios = [x[0] / y[0] for x, y in zip(f, figures["onmart"])] if "onmart" in figures else []
        compute = [x[3] / y[0] for x, y in zip(f, figures["onmart"])] if "onmart" in figures else []
        note = "read, computed and written" if engine == "onmart" else "computation alone"
        line = f"{engine:8s} {s:6.2f} s {rows / s / 1e6:5.2f}M rows/s, CPU {cpu * 1e9 / rows:5.0f} ns a row, peak {mib:5.0f} MiB; {note} {own:.2f} s"
        if engine != "onmart" and ratios:
            line += f"; whole process / onmart {statistics.median(ratios):.1f}, computation alone / onmart's whole process {statistics.median(compute):.1f}"
        print(line)
