"""How the rules of edition 1 moved: every form a test ever had, read from the repository's own history.

python -m descent.claims.reconstruct        # writes data/claims/edition1.json; needs git and the whole history

A *form* is what is asked: key, quantity, rule, scales. Every commit that touched the claims is compared with the one
before it. A key that goes while the same quantity comes under another key of the claim is a new name; a key that just
goes was dropped.

A form counts as **measured before it was changed** (`after_measurement`, with its `evidence`) when

- *published*: in the commit before the change a record under data/published holds an estimate of the test, or a
  reference notebook under tests/notebooks has one glued into its outputs (tables carry no keys of tests; the records
  beside them do); or else
- *computed*: in the commit of the change, or within half an hour after it, an experiment names the claim in its code,
  alone or in an estimate's key, and the form was stated for a chapter's scale. Most rules moved in the very commit that
  brought the experiment, and hours before a record was published. The numbers could be seen then, and the history
  cannot show that they were not: it counts against us. A test stated for paper scale alone counts by published
  estimates only.

`after_code` says the same of a form's beginning: when it was first written down, its claim could be measured already.
`loosened` compares regions where the quantity is word for word the same: true if the new region contains the old one
(a dropped test allows everything, fewer scales ask for less), false if it does not, null where the words changed. What
these changes meant, a person says in data/claims/edition1_notes.yaml.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from descent.claims.paper import is_claims_file
from descent.claims.verdict import Region, Verdict, rule_from
from descent.results import parse_yaml, project_root, write_json

__all__ = ["Form", "Stand", "covers", "reconstruct"]

SCHEMA = 1
LAST = "3d4fb17f"
"""The last commit that touched the claims in edition 1."""
CLAIMS, EXPERIMENTS, NOTEBOOKS, PUBLISHED = (
    "data/claims",
    "lib/descent/experiments",
    "tests/notebooks",
    "data/published",
)
ENTERED = re.compile(r"""["']([A-Z][A-Z0-9]*-[A-Z]?[0-9]+)(?=[."'])""")
"""A claim's id as code types it: alone, or as the beginning of an estimate's key."""
SOON = 1800
"""Seconds: an experiment that came no later than this after a change was there, most likely, when the rule moved."""


@dataclass(frozen=True)
class Commit:
    """A commit, its date and seconds, its subject, and the commit before it ("" for the first)."""

    id: str
    date: str
    seconds: int
    subject: str
    before: str


@dataclass(frozen=True)
class Form:
    """What a test asks."""

    key: str
    quantity: str
    rule: Mapping[str, Any]  # the fields of the rule
    scales: tuple[str, ...]

    @property
    def claim(self) -> str:
        """The id of the claim it belongs to."""
        return self.key.partition(".")[0]

    @property
    def region(self) -> Region:
        """Where an estimate is to lie."""
        return rule_from(self.rule).region

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"key": self.key, "quantity": self.quantity, "rule": dict(self.rule), "scales": list(self.scales)}


@dataclass(frozen=True)
class Stand:
    """A form for as long as it stood: from `began` on, until it was replaced or dropped (`end`) by `left`, if it was.

    estimate, verdict: what it had in the last record before that, "" where none was published.
    """

    form: Form  # key, quantity, rule and scales
    began: Commit  # the commit that brought it
    after_code: bool  # whether its claim could be measured by then
    end: str = ""  # "replaced", "dropped", or "" while it stands
    left: Commit | None = None  # the commit that ended it
    evidence: str = ""  # "published" or "computed" before it ended, "" for neither
    loosened: bool | None = None  # whether the next form allows more, None where words differ
    estimate: str = ""
    verdict: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, the commit that ended it named by date, hash and subject."""
        return {
            "form": self.form.to_json(), "date": self.began.date, "commit": self.began.id,
            "after_code": self.after_code, "estimate": self.estimate, "verdict": self.verdict, "end": self.end,
            "end_date": self.left.date if self.left else "", "end_commit": self.left.id if self.left else "",
            "why": self.left.subject if self.left else "", "evidence": self.evidence,
            "after_measurement": bool(self.evidence), "loosened": self.loosened,
        }  # fmt: skip


@dataclass(frozen=True)
class Wording:
    """A claim's sentence and its conditions, which frame a verdict without being part of a rule."""

    statement: str
    conditions: str


@dataclass(frozen=True)
class History:
    """A repository with its git history; every file is read once per content."""

    root: Path
    _texts: dict[str, str] = field(default_factory=dict, compare=False)

    def git(self, *arguments: str) -> str:
        """Return what git says; raise ValueError with its own words where it refuses."""
        made = subprocess.run(
            ["git", "-C", str(self.root), *arguments], capture_output=True, text=True, encoding="utf-8"
        )
        if made.returncode:
            raise ValueError(
                f"git {' '.join(arguments[:2])} in {self.root}: {made.stderr.strip()}; the history is needed"
            )
        return made.stdout

    def commits(self, *where: str) -> list[Commit]:
        """Return the commits that `git log` lists, the first one first."""
        lines = self.git("log", "--reverse", "--format=%H\t%cs\t%ct\t%P\t%s", *where).splitlines()
        parts = (line.split("\t", 4) for line in lines)
        return [Commit(id[:8], date, int(time), subject, before[:8]) for id, date, time, before, subject in parts]

    def files(self, commit: str, folder: str, suffix: str) -> dict[str, str]:
        """Return the texts of the files of a folder in a commit, by path; none before the first commit."""
        if not commit:
            return {}
        rows = (row.split("\t") for row in self.git("ls-tree", "-r", commit, f"{folder}/").splitlines())
        return {path: self._text(entry.split()[2]) for entry, path in rows if path.endswith(suffix)}

    def _text(self, blob: str) -> str:
        if blob not in self._texts:
            self._texts[blob] = self.git("cat-file", "blob", blob)
        return self._texts[blob]


def reconstruct(root: Path, until: str = "HEAD") -> dict[str, Any]:
    """Return the forms of every test by key, and the wordings of every claim whose words moved, up to a commit.

    root: folder of the repository; until: the last commit that counts.

    Raises: ValueError where git refuses, or where a claims file of the past cannot be read.
    """
    history = History(root)
    commits = history.commits(until, "--", CLAIMS)
    if not commits:
        raise ValueError(f"{root}: no commit up to {until} touched {CLAIMS}; run it in the repository of the book")
    tests: dict[str, list[Stand]] = {}
    wordings: dict[str, list[dict[str, Any]]] = {}
    everything = history.commits(until)
    for commit in commits:
        code = _entered(history, _soon(everything, commit))
        _follow(tests, history, commit, code)
        _reword(wordings, history, commit, code)
    found = _last_records(tests, _records(history, until))
    return {
        "schema": SCHEMA,
        "until": commits[-1].date,
        "tests": {key: [stand.to_json() for stand in stands] for key, stands in found.items()},
        "wordings": {id: entries for id, entries in wordings.items() if len(entries) > 1},
    }


def covers(outer: Region, inner: Region) -> bool:
    """Tell whether a region contains another one; whether an end itself counts in makes no difference.

    outer: the region that may contain; inner: the one that may be contained.

    >>> covers(Region(0.25, float("inf"), closed=False), Region(1.0, float("inf"), closed=False))
    True
    """
    return outer.low <= inner.low and inner.high <= outer.high


def _soon(commits: Sequence[Commit], commit: Commit) -> Commit:
    """Return the last commit made soon after one."""
    return max((each for each in commits if each.seconds <= commit.seconds + SOON), key=lambda each: each.seconds)


def _follow(tests: dict[str, list[Stand]], history: History, commit: Commit, code: frozenset[str]) -> None:
    """Enter what one commit did to the tests: forms that began, were replaced, or were dropped.

    code: the claims that experiments could measure then.
    """
    before, after = _forms(history, commit.before), _forms(history, commit.id)
    for old, new in _pairs(before, after):
        if old == new:
            continue
        if old:
            tests[old.key][-1] = _left(tests[old.key][-1], new, commit, history, code)
        if new:
            stands = tests.pop(old.key) if old else tests.get(new.key, [])
            tests[new.key] = [*stands, Stand(new, commit, new.claim in code and "cpu" in new.scales)]


def _pairs(before: Mapping[str, Form], after: Mapping[str, Form]) -> Iterator[tuple[Form | None, Form | None]]:
    """Yield every test as it was and as it is: None where it was not there yet, or is no longer."""
    gone = {key: form for key, form in before.items() if key not in after}
    come = {key: form for key, form in after.items() if key not in before}
    for key, form in before.items():
        if key in after:
            yield form, after[key]
    for form in gone.values():
        same = (new for new in come.values() if (new.claim, new.quantity) == (form.claim, form.quantity))
        renamed = next(same, None)
        if renamed:
            del come[renamed.key]
        yield form, renamed
    for form in come.values():
        yield None, form


def _left(stand: Stand, new: Form | None, commit: Commit, history: History, code: frozenset[str]) -> Stand:
    """Return a form's stand, ended by a commit."""
    form, records = stand.form, _records(history, commit.before)
    published = form.key in records or form.key in _glued(history, commit.before)
    computed = form.claim in code and "cpu" in form.scales
    ended = replace(
        stand, left=commit, end="replaced" if new else "dropped", loosened=_loosened(form, new),
        evidence="published" if published else "computed" if computed else "",
    )  # fmt: skip
    return _with_record(ended, records)


def _loosened(old: Form, new: Form | None) -> bool | None:
    """Return whether the later form allows more; None where its quantity is worded anew, so that rules cannot tell."""
    if new is None:
        return True
    if old.quantity != new.quantity:
        return None
    if old.region == new.region:
        return set(new.scales) < set(old.scales)
    return covers(new.region, old.region)


def _last_records(tests: Mapping[str, list[Stand]], records: Mapping[str, Any]) -> dict[str, list[Stand]]:
    """Return the tests with what the forms that still stand have in the last records."""
    return {
        key: [*stands[:-1], stands[-1] if stands[-1].left else _with_record(stands[-1], records)]
        for key, stands in tests.items()
    }


def _with_record(stand: Stand, records: Mapping[str, Any]) -> Stand:
    """Return a form with its published estimate and verdict, if the record was judged in this very form."""
    made = records.get(stand.form.key)
    if not made or (made["quantity"], rule_from(made["rule"])) != (stand.form.quantity, rule_from(stand.form.rule)):
        return stand
    return replace(stand, estimate=made["text"], verdict=made["verdict"])


def _reword(wordings: dict[str, list[dict[str, Any]]], history: History, commit: Commit, code: frozenset[str]) -> None:
    """Enter the claims whose statement or conditions a commit changed."""
    before, after = _wordings(history, commit.before), _wordings(history, commit.id)
    stated = {form.claim for form in _forms(history, commit.before).values() if "cpu" in form.scales}
    for id in (id for id, wording in after.items() if before.get(id) != wording):
        entry = {"date": commit.date, "commit": commit.id, "why": commit.subject, **asdict(after[id])}
        known = {"after_measurement": id in before and id in code & stated}
        wordings.setdefault(id, []).append(entry | known)


@cache
def _parsed(text: str, name: str) -> Any:
    return parse_yaml(text, name)


def _claims(history: History, commit: str) -> Iterator[Mapping[str, Any]]:
    for path, text in history.files(commit, CLAIMS, ".yaml").items():
        if is_claims_file(Path(path)):
            yield from _parsed(text, path)["claims"]


def _forms(history: History, commit: str) -> dict[str, Form]:
    """Return every test of a commit by its key, "P5-C11.bound"."""
    forms = (
        Form(
            f"{claim['id']}.{test['key']}",
            _flat(test["quantity"]),
            test["rule"],
            tuple(test.get("scales", claim["scales"])),
        )
        for claim in _claims(history, commit)
        for test in claim["tests"]
    )
    return {form.key: form for form in forms}


def _wordings(history: History, commit: str) -> dict[str, Wording]:
    return {
        claim["id"]: Wording(_flat(claim["statement"]), _flat(claim.get("conditions", "")))
        for claim in _claims(history, commit)
    }


def _flat(text: str) -> str:
    return " ".join(text.split())


def _entered(history: History, commit: Commit) -> frozenset[str]:
    """Return the claims that the experiments of a commit name in their code."""
    texts = history.files(commit.id, EXPERIMENTS, ".py").values()
    return frozenset(found for text in texts for found in ENTERED.findall(text))


def _records(history: History, commit: str) -> dict[str, Mapping[str, Any]]:
    """Return every published test with an estimate by key; a chapter's own record counts before one of paper scale."""
    files = history.files(commit, PUBLISHED, ".json")
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(files, key=lambda path: (f"{PUBLISHED}/records/" in path, path)):
        content = _json(files[path])
        for record in content.get("records", ()) if isinstance(content, dict) else ():
            found |= {f"{record['id']}.{test['key']}": test for test in record["tests"] if test["estimates"]}
    return found


def _glued(history: History, commit: str) -> set[str]:
    """Return the keys of estimates that the outputs of reference notebooks hold."""
    return {
        output["metadata"]["scrapbook"]["name"]
        for text in history.files(commit, NOTEBOOKS, ".ipynb").values()
        for cell in _json(text)["cells"]
        for output in cell.get("outputs", ())
        if "scrapbook" in output.get("metadata", {}) and str(Verdict.NOT_TESTED) not in str(output["data"])
    }


@cache
def _json(text: str) -> Any:
    return json.loads(text)


def main(until: str = LAST) -> None:
    """Write data/claims/edition1.json."""
    root = project_root()
    write_json(root / CLAIMS / "edition1.json", reconstruct(root, until))


if __name__ == "__main__":
    main(*sys.argv[1:2])
