"""Examples/s of two embedding tables trained by row-sparse Adam, beside PyTorch on the same processor.

The model: 100k users and 20k items, 64 wide; 8192 examples a step, each a user, an item and eight others; scores are inner
products, the loss is softmax cross-entropy over the nine or BPR. Ours is BenchmarkEmbed of train/cpu; PyTorch is run with
SparseAdam on sparse gradients and with dense fused Adam. Rounds are interleaved, so that what else the machine does
meets all alike; what is printed are medians over the rounds, and ratios of those.

    python docs/bench/embed_peers.py [--threads 2] [--rounds 5] [--steps 60] [--ids uniform,zipf] [--loss softmax,bpr]

Needs Go, and torch and numpy in the Python that runs it.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

USERS, ITEMS, DIM, BATCH, OTHERS, BATCHES = 100_000, 20_000, 64, 8192, 8, 16

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--steps", type=int, default=60, help="of ours in a round; PyTorch does a quarter")
parser.add_argument("--ids", default="uniform,zipf")
parser.add_argument("--loss", default="softmax,bpr")
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import torch

torch.set_num_threads(args.threads)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def batches(ids):
    """Users and candidates of sixteen batches, which take turns."""
    rng = np.random.default_rng(1)
    share = None
    if ids == "zipf":
        share = 1 / np.arange(1, ITEMS + 1) ** 1.05
        share /= share.sum()
    return [(torch.from_numpy(rng.integers(0, USERS, BATCH)),
             torch.from_numpy(rng.choice(ITEMS, (BATCH, 1 + OTHERS), p=share))) for _ in range(BATCHES)]


class Peer:
    """The model in PyTorch, with one of its optimizers."""

    def __init__(self, data, loss, sparse):
        torch.manual_seed(0)
        self.data, self.loss, self.at = data, loss, 0
        self.users = torch.nn.Embedding(USERS, DIM, sparse=sparse)
        self.items = torch.nn.Embedding(ITEMS, DIM, sparse=sparse)
        weights = [self.users.weight, self.items.weight]
        for w in weights:
            torch.nn.init.normal_(w, std=.05)
        self.adam = torch.optim.SparseAdam(weights, lr=1e-3) if sparse else torch.optim.Adam(weights, lr=1e-3, fused=True)
        self.target = torch.zeros(BATCH, dtype=torch.long)
        self.rate(3)

    def step(self):
        user, item = self.data[self.at % len(self.data)]
        self.at += 1
        self.adam.zero_grad()
        scores = torch.bmm(self.items(item), self.users(user).unsqueeze(2)).squeeze(2)
        if self.loss == "softmax":
            loss = torch.nn.functional.cross_entropy(scores, self.target)
        else:
            loss = -torch.nn.functional.logsigmoid(scores[:, :1] - scores[:, 1:]).mean()
        loss.backward()
        self.adam.step()

    def rate(self, steps):
        begin = time.perf_counter()
        for _ in range(steps):
            self.step()
        return BATCH * steps / (time.perf_counter() - begin)


def ours(binary, ids, loss, negatives, steps):
    out = subprocess.run([binary, "-test.run", "^$", "-test.benchtime", f"{steps}x", "-test.bench",
                          f"^BenchmarkEmbed$/^{ids}$/^{loss}$/^{negatives}$/^threads={args.threads}$"],
                         capture_output=True, text=True, check=True).stdout
    found = re.search(r"([\d.e+]+) examples/s", out)
    if not found:
        sys.exit(f"no examples/s in what {binary} printed:\n{out}")
    return float(found.group(1)), int(re.search(r"(\d+) allocs/op", out).group(1))


with tempfile.TemporaryDirectory() as scratch:
    binary = os.path.join(scratch, "cpu.test")
    subprocess.run(["go", "test", "-c", "-o", binary, "./train/cpu"], cwd=ROOT, check=True)
    print(f"{args.threads} threads, torch {torch.__version__}, medians of {args.rounds} rounds, examples/s")
    print(f"{'ids':8} {'loss':8} {'SparseAdam':>11} {'dense Adam':>11} {'ours':>11} {'drawn':>11}  "
          f"{'/Sparse':>7} {'/dense':>7}  allocs/step")
    for ids in args.ids.split(","):
        data = batches(ids)
        for loss in args.loss.split(","):
            sparse, dense = Peer(data, loss, True), Peer(data, loss, False)
            got = {"sparse": [], "dense": [], "bound": [], "drawn": []}
            allocs = 0
            for _ in range(args.rounds):
                got["sparse"].append(sparse.rate(args.steps // 4))
                rate, n = ours(binary, ids, loss, "bound", args.steps)
                got["bound"].append(rate)
                allocs = max(allocs, n)
                got["dense"].append(dense.rate(args.steps // 4))
                rate, n = ours(binary, ids, loss, "drawn", args.steps)
                got["drawn"].append(rate)
                allocs = max(allocs, n)
            m = {name: statistics.median(v) for name, v in got.items()}
            print(f"{ids:8} {loss:8} {m['sparse']:11,.0f} {m['dense']:11,.0f} {m['bound']:11,.0f} {m['drawn']:11,.0f}  "
                  f"{m['bound'] / m['sparse']:6.1f}x {m['bound'] / m['dense']:6.1f}x  {allocs}", flush=True)
