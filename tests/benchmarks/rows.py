"""Time training on draws of the data, rows of one large set, against training on one set shared by all replicas.

    python tests/benchmarks/rows.py --pairs 9 --json rows.json

In one process on one thread, by CPU time. Batches are picked from equally large sets, so that both find as much in
cache; full gradients are over equally many examples. The contenders take turns (A B, B A, …). Printed: rows over shared
by the quickest run of each, since other work on the machine only ever adds, and beside it the ratios of neighbours in
time: median, smallest and largest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from descent.engine import heavy_ball, train
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.nets import CNN, MLP, CrossEntropy, Supervised

DRAWS, SIZE = 10, 500
NET = CNN(widths=(8, 16), dense=(), size=14, channels=1, classes=10)
CASES = {  # model, replicas, batch size, steps
    "MLP 64-64-10, batches of 8": (MLP((64, 64, 10)), 200, 8, 100),
    "MLP 64-64-10, batches of 64": (MLP((64, 64, 10)), 200, 64, 25),
    "MLP 196-50-10, batches of 32": (MLP((196, 50, 10)), 100, 32, 50),
    "MLP 784-100-10, batches of 32": (MLP((784, 100, 10)), 50, 32, 40),
    "MLP 64-64-10, everything": (MLP((64, 64, 10)), 50, None, 30),
    "MLP 196-50-10, everything": (MLP((196, 50, 10)), 50, None, 20),
    "MLP 784-100-10, everything": (MLP((784, 100, 10)), 20, None, 10),
    "CNN, batches of 32": (NET, 50, 32, 6),
    "CNN, everything": (NET, 10, None, 3),
}


def contenders(name: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return a run on one set shared by all, and the same on draws."""
    model, replicas, size, steps = CASES[name]
    streams = Streams(replica_seeds(0, replicas))
    shape = (1, 14, 14) if model is NET else (model.sizes[0],)
    inputs = streams.subset(slice(0, 1)).normal(Purpose.DATA, 0, (DRAWS * SIZE, *shape))[0]
    targets = torch.arange(DRAWS * SIZE) % 10
    rows = streams.subset(slice(0, 1)).permutation(Purpose.DATA, 1, DRAWS * SIZE)[0].view(DRAWS, SIZE)
    sampling = "full" if size is None else "with_replacement"
    drawn = Supervised(model, CrossEntropy(), inputs, targets, size, sampling, rows=rows)
    most = SIZE if size is None else DRAWS * SIZE
    shared = replace(drawn, inputs=inputs[:most].clone(), targets=targets[:most], rows=None)
    start, rule = model.initial(streams), heavy_ball([0.05] * replicas, 0.9)
    return (lambda: train(shared, start, rule, steps, streams)), (lambda: train(drawn, start, rule, steps, streams))


def seconds(run: Callable[[], object]) -> float:
    """Return the CPU time of a run."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def times(name: str, pairs: int) -> tuple[list[float], list[float]]:
    """Return the CPU times of both, shared and drawn, after one round to warm up."""
    runs = contenders(name)
    found: tuple[list[float], list[float]] = ([], [])
    for pair in range(-1, pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            taken = seconds(runs[which])
            if pair >= 0:
                found[which].append(taken)
    return found


def main() -> None:
    """Print a line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    table = {}
    for name in CASES:
        shared, drawn = table[name] = times(name, asked.pairs)
        found = [b / a for a, b in zip(shared, drawn, strict=True)]
        spread = f"{statistics.median(found):.3f} [{min(found):.3f}, {max(found):.3f}] n={len(found)}"
        print(f"{name:32} {min(drawn) / min(shared):.3f}   pairs {spread}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
