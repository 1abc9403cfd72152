"""Time the largest Hessian eigenvalues of networks beside what other packages offer, each ratio within one run.

    OMP_NUM_THREADS=1 python tests/benchmarks/side_by_side.py --json side_by_side.json

Nets, data and rules of the comparison are those of `curvature.py`: every eigenpair has to reach ‖Hv − λv‖ ≤ 1e-4 |λ|,
each contender gets the settings that reach it in the fewest products, both sides take turns at going first. Contenders:
scipy's eigsh over curvlinops, and the Lanczos method of hessian-eigenthings, one network after the other, since neither
knows stacks. What is not installed is named and left out; neither is needed for anything else but curvlinops for the
tests. A third row is no contender: the same eigenvalues looked at again a step of training later, from the eigenvectors
found before (`measure.tracking`), against a look from nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from descent.engine.rules import heavy_ball
from descent.engine.streams import Streams
from descent.engine.train import train
from descent.measure.curvature import hessian
from descent.measure.tracking import eigenpairs_above
from descent.nets.dense import MLP
from descent.nets.supervised import Supervised
from torch import Tensor, nn

Leaves = dict[str, Tensor]
Run = Callable[[], Any]
PACKAGES = {"curvlinops": "curvlinops-for-pytorch", "hessian_eigenthings": "hessian-eigenthings"}
STEPS = (20, 30, 40, 60, 80, 120)
"""Lanczos steps that are tried, the fewest that are good enough first."""


def eigsh(objective: Supervised, params: Leaves) -> Run:
    """Return eigsh over curvlinops, tuned."""
    from curvature import one_by_one, tuned

    settings = tuned(objective, params)
    return lambda: one_by_one(objective, params, *settings)


def eigenthings(objective: Supervised, params: Leaves) -> Run:
    """Return Lanczos of hessian-eigenthings, tuned."""
    from curvature import TOLERANCE, worst

    for steps in STEPS:
        run = lambda steps=steps: _lanczos(objective, params, steps)  # noqa: E731
        if worst(objective, params, run()) <= TOLERANCE:
            return run
    raise SystemExit(f"hessian-eigenthings does not reach {TOLERANCE} in {STEPS[-1]} steps: no ratio would be fair")


def _lanczos(objective: Supervised, params: Leaves, steps: int) -> Any:
    from curvature import Found, K
    from hessian_eigenthings import HessianOperator, lanczos, supervised_loss

    values, vectors = [], []
    for r in range(len(next(iter(params.values())))):
        module = objective.model.module().to(next(iter(params.values())).dtype)
        module.load_state_dict({name: leaf[r] for name, leaf in params.items()})
        data = [(objective.inputs.to(next(module.parameters()).dtype), objective.targets)]
        matrix = HessianOperator(module, data, supervised_loss(nn.functional.cross_entropy))
        found = lanczos(matrix, k=K, max_iter=steps, reorthogonalize=True, which="LA", seed=r)
        order = found.eigenvalues.argsort(descending=True)
        values.append(found.eigenvalues[order])
        vectors.append(found.eigenvectors[order])
    return Found(torch.stack(values), torch.stack(vectors), float(steps))


def looks(objective: Supervised, params: Leaves, streams: Streams) -> tuple[Run, Run]:
    """Return a look from the eigenvectors of the last one, and one from nothing, after a further step of training."""
    lr = 0.01
    before = eigenpairs_above(hessian(objective, params), 0.1 / lr, streams)
    hyper = heavy_ball([lr] * len(streams.seeds), 0.9)
    after = train(objective, params, hyper, 1, streams).params
    matrix = hessian(objective, after)
    warm = lambda: eigenpairs_above(matrix, 0.1 / lr, streams, start=before.basis)  # noqa: E731
    return warm, lambda: eigenpairs_above(matrix, 0.1 / lr, streams)


def rows(layers: list[int], replicas: int, steps: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Yield the ratio to every contender that is installed, and that of the two looks."""
    from curvature import stacked, task, turns

    objective, params, streams = task(MLP(tuple(layers)), replicas, steps)
    contenders = {"curvlinops": eigsh, "hessian_eigenthings": eigenthings}
    for module, make in contenders.items():
        if find_spec(module) is not None:
            found = turns(lambda: stacked(objective, params, streams), make(objective, params), repeats)
            ours, theirs = found.pop("found")
            if not torch.allclose(ours.values, theirs.values, rtol=1e-3):
                raise SystemExit(f"{module} finds other eigenvalues: the ratio would mean nothing")
            yield {"beside": PACKAGES[module], "products": [ours.products, theirs.products], **found}
    warm, cold = looks(objective, params, streams)
    found = turns(warm, cold, repeats)
    ours, theirs = found.pop("found")
    yield {"beside": "a look from nothing", "products": [ours.products, theirs.products], **found}


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[64, 64, 10])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--steps", type=int, default=1000, help="steps of training before")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: scipy's own algebra would take every core, and no time would be fair")
    if find_spec("curvlinops") is None:
        raise SystemExit("curvlinops is missing: pip install curvlinops-for-pytorch, or `make test` once")
    for module, package in PACKAGES.items():
        if find_spec(module) is None:
            print(f"{package} is not installed and left out: pip install --pre {package}", file=sys.stderr)
    print(f"torch {torch.__version__}, one thread; median of paired ratios [least, greatest], above 1 ours is faster")
    kept = []
    for replicas in args.replicas:
        for row in rows(args.layers, replicas, args.steps, args.repeats):
            kept.append({"layers": args.layers, "replicas": replicas, "steps": args.steps} | row)
            cpu, (mine, other) = row["cpu"], row["products"]
            print(
                f"{replicas} × {'-'.join(map(str, args.layers))} beside {row['beside']}: {cpu['median']:.2f} "
                f"[{cpu['low']:.2f}, {cpu['high']:.2f}], {mine:.0f} products against {other:.0f}, {row['s']:.2f} s",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
