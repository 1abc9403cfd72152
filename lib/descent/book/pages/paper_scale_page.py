"""The page of paper scale: what exists, what it would take, what has been measured, and its tables."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from descent.book.pages.html import raw, table
from descent.book.sources.project import BookError, Project
from descent.book.sources.records import known_seconds
from descent.claims import Outcome, Record, spell
from descent.results import NIGHT, Table, load_table

if TYPE_CHECKING:
    from descent.experiments.lab import Experiment

COLUMNS = ("experiment", "speaks to", "minutes on one core", "measured", "its tests", "tables")


@dataclass(frozen=True)
class Seen:
    """What an experiment gave in nights of two cores, as lines below what it gave at paper scale."""

    tables: Sequence[Table]
    outcomes: Sequence[Outcome]

    @property
    def measured(self) -> str:
        """When, where, and for how long."""
        if not self.tables:
            return ""
        made, took = self.tables[0].provenance, max((each.seconds for each in self.outcomes), default=0.0)
        return f"<br>night: {made.date}, {escape(made.device_class)}, {took / 3600:.1f} core-hours"

    @property
    def verdicts(self) -> str:
        """How its tests came out."""
        counts = Counter(each.verdict for each in self.outcomes)
        return f"<br>night: {spell(counts)}" if counts else ""


def scale_table(
    project: Project, titles: Mapping[str, str], large: Mapping[str, Record], nights: Mapping[str, Record] | None = None
) -> str:
    """Return every experiment that has a paper-scale configuration, by chapter.

    large: what was measured at that scale, by claim; nights: in nights of two cores.
    """
    from descent.experiments.lab import Lab  # only here, since it takes seconds to import
    from descent.runs import campaign, forecast

    bodies, done, dark, count = [], 0, 0, 0
    for chapter, title in titles.items():
        tasks = campaign.tasks(f"descent.experiments.{chapter}", Lab(), "gpu")
        minutes = forecast.expected(tasks, known_seconds(project, chapter))
        found, claims = published(project, chapter), campaign.claims_of(f"descent.experiments.{chapter}")
        by_night, others = published(project, chapter, NIGHT), list((nights or {}).values())
        rows = [
            _row(
                chapter,
                task.experiment,
                claims.get(task.name, ()),
                minutes[task.name],
                found.get(task.name, ()),
                list(large.values()),
                Seen(by_night.get(task.name, ()), _outcomes(chapter, task.name, others)),
            )
            for task in tasks
        ]
        link = f'<a href="{chapter}.html">{escape(title)}</a>'
        head = f'<tr><th colspan="{len(COLUMNS)}" scope="rowgroup">{link}</th></tr>'
        bodies.append("<tbody>\n" + "\n".join([head, *rows]) + "\n</tbody>")
        done += sum(task.name in found for task in tasks)
        dark += sum(task.name in by_night for task in tasks)
        count += len(tasks)
    caption = f"{done} of {count} experiments measured at paper scale, {dark} in nights of two cores."
    return raw(table("scales", "Paper scale", caption, COLUMNS, "\n".join(bodies)))


def published(project: Project, chapter: str, scale: str = "gpu") -> dict[str, list[Table]]:
    """Return the tables measured at paper scale by experiment; raise BookError for one that was damaged."""
    found: dict[str, list[Table]] = {}
    folder = project.night(chapter) if scale == NIGHT else project.paper_scale(chapter)
    for path in sorted(folder.glob("*.csv")):
        try:
            made = load_table(path)
        except ValueError as fault:
            raise BookError(f"{path.relative_to(project.root)}: {fault}") from None
        found.setdefault(made.experiment, []).append(made)
    return found


def _row(
    chapter: str,
    item: Experiment[Any, Any],
    claims: Sequence[str],
    seconds: float,
    tables: Sequence[Table],
    large: Sequence[Record],
    night: Seen,
) -> str:
    about = (importlib.import_module(item.estimates.__module__).__doc__ or "").partition("\n")[0]
    outcomes = _outcomes(chapter, item.name, large)
    verdicts = Counter(each.verdict for each in outcomes)
    links = [_link(chapter, "gpu", each) for each in tables] + [_link(chapter, NIGHT, each) for each in night.tables]
    only = "" if "cpu" in item.scales else "<br><small>at paper scale alone</small>"
    cells = (
        ", ".join(f'<a href="ledger.html#{claim}">{claim}</a>' for claim in claims),
        "unknown" if math.isnan(seconds) else f"{seconds / 60:.1f}" if seconds < 6000 else f"{seconds / 60:,.0f}",
        _measured(tables, max((each.seconds for each in outcomes), default=None)) + night.measured,
        (spell(verdicts) if verdicts else "–") + night.verdicts,
        ", ".join(links) or "–",
    )
    name = f'<th scope="row"><code>{item.name}</code>{only}<br><small>{escape(about)}</small></th>'
    return f"<tr>{name}" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _outcomes(chapter: str, name: str, records: Sequence[Record]) -> list[Outcome]:
    """Return what an experiment's tests gave."""
    own = [each for record in records if record.chapter == chapter for each in record.outcomes]
    return [each for each in own if each.experiment == name and each.estimates]


def _link(chapter: str, scale: str, made: Table) -> str:
    label = made.name if scale == "gpu" else f"{made.name} (night)"
    return f'<a href="downloads/{chapter}/{scale}/{made.name}.csv" download>{label}</a>'


def _measured(tables: Sequence[Table], seconds: float | None) -> str:
    if not tables:
        return "not yet"
    made = tables[0].provenance
    return f"{made.date}, {escape(made.device_class)}" + (f", {seconds:.0f} s" if seconds is not None else "")
