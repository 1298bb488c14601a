"""What the scripts beside it share: workers that keep a peer's models, timed pieces in turns, and a table.

A peer lives in a process of its own, started once (its compilation is not timed), and answers one request a line. A
timed piece is one request; whoever is not asked sleeps. What others use of the processors meanwhile is read from
/proc/stat, and with tries above 1 a piece is asked for again where it is more than a tenth of a core.
"""
import fcntl, json, os, statistics, subprocess, sys, time

HZ = os.sysconf("SC_CLK_TCK")


def busy(pids):
    """CPU seconds of the machine, stolen ones too, and of these processes with their threads."""
    v = [int(x) for x in open("/proc/stat").readline().split()[1:9]]
    mine = 0
    for p in pids:
        f = open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()
        mine += int(f[11]) + int(f[12]) + int(f[13]) + int(f[14])  # user, system, and of ended children
    return sum(v[i] for i in (0, 1, 2, 5, 6, 7)) / HZ, mine / HZ


class Worker:
    """A process that reads one JSON request a line and answers with one JSON object a line."""

    def __init__(self, command, env=None, cores=None, realtime=False):
        self.realtime = realtime
        def prepare():
            if cores: os.sched_setaffinity(0, cores)
        self.p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                  env=dict(os.environ, **(env or {})), preexec_fn=prepare)

    def timed(self, **request):
        """ask, ahead of everything else that wants the processors where that was asked for."""
        if not self.realtime: return self.ask(**request)
        self.schedule(os.SCHED_RR, 1)
        try: return self.ask(**request)
        finally: self.schedule(os.SCHED_OTHER, 0)

    def schedule(self, policy, priority):
        for tid in os.listdir(f"/proc/{self.p.pid}/task"):
            try: os.sched_setscheduler(int(tid), policy, os.sched_param(priority))
            except ProcessLookupError: pass  # the thread has just ended

    def ask(self, **request):
        self.p.stdin.write(json.dumps(request) + "\n"); self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line: sys.exit(f"{self.p.args} ended")
        return json.loads(line)

    def close(self):
        self.p.stdin.close(); self.p.wait()


def serve(answer):
    """The other side: answer(request) -> object, until standard input ends. Only answers go to standard output."""
    out = os.fdopen(os.dup(1), "w"); os.dup2(2, 1)
    for line in sys.stdin:
        out.write(json.dumps(answer(**json.loads(line))) + "\n"); out.flush()


def command(words, realtime=False, env=None):
    """Runs a command that prints one JSON object."""
    def prepare():
        if realtime: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    p = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=dict(os.environ, **(env or {})), preexec_fn=prepare)
    if p.returncode: sys.exit(f"{' '.join(words)} failed")
    return json.loads(p.stdout)


class Lock:
    """A file that flock(1) takes, held while the pieces of a row are timed, so that two measurements never run at a time."""

    def __init__(self, path): self.path = path

    def __enter__(self):
        self.f = open(self.path, "a") if self.path else None
        if self.f: fcntl.flock(self.f, fcntl.LOCK_EX)

    def __exit__(self, *_):
        if self.f: self.f.close()


def quiet(piece, pids, tries, limit=.1):
    """piece() until the others used less than limit of a core meanwhile; the quietest counts. -> (value, their share)"""
    got = []
    for _ in range(tries):
        a, mine = busy(pids() + [os.getpid()]); t = time.perf_counter()
        value = piece()
        b, after = busy(pids() + [os.getpid()])
        share = max(0, (b - a) - (after - mine)) / (time.perf_counter() - t)
        got.append((share, value))
        if share < limit: break
    return min(got, key=lambda g: g[0])[::-1]


def in_turns(pieces, rounds, lock, pids, tries=1, note=None):
    """pieces: {(row, column): function}. Every round runs all of them, a row's columns one after the other, beginning one
    further each round. -> {(row, column): [values]}, {(row, column): [others' shares]}"""
    values, shares = {}, {}
    rows = list(dict.fromkeys(r for r, _ in pieces))
    for i in range(rounds):
        for row in rows:
            columns = [c for r, c in pieces if r == row]
            with lock:
                for column in columns[i % len(columns):] + columns[:i % len(columns)]:
                    v, share = quiet(pieces[row, column], pids, tries)
                    values.setdefault((row, column), []).append(v); shares.setdefault((row, column), []).append(share)
        if note: note(i)
    return values, shares


def median(v): return statistics.median(v)


def si(x):
    return f"{x / 1e6:.2f}M" if x >= 1e6 else f"{x / 1e3:.0f}k" if x >= 1e4 else f"{x:.3g}"


def table(head, rows):
    """Markdown."""
    out = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return "\n".join(out + ["| " + " | ".join(map(str, r)) + " |" for r in rows])


def versions(*names):
    from importlib.metadata import version
    return {n: version(n) for n in names}


def cpu():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"): return line.split(":", 1)[1].strip()
