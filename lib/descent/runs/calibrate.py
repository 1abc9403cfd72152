"""What a device can do, and whether it does it right: the first thing to run on a machine with an accelerator.

Gates come first: the same random words, the same gradients, the same training as the textbook's. Then ceilings
(copying, matrix products) and rates of stacks against one network after another. Every time is the median of repeats
after a warm-up, the device waited for on both sides of the clock.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from descent.engine import rules
from descent.engine.precision import Precision, arithmetic
from descent.engine.streams import Purpose, Streams, philox, replica_seeds
from descent.engine.train import train
from descent.nets.convolutional import CNN, ResNet
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from descent.results import provenance

__all__ = ["Gate", "Rate", "calibrate", "ceilings", "gates", "images", "replica_steps"]

SHAPES = ((256, 32), (1024, 8), (64, 256), (4096, 32))
"""Stacks of small nets: replicas and batch size."""

KNOWN = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)
"""Counter, key and words of Philox-4x32-10, the published test vectors (Salmon et al. 2011)."""


@dataclass(frozen=True)
class Gate:
    """A comparison that must hold before any time is worth measuring."""

    name: str
    allowed: float  # the largest deviation that passes
    reached: float  # the one that was found

    @property
    def open(self) -> bool:
        """Tell whether it holds; a number that is none does not."""
        return self.reached <= self.allowed


@dataclass(frozen=True)
class Rate:
    """How much of something a device does per second, with the range over the repeats."""

    name: str
    unit: str
    value: float
    low: float
    high: float
    repeats: int


def calibrate(device: str, repeats: int = 5, size: float = 1.0) -> dict[str, Any]:
    """Return gates, ceilings and rates of a device as JSON values; without rates where a gate is shut.

    size: scales what is timed; 1 suits an accelerator, 0.02 a laptop.
    Raises: ValueError for a size that is no positive number, or no repeats.
    """
    if not 0 < size < math.inf:
        raise ValueError(f"size must be a number above 0, got {size}")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    made = provenance("gpu" if device.startswith("cuda") else "cpu", device, 0, 1, modules=["descent.runs.calibrate"])
    passed = list(gates(device))
    found: dict[str, Any] = {"provenance": made.to_json(), "gates": [asdict(g) | {"open": g.open} for g in passed]}
    if not all(gate.open for gate in passed):
        return found | {"rates": []}
    with arithmetic("float32", device):
        rates = [rate for timed in (ceilings, replica_steps, images) for rate in timed(device, repeats, size)]
    return found | {"rates": [asdict(rate) for rate in rates]}


def gates(device: str) -> Iterator[Gate]:
    """Yield what must be right: random words, gradients of stacks, a training run."""
    yield Gate("random words against the published vectors", 0, _words(device))
    # logarithm, root and cosine rounded correctly on either side may lie 1.2e-6 apart at the tail of the normals
    yield Gate("normal numbers against the CPU's", 4e-6, _normals(device))
    nets: dict[str, MLP | CNN | ResNet]
    nets = {"dense net": MLP((12, 16, 4)), "convolutional net": CNN(), "ResNet-8": ResNet(norm="group")}
    for name, net in nets.items():
        yield Gate(f"gradient of a stack against one module after another, {name}", 1e-10, _gradients(net, device))
    yield Gate("training against torch.optim.SGD", 1e-10, _training(device))


def ceilings(device: str, repeats: int, size: float) -> Iterator[Rate]:
    """Yield copying in bytes and matrix products in operations per second, at most what anything here can reach."""
    count = max(1 << 20, int((1 << 28) * size))
    source, target = torch.rand(count, device=device), torch.empty(count, device=device)
    yield _rate("copy, read and write", "GB/s", 8e-9 * count, lambda: target.copy_(source), device, repeats)
    n = max(256, int(8192 * size**0.5))
    kinds = [("float32", torch.float32)] + ([("bfloat16", torch.bfloat16)] if device.startswith("cuda") else [])
    for name, dtype in kinds:
        a, b = (torch.rand(n, n, device=device, dtype=dtype) for _ in range(2))
        yield _rate(f"matrix product, {name}", "TFLOP/s", 2e-12 * n**3, lambda a=a, b=b: a @ b, device, repeats)  # type: ignore[misc]


def replica_steps(device: str, repeats: int, size: float) -> Iterator[Rate]:
    """Yield training steps times replicas per second, of stacks of small nets and of a plain loop over one net."""
    inputs, targets = _examples((64,), 10, torch.float32, device, 1800)
    for replicas, batch_size in SHAPES:
        count, steps = max(2, int(replicas * min(1.0, 8 * size))), max(4, int(100 * size))
        streams, model = Streams(replica_seeds(0, count, device)), MLP((64, 64, 10))
        objective = Supervised(model, CrossEntropy(), inputs, targets, batch_size)
        start, hyper = model.initial(streams), rules.heavy_ball([0.01] * count, 0.9).to(device)

        def stack(
            objective: Supervised = objective,
            start: Any = start,
            hyper: Any = hyper,
            steps: int = steps,
            streams: Streams = streams,
        ) -> None:
            train(objective, start, hyper, steps, streams, check=steps)

        name = f"64-64-10, {count} replicas, batch {batch_size}"
        yield _rate(f"stack, {name}", "replica-steps/s", count * steps, stack, device, repeats)
        yield _rate(
            f"one net, {name}",
            "replica-steps/s",
            steps,
            functools.partial(_loop, inputs, targets, batch_size, steps),
            device,
            repeats,
        )


def images(device: str, repeats: int, size: float) -> Iterator[Rate]:
    """Yield training images times replicas per second of convolutional nets, as stacks and one module at a time."""
    precisions: tuple[Precision, ...] = ("float32", "bf16") if device.startswith("cuda") else ("float32",)
    nets = (("ResNet-8", ResNet(norm="group"), (1, 16), 32), ("ResNet-18", _resnet18(), (1,), 128))
    for name, net, stacks, batch_size in nets:
        batch = max(2, int(batch_size * min(1.0, 8 * size)))
        inputs, targets = _examples((3, 32, 32), 10, torch.float32, device, 2 * batch)
        for replicas, precision in product(stacks, precisions):
            count = max(1, int(replicas * min(1.0, 8 * size)))
            streams = Streams(replica_seeds(0, count, device))
            objective = Supervised(net, CrossEntropy(), inputs, targets, batch, precision=precision)
            params = net.initial(streams)

            def stack(objective: Supervised = objective, params: Any = params, streams: Streams = streams) -> None:
                objective.gradient(params, streams, 0)

            title = f"{name}, stack of {count}, batch {batch}{', bf16' if precision == 'bf16' else ''}"
            yield _rate(title, "images/s", count * batch, stack, device, repeats)
        module = net.module().to(device)

        def plain(module: nn.Module = module, x: Tensor = inputs[:batch], y: Tensor = targets[:batch]) -> None:
            module.zero_grad()
            nn.functional.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]

        yield _rate(f"{name}, one module, batch {batch}", "images/s", batch, plain, device, repeats)


def _words(device: str) -> float:
    wrong = 0
    for counter, key, words in KNOWN:
        found = philox(torch.tensor(counter, device=device), torch.tensor(key, device=device))
        wrong += int((found.cpu() != torch.tensor(words)).sum())
    return float(wrong)


def _normals(device: str) -> float:
    drawn = [Streams(replica_seeds(3, 8, where)).normal(Purpose.NOISE, 5, (1000,)).cpu() for where in (device, "cpu")]
    return float((drawn[0] - drawn[1]).abs().max())


def _gradients(net: MLP | CNN | ResNet, device: str) -> float:
    """Return the largest relative deviation over parameters, in double precision."""
    shape = (net.sizes[0],) if isinstance(net, MLP) else (3, 32, 32)
    classes = net.sizes[-1] if isinstance(net, MLP) else 10
    inputs, targets = _examples(shape, classes, torch.float64, device, 12)
    streams = Streams(replica_seeds(0, 3, device), torch.float64)
    objective, params = Supervised(net, CrossEntropy(), inputs, targets, 6), net.initial(streams)
    found, index = objective.gradient(params, streams, 0), objective.indices(streams, 0)
    assert isinstance(found, dict)
    worst = 0.0
    for replica, rows in enumerate(index):
        module = net.module().to(device, torch.float64)
        module.load_state_dict({name: leaf[replica] for name, leaf in params.items()}, strict=False)
        nn.functional.cross_entropy(module(inputs[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            size = parameter.grad.norm().item() + 1e-12
            worst = max(worst, (found[name][replica] - parameter.grad).norm().item() / size)
    return worst


def _training(device: str) -> float:
    """Return the deviation of a full-batch run from torch's own optimiser."""
    inputs, targets = _examples((12,), 4, torch.float64, device, 40)
    net, streams = MLP((12, 16, 4)), Streams(replica_seeds(0, 2, device), torch.float64)
    start = net.initial(streams)
    objective = Supervised(net, CrossEntropy(), inputs, targets, None, sampling="full")
    done = train(objective, start, rules.heavy_ball([0.1] * 2, 0.9).to(device), 50, streams).params
    module = net.module().to(device, torch.float64)
    module.load_state_dict({name: leaf[1] for name, leaf in start.items()}, strict=False)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert isinstance(done, dict)
    return max(float((done[name][1] - leaf.detach()).abs().max()) for name, leaf in module.named_parameters())


def _loop(inputs: Tensor, targets: Tensor, batch_size: int, steps: int) -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(inputs.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for _ in range(steps):
        index = torch.randint(len(inputs), (batch_size,), device=inputs.device)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs[index]), targets[index]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _resnet18() -> ResNet:
    return ResNet(norm="group", widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2))


def _examples(
    shape: tuple[int, ...], classes: int, dtype: torch.dtype, device: str, count: int
) -> tuple[Tensor, Tensor]:
    inputs = Streams(torch.tensor([1]), torch.float64).normal(Purpose.DATA, 0, (count, *shape))[0]
    return inputs.to(device, dtype), (torch.arange(count) % classes).to(device)


def _rate(name: str, unit: str, amount: float, run: Callable[[], object], device: str, repeats: int) -> Rate:
    """Time `run` after two warm-ups; `amount` is what one call does, in the unit times seconds."""
    for _ in range(2):
        run()
    found = sorted(amount / _seconds(run, device) for _ in range(repeats))
    return Rate(name, unit, statistics.median(found), found[0], found[-1], repeats)


def _seconds(run: Callable[[], object], device: str) -> float:
    _wait(device)
    clock = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - clock


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
