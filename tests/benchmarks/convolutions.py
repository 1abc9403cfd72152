"""Time stacks of convolutional networks against a loop of modules and against vmap over the module.

    OMP_NUM_THREADS=1 python tests/benchmarks/convolutions.py --json convolutions.json

All three compute the same gradients of the same batches, gathering included, which is checked first. A stack runs in
the chunks the engine would cut. Contenders take turns, each ratio is between neighbours in time, and the clock is the
processor time of this process, so that other work on the machine weighs little. Printed: the median over the n ratios
with the smallest and the largest; above 1 the stack is faster.
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
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.nets.convolutional import CNN, ResNet
from descent.nets.dense import CrossEntropy, Stacked
from descent.nets.supervised import Supervised
from torch import Tensor, nn

BUDGET = 2 << 30
CASES = [
    (f"ResNet-8 {norm}, {widths[0]}-{widths[1]}-{widths[2]}, {side}×{side}", ResNet(norm=norm, widths=widths), side, b)
    for norm, widths, side, b in (
        ("group", (8, 16, 32), 8, 16),
        ("group", (16, 32, 64), 16, 32),
        ("batch", (16, 32, 64), 16, 32),
        ("none", (16, 32, 64), 16, 32),
        ("group", (16, 32, 64), 32, 32),
    )
] + [("CNN 16-32, dense 64, 32×32", CNN(), 32, 32)]

Gradient = Callable[[], dict[str, Tensor]]


def problem(model: Any, side: int, batch_size: int) -> Supervised:
    """Return a task of standard normal pictures; what is in them does not change the time."""
    draws = Streams(torch.tensor([1])).normal(Purpose.DATA, 0, (256, 3, side, side))
    return Supervised(model, CrossEntropy(), draws[0], torch.arange(256) % 10, batch_size)


def in_chunks(objective: Supervised, params: dict[str, Tensor], streams: Streams) -> Gradient:
    """Return the gradient of a stack, chunk by chunk as the engine runs it."""
    out = {name: torch.empty_like(leaf) for name, leaf in params.items()}
    pieces = [
        ({k: p[rows] for k, p in params.items()}, streams.subset(rows), {k: g[rows] for k, g in out.items()})
        for rows in objective.chunks(streams.replicas, BUDGET)
    ]

    def run() -> dict[str, Tensor]:
        for some, theirs, into in pieces:
            objective.gradient_into(some, theirs, 0, into)
        return out

    return run


def one_by_one(net: CNN | ResNet, objective: Supervised, params: dict[str, Tensor], streams: Streams) -> Gradient:
    """Return the gradients of one module after another."""
    index = objective.indices(streams, 0)
    modules = [net.module() for _ in range(streams.replicas)]
    for r, module in enumerate(modules):
        module.load_state_dict({name: leaf[r] for name, leaf in params.items()})

    def run() -> dict[str, Tensor]:
        for rows, module in zip(index, modules, strict=True):
            module.zero_grad()
            nn.functional.cross_entropy(module(objective.inputs[rows]), objective.targets[rows]).backward()
        found = [{name: p.grad for name, p in module.named_parameters()} for module in modules]
        return {name: torch.stack([one[name] for one in found]) for name in params}

    return run


def agree(mine: Gradient, theirs: Gradient) -> None:
    """Check the median replica: in single precision a gate at zero may flip in another."""
    a, b = mine(), theirs()
    wrong = sum((a[k] - b[k]).flatten(1).square().sum(1) for k in a)
    size = sum(b[k].flatten(1).square().sum(1) for k in b)
    error = float((wrong / size).sqrt().median())
    if not error < 1e-5:
        raise SystemExit(f"the contenders disagree by {error:.1e}")


def seconds(run: Gradient) -> float:
    """Return the processor time of one gradient."""
    clock = time.process_time()
    run()
    return time.process_time() - clock


def ratios(mine: Gradient, theirs: Gradient, n: int) -> list[float]:
    """Return theirs / mine, n times, taking turns at going first."""
    found = []
    for i in range(n):
        times = {run: seconds(run) for run in ((mine, theirs) if i % 2 == 0 else (theirs, mine))}
        found.append(times[theirs] / times[mine])
    return found


def measure(replicas: list[int], repeats: int) -> list[dict[str, Any]]:
    """Run every case with every number of replicas."""
    rows = []
    for name, net, side, batch_size in CASES:
        for count in replicas:
            streams, objective = Streams(replica_seeds(0, count)), problem(net, side, batch_size)
            params = net.initial(streams)
            stack = in_chunks(objective, params, streams)
            others = {
                "loop": one_by_one(net, objective, params, streams),
                "vmap": in_chunks(problem(Stacked(net.module()), side, batch_size), params, streams),
            }
            row = {
                "case": name,
                "batch_size": batch_size,
                "replicas": count,
                "ms": 1e3 * min(map(seconds, [stack] * 3)),
            }
            text = f"{name:36s} b={batch_size:<3d} R={count:<3d} {row['ms']:8.1f} ms"
            for other, run in others.items():
                agree(stack, run)
                found = ratios(stack, run, repeats)
                row[other] = {"median": statistics.median(found), "low": min(found), "high": max(found), "n": repeats}
                text += f"   {other} / stack {row[other]['median']:5.2f} [{min(found):.2f}, {max(found):.2f}]"
            print(text, flush=True)
            rows.append(row)
    return rows


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}; one gradient; median of paired ratios")
    rows = measure(args.replicas, args.repeats)
    if args.json:
        args.json.write_text(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
