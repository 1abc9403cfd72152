"""The problems a rule can be tried on: what each is, and how long it takes. Words alone, so that help loads nothing."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["OFFERED", "Offer", "listed"]


class Offer(NamedTuple):
    """What a problem is good for, and about how long three rules take on one core."""

    about: str  # what it is good for
    cost: str  # time, in words


OFFERED = {
    "digits": Offer("a small net on 256 digits: loss, accuracy, sharpness", "half a minute"),
    "mnist": Offer("the same on 1000 images of MNIST, found in $DESCENT_DATA", "two minutes"),
    "patches": Offer("which feature a net has learnt by an equal loss: errors on small margins", "half a minute"),
    "quadratic": Offer("a bowl: floor and bias, at an equal rate and at an equal response", "a minute"),
    "saddle": Offer("the way off a saddle, at an equal rate and at an equal response", "half a minute"),
    "rare": Offer("fifty classes of falling frequency in batches of eight: the bias", "ten seconds"),
}
"""By name."""


def listed() -> str:
    """Return one line per problem."""
    lines = [f"  {name:<11}{offer.about}; {offer.cost}" for name, offer in OFFERED.items()]
    return "\n".join(["problems, and how long three rules take on one core:", *lines, ""])
