"""A tiny book in a folder of its own, to plant faults in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from descent.book.sources.project import Project
from descent.claims import Ledger, Paper, load_papers, save_records
from descent.results import provenance
from descent.stats.estimate import Estimate

REPOSITORY = Path(__file__).parents[2]

HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
    jupytext_version: 1.19.6
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""

PARAMETERS = """
```{code-cell} ipython3
:tags: [parameters]

seed = 0
replicas = 32
lr = 0.5
scale = "cpu"
```
"""

CHAPTER = """\
({name})=
# The {name} chapter

A sentence about claim {paper}-C1 and a formula $x^2$.

{parameters}

## Measured

```{{code-cell}} ipython3
from toy import {module}
from toy.base import save

value = {module}.value(lr)
save("{name}", "{paper}-C1", value, seed, replicas)
```

```{{code-cell}} ipython3
:tags: [nbval-check-output]

print(f"{paper}-C1 value {{value:.3f}}")
```

```{{code-cell}} ipython3
---
mystnb:
  image:
    alt: A red square, standing for the finding.
    classes: dark-light
tags: [hide-input]
---
from IPython.display import Image, display
import base64

display(Image(base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==")))
```
"""

BASE = """\
import csv
import hashlib
import json
import os
import shutil
from pathlib import Path


def save(chapter, claim, value, seed, replicas):
    folder = Path(os.environ["DESCENT_OUT"])
    shutil.copy(Path(__file__).with_name(f"{chapter}.records.json"), folder / "records.json")
    with open(folder / "table.csv", "w") as out:
        csv.writer(out).writerows([["seed", "value"], [seed, value]])
    note = {"schema": 1, "experiment": "toy", "sha256": hashlib.sha256((folder / "table.csv").read_bytes()).hexdigest()}
    (folder / "table.json").write_text(json.dumps(note))
"""

CLAIMS = """\
schema: 1
paper: {paper}
chapter: {chapter}
title: A toy
claims:
  - id: {paper}-C1
    place: nowhere
    known: derived
    statement: The {chapter} value is near its prediction.
    scales: [cpu]
    tests:
      - key: size
        by: toy
        quantity: the value
        rule: {{kind: equivalence, target: 1.0, tolerance: 0.1}}
"""

LAB = """\
from dataclasses import dataclass


@dataclass(frozen=True)
class Lab:
    seed: int = 0
    replicas: int = 32
    lr: float = 0.5
    momentum: float = 0.9
    device: str = "cpu"

    def __post_init__(self):
        if self.replicas < 2:
            raise ValueError(f"replicas must be a whole number of at least 2, got {self.replicas}")
        if self.lr <= 0:
            raise ValueError(f"lr must be a positive number, got {self.lr}")
"""

EXPERIMENTS = """\
from dataclasses import dataclass

from descent.data.images import DataMissing
from descent.experiments.lab import Experiment
from descent.stats.estimate import Estimate


@dataclass(frozen=True)
class Toy:
    base: float = 1.0


def around(value):
    return {"T1-C1.size": Estimate(value, value - 0.01, value + 0.01, 32, "Student t", 31)}


def absent(config, lab):
    raise DataMissing("the pictures are not here")


def toy(name, value):
    return Experiment(name, Toy(), Toy(), value, around, lambda result: {})


PAPER = "T1"
EXPERIMENTS = (
    toy("steady", lambda config, lab: config.base),
    toy("moody", lambda config, lab: config.base + lab.seed % 2),
    toy("pictures", absent),
)
"""

INDEX = """\
(index)=
# A toy book

See [](alpha.md), [the second](beta.md) and the [ledger](ledger.md).

<!-- ledger-summary -->
"""

CITATION = """\
cff-version: 1.2.0
title: "What Momentum Does: a toy"
authors:
  - name: The authors of What Momentum Does
version: 1.2.3
date-released: "2026-11-21"
license: MIT
"""

TOC = """\
format: jb-book
root: chapters/index
chapters:
  - file: chapters/alpha
  - file: chapters/beta
  - file: chapters/ledger
  - file: chapters/status
"""


def copied(source: Path, target: Path) -> Path:
    """Copy a toy book or its site; MathJax, nine tenths of it, which no test changes, is linked."""

    def one(file: str, to: str) -> None:
        (os.link if "/_static/mathjax/" in file else shutil.copy2)(file, to)

    return shutil.copytree(source, target, copy_function=one)


def make(root: Path) -> Project:
    """Write the toy book: alpha imports toy.law, beta imports toy.other, both import toy.base."""
    _write(root / "lib" / "toy" / "__init__.py", "")
    _write(root / "lib" / "toy" / "base.py", BASE)
    _write(root / "lib" / "toy" / "law.py", "def value(lr):\n    return 2 * lr\n")
    _write(root / "lib" / "toy" / "other.py", "from . import base\n\n\ndef value(lr):\n    return lr + 0.5\n")
    _write(root / "lib" / "toy" / "experiments" / "lab.py", LAB)
    _write(root / "lib" / "toy" / "experiments" / "alpha.py", EXPERIMENTS)
    for name, module, paper in (("alpha", "law", "T1"), ("beta", "other", "T2")):
        _write(
            root / "chapters" / f"{name}.md",
            HEADER + CHAPTER.format(name=name, module=module, paper=paper, parameters=PARAMETERS),
        )
        _write(root / "data" / "claims" / f"{paper}.yaml", CLAIMS.format(paper=paper, chapter=name))
    _write(root / "chapters" / "index.md", INDEX)
    for page in ("ledger.md", "status.md"):
        shutil.copy(REPOSITORY / "chapters" / page, root / "chapters" / page)
    _write(root / "_toc.yml", TOC)
    _write(root / "CITATION.cff", CITATION)
    shutil.copy(REPOSITORY / "_config.yml", root / "_config.yml")
    _write(root / "chapters" / "references.bib", "")
    shutil.copy(REPOSITORY / "data" / "ledger.schema.json", root / "data" / "ledger.schema.json")
    static, without = "chapters/_static", shutil.ignore_patterns("explorers")
    shutil.copytree(REPOSITORY / static, root / static, ignore=without)
    _write(root / "requirements.lock", "none\n")
    for paper in load_papers(root / "data" / "claims"):
        _record(paper, root / "lib" / "toy" / f"{paper.chapter}.records.json")
    return Project(root)


def _record(paper: Paper, path: Path) -> None:
    """Write the records a toy chapter publishes; made here, so that its kernel need not import torch."""
    made = provenance("cpu", "cpu", 0, 32, modules=["descent.stats.estimate"])
    ledger = Ledger(paper, made, path.parent)
    (claim,) = paper.claims
    ledger.add(
        {f"{claim.id}.size": Estimate(1.0, 0.99, 1.01, 32, "Student t", 31)},
        experiment="toy",
        config="c0ffee",
        seconds=0.1,
    )
    save_records(path, ledger.records)


def edit(path: Path, old: str, new: str) -> None:
    """Replace one text by another, which must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
