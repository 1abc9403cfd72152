"""Time training by captured steps against the same training without, on any device.

    OMP_NUM_THREADS=1 python tests/benchmarks/graphs.py --device cuda

Both make the same numbers, which is checked first. They take turns at going first, the device is waited for on both
sides of the clock, and each ratio is between neighbours in time. Printed: the median over the n ratios with the
smallest and the largest; above 1 the captured steps are faster. On a CPU nothing is captured and the ratio says what
the windows cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from descent.engine import Streams, heavy_ball, replica_seeds, train
from descent.engine.streams import Purpose
from descent.nets.convolutional import ResNet
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from descent.problems.saddle import Quadratic

CHECK = 50
RESNET = ResNet(norm="group", blocks=(3, 3, 3))
CASES = {"quadratic, 2 directions": 20_000, "64-64-10, batch 32": 256, "ResNet-20, batch 4": 16}


def problem(name: str, replicas: int, device: str) -> tuple[Any, Any, Streams]:
    """Return objective, start and streams of a case."""
    streams = Streams(replica_seeds(0, replicas, device))
    if name.startswith("quadratic"):
        return Quadratic((1.0, 2.0)), torch.ones(replicas, 2, device=device), streams
    net, shape, batch = (RESNET, (3, 32, 32), 4) if name.startswith("ResNet") else (MLP((64, 64, 10)), (64,), 32)
    inputs = Streams(torch.tensor([1])).normal(Purpose.DATA, 0, (1000, *shape))[0].to(device)
    labels = (torch.arange(1000) % 10).to(device)
    return Supervised(net, CrossEntropy(), inputs, labels, batch), net.initial(streams), streams


def runner(name: str, replicas: int, steps: int, device: str) -> Callable[[bool], Any]:
    """Return what trains a case, with graphs or without."""
    objective, start, streams = problem(name, replicas, device)
    rule = heavy_ball([0.01] * replicas, 0.9)
    return lambda graphs: train(objective, start, rule, steps, streams, check=CHECK, graphs=graphs).params


def agree(run: Callable[[bool], Any]) -> None:
    """Check that both make the same numbers, up to the rounding of other kernels."""
    plain, graphed = ({"": found} if isinstance(found, torch.Tensor) else found for found in (run(False), run(True)))
    for name, leaf in plain.items():
        torch.testing.assert_close(graphed[name], leaf, rtol=1e-3, atol=1e-4)


def seconds(run: Callable[[bool], Any], graphs: bool, device: str) -> float:
    """Return the time of one training, capture included."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    clock = time.perf_counter()
    run(graphs)
    wait()
    return time.perf_counter() - clock


def measure(name: str, replicas: int, steps: int, repeats: int, device: str) -> dict[str, Any]:
    """Return the ratios of one case."""
    run = runner(name, replicas, steps, device)
    agree(run)
    ratios = []
    for i in range(repeats):
        times = {graphs: seconds(run, graphs, device) for graphs in ((False, True) if i % 2 else (True, False))}
        ratios.append(times[False] / times[True])
    numbers = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "n": repeats}
    return {"case": name, "replicas": replicas, "steps": steps, "us_per_step": 1e6 * times[True] / steps, **numbers}


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=float, default=1.0, help="factor on the replicas; a CPU wants 0.05")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"{args.device}, torch {torch.__version__}, a look every {CHECK} steps; median of paired ratios")
    rows = []
    for name, count in CASES.items():
        row = measure(name, max(1, int(count * args.size)), args.steps, args.repeats, args.device)
        said = f"{row['median']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        print(f"{name:26s} R={row['replicas']:<6d} {row['us_per_step']:8.1f} µs a step   without / with {said}")
        rows.append(row)
    if args.json:
        args.json.write_text(json.dumps({"device": args.device, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
