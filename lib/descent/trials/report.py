"""What a trial found, for a terminal, a page, tables and programs."""

from __future__ import annotations

import csv
import html
import json
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from descent.arrays import Array
from descent.stats.estimate import Estimate
from descent.trials.contest import Contest
from descent.trials.plan import Cell, Side

__all__ = ["page", "reading", "side_table", "table", "write"]

COLOURS = ("#0b5394", "#b45f06", "#38761d", "#741b47", "#666666", "#a61c00", "#134f5c", "#7f6000")
_WIDTH, _HEIGHT, _EDGE = 640, 320, 46
_EQUAL = {"reach": "step", "response": "response", "rms": "root mean square update"}


def table(found: Contest) -> str:
    """Return the table of a terminal: rate, score at the end with its interval, difference to the first rule.

    Measures beside the score follow, and below it the table that the problem has of its own.
    """
    first = found.entries[0].name
    rows = [("rule", "lr", found.problem.what, f"less {first}", *found.measures, "")]
    for entry in found.entries:
        tuned = found.tuned[entry.name]
        if tuned.lost:
            rows.append((entry.name, "—", found.problem.lost, "—", *("—" for _ in found.measures), tuned.note))
            continue
        known = entry.name != first and not found.tuned[first].lost
        apart = _text(found, found.difference(entry.name, first)) if known else "—" if entry.name != first else ""
        end = (_text(found, found.mean(entry.name)), apart, *_measured(found, entry.name))
        rows.append((entry.name, f"{tuned.lr:.2g}", *end, tuned.note))
    for kind in found.factors:
        own, plain = f"{first}, {kind}", f"plain at its {found.plan.by}, {kind}"
        for name, apart in ((own, ""), (plain, _text(found, found.difference(plain, own)))):
            rows.append((name, "", _text(found, found.mean(name)), apart, *_measured(found, name), ""))
    return "\n\n".join([_laid(rows), *([side_table(found.side, found.plan.few)] if found.side else [])])


def side_table(side: Side, few: bool) -> str:
    """Return the table that a problem has beside the trial.

    few: whether there are too few replicas or draws for an interval.
    """
    rows = [side.head, *(tuple(_cell(cell, few) for cell in row) for row in side.rows)]
    return f"{side.title}\n{_laid(rows)}"


def _laid(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _measured(found: Contest, name: str) -> list[str]:
    return [_cell(found.measured(name, measure), found.plan.few) for measure in found.measures]


def _cell(cell: Cell, few: bool) -> str:
    if isinstance(cell, Estimate):
        return f"{cell.value:.3g}" if few else str(cell)
    return cell if isinstance(cell, str) else "" if cell is None else f"{cell:.3g}"


def reading(found: Contest) -> str:
    """Return the last line: how much of the rule's gain over its plain version its own step explains."""
    first = found.entries[0].name
    if found.tuned[first].lost:
        rates = found.tuned[first].rates
        return f"{first} {found.problem.lost} at every rate of the grid, {rates[0]:.2g} to {rates[-1]:.2g}."
    parts = [_matched(found, kind) for kind in found.factors]
    if not found.problem.noisy:
        parts.append(f"Gradients of {found.problem.name} are exact, so that there is no noise to make symmetric.")
    few = " Too few replicas or draws for intervals: at least 32 over 8." if found.plan.few else ""
    return (" ".join(parts) or f"{first} was not matched.") + few


def _matched(found: Contest, kind: str) -> str:
    first = found.entries[0].name
    gap = found.difference(f"plain at its {found.plan.by}, {kind}", f"{first}, {kind}")
    factors = found.factors[kind]
    never = int(np.isnan(factors).any(axis=0).sum())
    step = f"At its own measured {_EQUAL[found.plan.by]}"
    said = f"{step} the plain version ends {_text(found, gap)} from {first} with {kind} noise"
    ends = f" (less is better; factor on the rate {_known(factors[0])} at first, {_known(factors[-1])} at last)."
    return said + ends + (f" No step matches {never} of {factors.shape[1]} replicas at some look." if never else "")


def _known(factors: Array) -> str:
    known = factors[~np.isnan(factors)]
    return f"{np.median(known):.2g}" if len(known) else "unknown"


def _text(found: Contest, estimate: Estimate | None) -> str:
    return found.problem.lost if estimate is None else _cell(estimate, found.plan.few)


def write(found: Contest, folder: Path) -> list[Path]:
    """Write report.html, curves.csv, summary.csv and report.json, and the problem's own table; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("report.html", "curves.csv", "summary.csv", "report.json")]
    paths[0].write_text(page(found), encoding="utf-8")
    _csv(paths[1], ("rule", "lr", "step", "draw", "net", "score"), _points(found))
    ends = [name for measure in found.measures for name in _thrice(measure)]
    _csv(paths[2], ("rule", "lr", "mean", "low", "high", *ends, "draws", "note"), _summary(found))
    facts = {**_facts(found), **_results(found)}
    paths[3].write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    if found.side:
        paths.append(folder / f"{found.side.name}.csv")
        side = found.side
        values = [name for head in side.head[side.labels :] for name in _thrice(head)]
        _csv(paths[-1], (*side.head[: side.labels], *values), _besides(side, found.plan.few))
    return paths


def _facts(found: Contest) -> dict[str, object]:
    """Return what is needed to do it again."""
    plan = found.plan
    return {
        "schema": 1, "problem": found.problem.name, "score": found.problem.what, "reading": reading(found),
        "plan": {"rates": list(plan.rates), "replicas": plan.replicas, "draws": plan.draws, "seed": plan.seed,
                 "steps": plan.steps or found.problem.steps, "matched": plan.match, "by": plan.by,
                 "symmetric": plan.symmetric},
        "rules": [{"name": e.name, "settings": dict(e.settings), "source": e.digest,
         "lr": _number(found.tuned[e.name].lr),
                   "note": found.tuned[e.name].note} for e in found.entries],
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "seconds": round(found.seconds, 1),
    }  # fmt: skip


def _results(found: Contest) -> dict[str, object]:
    """Return what was found, by rule or arm of the control."""
    few = found.plan.few
    ends = {
        name: {
            "score": _told(found.mean(name), few),
            **{m: _told(found.measured(name, m), few) for m in found.measures},
        }
        for name in found.curves
    }
    side = found.side
    besides = [{h: _told(c, few) for h, c in zip(side.head, row, strict=True)} for row in side.rows] if side else []
    return {"results": ends} | ({side.name: besides} if side else {})


def _told(cell: Cell, few: bool) -> object:
    if isinstance(cell, Estimate):
        return {"value": cell.value} if few else {"value": cell.value, "low": cell.low, "high": cell.high}
    return cell


def _thrice(name: str) -> tuple[str, str, str]:
    return name, f"{name}, low", f"{name}, high"


def _parts(cell: Cell, few: bool) -> tuple[object, object, object]:
    """Return the value and the ends of its interval, "" for those that there are not."""
    if isinstance(cell, Estimate):
        return (cell.value, "", "") if few else (cell.value, cell.low, cell.high)
    return "" if cell is None else cell, "", ""


def _besides(side: Side, few: bool) -> Iterator[Sequence[object]]:
    for row in side.rows:
        yield *row[: side.labels], *(part for cell in row[side.labels :] for part in _parts(cell, few))


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _points(found: Contest) -> Iterator[Sequence[object]]:
    for name, curve in found.curves.items():
        for (draw, net, place), score in np.ndenumerate(curve.scores):
            yield name, curve.lr, int(curve.steps[place]), draw, net, score


def _summary(found: Contest) -> Iterator[Sequence[object]]:
    few = found.plan.few
    for entry in found.entries:
        if found.tuned[entry.name].lost:
            blank = ("",) * 3 * len(found.measures)
            yield entry.name, "", "", "", "", *blank, found.plan.draws, found.tuned[entry.name].note
    for name, curve in found.curves.items():
        note = found.tuned[name].note if name in found.tuned else ""
        more = (part for measure in found.measures for part in _parts(found.measured(name, measure), few))
        yield name, curve.lr, *_parts(found.mean(name), few), *more, found.plan.draws, note


def _csv(path: Path, head: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def page(found: Contest) -> str:
    """Return the report as one page that asks for nothing from elsewhere."""
    first, own = found.entries[0].name, {entry.name for entry in found.entries}
    title = f"{first} on {found.problem.name}"
    tuned = {n: (found.curves[n].steps, found.curves[n].scores) for n in found.curves if n in own}
    control = {n: (found.curves[n].steps, found.curves[n].scores) for n in found.curves if n not in own}
    parts = [_picture(tuned, "step", found.problem.what, "Curves at the tuned rates")]
    grids = {n: (np.log10(t.rates), t.scores[None, None]) for n, t in found.tuned.items() if not t.lost}
    parts.append(_picture(grids, "log₁₀ of the rate", found.problem.what, "Scores on the draws of the tuning"))
    if control:
        parts.append(_picture(control, "step", found.problem.what, "The step held equal"))
    facts = html.escape(json.dumps(_facts(found), indent=1, ensure_ascii=False))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        "<style>body{font:16px/1.5 sans-serif;max-width:46em;margin:2em auto;padding:0 1em}"
        "pre{overflow-x:auto;background:#f6f6f6;padding:.8em}svg{max-width:100%;height:auto}</style>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(reading(found))}</p>"
        f'<pre tabindex="0">{html.escape(table(found))}</pre>'
        f"{''.join(parts)}<p>Intervals are 95 %, Student t over the means of the draws, paired where two rules are "
        f"compared. Rates were chosen on other draws. {html.escape(found.problem.draws)}</p>"
        f'<details><summary>What is needed to do it again</summary><pre tabindex="0">{facts}</pre></details></html>\n'
    )


def _picture(lines: dict[str, tuple[Array, Array]], x_name: str, y_name: str, title: str) -> str:
    """Return an SVG of the mean over draws and nets of every arm."""
    means = {name: (x, _mean(scores)) for name, (x, scores) in lines.items()}
    known = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in means.values() if np.isfinite(y).any()]
    if not known:
        return ""
    xs, ys = np.concatenate([x for x, _ in known]), np.concatenate([y for _, y in known])
    (left, right), (low, high) = (_ends(values) for values in (xs, ys))

    def place(x: float, y: float) -> str:
        across = _EDGE + (x - left) / (right - left) * (_WIDTH - 2 * _EDGE)
        return f"{across:.1f},{_HEIGHT - _EDGE - (y - low) / (high - low) * (_HEIGHT - 2 * _EDGE):.1f}"

    drawn, names = [], []
    for index, (name, (x, y)) in enumerate(means.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = " ".join(place(a, b) for a, b in zip(x, y, strict=True) if np.isfinite(b))
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        names.append(f'<span style="color:{colour}">■ {html.escape(name)}</span>')
    label = html.escape(f"{title}: " + "; ".join(f"{n} ends at {y[-1]:.3g}" for n, (_, y) in means.items()))
    axes = (
        f'<rect x="{_EDGE}" y="{_EDGE}" width="{_WIDTH - 2 * _EDGE}" height="{_HEIGHT - 2 * _EDGE}" fill="none" '
        f'stroke="#999"/><text x="{_EDGE}" y="{_HEIGHT - 24}">{left:.3g}</text>'
        f'<text x="{_WIDTH - _EDGE}" y="{_HEIGHT - 24}" text-anchor="end">{right:.3g}</text>'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 24}" text-anchor="middle">{html.escape(x_name)}</text>'
        f'<text x="4" y="{_EDGE + 5}">{high:.3g}</text><text x="4" y="{_HEIGHT - _EDGE}">{low:.3g}</text>'
        f'<text x="{_EDGE}" y="{_EDGE - 12}">{html.escape(y_name)}</text>'
    )
    return (
        f"<h2>{html.escape(title)}</h2><p>{' &nbsp; '.join(names)}</p>"
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="13">'
        f"{axes}{''.join(drawn)}</svg>"
    )


def _mean(scores: Array) -> Array:
    """Return the mean over draws and nets, nan where one has diverged."""
    return np.asarray(scores.reshape(-1, scores.shape[-1]).mean(0))


def _ends(values: Array) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)
