"""Claims, the rules they are judged by, and the ledger of verdicts."""

from descent.claims.ledger import Ledger
from descent.claims.paper import Claim, Paper, load_paper, load_papers
from descent.claims.record import (
    Outcome,
    Record,
    compare_records,
    faults,
    load_records,
    quotes,
    restated,
    save_records,
    spell,
    tally,
)
from descent.claims.verdict import (
    Direction,
    Equivalence,
    Ordering,
    Region,
    Rule,
    Scaling,
    Test,
    Verdict,
    combine,
    family_wise,
    judge,
)

__all__ = [
    "Claim",
    "Direction",
    "Equivalence",
    "Ledger",
    "Ordering",
    "Outcome",
    "Paper",
    "Record",
    "Region",
    "Rule",
    "Scaling",
    "Test",
    "Verdict",
    "combine",
    "compare_records",
    "family_wise",
    "faults",
    "judge",
    "load_paper",
    "load_papers",
    "load_records",
    "quotes",
    "restated",
    "save_records",
    "spell",
    "tally",
]
