"""The smallest effect that matters, one per kind of quantity, set once in data/claims/margins.yaml.

A test that names its `unit` takes margin or tolerance from there: `{kind: equivalence, target: 1}` within five per cent
for a ratio. One that states its own number says `because: "…"`, which is shown wherever its rule is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descent.claims.fields import Node
from descent.claims.verdict import Test
from descent.results import read_yaml

__all__ = ["FILE", "Unit", "filled", "load_units", "undeclared"]

FILE = "margins.yaml"
"""The file of the margins, beside the claims."""

SCHEMA = 1
OWN = {"direction": ("margin",), "equivalence": ("tolerance",), "ordering": ("margin",), "scaling": ("low", "high")}
"""By kind of rule, the numbers that its unit gives, or that the test states and says why."""


@dataclass(frozen=True)
class Unit:
    """A kind of quantity: the smallest effect that matters and why, and between which ends the quantity can lie.

    relative: the margin is a share of what the quantity is compared with.
    """

    name: str
    margin: float
    because: str  # why nothing smaller matters
    relative: bool = False
    low: float = -math.inf
    high: float = math.inf

    def at(self, reference: float) -> float:
        """Return the margin about a reference.

        >>> Unit("ratio", 0.05, "…", relative=True).at(2.0)
        0.1
        """
        return self.margin * abs(reference) if self.relative else self.margin


def load_units(folder: Path) -> dict[str, Unit]:
    """Read the units by name; none where the folder has no such file.

    Raises: ValueError naming file, unit, field and remedy.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    node = Node(FILE, read_yaml(path))
    node.only(("schema", "units"))
    if node.content["schema"] != SCHEMA:
        raise node.fault("schema", f"{node.content['schema']!r} will not do; this library reads {SCHEMA}")
    return {item.content["name"]: _unit(item) for item in node.nodes("units", "name")}


def _unit(node: Node) -> Unit:
    node.only(("name", "margin", "because"), ("relative", "low", "high"))
    relative = node.content.get("relative", False)
    if not isinstance(relative, bool):
        raise node.fault("relative", f"{relative!r} will not do; write true or false")
    numbers = {field: _number(node, field) for field in ("margin", "low", "high") if field in node.content}
    if numbers["margin"] <= 0:
        raise node.fault("margin", f"{numbers['margin']} will not do; the smallest effect that matters is positive")
    return Unit(name=node.text("name"), because=node.text("because"), relative=relative, **numbers)


def _number(node: Node, field: str) -> float:
    value = node.content[field]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise node.fault(field, f"{value!r} will not do; write a number")
    return float(value)


def filled(rule: Mapping[str, Any], unit: Unit, stated: bool) -> dict[str, Any]:
    """Return a rule with the margin or tolerance of its unit, unless it states its own and the test says why.

    rule: the fields of a rule, as the claims file has them; stated: whether the test says why it states its own.

    Raises: ValueError for a number without a reason, a reason without a number, or a share of nothing.

    >>> filled({"kind": "direction", "above": 2.0}, Unit("ratio", 0.05, "…", relative=True), stated=False)
    {'kind': 'direction', 'above': 2.0, 'margin': 0.1}
    """
    fields = OWN.get(str(rule.get("kind")), ())
    own = [field for field in fields if field in rule]
    if own and not stated:
        raise ValueError(f"states its own {' and '.join(own)}: add `because` to the test, or leave it to the unit")
    if own or not fields or rule["kind"] == "scaling":
        return dict(rule)
    if stated:
        raise ValueError(f"`because` gives a reason for a number of its own: state `{fields[0]}`, or leave it out")
    reference = next((rule[name] for name in ("above", "below", "target") if name in rule), 0.0)
    if not isinstance(reference, (int, float)) or (unit.relative and reference == 0):
        raise ValueError(f"{unit.name} is compared in shares, of which {reference!r} has none: state `{fields[0]}`")
    return {**rule, fields[0]: unit.at(float(reference))}


def undeclared(tests: Mapping[str, Test]) -> Iterable[str]:
    """Return the keys of tests that name no unit, and so no smallest effect that matters."""
    return [key for key, test in tests.items() if not test.unit]
