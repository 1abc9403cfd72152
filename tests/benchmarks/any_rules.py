"""Time stacks of rules against loops: torch.optim.Adam, Muon matrix by matrix, and the linear family as it was before.

    python tests/benchmarks/any_rules.py
    python tests/benchmarks/any_rules.py --before /path/to/older/lib    # the linear stack against an older library

Contenders take turns in one process; the linear stack of two libraries in two. Printed: the median of the ratios of
neighbours in time, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from descent.engine import Streams, adam, heavy_ball, replica_seeds, train
from descent.engine.muon import muon, newton_schulz
from descent.nets import MLP, CrossEntropy, Supervised
from task import data
from torch import nn

REPLICAS, BATCH_SIZE = 64, 8


def stacked(rule, steps: int) -> float:
    """Return the seconds per replica-step of the 64–32–10 net as a stack."""
    x, y = (torch.from_numpy(array) for array in data())
    model, streams = MLP((64, 32, 10), "tanh"), Streams(replica_seeds(0, REPLICAS))
    problem = Supervised(model, CrossEntropy(), x, y, BATCH_SIZE)
    return train(problem, model.initial(streams), rule, steps, streams).seconds / steps / REPLICAS


def looped(steps: int) -> float:
    """Return the seconds per step of one net under torch.optim.Adam."""
    x, y = (torch.from_numpy(array) for array in data())
    net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    optimizer, generator = torch.optim.Adam(net.parameters(), lr=1e-3), torch.Generator().manual_seed(0)
    clock = time.perf_counter()
    for _ in range(steps):
        index = torch.randint(len(x), (BATCH_SIZE,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[index]), y[index]).backward()
        optimizer.step()
    return (time.perf_counter() - clock) / steps


def spent(function: Callable[[], object], times: int) -> float:
    """Return the seconds of one call."""
    clock = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - clock) / times


def matrices() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Return pairs of contenders on 64 matrices 32 × 64: one after the other, and all at once."""
    g = Streams(replica_seeds(0, REPLICAS)).normal(0, 0, (32, 64))
    alone = [g[i : i + 1] for i in range(REPLICAS)]
    one, all_ = muon(1e-3), muon([1e-3] * REPLICAS)
    age, state = torch.ones(REPLICAS, dtype=torch.float64), all_.init({"w": g})
    states = [one.init({"w": row}) for row in alone]
    weights = [nn.Parameter(row[0].clone()) for row in alone]
    optimizers = [torch.optim.Muon([weight], lr=1e-3) for weight in weights]

    def whole() -> object:
        return all_.update({"w": g}, state, {"w": g}, age)

    def each() -> object:
        return [one.update({"w": r}, s, {"w": r}, age[:1]) for r, s in zip(alone, states, strict=True)]

    def theirs() -> None:
        for optimizer, weight, row in zip(optimizers, weights, alone, strict=True):
            weight.grad = row[0]
            optimizer.step()

    return {
        "Newton–Schulz, looped / batched": (lambda: [newton_schulz(r) for r in alone], lambda: newton_schulz(g)),
        "a Muon update, looped / batched": (each, whole),
        "loop of torch.optim.Muon (bfloat16) / a batched update": (theirs, whole),
    }


def row(name: str, target: str, ratios: list[float]) -> None:
    """Print one line."""
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"{name:62s} {middle:7.2f}× [{low:.2f}, {high:.2f}]  n={len(ratios)}  target {target}", flush=True)


def linear(steps: int, library: str) -> float:
    """Return the processor seconds per replica-step of heavy ball with the library in that folder."""
    text = OLD.format(steps=steps, here=str(Path(__file__).parent))
    around = os.environ | {"PYTHONPATH": library, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", text], env=around, check=True, capture_output=True, text=True)
    return float(done.stdout)


OLD = """
import sys, time; sys.path.insert(0, {here!r})
import torch
from task import data
from descent.engine import Streams, heavy_ball, replica_seeds, train
from descent.nets import MLP, CrossEntropy, Supervised
x, y = (torch.from_numpy(array) for array in data())
model, streams = MLP((64, 32, 10), "tanh"), Streams(replica_seeds(0, 64))
problem = Supervised(model, CrossEntropy(), x, y, 8)
train(problem, model.initial(streams), heavy_ball([0.01] * 64, 0.9), 50, streams)
clock = time.process_time()
train(problem, model.initial(streams), heavy_ball([0.01] * 64, 0.9), {steps}, streams)
print((time.process_time() - clock) / {steps} / 64)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--before", help="folder of an older library")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rule = adam([1e-3] * REPLICAS)
    ratios = [looped(args.steps) / stacked(rule, args.steps) for _ in range(args.repeats)]
    row("loop of torch.optim.Adam / stack of 64, per replica-step", "≥ 8", ratios)
    for name, (loop, batch) in matrices().items():
        pairs = [(spent(loop, 20), spent(batch, 20)) for _ in range(args.repeats)]
        row(name, "≥ 4", [a / b for a, b in pairs])
    ratios = [stacked(rule, args.steps) / stacked(heavy_ball([0.01] * REPLICAS, 0.9), args.steps) for _ in range(3)]
    row("Adam / heavy ball, both as a stack", "-", ratios)
    if args.before:
        here = str(Path(__file__).parents[2] / "lib")
        orders = [(here, args.before) if i % 2 else (args.before, here) for i in range(2 * args.repeats)]
        times = [{library: linear(4 * args.steps, library) for library in order} for order in orders]
        row(
            "linear stack, this library / the older one, processor time",
            "≤ 1.02",
            [t[here] / t[args.before] for t in times],
        )


if __name__ == "__main__":
    main()
