"""The bench judges as it goes and writes its records when it is told to."""

from __future__ import annotations

from descent.claims import load_records
from descent.experiments.lab import Lab
from descent.runs.bench import APART, Bench


def test_only_saving_writes_records(tmp_path):
    bench = Bench("P3", Lab(), "gpu", tmp_path)
    for key in bench.ledger.lacking:
        bench.ledger.skip(key, "left out of this test")
    assert list(bench.verdicts().columns) == ["verdict", "statement", "quantity", "estimate", "demanded"]
    assert bench.strings()["P3-C1.verdict"] == "not tested here"
    assert not list(tmp_path.iterdir())
    assert load_records(bench.save()) == bench.ledger.records
    (large,) = [o for o in bench.ledger.record("P3-C16").outcomes if o.test.key == "resnet"]
    assert large.reason == APART
