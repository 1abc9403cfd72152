"""Statistics: streams, stacks of networks, intervals, tests and verdicts."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import optimize, special
from scipy import stats as law
from torch import Tensor, nn

from descent.claims import verdict
from descent.engine import rules
from descent.engine import streams as draws
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.nets.augment import Augment
from descent.nets.convolutional import CNN, ResNet
from descent.nets.dense import MLP, Stacked
from descent.nets.supervised import Supervised
from descent.oracles.common import (
    ALGEBRA,
    CHANCE,
    SOLVED,
    Array,
    Oracle,
    absolute,
    each,
    generator,
    module_of,
    normals,
    relative,
    score,
    slope,
    streams,
    task,
    tensor,
    worst,
)
from descent.stats import intervals
from descent.stats.estimate import STUDENT, Estimate

__all__ = ["ORACLES"]

TRIES = 2000
EXACT = 0.0
"""Asked where both sides must agree to the last bit."""


# Streams


def _by_integers(counter: list[int], key: list[int]) -> list[int]:
    """Return ten rounds of Philox-4x32 on Python's integers."""
    c, k = counter, key
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k[0], second & 0xFFFFFFFF, (first >> 32) ^ c[3] ^ k[1], first & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def _philox() -> float:
    """Try random counters, and a vector published by the authors."""
    words = generator(71).integers(0, 2**32, size=(200, 6))
    words = np.concatenate([words, [[0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0]]])
    truth = [_by_integers(row[:4], row[4:]) for row in words.tolist()]
    truth[-1] = [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
    counters = torch.from_numpy(words)
    return absolute(draws.philox(counters[:, :4], counters[:, 4:]), truth)


def _normal() -> float:
    """Compare four moments, each in its standard error under the normal law, in both precisions."""
    deviations = []
    for dtype in (torch.float32, torch.float64):
        x = Streams(replica_seeds(1, 500), dtype).normal(Purpose.NOISE, 3, (400,)).double().flatten().numpy()
        powers = np.array([np.mean(x**k) for k in (1, 2, 3, 4)])
        deviations.append(score(powers, [0, 1, 0, 3], np.sqrt(np.array([1, 2, 15, 96]) / x.size)))
    return worst(*deviations)


def _sample() -> float:
    """Count the ten pairs of five, each in its binomial error."""
    pairs = streams(1000).sample(Purpose.BATCH, 0, 5, 2).sort(dim=1).values
    drawn = torch.cat([pairs, *(streams(1000).sample(Purpose.BATCH, t, 5, 2).sort(dim=1).values for t in range(1, 10))])
    codes = (5 * drawn[:, 0] + drawn[:, 1]).numpy()
    counts = np.array([np.sum(codes == 5 * i + j) for i in range(5) for j in range(i + 1, 5)])
    return score(counts / len(codes), np.full(10, 0.1), math.sqrt(0.09 / len(codes)))


def _subset() -> float:
    """Draw some replicas alone, out of order and without the cache."""
    whole, seeds, deviations = Streams(replica_seeds(3, 37)), replica_seeds(3, 37), []
    for rows in (slice(5, 6), slice(8, 20), torch.arange(36, -1, -1)):
        alone = Streams(seeds[rows], budget=0)
        for step in (7, 0, 3):
            deviations += [
                absolute(alone.normal(Purpose.NOISE, step, (5,)), whole.normal(Purpose.NOISE, step, (5,))[rows]),
                absolute(alone.permutation(Purpose.ORDER, step, 33), whole.permutation(Purpose.ORDER, step, 33)[rows]),
            ]
    return worst(*deviations)


def _chunks() -> float:
    """Cut a run into single replicas, and run three replicas without their neighbours."""
    net, source = MLP((4, 8, 3)), Streams(replica_seeds(0, 8))
    objective = Supervised(
        net, task(net, tensor(72, 20, 4), 3)[0].loss, tensor(72, 20, 4).float(), torch.arange(20) % 3, 4
    )
    hyper, start = rules.repeat(rules.ema(0.3, 0.9), 8), net.initial(source)
    whole = _flat(train(objective, start, hyper, 30, source).params)
    single = _flat(train(objective, start, hyper, 30, source, budget=1).params)
    rows = slice(2, 5)
    some = train(
        objective, {name: leaf[rows] for name, leaf in start.items()}, hyper.subset(rows), 30, source.subset(rows)
    )
    return worst(absolute(single, whole), absolute(_flat(some.params), whole[rows]))


def _flat(params: object) -> Tensor:
    assert isinstance(params, dict)
    return torch.cat([leaf.flatten(1) for leaf in params.values()], dim=1)


def _augment() -> float:
    """Compare with slices of the padded images, mirrored."""
    augment, source, images = Augment(2), streams(2), tensor(73, 6, 1, 5, 7)
    index = source.integers(Purpose.BATCH, 0, 6, (8,))
    found, padded = augment.take(images, index, source, 0), nn.functional.pad(images, (2, 2, 2, 2), "reflect")
    down, right, mirrored = augment.draw(source, 0, 8)
    truth = torch.empty_like(found)
    for r, b in np.ndindex(2, 8):
        y, x = 2 + int(down[r, b]), 2 + int(right[r, b])
        piece = padded[index[r, b], :, y : y + 5, x : x + 7]
        truth[r, b] = piece.flip(-1) if mirrored[r, b] else piece
    return absolute(found, truth)


# Stacks of networks


def _stack(model: MLP | Stacked | CNN | ResNet, module: nn.Module, inputs: Tensor) -> float:
    """Compare outputs and batch gradients of two replicas with their modules, one by one."""
    objective, params = task(model, inputs, 3, 5)
    x, y = objective.batch(streams(2), 3)
    outputs, gradient = model.forward(params, x), _flat(objective.gradient(params, streams(2), 3))
    deviations = []
    for r in range(2):
        own = module_of(module, params, r)
        deviations += [relative(outputs[r], own(x[r])), relative(gradient[r], slope(own, x[r], y[r]))]
    return worst(*deviations)


def _mlp() -> float:
    nets = (MLP((6, 5, 4, 3)), MLP((6, 5, 3), "tanh"), MLP((6, 3), bias=False))
    return worst(*(_stack(net, net.module(), tensor(74, 12, 6)) for net in nets))


def _stacked() -> float:
    module = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3)).double()
    return _stack(Stacked(module), module, tensor(75, 12, 6))


def _cnn() -> float:
    net = CNN(widths=(4, 6), dense=(5,), size=8, classes=3)
    return _stack(net, net.module(), tensor(76, 12, 3, 8, 8))


def _resnet() -> float:
    nets = [
        ResNet(blocks=(1, 1), widths=(4, 8), classes=3, groups=2, norm="group"),
        ResNet(blocks=(1, 1), widths=(4, 8), classes=3, norm="batch"),
    ]
    return worst(*(_stack(net, net.module(), tensor(77, 12, 3, 8, 8)) for net in nets))


# Intervals, tests and verdicts


def _nominal(hits: float, level: float, tries: int = TRIES) -> float:
    """Return how far a share of hits is from its nominal level, in binomial errors."""
    return score(hits / tries, level, math.sqrt(level * (1 - level) / tries))


def _mean() -> float:
    found = [intervals.mean(row) for row in 3 + 2 * normals(81, TRIES, 12)]
    return _nominal(sum(e.low <= 3 <= e.high for e in found), 0.95)


def _bootstrap() -> float:
    """Draw 32 skewed pairs; percentiles of the bootstrap promise their coverage for large samples only."""
    r, hits = generator(82), 0
    for _ in range(400):
        common, x, y = r.exponential(size=(3, 32))
        found = intervals.ratio_of_means(3 * (common + x), common + y, 7)
        hits += found.low <= 3 <= found.high
    return abs(hits / 400 - 0.95)


def _proportion() -> float:
    """Solve for the chances at which k or more, or k or fewer, successes in forty have probability 2.5 %."""
    found, truth = [], []
    for k in (1, 10, 33):
        ends = intervals.proportion(k, 40)
        found += [ends.low, ends.high]
        truth += [
            optimize.brentq(lambda p, k=k: law.binom.sf(k - 1, 40, p) - 0.025, 1e-9, 1.0, xtol=1e-15),
            optimize.brentq(lambda p, k=k: law.binom.cdf(k, 40, p) - 0.025, 0.0, 1 - 1e-9, xtol=1e-15),
        ]
    return each(found, truth)


def _exponential() -> float:
    times = generator(83).exponential(5.0, size=(TRIES, 16))
    found = [intervals.censored_mean(row, np.ones(16)) for row in times]
    return _nominal(sum(e.low <= 5 <= e.high for e in found), 0.95)


def _slope() -> float:
    x = np.array([1.0, 2.0, 4.0, 8.0])
    y = x**0.5 * np.exp(0.3 * normals(84, 32, 4))
    truth = np.polyfit(np.log(x), np.log(y).T, 1)[0].mean()
    return each(intervals.slope(x, y, 7).value, truth)


def _ks() -> float:
    x = generator(85).exponential(size=500)
    found = intervals.ks_distance(x, law.expon.cdf)
    return worst(
        absolute(found.distance, law.kstest(x, "expon").statistic),
        absolute(found.pvalue, law.kstest(x, "expon", method="exact").pvalue),
    )


def _tost() -> float:
    """Put the mean on the edge of the tolerance: it is called equivalent as often as the level says."""
    pvalues = np.array([intervals.tost(row, 0.0, 1.0) for row in 1.0 + normals(86, TRIES, 20)])
    return worst(*(_nominal(float(np.sum(pvalues < level)), level) for level in (0.05, 0.3)))


def _power() -> float:
    x = 0.5 + normals(87, 10 * TRIES, 20)
    t = np.abs(x.mean(1)) / x.std(1, ddof=1) * math.sqrt(20)
    seen = float(np.mean(t > special.stdtrit(19, 0.975)))
    return score(seen, intervals.power(0.5, 1.0, 20), math.sqrt(seen * (1 - seen) / len(x)))


def _widened() -> float:
    x = normals(88, 12)
    low, high = law.t.interval(1 - 0.05 / 40, 11, x.mean(), x.std(ddof=1) / math.sqrt(12))
    wide = intervals.mean(x).widened(40)
    return each([wide.low, wide.high], [low, high])


def _judge() -> float:
    """Put the truth on the edge of the region: in a family of two an interval is inside it in 1.25 %."""
    test = verdict.Test("k", "a quantity", verdict.Direction(above=1.0), ("cpu",))
    samples: Array = 1.0 + normals(89, TRIES, 16)
    half = special.stdtrit(15, 0.975) * samples.std(1, ddof=1) / 4
    found = [
        verdict.judge(test, Estimate(value, value - width, value + width, 16, STUDENT, 15), 2)
        for value, width in zip(samples.mean(1), half, strict=True)
    ]
    return worst(*(_nominal(found.count(one), 0.0125) for one in (verdict.Verdict.HOLDS, verdict.Verdict.FAILS)))


_E, _N, _I = "descent.engine", "descent.nets", "descent.stats.intervals"
_MODULE, _COVER = "outputs and gradient of torch's module, one by one", "simulated experiments"

# fmt: off
ORACLES = (
    Oracle(f"{_E}.streams.philox", "words of the generator", "Python's integers; a published vector", EXACT,
           "absolute", _philox),
    Oracle(f"{_E}.streams.Streams", "four moments of 200 000 normals", "those of the normal law", CHANCE,
           "standard errors", _normal),
    Oracle(f"{_E}.streams.Streams", "pairs drawn without replacement", "all pairs equally likely", CHANCE,
           "standard errors", _sample),
    Oracle(f"{_E}.streams.Streams", "draws of some replicas alone and out of order", "draws of the whole stack",
           EXACT, "absolute", _subset),
    Oracle(f"{_E}.train.train", "runs cut into chunks, and without their neighbours", "the whole stack", EXACT,
           "absolute", _chunks),
    Oracle(f"{_N}.augment.Augment", "images shifted and mirrored", "slices of padded images", EXACT, "absolute",
           _augment),
    Oracle(f"{_N}.dense.MLP", "stacks of dense nets, gradients by hand", _MODULE, ALGEBRA, "relative", _mlp),
    Oracle(f"{_N}.dense.Stacked", "stacks of any module, with layer norm", _MODULE, ALGEBRA, "relative", _stacked),
    Oracle(f"{_N}.convolutional.CNN", "stacks of convolutional nets", _MODULE, ALGEBRA, "relative", _cnn),
    Oracle(f"{_N}.convolutional.ResNet", "stacks of residual nets, group and batch norm", _MODULE, ALGEBRA,
           "relative", _resnet),
    Oracle(f"{_I}.mean", "coverage of Student's interval", f"95 %, {_COVER}", CHANCE, "standard errors", _mean),
    Oracle(f"{_I}.ratio_of_means", "coverage of the bootstrap, 32 skewed pairs", f"95 %, {_COVER}", 0.05, "absolute",
           _bootstrap),
    Oracle(f"{_I}.proportion", "Clopper and Pearson's interval", "tails of the binomial law solved for", SOLVED,
           "relative", _proportion),
    Oracle(f"{_I}.censored_mean", "coverage of the interval of an exponential mean", f"95 %, {_COVER}", CHANCE,
           "standard errors", _exponential),
    Oracle(f"{_I}.slope", "exponent fitted to powers", "polyfit of NumPy", SOLVED, "relative", _slope),
    Oracle(f"{_I}.ks_distance", "distance from a law and its p-value", "kstest of SciPy", ALGEBRA, "absolute", _ks),
    Oracle(f"{_I}.tost", "error rate of the test of equivalence", f"its level, {_COVER}", CHANCE, "standard errors",
           _tost),
    Oracle(f"{_I}.power", "chance to see an effect", _COVER, CHANCE, "standard errors", _power),
    Oracle("descent.stats.estimate.Estimate", "interval widened for forty claims", "t interval of SciPy", SOLVED,
           "relative", _widened),
    Oracle("descent.claims.verdict.judge", "wrong verdicts at the edge of a region", f"1.25 % each, {_COVER}", CHANCE,
           "standard errors", _judge),
)
# fmt: on
