"""The JSON Schema of a ledger, for programs that read one: every word in it is the one the records are written with.

`python -m descent.claims.schema` writes data/ledger.schema.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from descent.claims.paper import KNOWN, SCALES
from descent.claims.record import EARLIER, RECORD, SCHEMA
from descent.claims.registry import BASES
from descent.claims.verdict import FLAGS, RULES, Verdict
from descent.results import NIGHT, project_root, write_atomic

__all__ = ["ledger_schema"]

Json = dict[str, Any]

ID, PAPER = "^[A-Z][A-Z0-9]*-[A-Z]?[0-9]+$", "^[A-Z][A-Z0-9]*$"
TEXT, INTEGER, NUMBER = ({"type": kind} for kind in ("string", "integer", "number"))
NUMBER_OR_NULL, INTEGER_OR_NULL = ({"type": [kind, "null"]} for kind in ("number", "integer"))
LATER = ("undecided", "unit", "because", *FLAGS)
"""Fields of a test that records of an earlier schema lack."""


def ledger_schema() -> str:
    """Return the text of the schema that `ledger.json` and `records.json` follow."""
    about = "Every claim with its rule, estimates and verdict. null stands for an infinite or absent number."
    content = {"schema": {"const": SCHEMA}, "records": _list(_ref("record"))}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ledger of claims",
        "description": about,
        "type": "object",
        "required": list(content),
        "additionalProperties": False,
        "properties": content,
        "$defs": _parts() | {"test": _closed(_test(), _registered(), later=LATER), "record": _closed(_record())},
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _parts() -> Json:
    """Return what tests and records are made of."""
    made = ["scale", "device_class", "seed", "replicas", "library", "torch", "date"]
    kinds = {"enum": [rule.kind for rule in RULES]}
    region = {"text": TEXT, "low": NUMBER_OR_NULL, "high": NUMBER_OR_NULL}
    estimate = {
        "value": NUMBER_OR_NULL,
        "low": NUMBER_OR_NULL,
        "high": NUMBER_OR_NULL,
        "n": INTEGER,
        "method": TEXT,
        "dof": NUMBER_OR_NULL | {"description": "degrees of freedom; null: infinite"},
        "level": NUMBER,
        "draws": INTEGER | {"minimum": 0, "description": "draws of the data that the n replicas share; absent: 0"},
    }
    return {
        "digest": {"type": "string", "pattern": "^([0-9a-f]{16})?$"},
        "interval": {"oneOf": [{"type": "null"}, _list(NUMBER_OR_NULL) | {"minItems": 2, "maxItems": 2}]},
        "verdict": {"enum": [str(verdict) for verdict in Verdict]},
        "rule": {
            "type": "object",
            "required": ["kind"],
            "properties": {
                "kind": kinds,
                "each": {"type": "boolean", "description": "over every one of the estimates"},
            },
            "additionalProperties": NUMBER,
        },
        "predicted": {"type": "object", "required": list(region), "properties": region},
        "estimate": _closed(estimate, later=("draws",)),
        "ids": _list({"type": "string", "pattern": ID}),
        "scales": _list({"enum": list(SCALES)}) | {"minItems": 1},
        "provenance": {
            "type": "object",
            "required": made,
            "additionalProperties": {"type": ["string", "integer", "number"]},
        },
    }


def _test() -> Json:
    return {
        "key": TEXT, "quantity": TEXT, "scales": _ref("scales"),
        "unit": TEXT | {"description": "kind of quantity, whose smallest effect that matters is the margin"},
        "because": TEXT | {"description": "why the rule states a margin of its own, empty if it does not"},
        "identity": {"const": True, "description": "algebra against algebra, or one exact number; absent: it is none"},
        "chaotic": {"const": True, "description": "its runs amplify last digits until they part; absent: they do not"},
        "family": INTEGER | {"minimum": 1, "description": "tests judged jointly"},
        "reason": TEXT | {"description": "why it was not tested, or what is missing of what was measured"},
        "undecided": TEXT | {"description": "why what was measured decides nothing, empty if it may; absent: empty"},
        "experiment": TEXT, "seconds": NUMBER, "verdict": _ref("verdict"), **_summary(),
        "replicas_to_settle": INTEGER_OR_NULL, "estimates": _list(_ref("estimate")),
    }  # fmt: skip


def _registered() -> Json:
    """Return what a record has since there are registrations, and what a published ledger takes from the registry."""
    about = "earlier forms of the rule, each with what it said last and why it was left"
    form = dict.fromkeys(("rule", "date", "version", "basis", "why", "estimate", "verdict"), TEXT)
    drawn = "what the random numbers were drawn from, beside the seed: rules and configuration"
    return {
        "registration": _ref("digest") | {"description": drawn},
        "basis": {"enum": list(BASES), "description": "where the numbers of the region come from"},
        "earlier": _list(_closed({"form": {"type": "object"}, **form})) | {"description": about},
    }


def _record() -> Json:
    return {
        "schema": {"enum": [EARLIER, RECORD]}, "paper": {"type": "string", "pattern": PAPER}, "chapter": TEXT,
        "id": {"type": "string", "pattern": ID}, "place": TEXT | {"description": "where in the paper"},
        "known": {"enum": list(KNOWN)}, "statement": TEXT, "conditions": TEXT, "paper_shape": TEXT,
        "scales": _ref("scales"), "see": _ref("ids"), "paired_with": _ref("ids"), "verdict": _ref("verdict"),
        "notes": TEXT, "headline": TEXT | {"description": "key of the test that the claim is told by"}, **_summary(),
        "scale": {"enum": [*SCALES, NIGHT]}, "device_class": TEXT, "seed": INTEGER, "library": _ref("digest"),
        "torch": TEXT, "seconds": NUMBER, "provenance": _ref("provenance"),
        "tests": _list(_ref("test")) | {"minItems": 1},
        "sha256": {"type": "string", "pattern": "^[0-9a-f]+$",
                   "description": "over everything but seconds, date and itself"},
    }  # fmt: skip


def _summary() -> Json:
    """Return the fields that a record takes over from the test that it is told by."""
    joint = "95 % for all tests of the paper jointly; the verdict rests on it"
    return {
        "rule": _ref("rule"),
        "predicted": _ref("predicted"),
        "estimate": NUMBER_OR_NULL,
        "interval": _ref("interval") | {"description": "95 %"},
        "family_interval": _ref("interval") | {"description": joint},
        "text": TEXT,
        "replicas": INTEGER_OR_NULL,
        "config": _ref("digest"),
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _closed(properties: Json, optional: Json | None = None, later: Sequence[str] = ()) -> Json:
    """Return an object with exactly these fields; the optional ones and those that came `later` may be absent."""
    required = [name for name in properties if name not in later]
    known = {**properties, **(optional or {})}
    return {"type": "object", "properties": known, "required": required, "additionalProperties": False}


def main() -> None:
    """Write it."""
    write_atomic(project_root() / "data" / "ledger.schema.json", ledger_schema())


if __name__ == "__main__":
    main()
