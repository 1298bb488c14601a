"""The programs of `onmart bench gpu` in PyTorch on one GPU: python3 docs/bench/gpu_pytorch.py torch.json

Same layers, batches, kinds of data and optimizer steps: the data are on the card, a batch is gathered there by a
permutation, products are float32 without TF32. Each program is timed as PyTorch runs it (eager), as one captured CUDA
graph a step, and compiled by torch.compile within such a graph. AdamW is the fused one and updates whole tables; "eager,
SparseAdam" updates the rows that a step has read, as onmart does, which PyTorch cannot capture. Figures are rows a
second, the median of five runs. It needs torch with CUDA.
"""
import json, statistics, sys, time, torch
from torch import nn
F = nn.functional
dev = "cuda"
torch.manual_seed(1)
def rows(batch): return max(4 * batch, 1 << 14) # of the data

def share(n):
    s = (torch.arange(n + 1, dtype=torch.float64) / n) ** (1 / 3)
    return s[1:].float().to(dev), torch.log(s[1:] - s[:-1]).float().to(dev)

def items(n, *shape):
    return (torch.rand(*shape, device=dev) ** 3 * n).long().clamp(max=n - 1)

def draw(cdf, k):
    return torch.searchsorted(cdf, torch.rand(k, device=dev), right=True).clamp(max=len(cdf) - 1)

def softmax(u, offered, item, drawn, logq, sparse):
    e = lambda i: F.embedding(i, offered, sparse=sparse)
    pos = (u * e(item)).sum(1, keepdim=True) - logq[item][:, None]
    neg = u @ e(drawn).T - logq[drawn][None]
    neg = neg.masked_fill(drawn[None] == item[:, None], float("-inf"))
    return F.cross_entropy(torch.cat([pos, neg], 1), torch.zeros(len(item), dtype=torch.long, device=dev))

class Softmax20k(nn.Module):
    batch, n, k = 1024, 20000, 1024
    def __init__(s, sparse):
        super().__init__()
        s.table = nn.EmbeddingBag(s.n, 64, mode="mean", sparse=sparse)
        nn.init.normal_(s.table.weight, std=.1)
        s.user = nn.Linear(64, 64)
        s.sparse = sparse
        s.cdf, s.logq = share(s.n)
        s.data = items(s.n, rows(s.batch), 20), items(s.n, rows(s.batch))
    def args(s, r):
        return s.data[0][r], s.data[1][r], draw(s.cdf, s.k)
    def loss(s, history, item, drawn):
        return softmax(F.silu(s.user(s.table(history))), s.table.weight, item, drawn, s.logq, s.sparse)

class Recommend(nn.Module):
    batch, n, k, users = 512, 3700, 256, 4000
    def __init__(s, sparse):
        super().__init__()
        s.table_bought = nn.EmbeddingBag(s.n, 64, mode="mean", sparse=sparse)
        s.table_own = nn.Embedding(s.users, 64, sparse=sparse)
        s.table_offered = nn.Embedding(s.n, 64, sparse=sparse)
        for t in (s.table_bought, s.table_own, s.table_offered): nn.init.normal_(t.weight, std=.05)
        s.sparse = sparse
        s.cdf, s.logq = share(s.n)
        n = rows(s.batch)
        s.data = items(s.users, n), items(s.n, n, 20), items(s.n, n)
    def args(s, r):
        return *(d[r] for d in s.data), draw(s.cdf, s.k)
    def loss(s, user, recent, item, drawn):
        u = s.table_own(user) + s.table_bought(recent)
        return softmax(u, s.table_offered.weight, item, drawn, s.logq, s.sparse)

class Quantiles(nn.Module):
    batch = 512
    def __init__(s, sparse):
        super().__init__()
        hidden = lambda a, b: [nn.Linear(a, b), nn.SiLU(), nn.Dropout(.1)]
        s.n = nn.Sequential(*hidden(64, 128), *hidden(128, 128), nn.Linear(128, 28 * 9))
        s.register_buffer("v", torch.tensor([.025, .05, .1, .25, .5, .75, .9, .95, .975]))
        n = rows(s.batch)
        s.data = torch.randn(n, 64, device=dev), torch.randn(n, 28, device=dev), torch.ones(n, 28, device=dev)
    def args(s, r): return [d[r] for d in s.data]
    def loss(s, x, t, w):
        u = t[:, :, None] - s.n(x).view(-1, 28, 9)
        return (w[:, :, None] * torch.maximum(s.v * u, (s.v - 1) * u)).mean()

class Demand(nn.Module):
    batch = 512
    def __init__(s, sparse):
        super().__init__()
        l = lambda a, b: nn.Linear(a, b)
        s.towers = nn.ModuleList(
            nn.ModuleList([l(48, 128), l(128, 128), l(128, 8), nn.Linear(48, 8, bias=False)]) for _ in range(2))
        s.register_buffer("v", torch.tensor([.05, .1, .25, .5, .75, .9, .95, .975]))
        n = rows(s.batch)
        s.data = torch.randn(n, 48, device=dev), torch.randn(n, 1, device=dev), torch.ones(n, 1, device=dev)
    def args(s, r): return [d[r] for d in s.data]
    def loss(s, x, t, w):
        total = 0
        for a, b, c, skip in s.towers:
            h = F.dropout(F.silu(a(x)), .1)
            h = h + F.dropout(F.silu(b(h)), .1)
            u = t - (c(h) + skip(x))
            total = total + (w * torch.maximum(s.v * u, (s.v - 1) * u)).mean()
        return total

class Fraud(nn.Module):
    batch = 256
    def __init__(s, sparse):
        super().__init__()
        s.towers = nn.ModuleList()
        for _ in range(3):
            layers, width = [], 15
            for units in (64, 64, 64):
                layers += [nn.Linear(width, units), nn.SiLU(), nn.Dropout(.2)]
                width = units
            s.towers.append(nn.Sequential(*layers, nn.Linear(width, 1)))
        s.data = labelled(15, s.batch)
    def args(s, r): return [d[r] for d in s.data]
    def loss(s, x, y): return sum(F.binary_cross_entropy_with_logits(t(x), y) for t in s.towers)

def labelled(width, batch):
    x = torch.randn(rows(batch), width, device=dev)
    return x, (x[:, :1] * x[:, 1:2] > .5).float()

def mlp(widths, of):
    class MLP(nn.Module):
        batch = of
        def __init__(s, sparse):
            super().__init__()
            layers = []
            for a, b in zip(widths, widths[1:]): layers += [nn.Linear(a, b), nn.ReLU()]
            s.n = nn.Sequential(*layers, nn.Linear(widths[-1], 1))
            s.data = labelled(widths[0], s.batch)
        def args(s, r): return [d[r] for d in s.data]
        def loss(s, x, y): return F.binary_cross_entropy_with_logits(s.n(x), y)
    return MLP

def make(build, compiled, sparse):
    model = build(sparse).to(dev)
    batch, n = model.batch, rows(model.batch)
    perm = torch.randperm(n, device=dev)
    at = torch.zeros((), dtype=torch.long, device=dev)
    total = torch.zeros((), device=dev, dtype=torch.float64)
    named = list(model.named_parameters())
    tables = [p for name, p in named if sparse and name.startswith("table")]
    dense = [p for name, p in named if not (sparse and name.startswith("table"))]
    opts = []
    if dense: opts.append(torch.optim.AdamW(dense, lr=1e-3, weight_decay=0, fused=True, capturable=True))
    if tables: opts.append(torch.optim.SparseAdam(tables, lr=1e-3))
    lane = torch.arange(batch, device=dev)
    f = torch.compile(model.loss) if compiled else model.loss
    def step():
        loss = f(*model.args(perm[(at * batch) % (n - batch + 1) + lane]))
        for o in opts: o.zero_grad(set_to_none=True)
        loss.backward()
        for o in opts: o.step()
        total.add_(loss.detach())
        at.add_(1)
    return batch, step, total

def rate(run, batch, n):
    for _ in range(3): run(n)
    torch.cuda.synchronize()
    out = []
    for _ in range(5):
        t = time.perf_counter(); k = 0
        while time.perf_counter() - t < .4:
            run(n); torch.cuda.synchronize(); k += n
        out.append(k * batch / (time.perf_counter() - t))
    return statistics.median(out)

def eager(build, sparse):
    batch, step, total = make(build, False, sparse)
    def run(n):
        for _ in range(n): step()
    r = rate(run, batch, 50)
    assert torch.isfinite(total).item()
    return r

def graphed(build, compiled):
    batch, step, total = make(build, compiled, False)
    s = torch.cuda.Stream()
    s.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(s):
        for _ in range(5): step()
    torch.cuda.current_stream().wait_stream(s)
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g): step()
    def run(n):
        for _ in range(n): g.replay()
    r = rate(run, batch, 300)
    assert torch.isfinite(total).item()
    return r

res = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "programs": {}}
def note(name, how, f):
    try: v = f()
    except Exception as e: v = repr(e)[:300]
    res["programs"].setdefault(name, {})[how] = v
    print(name, how, v, flush=True)
    json.dump(res, open(sys.argv[1], "w"), indent=1)
todo = [("fraud", Fraud), ("recommend", Recommend), ("demand", Demand), ("softmax-20k-64-b1024", Softmax20k),
        ("quantiles-64-128-128-b512", Quantiles)]
for b in (1024, 8192):
    todo += [(f"mlp-32-128-128-1-b{b}", mlp([32, 128, 128], b)), (f"mlp-15-500-1-b{b}", mlp([15, 500], b))]
for name, build in todo:
    if name.startswith(("recommend", "softmax")): note(name, "eager, SparseAdam", lambda: eager(build, True))
    note(name, "eager", lambda: eager(build, False))
    note(name, "graph", lambda: graphed(build, False))
for name, build in todo:
    torch._dynamo.reset()
    note(name, "torch.compile, graph", lambda: graphed(build, True))
