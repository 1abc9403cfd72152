"""Time the training of residual networks with this engine against a plain torch script of the same recipe.

    python tests/benchmarks/resnet.py --device cuda --json resnet.json      # ResNet-18 and ResNet-8, minutes
    OMP_NUM_THREADS=1 python tests/benchmarks/resnet.py                     # a small size on a CPU, under a minute

The recipe: 32 × 32 images that stay on the device, shuffled epochs, crops of ±4 pixels and flips, heavy ball 0.9 at
0.02, cross-entropy. Both train the same weights; before anything is timed their gradients of one batch are compared, in
float64. A block is as many steps as take a fifth of a second, at least four, gathering and augmentation included, the
device waited for on both sides of the clock; contenders take turns and the first runs again at the end of every round,
so that "again" shows what is noise. The first step, with whatever is compiled, and the warm-up are timed apart. The
loss of every contender must have moved, and to a number, or its time means nothing. Printed: images per second, median
with smallest and largest block; the share of the rate of matrix products ("flop", counted on one net: torch's counter
miscounts grouped convolutions) and of the rate of copying ("bytes": 22 passes over every convolution's output, a
model and an upper bound), both rates the highest measured here before and after.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from descent.engine.precision import arithmetic, autocast
from descent.engine.rules import heavy_ball
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.nets.augment import Augment
from descent.nets.convolutional import ResNet
from descent.nets.dense import CrossEntropy
from descent.nets.supervised import Supervised
from descent.runs.calibrate import ceilings
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

LR, MOMENTUM, SHIFT, PASSES = 0.02, 0.9, 4, 22
BLOCK = 0.2  # seconds
LEAST = 4  # steps of a block
LOOK = 64  # images the loss is that of
NETS = {"ResNet-8": ResNet(), "ResNet-18": ResNet(blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512), norm="batch")}
LARGE = (
    ("ResNet-18", 1, 128), ("ResNet-18", 1, 512), ("ResNet-8", 1, 128), ("ResNet-8", 16, 32), ("ResNet-8", 16, 128),
)  # fmt: skip
SMALL = (("ResNet-8", 1, 16), ("ResNet-8", 4, 16), ("ResNet-18", 1, 4))
ELEMENT = {"float32": 4, "tf32": 4, "bf16": 2}


@dataclass
class Contender:
    """One way of training: `steps` takes so many, `loss` is where it stands."""

    name: str
    images: int  # per step
    steps: Callable[[int], None]
    loss: Callable[[], float]
    startup: float = 0.0
    moved: tuple[float, float] | None = None
    times: list[float] = field(default_factory=list)  # images per second, by block


def pictures(count: int, device: str) -> tuple[Tensor, Tensor]:
    """Return noise with a faint pattern per class: something can be learned."""
    draws = Streams(torch.tensor([1]))
    noise, patterns = (draws.normal(Purpose.DATA, step, (n, 3, 32, 32))[0] for step, n in ((0, count), (1, 10)))
    labels = torch.arange(count) % 10
    return (noise + patterns[labels]).to(device), labels.to(device)


def engine(net: ResNet, replicas: int, batch: int, precision: str, compiled: bool, data: tuple[Tensor, Tensor]) -> Any:
    """Return the contender that trains a stack with the engine, and its objective, parameters and streams."""
    device = data[0].device
    streams = Streams(replica_seeds(0, replicas, str(device)))
    objective = Supervised(
        net,
        CrossEntropy(),
        *data,
        batch,
        "shuffled_epochs",
        augment=Augment(SHIFT),
        precision=precision,
        compiled=compiled,
    )
    hyper = heavy_ball([LR] * replicas, MOMENTUM).to(device)
    start = net.initial(streams)
    state: dict[str, Any] = {"params": start, "velocity": None, "step": 0}

    def steps(count: int) -> None:
        end = state["step"] + count
        run = train(
            objective,
            state["params"],
            hyper,
            end,
            streams,
            velocity=state["velocity"],
            begin=state["step"],
            check=count,
            budget=32 << 30,
        )
        state.update(params=run.params, velocity=run.velocity, step=end)

    def loss() -> float:
        return float(objective.value(state["params"], data[0][:LOOK], data[1][:LOOK]).mean())

    name = f"engine, {precision}{', compiled' if compiled else ''}"
    return Contender(name, replicas * batch, steps, loss), objective, start, streams


def plain(
    net: ResNet, weights: dict[str, Tensor], batch: int, precision: str, compiled: bool, data: tuple[Tensor, Tensor]
) -> Contender:
    """Return the usual training script: module, optimiser, autocast, channels last."""
    images, labels = data
    device = images.device
    module = net.module().to(device)
    module.load_state_dict({name: leaf[0] for name, leaf in weights.items()}, strict=False)
    module = module.to(memory_format=torch.channels_last)
    forward = torch.compile(module) if compiled else module
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM)
    order: list[Tensor] = []

    def step() -> None:
        if not order:
            shuffled = torch.randperm(len(images), device=device)
            order.extend(shuffled[: len(images) // batch * batch].split(batch))
        index = order.pop()
        with arithmetic(precision, device):
            optimizer.zero_grad(set_to_none=True)
            batch_of = cropped(images[index]).contiguous(memory_format=torch.channels_last)
            with autocast(precision, device):
                outputs = forward(batch_of)
            nn.functional.cross_entropy(outputs.float(), labels[index]).backward()
            optimizer.step()

    def steps(count: int) -> None:
        for _ in range(count):
            step()

    def loss() -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(module(images[:LOOK]), labels[:LOOK]))

    return Contender(f"plain script, {precision}{', compiled' if compiled else ''}", batch, steps, loss)


def cropped(images: Tensor) -> Tensor:
    """Return every image shifted by up to ±4 pixels and mirrored by chance: pad, crop, flip on the device."""
    n, _, height, width = images.shape
    padded = nn.functional.pad(images, (SHIFT,) * 4, mode="reflect")
    down, right = (torch.randint(0, 2 * SHIFT + 1, (n, 1), device=images.device) for _ in range(2))
    rows = down + torch.arange(height, device=images.device)
    columns = right + torch.arange(width, device=images.device)
    columns = torch.where(torch.rand(n, 1, device=images.device) < 0.5, columns, columns.flip(1))
    place = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[place, channel, rows[:, None, :, None], columns[:, None, None, :]]


def agree(net: ResNet, objective: Supervised, params: dict[str, Tensor], streams: Streams) -> float:
    """Compare the engine's gradient of one batch with the modules', both in float64 without crops."""
    few, doubled = min(int(objective.batch_size), 32), {name: leaf.double() for name, leaf in params.items()}
    bare = Supervised(net, CrossEntropy(), objective.inputs[:512].double(), objective.targets[:512], few)
    found, errors = bare.gradient(doubled, streams, 0), []
    for r, rows in enumerate(bare.indices(streams, 0)):
        module = net.module().to(objective.inputs.device, torch.float64)
        module.load_state_dict({name: leaf[r] for name, leaf in doubled.items()}, strict=False)
        nn.functional.cross_entropy(module(bare.inputs[rows]), bare.targets[rows]).backward()
        pairs = [(found[name][r], p.grad) for name, p in module.named_parameters()]
        wrong = sum((a - b).square().sum() for a, b in pairs)
        errors.append(float((wrong / sum(b.square().sum() for _, b in pairs)).sqrt()))
    if not max(errors) < 1e-10:
        raise SystemExit(f"engine and modules disagree by {max(errors):.1e}: there is nothing to time")
    return max(errors)


def counted(net: ResNet) -> tuple[float, float]:
    """Return FLOP and numbers put out by convolutions and linear layers, per training image, on one net."""
    module, numbers = net.module(), []
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(lambda _, __, out: numbers.append(out.numel()))
    with FlopCounterMode(display=False) as counter:
        module(torch.randn(2, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() / 2, sum(numbers) / 2


def timed(run: Callable[[], None], device: str) -> float:
    """Return seconds, the device waited for on both sides."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    wait()
    clock = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - clock


def race(contenders: list[Contender], device: str, rounds: int, warm: int) -> list[Contender]:
    """Warm up, then let them take turns; return them with the first one's second turns as the last."""
    again = Contender(f"{contenders[0].name}, again", contenders[0].images, contenders[0].steps, contenders[0].loss)
    before, counts = {}, {}
    for each in contenders:
        before[each.name] = each.loss()
        each.startup = timed(lambda each=each: each.steps(1), device)
        one = timed(lambda each=each: each.steps(warm), device) / warm
        counts[each.name] = counts[again.name] = max(LEAST, round(BLOCK / one))
    counts[again.name] = counts[contenders[0].name]
    for _ in range(rounds):
        for each in (*contenders, again):
            count = counts[each.name]
            each.times.append(count * each.images / timed(lambda each=each, n=count: each.steps(n), device))
    for each in contenders:
        each.moved = before[each.name], each.loss()
        if not math.isfinite(each.moved[1]) or each.moved[0] == each.moved[1]:
            raise SystemExit(f"{each.name}: the loss went from {each.moved[0]} to {each.moved[1]}; that is no training")
    return [*contenders, again]


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run every case in every precision."""
    cuda = args.device.startswith("cuda")
    limits, rows = highest(args.device, {}), []
    data = pictures(50_000 if cuda else 1024, args.device)
    for name, replicas, batch in LARGE if cuda else SMALL:
        net = NETS[name]
        flop, numbers = counted(net)
        contenders, error = [], 0.0
        for precision in args.precision or (["float32", "tf32", "bf16"] if cuda else ["float32"]):
            for compiled in (False, True) if args.compiled or cuda else (False,):
                mine, objective, start, streams = engine(net, replicas, batch, precision, compiled, data)
                error = error or agree(net, objective, start, streams)
                contenders += [mine, plain(net, start, batch, precision, compiled, data)]
        print(f"\n{name}, {replicas} × batch {batch}: {flop / 1e6:.1f} MFLOP per image; gradients agree to {error:.1e}")
        for each in race(contenders, args.device, args.rounds, args.warm or (20 if cuda else 2)):
            rows.append(row(each, name, replicas, batch, flop, numbers))
            print(show(rows[-1], limits), flush=True)
    limits = highest(args.device, limits)
    print("\nagain, with the highest rates measured: " + "; ".join(f"{k} {value:.4g}" for k, value in limits.items()))
    for each in rows:
        print(f"{each['net']:9s} {each['replicas']:2d} × {each['batch_size']:<4d}{show(each, limits)}")
    return [each | shares(each, limits) for each in rows]


def highest(device: str, known: dict[str, float]) -> dict[str, float]:
    """Return the highest rates of copying and of products, these or the ones known: whatever else runs lowers them."""
    rates = ceilings(device, 5, 1.0 if device.startswith("cuda") else 0.02)
    return {rate.name: max(rate.high, known.get(rate.name, 0.0)) for rate in rates}


def row(each: Contender, net: str, replicas: int, batch: int, flop: float, numbers: float) -> dict[str, Any]:
    """Return what was measured of one contender."""
    return {
        "net": net, "replicas": replicas, "batch_size": batch, "contender": each.name, "flop_per_image": flop,
        "numbers_per_image": numbers, "images_per_s": statistics.median(each.times), "low": min(each.times),
        "high": max(each.times), "blocks": len(each.times), "startup_s": each.startup, "loss": each.moved,
    }  # fmt: skip


def shares(found: dict[str, Any], limits: dict[str, float]) -> dict[str, float | None]:
    """Return what part of the device's rates the training reaches; none where no such product was timed."""
    precision, rate = found["contender"].split(", ")[1], found["images_per_s"]
    kind = {"float32": "float32", "bf16": "bfloat16"}.get(precision, "")
    product, copy = limits.get(f"matrix product, {kind}"), limits["copy, read and write"]
    return {
        "flop_share": rate * found["flop_per_image"] / (product * 1e12) if product else None,
        "byte_share": rate * found["numbers_per_image"] * PASSES * ELEMENT[precision] / (copy * 1e9),
    }


def show(found: dict[str, Any], limits: dict[str, float]) -> str:
    """Return one row as text."""
    share = shares(found, limits)
    flop = f"{share['flop_share']:6.1%}" if share["flop_share"] is not None else "     –"
    start = f"first step {found['startup_s']:5.1f} s" if found["startup_s"] else ""
    start += "   loss {:.2f} → {:.2f}".format(*found["loss"]) if found["loss"] else ""
    rate, low, high = (f"{found[name]:.4g}" for name in ("images_per_s", "low", "high"))
    return (
        f"  {found['contender']:32s} {rate:>10s} images/s [{low}, {high}]   flop {flop}   "
        f"bytes {share['byte_share']:6.1%}   {start}"
    )


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", choices=("float32", "tf32", "bf16"))
    parser.add_argument("--compiled", action="store_true", help="on a CPU as well: minutes of compiling")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm", type=int, help="steps before the clock starts (default: 20, on a CPU 2)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"{args.device}, {torch.get_num_threads()} thread(s), torch {torch.__version__}; blocks of {BLOCK} s")
    rows = measure(args)
    if args.json:
        args.json.write_text(json.dumps({"torch": torch.__version__, "device": args.device, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
