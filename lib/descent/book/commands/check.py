"""Do the verdicts survive other master seeds? A chapter's experiments again, without any notebook tool."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import descent
from descent.book.commands.compare import columns, published
from descent.book.execute import digest, lifeline
from descent.book.execute.progress import Progress
from descent.book.sources import records, source
from descent.book.sources.parameters import experiments_package, lab
from descent.book.sources.project import BookError, Project
from descent.claims import Outcome, Paper, Record, Verdict, combine, quotes
from descent.claims.agreement import Agreement, Redrawn, save_agreement
from descent.claims.registry import config_digest, form_digest, registration, tests_of
from descent.results import MALFORMED, Measured, compare, library_digest, read_json, write_atomic
from descent.runs.perform import perform, registration_of, undefined
from descent.stats.estimate import Estimate

ALONE = "they were not compared with the published ones"
MOVES_ALLOWED = 1
"""How many claims of a chapter may move to or from inconclusive with the seed."""

Verdicts = dict[str, Verdict]


@dataclass(frozen=True)
class Survival:
    """Verdicts by claim: one mapping per column, the published ones first where there are any.

    apart: estimates that lie further from the published ones than another seed explains, by what `compare` says;
    tests: verdicts by test, per seed; measured_by: the experiment that measured each test; estimates: by test, in the
    same columns.
    """

    columns: Mapping[str, Verdicts]
    skipped: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    tests: Mapping[int, Verdicts] = field(default_factory=dict)
    measured_by: Mapping[str, str] = field(default_factory=dict)
    estimates: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def flipped(self) -> list[str]:
        """Claims that hold for one seed and fail for another."""
        return [claim for claim in self._claims if {Verdict.HOLDS, Verdict.FAILS} <= self._seen(claim)]

    @property
    def moved(self) -> list[str]:
        """Claims that are inconclusive for some seeds only."""
        return [claim for claim in self._claims if len(seen := self._seen(claim)) > 1 and Verdict.INCONCLUSIVE in seen]

    @property
    def survives(self) -> bool:
        """No flip, and at most one claim that comes or goes as inconclusive."""
        return not self.flipped and len(self.moved) <= MOVES_ALLOWED

    def table(self) -> str:
        """Return the verdicts as a table, the estimates as another, and the conclusion below them."""
        rows = [
            [claim, *(str(found.get(claim, "–")) for found in self.columns.values()), self._remark(claim)]
            for claim in self._claims
        ]
        lines = [columns(["claim", *self.columns, ""], rows), *self._numbers(), *self.skipped]
        lines.append(f"flips between holds and fails: {', '.join(self.flipped) or 'none'}")
        lines.append(f"moves to or from inconclusive: {', '.join(self.moved) or 'none'}")
        if "published" in self.columns:
            where = ", ".join(self.apart) or "none"
            lines.append(f"estimates beyond three standard errors of the published ones: {where}")
        alone = "" if "published" in self.columns else f" among these seeds; {ALONE}"
        return "\n".join([*lines, f"the verdicts {'survive' if self.survives else 'do not survive'}{alone}"])

    def _numbers(self) -> list[str]:
        """Return the table of estimates, a row per test, between empty lines; nothing where there are none."""
        keys = dict.fromkeys(key for found in self.estimates.values() for key in found)
        rows = [[key, *(found.get(key, "–") for found in self.estimates.values())] for key in keys]
        return ["", columns(["estimate", *self.estimates], rows), ""] if rows else []

    @property
    def _claims(self) -> list[str]:
        return list(dict.fromkeys(claim for found in self.columns.values() for claim in found))

    def _seen(self, claim: str) -> set[Verdict]:
        return {found[claim] for found in self.columns.values() if claim in found} - {Verdict.NOT_TESTED}

    def _remark(self, claim: str) -> str:
        return "FLIPS" if claim in self.flipped else "moves" if claim in self.moved else ""


def experiments(project: Project, chapter: str, only: Sequence[str] = ()) -> list[str]:
    """Return the names of the experiments a chapter runs; raise BookError for one that it does not."""
    found = _package(project, chapter).EXPERIMENTS
    apart = [item.name for item in found if "cpu" not in getattr(item, "scales", ("cpu",))]
    names = [item.name for item in found if item.name not in apart]
    if large := sorted(set(only) & set(apart)):
        raise BookError(f"{', '.join(large)}: stated for scale gpu only; run `descent paper {chapter}` for each --seed")
    strange = sorted(set(only) - set(names))
    if strange:
        raise BookError(f"{chapter} has no experiment {', '.join(strange)}; it has {', '.join(names)}")
    return [name for name in names if not only or name in only]


def check(
    project: Project,
    chapter: str,
    chosen: Sequence[str],
    values: Mapping[str, source.Value],
    seeds: int,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Survival:
    """Run the chosen experiments for other master seeds; reuse what the same code measured before."""
    defaults = source.parameters(project.source(chapter)) | dict(values)
    paper = _paper(project, chapter)
    wanted = _others(int(defaults["seed"]), seeds)
    found = _found(project, chapter, paper, chosen, defaults, wanted, jobs, progress or Progress())
    scale = str(defaults.get("scale", "cpu"))
    outcomes = {seed: _outcomes(paper, scale, (found[seed, name] for name in chosen)) for seed in wanted}
    tests = {seed: {key: combine(o.verdict for o in made) for key, made in by.items()} for seed, by in outcomes.items()}
    by_seed = {f"seed {seed}": _joined(paper, verdicts) for seed, verdicts in tests.items()}
    measured_by = {key: name for (_, name), content in found.items() for key in content["estimates"]}
    keys = set(measured_by)
    before = () if values else _published(project, chapter)
    published = _verdicts_of(before, keys)
    skipped = sorted(
        {f"{name}: {content['skipped']}" for (_, name), content in found.items() if content.get("skipped")}
    )
    columns = {name: column for name, column in ({"published": published} | by_seed).items() if column}
    numbers = {"published": _quoted(before, keys)} if "published" in columns else {}
    numbers |= {
        f"seed {seed}": {k: "; ".join(o.quote for o in made) for k, made in by.items()} for seed, by in outcomes.items()
    }
    return Survival(columns, tuple(skipped), _apart(before, found), tests, measured_by, numbers)


def save(project: Project, chapter: str, outcome: Survival) -> Path:
    """Write what every test said at the other seeds, beside its published verdict; return the file.

    Raises: BookError where nothing is published to stand beside.
    """
    paper = _paper(project, chapter)
    tests = paper.tests
    before = published(project, chapter)
    said = {f"{record.claim.id}.{each.test.key}": each.verdict for record in before for each in record.outcomes}
    registered = {
        item.name: registration(tests_of(paper, item.name, "cpu"), config_digest(item.config("cpu")))
        for item in _package(project, chapter).EXPERIMENTS
        if item.name in outcome.measured_by.values()
    }
    family = paper.family_at("cpu")
    redrawn = {
        key: Redrawn(form_digest(tests[key]), family, registered[name], said[key], _others_of(outcome, key))
        for key, name in outcome.measured_by.items()
        if said.get(key, Verdict.NOT_TESTED) is not Verdict.NOT_TESTED
    }
    path = project.agreement(chapter)
    today, seed = date.today().isoformat(), before[0].provenance.seed
    save_agreement(path, Agreement(chapter, today, descent.__version__, seed, redrawn))
    return path


def _others_of(outcome: Survival, key: str) -> dict[int, Verdict]:
    return {seed: verdicts[key] for seed, verdicts in outcome.tests.items() if key in verdicts}


@dataclass(frozen=True)
class Alike:
    """How many estimates were compared with those of a file, and which are not the same to the last bit."""

    compared: int
    different: tuple[str, ...]

    def table(self) -> str:
        """Return the differences, one line each, and the count."""
        count = f"{self.compared} estimates compared, {len(self.different)} differ"
        return "\n".join([*self.different, count])


def against(
    project: Project,
    chapter: str,
    chosen: Sequence[str],
    values: Mapping[str, source.Value],
    file: Path,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Alike:
    """Run the chosen experiments and compare every estimate, bit for bit, with what a file of records holds.

    For changes that may not move a number, on the machine that wrote the file.
    """
    defaults = source.parameters(project.source(chapter)) | dict(values)
    paper = _paper(project, chapter)
    seeds = range(int(defaults["seed"]), int(defaults["seed"]) + 1)
    found = _found(project, chapter, paper, chosen, defaults, seeds, jobs, progress or Progress())
    here = {
        key: tuple(Estimate(**one) for one in several)
        for content in found.values()
        for key, several in content["estimates"].items()
    }
    there = {
        f"{record.claim.id}.{outcome.test.key}": outcome.estimates
        for record in records.read(file)
        for outcome in record.outcomes
        if outcome.experiment in chosen
    }
    lines = [
        f"{key}: {_spelled(there.get(key, ()))} there, {_spelled(here.get(key, ()))} here"
        for key in sorted(there | here)
        if there.get(key, ()) != here.get(key, ())
    ]
    return Alike(len(set(there) & set(here)), tuple(lines))


def _spelled(estimates: Sequence[Estimate]) -> str:
    """Return estimates with all their digits."""
    return ", ".join(f"{one.value!r} [{one.low!r}, {one.high!r}] of {one.n}" for one in estimates) or "nothing"


def _found(
    project: Project,
    chapter: str,
    paper: Paper,
    chosen: Sequence[str],
    values: Mapping[str, source.Value],
    seeds: Iterable[int],
    jobs: int,
    progress: Progress,
) -> dict[tuple[int, str], Mapping[str, Any]]:
    """Measure what has not been measured by the same code, and return all of it by seed and experiment."""
    package = _package(project, chapter)
    folders = {
        item.name: _folder(project, chapter, item, values) for item in package.EXPERIMENTS if item.name in chosen
    }
    tasks = {
        (seed, name): (lab(project, chapter, {**values, "seed": seed}), folders[name] / f"seed-{seed}-{name}.json")
        for seed in seeds
        for name in chosen
    }
    _measure_all(package.__name__, str(values.get("scale", "cpu")), tasks, jobs, progress)
    return {key: _defined(paper, read_json(file), used) for key, (used, file) in tasks.items()}


def measure(package: str, name: str, chosen: Any, scale: str, file: Path) -> float:
    """Run one experiment in this process and write its estimates as outcomes; return the seconds it took."""
    experiment = next(item for item in importlib.import_module(package).EXPERIMENTS if item.name == name)
    found = perform(experiment, chosen, scale)
    estimates = {key: [dataclasses.asdict(one) for one in several] for key, several in found.estimates.items()}
    write_atomic(file, json.dumps({"estimates": estimates, "skipped": found.missing}))
    return found.seconds


def _measure_all(
    package: str, scale: str, tasks: Mapping[tuple[int, str], tuple[Any, Path]], jobs: int, progress: Progress
) -> None:
    waiting = {key: task for key, task in tasks.items() if not _whole(task[1])}
    if len(waiting) < len(tasks):
        progress.say(f"{len(tasks) - len(waiting)} of {len(tasks)} runs reused")
    progress.start("runs")
    with lifeline.processes(jobs) as pool:
        running: dict[Future[float], tuple[int, str]] = {
            pool.submit(measure, package, name, chosen, scale, file): (seed, name)
            for (seed, name), (chosen, file) in waiting.items()
        }
        for done, future in enumerate(as_completed(running), start=1):
            seed, name = running[future]
            progress.say(f"seed {seed}: {name} {future.result():.0f} s")
            progress.advance("runs", done / len(waiting))
    progress.finish("runs", f"{len(tasks)} runs complete")


def _whole(file: Path) -> bool:
    """Tell whether what `measure` wrote is there, and not damaged; it is measured again otherwise."""
    try:
        content = read_json(file)
        return not content.get("skipped") and all(
            Estimate(**one) for found in content["estimates"].values() for one in found
        )
    except (FileNotFoundError, ValueError, *MALFORMED):
        return False


def _defined(paper: Paper, content: Mapping[str, Any], used: Any) -> Mapping[str, Any]:
    """Return what was measured, without the tests that this lab leaves undefined."""
    tests = paper.tests
    defined = {key: found for key, found in content["estimates"].items() if not undefined(tests[key], used)}
    return {**content, "estimates": defined}


def _outcomes(paper: Paper, scale: str, contents: Iterable[Mapping[str, Any]]) -> dict[str, list[Outcome]]:
    """Judge the estimates of one seed, test by test."""
    outcomes: dict[str, list[Outcome]] = {}
    tests, family = paper.tests, paper.family_at(scale)
    for content in contents:
        for key, found in content["estimates"].items():
            made = Outcome(tests[key], family, tuple(Estimate(**one) for one in found))
            outcomes.setdefault(key, []).append(made)
    return outcomes


def _quoted(found: Sequence[Record], keys: set[str]) -> dict[str, str]:
    """Return the published estimates of these tests."""
    return {key: text for key, text in quotes(found).items() if key in keys}


def _joined(paper: Paper, tests: Verdicts) -> Verdicts:
    """Return the verdicts claim by claim."""
    claims = {claim.id: [tests[key] for key in tests if key.partition(".")[0] == claim.id] for claim in paper.claims}
    return {id: combine(verdicts) for id, verdicts in claims.items() if verdicts}


def _published(project: Project, chapter: str) -> Sequence[Record]:
    """Return the published records; none where nothing is published yet, and the other seeds stand alone."""
    try:
        return published(project, chapter)
    except BookError:
        return ()


def _verdicts_of(found: Sequence[Record], keys: set[str]) -> Verdicts:
    """Return the verdicts of records, of the given tests alone."""
    tests = {
        record.claim.id: [o.verdict for o in record.outcomes if f"{record.claim.id}.{o.test.key}" in keys]
        for record in found
    }
    return {id: combine(verdicts) for id, verdicts in tests.items() if verdicts}


def _apart(published: Sequence[Record], found: Mapping[tuple[int, str], Any]) -> tuple[str, ...]:
    """Return the estimates that no other seed explains, such as "P3-C1.faster (seed 2)"."""
    before = {key: item for record in published for key, item in record.measured().items()}
    lines = []
    for (seed, _), content in found.items():
        for key, members in content["estimates"].items():
            for index, one in enumerate(members):
                name = f"{key}[{index}]" if len(members) > 1 else key
                if name in before and _differs(before[name], Estimate(**one), seed):
                    lines.append(f"{name} (seed {seed})")
    return tuple(lines)


def _differs(published: Measured, estimate: Estimate, seed: int) -> bool:
    here = replace(published, estimate=estimate, provenance=replace(published.provenance, seed=seed))
    return compare(published, here).compatible is False


def _others(published: int, count: int) -> range:
    return range(published + 1, published + 1 + count)


def _folder(project: Project, chapter: str, item: Any, values: Mapping[str, source.Value]) -> Path:
    """Return the folder for an experiment's measurements by this code, under these rules, parameters and versions."""
    modules = item.modules or [item.estimates.__module__]
    name = digest.total(
        {
            "library": library_digest(modules, project.library),
            "registration": registration_of(item, str(values.get("scale", "cpu"))),
            "parameters": json.dumps({name: value for name, value in values.items() if name != "seed"}, sort_keys=True),
            **digest.environment(project),
        }
    )
    return project.root / "runs" / f"check-{chapter}-{name[:8]}"


def _paper(project: Project, chapter: str) -> Paper:
    """Return the paper that a chapter's experiments judge the claims of."""
    name = _package(project, chapter).PAPER
    return next(paper for paper in records.papers(project) if paper.paper == name)


def _package(project: Project, chapter: str) -> Any:
    package = experiments_package(project, chapter)
    if package is None:
        raise BookError(f"{chapter} has no experiments to check: no package experiments/{chapter} in the library")
    return package
