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

__all__ = ["page", "reading", "table", "write"]

COLOURS = ("#0b5394", "#b45f06", "#38761d", "#741b47", "#666666", "#a61c00", "#134f5c", "#7f6000")
_WIDTH, _HEIGHT, _EDGE = 640, 320, 46


def table(found: Contest) -> str:
    """Return the table of a terminal: rate, score at the end with its interval, difference to the first rule."""
    first = found.entries[0].name
    rows = [("rule", "lr", found.problem.what, f"less {first}", "")]
    for entry in found.entries:
        tuned = found.tuned[entry.name]
        if tuned.lost:
            rows.append((entry.name, "—", "diverged", "—", tuned.note))
            continue
        apart = "" if entry.name == first else _text(found, found.difference(entry.name, first))
        rows.append((entry.name, f"{tuned.lr:.2g}", _text(found, found.mean(entry.name)), apart, tuned.note))
    for kind in found.factors:
        own, plain = f"{first}, {kind}", f"plain at its reach, {kind}"
        rows.append((own, "", _text(found, found.mean(own)), "", ""))
        rows.append((plain, "", _text(found, found.mean(plain)), _text(found, found.difference(plain, own)), ""))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def reading(found: Contest) -> str:
    """Return the last line: how much of the rule's gain over its plain version its own step explains."""
    first = found.entries[0].name
    if found.tuned[first].lost:
        return f"{first} diverged at every rate of the grid, from {found.tuned[first].rates[0]:.2g} up."
    parts = [_matched(found, kind) for kind in found.factors]
    few = " Too few replicas or draws for intervals: at least 32 over 8." if found.plan.few else ""
    return (" ".join(parts) or f"{first} was not matched.") + few


def _matched(found: Contest, kind: str) -> str:
    first = found.entries[0].name
    gap = found.difference(f"plain at its reach, {kind}", f"{first}, {kind}")
    factors = found.factors[kind]
    never = int(np.isnan(factors).any(axis=0).sum())
    said = f"At its own measured step the plain version ends {_text(found, gap)} from {first} with {kind} noise"
    ends = f" (less is better; factor on the rate {_known(factors[0])} at first, {_known(factors[-1])} at last)."
    return said + ends + (f" No step matches {never} of {factors.shape[1]} replicas at some look." if never else "")


def _known(factors: Array) -> str:
    known = factors[~np.isnan(factors)]
    return f"{np.median(known):.2g}" if len(known) else "unknown"


def _text(found: Contest, estimate: Estimate | None) -> str:
    if estimate is None:
        return "diverged"
    return f"{estimate.value:.3g}" if found.plan.few else str(estimate)


def write(found: Contest, folder: Path) -> list[Path]:
    """Write report.html, curves.csv, summary.csv and report.json; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("report.html", "curves.csv", "summary.csv", "report.json")]
    paths[0].write_text(page(found), encoding="utf-8")
    _csv(paths[1], ("rule", "lr", "step", "draw", "net", "score"), _points(found))
    _csv(paths[2], ("rule", "lr", "mean", "low", "high", "draws", "note"), _summary(found))
    paths[3].write_text(json.dumps(_facts(found), indent=1, ensure_ascii=False), encoding="utf-8")
    return paths


def _facts(found: Contest) -> dict[str, object]:
    """Return what is needed to do it again."""
    plan = found.plan
    return {
        "schema": 1, "problem": found.problem.name, "score": found.problem.what, "reading": reading(found),
        "plan": {"rates": list(plan.rates), "replicas": plan.replicas, "draws": plan.draws, "seed": plan.seed,
                 "steps": plan.steps or found.problem.steps, "matched": plan.match, "symmetric": plan.symmetric},
        "rules": [{"name": e.name, "settings": dict(e.settings), "source": e.digest,
         "lr": _number(found.tuned[e.name].lr),
                   "note": found.tuned[e.name].note} for e in found.entries],
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "seconds": round(found.seconds, 1),
    }  # fmt: skip


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _points(found: Contest) -> Iterator[Sequence[object]]:
    for name, curve in found.curves.items():
        for (draw, net, place), score in np.ndenumerate(curve.scores):
            yield name, curve.lr, int(curve.steps[place]), draw, net, score


def _summary(found: Contest) -> Iterator[Sequence[object]]:
    for entry in found.entries:
        if found.tuned[entry.name].lost:
            yield entry.name, "", "", "", "", found.plan.draws, found.tuned[entry.name].note
    for name, curve in found.curves.items():
        mean = found.mean(name)
        note = found.tuned[name].note if name in found.tuned else ""
        ends = (
            ("", "", "") if mean is None else (mean.value, *((mean.low, mean.high) if not found.plan.few else ("", "")))
        )
        yield name, curve.lr, *ends, found.plan.draws, note


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
        "compared. Rates were chosen on other draws.</p>"
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
