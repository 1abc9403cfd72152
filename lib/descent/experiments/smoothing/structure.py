"""Level or structure: descent with the noise of its batches, with shapeless noise of equal power, and without noise.

All arms share initial weights, learning rate and steps. If the level of the noise decided how sharp a minimum is found,
the first two would end alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from descent.engine import sgd
from descent.experiments.isotropic import Isotropic
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.experiments.smoothing.arms import task
from descent.experiments.smoothing.minima import Minima, measured

NAMES = ("batch noise", "isotropic noise", "no noise")


class Noise(IntEnum):
    """What is added to the full gradient."""

    BATCH = 0
    ISOTROPIC = 1
    NONE = 2


@dataclass(frozen=True)
class Structure:
    """A two-layer net on digits."""

    draws: int = 16  # of the training set
    replicas: Share = Share(over=30, most=32)
    examples: int = 500
    lr: float = 0.1
    batch_size: int = 8
    steps: int = 500
    hidden: int = 32
    redrawn: float = 0.2  # of the labels


def run(config: Structure, lab: Lab) -> Minima[Structure]:
    """Train the three arms from the same initial weights."""
    images = task(lab, "digits", config.redrawn, config.hidden, config.draws, config.examples)
    arms = lab.arms(sgd(config.lr), lab.per_draw(config.replicas, config.draws))
    noises = (images.batches(config.batch_size), Isotropic(images.full, config.batch_size), images.full)
    looks = [[arms.run(noise, images.model.initial, config.steps)] for noise in noises]  # one, at the end
    return measured(config, lab, images, looks)


def estimates(result: Minima[Structure]) -> Estimates:
    """Return what the arms say about P1-X5."""
    return {"P1-X5.sharpness": result.shifts(result.sharpness, Noise.ISOTROPIC)[Noise.BATCH]}


def tables(result: Minima[Structure]) -> Tables:
    """Return one row per arm; shifts are over the arm without noise."""
    return {"structure": tidy({"arm": NAMES}, **result.over(Noise.NONE))}


LARGE = Structure(draws=32, replicas=Share(over=4, least=64), examples=1000, steps=1500)
STRUCTURE = Experiment("structure", small=Structure(), large=LARGE, run=run, estimates=estimates, tables=tables)
