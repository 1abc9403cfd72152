"""What a deposited archive says of itself to programs: RO-Crate, Frictionless data package, and FORRT's terms."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from descent.book.sources.edition import Author, Edition
from descent.claims import Paper, Record, Verdict

__all__ = ["CRATE", "FORRT", "PACKAGE", "crate", "forrt", "package"]

CRATE, PACKAGE, FORRT = Path("ro-crate-metadata.json"), Path("datapackage.json"), Path("forrt.json")
SPECIFICATION = "https://w3id.org/ro/crate/1.2"
PROFILE = "https://datapackage.org/profiles/2.0"
TERMS = "https://w3id.org/sciencelive/o/terms/"
STATUS = {
    Verdict.HOLDS: ("Validated", "confirms"),
    Verdict.FAILS: ("Contradicted", "disputes"),
    Verdict.INCONCLUSIVE: ("Inconclusive", "discusses"),
    Verdict.NOT_TESTED: ("NotTested", "cites"),
}
"""FORRT's word for each verdict, and CiTO's for how the book then cites the paper."""
KINDS = {"float64": "number", "float32": "number", "int64": "integer", "int32": "integer", "bool": "boolean"}
"""What Table Schema calls the types of columns; all others are texts."""
MEDIA = {".yaml": "application/yaml", ".cff": "application/yaml", ".md": "text/markdown", ".csv": "text/csv"}


def crate(edition: Edition, files: Mapping[Path, bytes]) -> bytes:
    """Return the metadata file of an RO-Crate 1.2 whose root holds files, by their places in it."""
    authors = [{"@id": f"#author-{number}"} for number, _ in enumerate(_authors(edition), start=1)]
    descriptor = {
        "@id": CRATE.name,
        "@type": "CreativeWork",
        "conformsTo": {"@id": SPECIFICATION},
        "about": {"@id": "./"},
    }
    licence = f"https://spdx.org/licenses/{edition.licence or 'NONE'}"
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{edition.title} {edition.number}",
        "description": edition.abstract or edition.title,
        "datePublished": edition.released.isoformat() if edition.released else "",
        "version": edition.version,
        "license": {"@id": licence},
        "author": authors,
        "hasPart": [{"@id": _id(place)} for place in sorted(files)],
        **({"identifier": f"https://doi.org/{edition.doi}"} if edition.doi else {}),
        **({"url": edition.address} if edition.address else {}),
        **({"keywords": ", ".join(edition.keywords)} if edition.keywords else {}),
    }
    named = {"@id": licence, "@type": "CreativeWork", "name": edition.licence or "no licence"}
    people = [_person(one, place["@id"]) for one, place in zip(_authors(edition), authors, strict=True)]
    parts = [_file(place, files[place]) for place in sorted(files)]
    return _json({"@context": f"{SPECIFICATION}/context", "@graph": [descriptor, root, named, *people, *parts]})


def package(edition: Edition, files: Mapping[Path, bytes]) -> bytes:
    """Return the descriptor of a Frictionless data package: every table among the files that has its note beside it."""
    notes = {
        place: json.loads(files.get(place.with_suffix(".json"), b"{}")) for place in files if place.suffix == ".csv"
    }
    content = {
        "$schema": f"{PROFILE}/datapackage.json",
        "name": re.sub(r"[^a-z0-9]+", "-", edition.title.lower()).strip("-"),
        "title": edition.title,
        "version": edition.version,
        "description": edition.abstract or edition.title,
        "licenses": [{"name": edition.licence}] if edition.licence else [],
        "contributors": [{"title": author.shown, "roles": ["author"]} for author in _authors(edition)],
        "resources": [
            _resource(place, files[place], notes[place]) for place in sorted(notes) if "columns" in notes[place]
        ],
    }
    if edition.address:
        content["homepage"] = edition.address
    return _json(content)


def forrt(edition: Edition, records: Iterable[Record], papers: Sequence[Paper]) -> bytes:
    """Return every claim with what was asked and what came out, in the words of FORRT's replications.

    A claim of a paper is cited by CiTO's word for its verdict; what the book adds, and identities, replicate nothing.
    """
    stated = {paper.paper: paper for paper in papers}
    content = {
        "terms": {"validationStatus": TERMS, "cites": "http://purl.org/spar/cito/"},
        "book": {"title": edition.title, "version": edition.version, "url": edition.address},
        "claims": [_claim(edition, record, stated[record.paper]) for record in records if record.paper in stated],
    }
    return _json(content)


def _claim(edition: Edition, record: Record, paper: Paper) -> dict[str, Any]:
    claim, made, (status, relation) = record.claim, record.provenance, STATUS[record.verdict]
    source = f"https://doi.org/{paper.doi}" if paper.doi else paper.arxiv and f"https://arxiv.org/abs/{paper.arxiv}"
    replicates = claim.known != "derived" and not claim.identity and bool(source)
    return {
        "id": claim.id,
        "claim": {"statement": claim.statement, "place": claim.place, "known": claim.known, "source": source},
        "study": {
            "type": "Replication Study" if replicates else "none: stated by the book itself",
            "conditions": claim.conditions,
            "tests": [_test(record, outcome.test.key) for outcome in record.outcomes],
            "scale": made.scale,
            "seed": made.seed,
            "date": made.date,
        },
        "outcome": {
            "validationStatus": f"{TERMS}{status}",
            "verdict": str(record.verdict),
            "conclusion": record.headline.text,
            "evidence": edition.link(f"ledger.html#{claim.id}") or f"ledger.html#{claim.id}",
        },
        **({"citation": {"relation": f"http://purl.org/spar/cito/{relation}", "cited": source}} if replicates else {}),
    }


def _test(record: Record, key: str) -> dict[str, str]:
    outcome = next(each for each in record.outcomes if each.test.key == key)
    return {
        "key": key,
        "quantity": record.quantity(outcome),
        "demanded": str(outcome.test.rule),
        "registration": outcome.registration,
        "validationStatus": f"{TERMS}{STATUS[outcome.verdict][0]}",
        "found": outcome.text,
    }


def _resource(place: Path, table: bytes, about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "$schema": f"{PROFILE}/dataresource.json",
        "name": re.sub(r"[^-a-z0-9._]", "-", "-".join(place.with_suffix("").parts).lower()),
        "path": place.as_posix(),
        "type": "table",
        "format": "csv",
        "mediatype": "text/csv",
        "encoding": "utf-8",
        "bytes": len(table),
        "hash": f"sha256:{hashlib.sha256(table).hexdigest()}",
        "description": f"of the experiment {about.get('experiment') or '(none)'}; conditions in {place.stem}.json",
        "schema": {
            "fields": [{"name": name, "type": KINDS.get(kind, "string")} for name, kind in about["columns"]],
            "missingValues": ["", "nan"],
        },
    }


def _file(place: Path, content: bytes) -> dict[str, Any]:
    media = MEDIA.get(place.suffix) or mimetypes.guess_type(place.name)[0] or "text/plain"
    return {
        "@id": _id(place),
        "@type": "File",
        "name": place.name,
        "encodingFormat": media,
        "contentSize": str(len(content)),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _authors(edition: Edition) -> tuple[Author, ...]:
    return edition.authors or (Author(edition.line or edition.title),)


def _person(author: Author, id: str) -> dict[str, str]:
    return {"@id": id, "@type": "Person" if author.given else "Organization", "name": author.shown}


def _id(place: Path) -> str:
    return quote(place.as_posix())


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
