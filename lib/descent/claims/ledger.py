"""The ledger of a chapter: estimates go in under their keys, verdicts and finished strings come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from descent.claims.paper import Paper, load_paper
from descent.claims.record import Outcome, Record, save_records
from descent.claims.tallies import spell, tally
from descent.claims.verdict import Test, check_estimates
from descent.results import Provenance, output_folder
from descent.stats.estimate import Estimate

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Ledger"]


class Ledger:
    """Collect the estimates of one paper's claims in one run of its chapter.

    Keys are "<claim>.<test>". Every test gets its estimate or a reason for its absence, exactly once; a test
    not stated for the run's scale gets its reason by itself. Nothing is written but by `save`.

    apart: the reason of what is stated for paper scale alone, if that is not measured here; else it is due as all is.
    """

    def __init__(
        self, paper: str | Paper, provenance: Provenance, folder: Path | None = None, *, apart: str = ""
    ) -> None:
        self.paper = load_paper(paper) if isinstance(paper, str) else paper
        self.provenance = provenance
        self._folder, self._apart = folder, apart
        self._tests = self.paper.tests
        self._outcomes: dict[str, Outcome] = {}

    @property
    def family(self) -> int:
        """The number of tests judged together at the run's scale."""
        return self.paper.family_at(self.provenance.scale)

    @property
    def folder(self) -> Path:
        """The folder that records and tables of this chapter go to."""
        return self._folder or output_folder(self.paper.chapter)

    def add(
        self,
        estimates: Mapping[str, Estimate | Sequence[Estimate]],
        *,
        experiment: str,
        config: str,
        seconds: float,
        registration: str = "",
        partial: Mapping[str, str] | None = None,
    ) -> None:
        """Enter the estimates of one experiment; several for one key belong to a rule over each.

        config: digest of the experiment's configuration; registration: what its random numbers were drawn from.
        partial: by key, how much is measured of what is to be, such as "4 of 10 draws": that decides nothing yet.
        Raises: ValueError for an unknown key, a second entry, or an estimate that does not suit the rule;
        nothing is entered then.
        """
        entries = {}
        for key, estimate in estimates.items():
            test = self._open_test(key)
            if not test.stated_for(self.provenance.scale):
                raise ValueError(
                    f"{key} is stated for scale {' and '.join(test.scales)} only, this run is "
                    f"{self.provenance.scale}; correct `scales` in the claims, or leave it out"
                )
            entries[key] = Outcome(
                test,
                self.family,
                check_estimates(test, estimate),
                (partial or {}).get(key, ""),
                experiment,
                config,
                float(seconds),
                registration,
            )
        self._outcomes |= entries

    def tests(self, experiment: str) -> dict[str, Test]:
        """Return the tests that an experiment is to measure, by key."""
        return {key: test for key, test in self._tests.items() if test.by == experiment}

    def due(self, experiment: str) -> dict[str, Test]:
        """Return those of them that are stated for this run's scale and not yet entered."""
        return {key: test for key, test in self.tests(experiment).items() if self._is_open(key)}

    def skip(self, key: str, reason: str) -> None:
        """State why a test ("P3-C16.cifar"), or a whole claim ("P3-C16"), is not tested in this run."""
        if not reason.strip():
            raise ValueError(f"{key}: say why it is not tested here")
        keys = [key] if "." in key else [f"{key}.{test.key}" for test in self.paper.claim(key).tests]
        entries = {name: Outcome(self._open_test(name), self.family, reason=reason) for name in keys}
        self._outcomes |= entries

    def text(self, key: str) -> str:
        """Return a finished string for prose: of a test, or of a claim's first test that was made."""
        return (self._entered(key) if "." in key else self.record(key).headline).text

    def verdict(self, key: str) -> str:
        """Return the verdict's word for a claim or, with a dotted key, for one of its tests."""
        return str((self._entered(key) if "." in key else self.record(key)).verdict)

    def record(self, id: str) -> Record:
        """Return the record of a claim; raise ValueError naming the tests that lack estimate and reason."""
        claim = self.paper.claim(id)
        missing = [key for key in self.lacking if key.startswith(f"{id}.")]
        if missing:
            raise ValueError(f"{', '.join(missing)}: add the estimate, or skip it with a reason")
        outcomes = tuple(self._entered(f"{id}.{test.key}") for test in claim.tests)
        return Record(claim, self.paper.paper, self.paper.chapter, outcomes, self.provenance)

    @property
    def records(self) -> tuple[Record, ...]:
        """The records of all claims, in the order of the claims; raise ValueError naming every gap."""
        if self.lacking:
            raise ValueError(
                f"the ledger is not complete: {', '.join(self.lacking)}: add the estimates, or skip them with a reason"
            )
        return tuple(self.record(claim.id) for claim in self.paper.claims)

    def table(self, *, tests: bool = False) -> DataFrame:
        """Return the complete claims as rounded text, one row per claim or per test."""
        from pandas import DataFrame

        rows_of = _test_rows if tests else _claim_rows
        rows = [row for record in self._complete() for row in rows_of(record)]
        name = ["test"] if tests else ["claim", "statement"]
        return DataFrame(rows, columns=[*name, "quantity", "estimate", "family interval", "demanded", "verdict"])

    def summary(self) -> str:
        """Return a sentence part such as "17 hold, 3 fail, 1 inconclusive, 0 not tested here"."""
        return spell(tally(self._complete()))

    @property
    def lacking(self) -> list[str]:
        """The keys stated for this run's scale that have neither an estimate nor a reason yet."""
        return [key for key, test in self._tests.items() if self._is_open(key) and not self._reason(test)]

    def save(self) -> Path:
        """Write records.json; raise ValueError when a claim lacks estimates and a reason."""
        path = self.folder / "records.json"
        save_records(path, self.records)
        return path

    def _complete(self) -> list[Record]:
        lacking = {key.partition(".")[0] for key in self.lacking}
        return [self.record(claim.id) for claim in self.paper.claims if claim.id not in lacking]

    def _test(self, key: str) -> Test:
        if key not in self._tests:
            raise ValueError(
                f"{self.paper.paper} has no test {key!r}; add it to data/claims, or use one of {', '.join(self._tests)}"
            )
        return self._tests[key]

    def _open_test(self, key: str) -> Test:
        test = self._test(key)
        if key in self._outcomes:
            raise ValueError(f"{key} is already in the ledger; open a new ledger to enter it again")
        return test

    def _entered(self, key: str) -> Outcome:
        test = self._test(key)
        if key in self._outcomes:
            return self._outcomes[key]
        if not (reason := self._reason(test)):
            raise ValueError(f"{key} has no estimate yet; add it before quoting it")
        return Outcome(test, self.family, reason=reason)

    def _is_open(self, key: str) -> bool:
        return self._tests[key].stated_for(self.provenance.scale) and key not in self._outcomes

    def _reason(self, test: Test) -> str:
        """Return why a test is not made in this run, whoever asks; "" where it is due."""
        if not test.stated_for(self.provenance.scale):
            return f"stated for scale {' and '.join(test.scales)} only"
        return self._apart if "cpu" not in test.scales else ""


def _claim_rows(record: Record) -> list[list[str]]:
    return [[record.claim.id, record.claim.statement, *_row(record, record.headline), str(record.verdict)]]


def _test_rows(record: Record) -> list[list[str]]:
    id = record.claim.id
    return [[f"{id}.{outcome.test.key}", *_row(record, outcome), str(outcome.verdict)] for outcome in record.outcomes]


def _row(record: Record, outcome: Outcome) -> list[str]:
    return [record.quantity(outcome), outcome.text, outcome.family_text, str(outcome.test.rule)]
