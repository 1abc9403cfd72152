"""Time the gradient variance C² by ghost norms against a Python loop over the examples, and against stacked gradients.

    python tests/benchmarks/noise.py --json noise.json

All in one process on one thread, by CPU time; the loop measures one replica, the others a stack, and every ratio is
per replica. Contenders take turns, and each ratio is between neighbours in time. Printed: the median over the n pairs
with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from descent.engine.streams import Streams, replica_seeds
from descent.measure.noise import example_gradients, flat, full_gradient, gradient_noise
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from engine import row
from task import data
from torch import Tensor, nn

Params = dict[str, Tensor]


def ghost(objective: Supervised, params: Params) -> Tensor:
    """C² by ghost norms, (R,)."""
    return gradient_noise(objective, params)


def stacked(objective: Supervised, params: Params) -> Tensor:
    """C² from the gradients of all examples, made as a stack, (R,)."""
    squares = torch.stack(
        [
            example_gradients(objective, {k: leaf[r : r + 1] for k, leaf in params.items()})[0].square().sum(1).mean()
            for r in range(len(next(iter(params.values()))))
        ]
    )
    return squares - flat(full_gradient(objective, params)).square().sum(1)


def loop(objective: Supervised, params: Params) -> Tensor:
    """C² the plain way: one backward pass for every example, of every replica, (R,)."""
    found = []
    for r in range(len(next(iter(params.values())))):
        module = objective.model.module()
        module.load_state_dict({name: leaf[r] for name, leaf in params.items()})
        square, total = 0.0, 0.0
        for x, y in zip(objective.inputs, objective.targets, strict=True):
            module.zero_grad()
            nn.functional.cross_entropy(module(x[None]), y[None]).backward()
            gradient = torch.cat([p.grad.flatten() for p in module.parameters()])
            square, total = square + gradient.square().sum(), total + gradient
        n = len(objective.inputs)
        found.append(square / n - (total / n).square().sum())
    return torch.stack(found)


def timed(contender: Callable[[Supervised, Params], Tensor], objective: Supervised, params: Params) -> Any:
    """Return CPU seconds per replica and the value for the first one."""
    clock = time.process_time()
    value = contender(objective, params)
    return (time.process_time() - clock) / len(value), value[0].item()


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    inputs, targets = (torch.from_numpy(array) for array in data())
    objective = Supervised(MLP((64, 32, 10)), CrossEntropy(), inputs[:1000], targets[:1000], 16)
    params = objective.model.initial(Streams(replica_seeds(0, args.replicas)))
    one = {name: leaf[:1] for name, leaf in params.items()}
    stacks = {"loop": (loop, one), "stacked": (stacked, params)}
    print("CPU time per replica, 1000 examples, net 64-32-10; median of paired ratios [smallest, largest]")
    rows = []
    for name, (contender, some) in stacks.items():
        pairs = []
        for turn in range(args.repeats + 1):
            order = [(ghost, params), (contender, some)]
            times = {c.__name__: timed(c, objective, p) for c, p in (order if turn % 2 else order[::-1])}
            pairs.append((times["ghost"], times[contender.__name__]))
        assert all(abs(a[1] / b[1] - 1) < 1e-4 for a, b in pairs), "the contenders disagree"
        ratios = [b[0] / a[0] for a, b in pairs[1:]]  # the first pair warms up
        rows.append(row(f"{name} / ghost norms", "≥ 20" if name == "loop" else "-", ratios, pairs[1:]))
    if args.json:
        args.json.write_text(json.dumps({"replicas": args.replicas, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
