"""The control in larger nets: a wide one on digits, and one with convolutions on pictures of two classes.

Stated for paper scale alone. What `control` asks of small nets, by the same rules: momentum before a sign, a polar
factor or a norm against plain descent at its reach, with symmetric noise, and before a sign with the noise as it is.
Every draw of the data has a net of its own. Draws have no picture in common, but digits, for there are too few.

Rates were chosen in pilots (seed 1000): of a grid, two to a decade, that at which the rule *with* momentum ends nearest
to a loss of a hundredth, the noise symmetric. At larger ones polar factors fit to
the last digit, which has no logarithm.
On all ten classes such a net has not fitted in the time, with momentum or without; hence two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pandas import DataFrame, concat

from descent.data.images import channels_first, load, pair, pooled
from descent.experiments.lab import Arrays, Estimates, Experiment, Found, Lab, Parts, Result, Tables, Unit, so_far
from descent.experiments.normalised.control import CASES, Case, Control, Followed, ends, factors, follow, said
from descent.experiments.normalised.nets import Net, Task
from descent.nets import CNN

Data = Literal["digits", "cifar10"]
SUFFIX: Mapping[Data, str] = {"digits": "wide", "cifar10": "cnn"}
"""What tests on a kind of data are named by."""
ASKED = tuple(case for case in CASES if case.family == 0)


@dataclass(frozen=True)
class Kind:
    """A kind of data, and the rates of the three rules on it."""

    data: Data
    sign: float
    muon: float
    normalised: float

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases, in the order in which `said` takes them."""
        return tuple(replace(case, lr=getattr(self, case.kind)) for case in ASKED)


@dataclass(frozen=True)
class Wider:
    """Nets of one hidden layer on digits; two convolutions and a dense layer on CIFAR-10. Cross-entropy."""

    kinds: tuple[Kind, ...]
    draws: int = 10
    examples: int = 256
    hidden: int = 256
    tests: int = 2000  # pictures that nets are tested on
    pool: int = 2  # pixels of a side that are averaged to one
    widths: tuple[int, int] = (16, 32)
    dense: int = 64
    shorter: int = 1  # by which the lengths of the cases are divided
    control: Control = Control()  # without its nets and cases

    def cases(self, kind: Kind) -> tuple[Case, ...]:
        """Return the cases of a kind of data."""
        return tuple(replace(case, steps=case.steps // self.shorter) for case in kind.cases)

    def task(self, lab: Lab, data: Data) -> Task:
        """Return the nets and all draws of a kind of data; DataMissing without the images."""
        if data == "digits":
            return Net(draws=self.draws, examples=self.examples, hidden=self.hidden).task(lab)
        images = pooled(pair(load(data), "airplane", "automobile"), self.pool)
        sets = lab.draws(len(images), self.examples, self.draws, tests=self.tests)
        inputs, labels = lab.bring(channels_first(images.images), images.labels)
        size, channels = inputs.shape[-1], inputs.shape[1]
        net = CNN(widths=self.widths, dense=(self.dense,), size=size, classes=2, channels=channels)
        return Task(net, inputs, labels, sets)

    def trained_images(self, lab: Lab) -> dict[str, float]:
        """Return how many images of ResNet-8 at 32 × 32 pixels the convolutional nets count as, by their operations."""
        return {"ResNet-8": sum(unit.size for unit in units(self, lab, {}) if "cifar10" in unit.kind) * 2.4 / 74.1}


@dataclass(frozen=True, eq=False)
class Seen:
    """A kind of data: its draws that are there, and what every case left behind on them."""

    kind: Kind
    draws: tuple[int, ...]
    found: tuple[Followed, ...]


@dataclass(frozen=True, eq=False)
class WiderResult(Result[Wider]):
    """What is known of each kind of data of which two draws are there."""

    seen: tuple[Seen, ...]


def units(config: Wider, lab: Lab, found: Found) -> list[Unit]:
    """Return a unit for every draw, kind of data and case: three arms."""
    return [
        _unit(config, kind, case, draw)
        for kind in range(len(config.kinds))
        for draw in range(config.draws)
        for case in range(len(ASKED))
    ]


def _unit(config: Wider, place: int, number: int, draw: int) -> Unit:
    kind, control = config.kinds[place], config.control
    case = config.cases(kind)[number]
    noise = "symmetric" if case.symmetric else "raw"
    step = 3 * (config.examples if case.symmetric else control.batch_size)
    look = (control.burn + control.frozen) * control.batch_size + (config.examples if case.symmetric else 0)
    images = case.steps * (step + look / control.look)
    name = f"{kind.data}-{case.name.replace(',', '').replace(' ', '-')}-draw{draw}"
    return Unit(name, f"{kind.data}, {noise}", float(images), (place, number, draw))


def measure(config: Wider, lab: Lab, unit: Unit) -> Arrays:
    """Train the three arms of a case on one draw; return what `Followed` holds, for one net."""
    place, number, draw = unit.given
    kind = config.kinds[place]
    case, task = config.cases(kind)[number], config.task(lab, kind.data)
    alone = replace(task, sets=task.sets.some([draw]))
    return dict(vars(follow(config.control, case, alone, lab.arms(config.control.rules(case), 1, skip=draw))))


def merge(config: Wider, lab: Lab, found: Found) -> WiderResult | None:
    """Return what is known over whole draws of each kind, None while there is none with two."""
    seen = [one for place in range(len(config.kinds)) if (one := _seen(config, place, found)) is not None]
    return WiderResult(config, lab, tuple(seen)) if seen else None


def _seen(config: Wider, place: int, found: Found) -> Seen | None:
    names = {d: [_unit(config, place, c, d).name for c in range(len(ASKED))] for d in range(config.draws)}
    draws = tuple(d for d, several in names.items() if set(several) <= set(found))
    if len(draws) < 2:
        return None
    cases = tuple(_joined([found[names[d][c]] for d in draws]) for c in range(len(ASKED)))
    return Seen(config.kinds[place], draws, cases)


def _joined(several: list[Arrays]) -> Followed:
    """Return a case over the draws; a net that diverged is not a number."""
    first = several[0]
    losses, accuracy = (np.concatenate([one[name] for one in several], axis=1) for name in ("losses", "accuracy"))
    rates = np.concatenate([one["factors"] for one in several], axis=0)
    return Followed(first["steps"], losses, accuracy, first["looks"], rates)


def run(config: Wider, lab: Lab) -> WiderResult:
    """Measure all units; DataMissing without the images, ValueError for fewer than two draws."""
    result = merge(config, lab, {unit.name: measure(config, lab, unit) for unit in units(config, lab, {})})
    if result is None:
        raise ValueError(f"an interval over draws of the data needs two of them, draws is {config.draws}; take more")
    return result


def estimates(result: WiderResult) -> Estimates:
    """Return what these nets say about N-10 and N-11."""
    return {
        f"{key}_{SUFFIX[seen.kind.data]}": found for seen in result.seen for key, found in said(*seen.found).items()
    }


def tables(result: WiderResult) -> Tables:
    """Return differences to momentum at the end, and the factors on the rate along the way."""
    names = [case.name for case in ASKED]

    def over(make: Callable[[Sequence[str], Sequence[Followed]], DataFrame]) -> DataFrame:
        return concat([make(names, seen.found).assign(data=seen.kind.data) for seen in result.seen], ignore_index=True)

    return {"wider": over(ends), "wider_factors": over(factors)}


KEYS = ("N-10.sign", "N-10.muon", "N-10.normalised", "N-10.effect", "N-11.left", "N-11.bias")


def lacking(result: WiderResult) -> dict[str, str]:
    """Return by test how many draws are there, where that is not all."""
    have = {seen.kind.data: len(seen.draws) for seen in result.seen}
    short = {kind.data: so_far(have.get(kind.data, 0), result.config.draws) for kind in result.config.kinds}
    return {f"{key}_{SUFFIX[data]}": words for data, words in short.items() if words for key in KEYS}


SMALL = Wider(
    (Kind("digits", 3e-3, 3e-3, 0.1), Kind("cifar10", 3e-3, 3e-3, 0.1)),
    draws=2, examples=16, hidden=8, tests=20, pool=8, widths=(4, 8), dense=8, shorter=20,
    control=Control(look=10, burn=2, frozen=4),
)  # fmt: skip
NIGHT = Wider((Kind("digits", 3e-3, 3e-3, 0.3), Kind("cifar10", 3e-3, 1e-3, 0.1)))
PACES = {
    "digits, symmetric": 100000.0, "digits, raw": 19000.0, "cifar10, symmetric": 15000.0, "cifar10, raw": 4300.0,
}  # fmt: skip
"""Training images a second of one core, in pilots."""
WIDER = Experiment(
    "wider", SMALL, replace(NIGHT, draws=20), run=run, estimates=estimates, tables=tables, scales=("gpu",),
    night=NIGHT, parts=Parts(units, measure, merge, lacking, PACES),
)  # fmt: skip
