"""The bench a chapter works at: run an experiment, enter its estimates in the ledger, keep its tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from pandas import DataFrame

from descent.claims import Ledger, load_paper, quotes
from descent.experiments.lab import Experiment, Lab
from descent.results import provenance, save_table
from descent.runs.perform import Finding, enter, perform, registration_of

__all__ = ["Bench"]

APART = "not run by the chapter, see `descent paper`"
"""Why a chapter does not make the tests stated for paper scale alone."""
Show = Callable[[Experiment[Any, Any], Lab, str, Finding, Sequence[str]], None]


class Bench:
    """Runs experiments in one lab, at one scale, and judges the claims of one paper by them.

    An experiment whose image data are absent gives None, and its tests are entered as not tested, with that reason.
    The records are written by `save` alone; verdicts and strings may be read as soon as no test lacks its estimate.
    show: is told of every experiment that was run, and the claims that hang on it.
    """

    def __init__(
        self, paper: str, lab: Lab, scale: str = "cpu", folder: Path | None = None, *, show: Show | None = None
    ) -> None:
        stated = load_paper(paper)
        package = import_module(f"descent.experiments.{stated.chapter}")
        ours = [item for item in package.EXPERIMENTS if scale in item.scales]
        self.lab, self.scale, self.show = lab, scale, show
        self.conditions = provenance(
            scale, lab.device, lab.seed, lab.replicas, modules={name for item in ours for name in item.modules}
        )
        self.ledger = Ledger(stated, self.conditions, folder, apart=APART)

    def run(self, experiment: Experiment[Any, Any]) -> Any:
        """Run the experiment, judge its claims, write its tables; return its result."""
        found = perform(experiment, self.lab, self.scale)
        enter(self.ledger, experiment.name, found, self.lab)
        for name, frame in found.tables.items():
            about = {"experiment": experiment.name, "config": found.config, "registration": found.registration}
            save_table(name, frame, self.conditions, self.ledger.folder, **about)
        if self.show is not None:
            claims = dict.fromkeys(key.partition(".")[0] for key in self.ledger.tests(experiment.name))
            self.show(experiment, self.lab, self.scale, found, list(claims))
        return found.result

    def key(self, experiment: Experiment[Any, Any]) -> int:
        """Return what the experiment's random numbers are drawn from, for whoever trains by hand what it trains."""
        return replace(self.lab, registration=registration_of(experiment, self.scale)).key()

    def verdicts(self) -> DataFrame:
        """Return per claim its verdict and statement, and of the test it is told by quantity, estimate and region."""
        columns = ["claim", "verdict", "statement", "quantity", "estimate", "demanded"]
        return self.ledger.table()[columns].set_index("claim")

    def strings(self) -> dict[str, str]:
        """Return what prose may quote: each test's estimate under its key, each verdict under "<claim>.verdict"."""
        return quotes(self.ledger.records)

    def save(self) -> Path:
        """Write the records; raise ValueError naming the tests that lack their estimates."""
        return self.ledger.save()
