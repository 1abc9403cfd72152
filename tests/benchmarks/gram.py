"""Time the Gram matrix of a network against per-example gradients, and compare their peak memory.

    python tests/benchmarks/gram.py --json gram.json

A net 784-256-256-256-1 and 1600 examples by default, one thread. Each contender is a process of its own that warms up
on a few examples first; its time is the CPU time of the best of its calls, its memory what the process grew by. They
take turns, and each ratio is between neighbours in time. Printed: the median ratio with the smallest and the largest.
The contender is the usual torch.func recipe, vmap(grad) over the examples and one matrix product.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LAYERS = (784, 256, 256, 256, 1)


def ghost(module: Any, inputs: Any) -> Any:
    """Return K by our sum over layers."""
    from descent.measure.gram import gram

    return gram(module, None, inputs, route="ghost")[0]


def jacobian(module: Any, inputs: Any) -> Any:
    """Return K from all per-example gradients at once."""
    import torch
    from torch.func import functional_call, grad, vmap

    params = {name: leaf.detach() for name, leaf in module.named_parameters()}

    def output(leaves: Any, x: Any) -> Any:
        return functional_call(module, leaves, (x.unsqueeze(0),)).squeeze()

    parts = vmap(grad(output), in_dims=(None, 0))(params, inputs)
    rows = torch.cat([part.flatten(1) for part in parts.values()], dim=1)
    return rows @ rows.T


CONTENDERS: dict[str, Callable[[Any, Any], Any]] = {"ghost": ghost, "jacobian": jacobian}
CALLS = {"ghost": 5, "jacobian": 1}


def contend(name: str, examples: int) -> dict[str, float]:
    """Be one of the contenders."""
    import torch
    from descent.nets.dense import MLP

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module, inputs = MLP(LAYERS).module(), torch.randn(examples, LAYERS[0])
    run = CONTENDERS[name]
    run(module, inputs[:4])
    before, seconds = _peak(), []
    for _ in range(CALLS[name]):
        clock = time.process_time()
        k = run(module, inputs)
        seconds.append(time.process_time() - clock)
    grown = _peak() - before
    return {"seconds": min(seconds), "mebibytes": grown, "norm": float(k.double().norm())}


def _peak() -> float:
    """Return the peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure both and print the ratio; or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        print(json.dumps(contend(args.contender, args.examples)))
        return
    rounds = [{name: _timed(name, args.examples) for name in CONTENDERS} for _ in range(args.repeats)]
    for name in CONTENDERS:
        seconds, memory = ([one[name][key] for one in rounds] for key in ("seconds", "mebibytes"))
        print(f"{name:10s} {statistics.median(seconds):8.3f} s   {max(memory):6.0f} MiB")
    ratios = [one["jacobian"]["seconds"] / one["ghost"]["seconds"] for one in rounds]
    print(f"ratio {statistics.median(ratios):.0f}× [{min(ratios):.0f}, {max(ratios):.0f}], target ≥ 100×")
    apart = max(abs(one["ghost"]["norm"] / one["jacobian"]["norm"] - 1) for one in rounds)
    print(f"K has {args.examples**2 * 4 / 2**20:.0f} MiB; its norm agrees to {apart:.0e}")
    if args.json:
        args.json.write_text(json.dumps({"layers": LAYERS, "examples": args.examples, "rounds": rounds}, indent=1))


def _timed(name: str, examples: int) -> dict[str, float]:
    """Run a contender in a process of its own."""
    command = [sys.executable, __file__, "--contender", name, "--examples", str(examples)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
