"""Time the engine against JAX and against a plain loop over torch.optim.SGD, and the streaming-PCA grid.

    python tests/benchmarks/engine.py --jax-python /path/to/python --json engine.json

Every run is a process of its own on the same two cores; its time is the wall time of the whole process, start-up and
compilation included. Contenders take turns (A B, B A, …), and each ratio is between neighbours in time, so that other
work on the machine weighs on both. Printed: the median over the n pairs with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from task import LR, MOMENTUM, data

SHAPES = ((256, 32), (1024, 8), (64, 256))
HERE = Path(__file__).resolve().parent


def ours(replicas: int, batch_size: int, steps: int) -> dict[str, float]:
    """Train the stack with the engine."""
    import torch
    from descent.engine import rules
    from descent.engine.streams import Streams, replica_seeds
    from descent.engine.train import train
    from descent.nets.dense import MLP, CrossEntropy
    from descent.nets.supervised import Supervised

    inputs, targets = (torch.from_numpy(array) for array in data())
    streams, model = Streams(replica_seeds(0, replicas)), MLP((64, 64, 10))
    objective = Supervised(model, CrossEntropy(), inputs, targets, batch_size)
    hyper = rules.heavy_ball([LR] * replicas, MOMENTUM)
    run = train(objective, model.initial(streams), hyper, steps, streams)
    return {"computing": run.seconds, "loss": float(objective.value(run.params).mean())}


def loop(replicas: int, batch_size: int, steps: int) -> dict[str, float]:
    """Train one net after the other the usual way."""
    import torch
    from torch import nn

    inputs, targets = (torch.from_numpy(array) for array in data())
    generator = torch.Generator().manual_seed(0)
    clock, losses = time.perf_counter(), []
    for _ in range(replicas):
        net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
        for _ in range(steps):
            index = torch.randint(len(inputs), (batch_size,), generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs[index]), targets[index]).backward()
            optimizer.step()
        losses.append(float(nn.functional.cross_entropy(net(inputs), targets)))
    return {"computing": time.perf_counter() - clock, "loss": statistics.mean(losses)}


def pca(replicas: int, batch_size: int, steps: int) -> dict[str, float]:
    """Leave the saddle of streaming PCA: six momenta × replicas, d = 4, probed every 10 steps."""
    import torch
    from descent.engine import rules
    from descent.engine.streams import Purpose, Streams, replica_seeds
    from descent.engine.train import FirstPassage, every, train

    scale = torch.tensor([4.0, 3.0, 2.0, 1.0]).sqrt()

    class Oja:
        def gradient(self, params: Any, streams: Streams, step: int) -> Any:
            x = streams.normal(Purpose.DATA, step, (4,)).mul_(scale)
            projection = (x * params).sum(dim=1, keepdim=True)
            return params.mul(projection).sub_(x).mul_(projection)

    def share(params: Any) -> Any:
        return params[:, 0].square() / params.square().sum(dim=1)

    momenta = [0.0, 0.5, 0.7, 0.8, 0.9, 0.95]
    hyper = rules.repeat(rules.heavy_ball(5e-4, momenta), replicas)
    streams = Streams(replica_seeds(0, replicas).repeat(len(momenta)))
    start = torch.tensor([0.0, 1.0, 0.0, 0.0]).expand(len(momenta) * replicas, 4)
    probes = {"share": every(10, share), "escape": FirstPassage(lambda h: share(h) > 0.5, every=10)}
    run = train(Oja(), start, hyper, steps, streams, probes=probes)
    return {"computing": run.seconds, "loss": float(run.records["share"].values[-1].mean())}


CONTENDERS: dict[str, Callable[[int, int, int], dict[str, float]]] = {"ours": ours, "loop": loop, "pca": pca}


def timed(command: list[str], cores: set[int]) -> dict[str, float]:
    """Run a contender in a process of its own and add its wall time.

    Threads wait as they do for users: told to sleep at once (`OMP_WAIT_POLICY=PASSIVE`), two of the engine's are slower
    than one, since every small kernel of a step wakes them anew.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(len(cores))}
    pin = (lambda: os.sched_setaffinity(0, cores)) if hasattr(os, "sched_setaffinity") else None
    clock = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, preexec_fn=pin)
    wall = time.perf_counter() - clock
    return json.loads(done.stdout.splitlines()[-1]) | {"wall": wall}


def command(python: str, script: str, *words: object) -> list[str]:
    """Return the command line of a contender."""
    return [python, str(HERE / script), *map(str, words)]


def task(replicas: int, batch_size: int, steps: int) -> list[object]:
    """Return the task as command-line words."""
    return ["--replicas", replicas, "--batch-size", batch_size, "--steps", steps]


def pairs(first: list[str], second: list[str], n: int, cores: set[int]) -> list[tuple[dict, dict]]:
    """Run two contenders n times each, taking turns at going first."""
    found = []
    for i in range(n):
        order = [first, second] if i % 2 == 0 else [second, first]
        results = {tuple(c): timed(c, cores) for c in order}
        found.append((results[tuple(first)], results[tuple(second)]))
    return found


def summary(values: list[float]) -> dict[str, float]:
    """Return the median with the range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "n": len(values)}


def row(name: str, target: str, values: list[float], runs: list[Any], unit: str = "×") -> dict[str, Any]:
    """Print and return one line of the table."""
    s = summary(values)
    figures = f"{s['median']:8.2f}{unit} [{s['low']:.2f}, {s['high']:.2f}]"
    print(f"{name:58s} {figures}  n={s['n']}  target {target}", flush=True)
    return {"name": name, "target": target, "unit": unit, **s, "runs": runs}


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run everything that was asked for."""
    cores = set(sorted(os.sched_getaffinity(0))[: args.cores]) if hasattr(os, "sched_getaffinity") else {0, 1}
    rows = []
    for replicas, batch_size in SHAPES if args.jax_python else ():
        words = task(replicas, batch_size, args.steps)
        mine = command(sys.executable, "engine.py", "--contender", "ours", *words)
        found = pairs(mine, command(args.jax_python, "jax_contender.py", *words, "--again"), args.repeats, cores)
        # the second, compiled run of JAX is only there to tell computing from compiling
        whole = [(b["wall"] - b["computing"]) / a["wall"] for a, b in found]
        shape = f"{replicas} replicas × batch {batch_size}"
        rows.append(row(f"JAX / ours, {shape}, whole process", "≥ 1", whole, found))
        computing = [b["computing"] / a["computing"] for a, b in found]
        rows.append(row(f"JAX / ours, {shape}, computing only", "-", computing, []))
    replicas, batch_size = SHAPES[0]
    few = 2
    mine = command(sys.executable, "engine.py", "--contender", "ours", *task(replicas, batch_size, args.steps))
    plain = command(sys.executable, "engine.py", "--contender", "loop", *task(few, batch_size, args.steps))
    found = pairs(mine, plain, args.repeats, cores)
    speed = [b["computing"] / few / (a["computing"] / replicas) for a, b in found]
    rows.append(row(f"plain loop / ours, {replicas} × {batch_size}, per replica-step", "≥ 15", speed, found))
    grid = command(sys.executable, "engine.py", "--contender", "pca", *task(1000, 1, 20 * args.steps))
    found = [timed(grid, cores) for _ in range(args.repeats)]
    wall = [run["wall"] for run in found]
    rows.append(row("streaming PCA, 6 × 1000 replicas, whole process", "≤ 10 s", wall, found, " s"))
    return rows


def main() -> None:
    """Measure, print, and write the JSON; or be one of the contenders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jax-python", help="an interpreter that can import jax; without it JAX is left out")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--replicas", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        print(json.dumps(CONTENDERS[args.contender](args.replicas, args.batch_size, args.steps)))
        return
    print("wall time; estimator: median of paired ratios [smallest, largest]")
    rows = measure(args)
    if args.json:
        args.json.write_text(json.dumps({"steps": args.steps, "cores": args.cores, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
