"""Write the four files of a claim to begin with: a rule that can be judged, what measures it, figure and cells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from descent.book.commands.compare import columns
from descent.book.sources import records
from descent.book.sources.project import BookError, Project, sound
from descent.claims import Paper
from descent.results import read_text, write_atomic

__all__ = ["CELLS", "CLAIM", "EXPERIMENT", "FIGURE", "new_claim"]

CLAIM = """\
  - id: P3-X12
    place: not in the paper
    known: derived
    statement: At rest on a quadratic a heavy ball varies as the exact discrete law says, whatever the momentum.
    scales: [cpu, gpu]
    tests:
      - key: law
        by: warmth
        quantity: mean square of the position at rest over the exact variance, each momentum
        unit: ratio
        rule: {kind: equivalence, target: 1.0, each: true}
"""

EXPERIMENT = '''\
"""A heavy ball at rest on a noisy quadratic: does it vary as much as the exact law says?"""

from dataclasses import dataclass

import numpy as np
import torch

from descent.arrays import Array
from descent.engine import column, heavy_ball
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, each, tidy
from descent.problems.saddle import Quadratic
from descent.stats import mean
from descent.theory.mode import stationary_variance


@dataclass(frozen=True)
class Warmth:
    """Arms of every momentum from the minimum on, for as long as it takes to forget it."""

    problem: Quadratic = Quadratic((1.0,))
    momentum: tuple[float, ...] = (0.0, 0.5, 0.9)  # an arm each
    lr: float = 0.1
    steps: int = 400
    replicas: Share = Share(times=20)


@dataclass(frozen=True, eq=False)
class WarmthResult(Result[Warmth]):
    """ratio (A, N): squared position after the last step over its exact mean."""

    ratio: Array


def run(config: Warmth, lab: Lab) -> WarmthResult:
    """Let all arms go, and hold where they are against the law."""
    law = stationary_variance(config.problem.curvatures[0], config.lr, np.array(config.momentum))
    arms = lab.arms(heavy_ball(config.lr, config.momentum), config.replicas)
    end = arms.run(config.problem, torch.zeros(1, 1), config.steps).end(column(0))
    return WarmthResult(config, lab, end**2 / law[:, None])


def estimates(result: WarmthResult) -> Estimates:
    """Return what the quadratic says about P3-X12."""
    return {"P3-X12.law": list(each(mean, result.ratio))}


def tables(result: WarmthResult) -> Tables:
    """Return the ratio per momentum."""
    return {"warmth": tidy({"momentum": result.config.momentum}, ratio=each(mean, result.ratio))}


WARMTH = Experiment("warmth", Warmth(), Warmth(steps=4000), run=run, estimates=estimates, tables=tables)
'''

FIGURE = '''\
"""What a heavy ball at rest varies by, drawn against the exact law."""

from __future__ import annotations

from matplotlib.figure import Figure

from descent.experiments.lab import each
from descent.experiments.saddles.warmth import WarmthResult
from descent.figures import marks, momentum_look, panels, theory
from descent.stats import mean


def warmth(result: WarmthResult) -> Figure:
    """Draw the squared position over its exact mean for every momentum; the grey line is the law."""
    figure, (axis,) = panels(1)
    momenta = result.config.momentum
    theory(axis, [min(momenta), max(momenta)], [1.0, 1.0])
    for momentum, found in zip(momenta, each(mean, result.ratio), strict=True):
        marks(axis, [momentum], [found], momentum_look(momentum))
    axis.set(xlabel="momentum", ylabel="mean square over the law")
    return figure
'''

CELLS = """\
## Rename me: warmth

What is asked, and what the theory says, in a few sentences; no number is typed here.

```{code-cell} ipython3
from descent.experiments.saddles import warmth
from descent.figures.saddles.warmth import warmth as draw_warmth

rest = bench.run(warmth.WARMTH)
```

```{code-cell} ipython3
---
tags: [hide-input]
mystnb:
  image:
    alt: "Mean square of the position at rest over the law against momentum, with intervals: say what is to be seen."
    classes: dark-light
  figure:
    name: fig-saddles-warmth
    caption: "**Say the finding first.** Then what is drawn: the mean square over the law, with 95 % intervals."
---
draw_warmth(rest)
```

At rest the mean square is {glue:text}`P3-X12.law` of what the law says.
A sentence a line; the claim ends the paragraph ([P3-X12](claim:P3-X12) {glue:text}`P3-X12.verdict`).

"""

BEFORE = "## Verdicts\n"
"""What the cells are put before, so that the page has its verdict."""
STEPS = (
    ("descent claims {claim}", "reads the claim: say there what yours is, and by which rule"),
    ("descent check {chapter} --only {name} --seeds 2 -p seed=1000", "tries the experiment: a pilot"),
    ("descent register {claim} --basis …", "registers the rule, before the numbers of seed 0 are drawn"),
    ("make book", "runs the chapter and shows the claim"),
)


def new_claim(project: Project, place: str) -> str:
    """Write claim, experiment, figure and cells into a chapter's files; return what was written and what comes next.

    place: chapter and name of the experiment, such as "saddles.warmth". Raises: BookError where that is taken or cannot
    be, and then nothing is written.
    """
    chapter, _, name = place.partition(".")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise BookError(f"{place}: give chapter and name of an experiment, such as saddles.warmth")
    papers = {paper.chapter: paper for paper in records.papers(project)}
    if chapter not in papers:
        raise BookError(f"{place}: no paper's chapter is called {chapter!r}; there are {', '.join(papers)}")
    claim = _free(project, papers[chapter])
    written = _files(project, papers[chapter], name, claim)
    for path, content in written.items():
        write_atomic(path, content)
    steps = [(command.format(claim=claim, chapter=chapter, name=name), why) for command, why in STEPS]
    paths = "\n".join(str(path.relative_to(project.root)) for path in written)
    return f"{paths}\n\n{columns(('then', 'what it does'), steps)}"


def _files(project: Project, paper: Paper, name: str, claim: str) -> dict[Path, str]:
    """Return what is to be written; raise BookError where something of the name is there."""
    chapter, package = paper.chapter, project.library / "descent"
    stated = next(path for path in project.claim_files(chapter) if f"\npaper: {paper.paper}\n" in read_text(path))
    folder = package / "figures" / chapter
    drawn = folder / f"{name}.py" if folder.is_dir() else folder.with_name(f"{chapter}_{name}.py")
    measured = package / "experiments" / chapter / f"{name}.py"
    if there := [path for path in (measured, drawn) if path.exists()]:
        raise BookError(f"{there[0].relative_to(project.root)} is there already; give the experiment another name")
    page, module = sound(read_text, project.source(chapter)), drawn.relative_to(project.library).with_suffix("")
    if page.count(BEFORE) != 1:
        raise BookError(f"{chapter}.md has no section {BEFORE.strip()!r} to put cells before; write one")
    cells = CELLS.replace("descent.figures.saddles.warmth", ".".join(module.parts))
    named = {"saddles": chapter, "warmth": name, "WARMTH": name.upper(), "P3-X12": claim, "Warmth": _class(name)}
    return {
        stated: sound(read_text, stated).rstrip("\n") + "\n" + _renamed(CLAIM, named),
        measured: _renamed(EXPERIMENT, named),
        drawn: _renamed(FIGURE, named),
        project.source(chapter): page.replace(BEFORE, _renamed(cells, named) + BEFORE),
    }


def _renamed(text: str, named: Mapping[str, str]) -> str:
    """Return a text with all names at once replaced, so that none is replaced twice."""
    return re.sub("|".join(named), lambda found: named[found[0]], text)


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _free(project: Project, paper: Paper) -> str:
    """Return the first id that no claim of a paper has or had."""
    series = f"{paper.paper}-X" if any(f"{paper.paper}-X" in claim.id for claim in paper.claims) else f"{paper.paper}-"
    known = {claim.id for claim in paper.claims} | {key.partition(".")[0] for key in records.registry(project).tests}
    taken = [int(id.removeprefix(series)) for id in known if re.fullmatch(rf"{series}\d+", id)]
    return f"{series}{max(taken, default=0) + 1}"
