"""Time the ten largest Hessian eigenvalues of a stack of MLPs against scipy's eigsh over curvlinops, one by one.

    OMP_NUM_THREADS=1 python tests/benchmarks/curvature.py --json curvature.json

Nets 64-200-80-10 (29 890 parameters) and 64-64-10 (4810), 1400 of the digits, 16 replicas; before, early in and late
in training: the more the outliers stand apart, the fewer products anyone needs. Every eigenpair has to reach
‖Hv − λv‖ ≤ 1e-4 |λ|, which is checked by multiplying; eigsh gets the size of basis and the loosest tolerance (a power
of ten) that reach it in the fewest products. Both sides have the same type, both start from the parameters, and one
product alone is timed as well. They take turns at going first, each ratio is between neighbours in time. Printed: the
median over the n ratios with the smallest and the largest, in processor and in wall time; above 1 the stack is faster.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from descent.data.images import centred, load
from descent.engine.rules import heavy_ball
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.measure.curvature import hessian
from descent.measure.spectra import top_eigenpairs
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies script functions on import, which torch warns of
    from curvlinops import HessianLinearOperator

LAYERS = [[64, 200, 80, 10], [64, 64, 10]]
K, TOLERANCE = 10, 1e-4
Leaves = dict[str, Tensor]


class Found(NamedTuple):
    """Eigenvalues (R, k), vectors (R, k, p), and products per replica."""

    values: Tensor
    vectors: Tensor
    products: float


def task(net: MLP, replicas: int, steps: int) -> tuple[Supervised, Leaves, Streams]:
    """Return the objective, the parameters after some steps of heavy ball, and the streams."""
    data = load("digits").take(1400)
    streams = Streams(replica_seeds(0, replicas))
    objective = Supervised(net, CrossEntropy(), centred(data.images), data.labels, batch_size=32)
    params = net.initial(streams)
    if steps:
        params = train(objective, params, heavy_ball([0.01] * replicas, 0.9), steps, streams).params
    return objective, params, streams


def stacked(objective: Supervised, params: Leaves, streams: Streams) -> Found:
    """Find them for all replicas."""
    pairs = top_eigenpairs(hessian(objective, params), K, streams, tolerance=TOLERANCE)
    return Found(pairs.values, pairs.vectors, float(pairs.products.double().mean()))


def one_by_one(objective: Supervised, params: Leaves, ncv: int | None, tolerance: float) -> Found:
    """Find them by eigsh, one replica after the other."""
    found, count = [], 0
    for r in range(len(next(iter(params.values())))):
        matrix = contender(objective, {name: leaf[r] for name, leaf in params.items()})

        def multiply(v: np.ndarray, matrix: LinearOperator = matrix) -> np.ndarray:
            nonlocal count
            count += 1
            return matrix.matvec(v)

        counted = LinearOperator(matrix.shape, matvec=multiply, dtype=matrix.dtype)
        start = np.random.default_rng(r).normal(size=matrix.shape[0]).astype(matrix.dtype)
        found.append(eigsh(counted, k=K, which="LA", ncv=ncv, tol=tolerance, v0=start))
    values, vectors = (torch.stack([torch.from_numpy(one[i]).flip(-1) for one in found]) for i in (0, 1))
    return Found(values, vectors.mT, count / len(found))


def contender(objective: Supervised, leaves: Leaves) -> LinearOperator:
    """Return the Hessian of one replica by curvlinops."""
    dtype = next(iter(leaves.values())).dtype
    module = objective.model.module().to(dtype)
    module.load_state_dict(leaves)
    data = [(objective.inputs.to(dtype), objective.targets)]
    matrix = HessianLinearOperator(
        module, nn.CrossEntropyLoss(), list(module.parameters()), data, check_deterministic=False
    )
    return matrix.to_scipy(dtype=np.float64 if dtype == torch.float64 else np.float32)


def worst(objective: Supervised, params: Leaves, found: Found) -> float:
    """Return the largest ‖Hv − λv‖/|λ|."""
    matrix = hessian(objective, params)
    errors = [
        (matrix(v) - value.unsqueeze(1) * v).norm(dim=1) / value.abs()
        for value, v in zip(found.values.unbind(1), found.vectors.unbind(1), strict=True)
    ]
    return float(torch.stack(errors).max())


def tuned(objective: Supervised, params: Leaves) -> tuple[int | None, float]:
    """Return the size of basis and the loosest tolerance with which eigsh needs the fewest products."""
    found = []
    for ncv in (None, 40):
        for tolerance in (1e-2, 1e-3, 1e-4):
            pairs = one_by_one(objective, params, ncv, tolerance)
            if worst(objective, params, pairs) <= TOLERANCE:
                found.append((pairs.products, ncv, tolerance))
                break
    return min(found, key=lambda one: one[0])[1:]


def products(objective: Supervised, params: Leaves) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return one product with every replica, ours and theirs."""
    ours = hessian(objective, params)
    theirs = [contender(objective, {k: leaf[r] for k, leaf in params.items()}) for r in range(ours.replicas)]
    v = Streams(replica_seeds(1, ours.replicas), ours.dtype).normal(Purpose.PROBE, 0, (ours.size,))
    rows = v.numpy()
    return lambda: ours(v), lambda: [matrix.matvec(row) for matrix, row in zip(theirs, rows, strict=True)]


def seconds(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return the processor time, the wall time and the result of one run."""
    clock, wall = time.process_time(), time.perf_counter()
    found = run()
    return time.process_time() - clock, time.perf_counter() - wall, found


def turns(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Return the ratios theirs / ours, our best processor time, and the last results."""
    ratios: dict[str, list[float]] = {"cpu": [], "wall": []}
    best, found = float("inf"), {}
    for i in range(repeats):
        for run in (ours, theirs) if i % 2 == 0 else (theirs, ours):
            found[run] = seconds(run)
        mine, other = found[ours], found[theirs]
        ratios["cpu"].append(other[0] / mine[0])
        ratios["wall"].append(other[1] / mine[1])
        best = min(best, mine[0])
    return {name: summary(x) for name, x in ratios.items()} | {"s": best, "found": (found[ours][2], found[theirs][2])}


def summary(ratios: list[float]) -> dict[str, float]:
    """Return the median and the ends."""
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "n": len(ratios)}


def measure(net: MLP, steps: int, dtype: torch.dtype, replicas: int, repeats: int) -> dict[str, Any]:
    """Measure one net at one stage of training in one type."""
    objective, params, streams = task(net, replicas, steps)
    params = {name: leaf.to(dtype) for name, leaf in params.items()}
    ncv, tolerance = tuned(objective, params)
    single = turns(*products(objective, params), 2 * repeats + 1)
    whole = turns(
        lambda: stacked(objective, params, streams), lambda: one_by_one(objective, params, ncv, tolerance), repeats
    )
    ours, theirs = whole.pop("found")
    single.pop("found")
    residuals = [worst(objective, params, found) for found in (ours, theirs)]
    if max(residuals) > 1.01 * TOLERANCE or not torch.allclose(ours.values, theirs.values, rtol=1e-4):
        raise SystemExit(f"residuals {residuals} miss {TOLERANCE}, or eigenvalues differ: the ratio would mean nothing")
    return {
        "layers": net.sizes,
        "steps": steps,
        "dtype": str(dtype).removeprefix("torch."),
        "product": single,
        "eigenvalues": whole,
        "products": [ours.products, theirs.products],
        "residuals": residuals,
        "ncv": ncv,
        "tolerance": tolerance,
    }


def show(row: dict[str, Any]) -> str:
    """Return one row as text."""

    def ratio(x: dict[str, float]) -> str:
        return f"{x['median']:.2f} [{x['low']:.2f}, {x['high']:.2f}]"

    whole, single, (mine, theirs), residuals = (row[k] for k in ("eigenvalues", "product", "products", "residuals"))
    name = f"{'-'.join(map(str, row['layers']))}, {row['steps']} steps, {row['dtype']}"
    return (
        f"{name}: {whole['s']:.2f} s, {mine:.0f} products against {theirs:.0f}, "
        f"ratio cpu {ratio(whole['cpu'])} wall {ratio(whole['wall'])}; one product cpu {ratio(single['cpu'])}; "
        f"residuals {residuals[0]:.1e}, {residuals[1]:.1e}"
    )


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", action="append", help="sizes of one net; may be repeated")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 100, 1000], help="steps of training before")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "float64"], default=["float32", "float64"])
    parser.add_argument("--replicas", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: scipy's own algebra would take every core, and no time would be fair")
    print(f"torch {torch.__version__}, one thread, {args.replicas} replicas; median of paired ratios [least, greatest]")
    rows = []
    for layers, steps, dtype in itertools.product(args.layers or LAYERS, args.steps, args.dtypes):
        rows.append(measure(MLP(tuple(layers)), steps, getattr(torch, dtype), args.replicas, args.repeats))
        print(show(rows[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
