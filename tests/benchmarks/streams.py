"""Time a random word by torch and by machine code, beside NumPy's Philox and torch's own generator.

    python tests/benchmarks/streams.py --rounds 7 --json streams.json

In one process on one thread, by CPU time; the contenders take turns, and the quickest round of each counts, since other
work on the machine only ever adds. Printed: nanoseconds per value and per word of 32 bits, and how many times as fast
machine code is.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from descent.engine import compiled
from descent.engine.streams import Purpose, Streams, replica_seeds

REPLICAS, SIZE, STEPS = 2000, 8, 60
KINDS = {  # what is drawn at one step, and words per value
    "normal, float32": (torch.float32, "normal", 1.0),
    "uniform, float32": (torch.float32, "uniform", 1.0),
    "signs, float32": (torch.float32, "signs", 1.0),
    "normal, float64": (torch.float64, "normal", 2.0),
    "uniform, float64": (torch.float64, "uniform", 2.0),
    "integers": (torch.float32, "integers", 1.0),
}


def ours(kind: str, code: bool) -> Callable[[], None]:
    """Return a run of many steps, by machine code or by torch alone."""
    dtype, name, _ = KINDS[kind]
    seeds = replica_seeds(0, REPLICAS)

    def run() -> None:
        compiled._LOADING = compiled._Loading(compiled.PATIENCE) if code else compiled._Loading(writers={})
        streams = Streams(seeds, dtype)
        for step in range(STEPS):
            if name == "integers":
                streams.integers(Purpose.BATCH, step, 1000, (SIZE,))
            else:
                getattr(streams, name)(Purpose.NOISE, step, (SIZE,))

    return run


def others(kind: str) -> dict[str, Callable[[], object]]:
    """Return the same number of normals by generators whose numbers hang on the order of calls."""
    dtype, name, _ = KINDS[kind]
    if name != "normal":
        return {}
    generator = np.random.Generator(np.random.Philox(0))
    kind_of = np.float32 if dtype == torch.float32 else np.float64
    shape = (REPLICAS, SIZE)
    return {
        "NumPy's Philox": lambda: [generator.standard_normal(shape, dtype=kind_of) for _ in range(STEPS)],
        "torch.randn": lambda: [torch.randn(shape, dtype=dtype) for _ in range(STEPS)],
    }


def measure(kind: str, rounds: int) -> dict[str, float]:
    """Return nanoseconds per value of every contender, the quickest of some rounds in turn."""
    runs = {"torch": ours(kind, False), "machine code": ours(kind, True), **others(kind)}
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds + 1):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - begin)
    return {name: 1e9 * seconds / (STEPS * REPLICAS * SIZE) for name, seconds in best.items()}


def main() -> None:
    """Print a row per kind of draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {kind: measure(kind, options.rounds) for kind in KINDS}
    for kind, times in found.items():
        words = KINDS[kind][2]
        row = ", ".join(f"{name} {value:.2f}" for name, value in times.items())
        ratio = times["torch"] / times["machine code"]
        print(f"{kind:17s} ns a value: {row}; a word {times['machine code'] / words:.2f}; {ratio:.1f} times as fast")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
