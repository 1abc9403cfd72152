"""The card of an experiment: question, configuration with its comments, cost, claims, code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape

from descent.book.execute.card import card, comments
from descent.experiments.lab import Experiment, Lab, Share
from descent.experiments.saddles.escape import ESCAPE, Escape
from descent.runs.perform import Finding


@dataclass(frozen=True)
class Inner:
    """A part of a configuration."""

    width: int = 3  # of the net
    noise: float = 1e-3


@dataclass(frozen=True)
class Toy:
    """A configuration."""

    inner: Inner = Inner()
    many: Share = Share(over=10)  # noqa: RUF009
    arms: tuple[float, ...] = (0.0, 0.5)  # momenta


def run(config, lab):
    """Do it."""
    return config.arms < "&"


def text(html):
    return unescape(re.sub(r"<[^>]+>", "", html))


def rows(html):
    return [
        [text(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", html)
    ]


def test_it_shows_configuration_cost_claims_and_code():
    item = Experiment("toy", Toy(), Toy(), run, lambda result: {}, lambda result: {})
    shown = card(item, Lab(replicas=640), "cpu", Finding("c", 6.4), ["P3-C1", "P3-C7"])
    assert "Experiment toy: 6 s, judges P3-C1, P3-C7" in text(shown)
    assert 'href="ledger.html#P3-C7"' in shown
    assert rows(shown)[1:] == [
        ["inner.width", "3", "of the net"], ["inner.noise", "0.001", ""], ["many", "64", ""],
        ["arms", "0, 0.5", "momenta"],
    ]  # fmt: skip
    assert 'return config.arms < "&"' in text(shown)


def test_what_was_not_run_says_why():
    shown = card(ESCAPE, Lab(), "cpu", Finding("c", 0.1, missing="no pictures <here>"), [])
    assert "Experiment escape: not run: no pictures <here>, judges no claim" in text(shown)
    assert "Every path begins at rest on the second eigenvector" in text(shown)


def test_every_comment_of_a_configuration_is_found():
    assert comments(Escape)["balance_lr"] == "of the test of the sign, whose outcome does not depend on the step"
