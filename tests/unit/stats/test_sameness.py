"""Printed estimates compared as numbers, everything else letter by letter."""

from __future__ import annotations

import pytest
from descent.stats.sameness import as_printed

TABLE = """ claim  estimate                                         region      verdict
 S-1    weakest of 10: 0.050 [0.041, 0.059], 1000 replicas  > 0      holds
 S-2    1.041e−13, deterministic                            < 1e−8   holds
 S-3    −1.6 [−1.7, ∞], 32 replicas                         1 ± 0.05 fails
 S-4    0.9864, deterministic                               0.9 to 1 fails
 S-8    0.9999, deterministic                               0.9 to 1 holds
 S-5    1, 40 replicas                                      > 0.5    holds
 S-6    1.2e−7 [1.0e−7, 1.4e−7], 40 replicas                > 0      holds
 S-9    1.00 [0.79, 1.00], 16 draws, 153 replicas           > 0.55   holds
"""


@pytest.mark.parametrize(
    ("printed", "elsewhere"),
    [
        ("0.050 [0.041, 0.059]", "0.052 [0.043, 0.061]"),
        ("0.050 [0.041, 0.059]", "0.0504 [0.0413, 0.0594]"),
        ("0.050 [0.041, 0.059]", "0.05 [0.04, 0.06]"),
        ("0.9999", "1"),
        ("−1.6 [−1.7, ∞]", "−1.6 [−1.6, ∞]"),
        ("1.041e−13", "8e−15"),
        ("0.9864", "0.9865"),
        ("0.9864", "0.9863"),
        ("1.2e−7 [1.0e−7, 1.4e−7]", "1.3e−7 [1.1e−7, 1.5e−7]"),
        ("  estimate  ", "     estimate "),
        ("153 replicas", "152 replicas"),
        ("0.79, 1.00], 16 draws, 153", "0.80, 1.00], 16 draws, 157"),
    ],
)
def test_what_agrees_is_spelt_as_in_the_reference(printed, elsewhere):
    assert printed in TABLE
    assert as_printed(TABLE, TABLE.replace(printed, elsewhere)) == TABLE


@pytest.mark.parametrize(
    ("printed", "elsewhere"),
    [
        ("0.050 [0.041, 0.059]", "0.059 [0.050, 0.068]"),  # half a width off
        ("0.050 [0.041, 0.059]", "0.050 [0.032, 0.059]"),
        ("0.050 [0.041, 0.059]", "0.050 [0.041, 0.068]"),
        ("−1.6 [−1.7, ∞]", "1.6 [−1.7, ∞]"),
        ("−1.6 [−1.7, ∞]", "−1.6 [−1.7, 3]"),
        ("1.041e−13", "1.041e−10"),
        ("0.9864", "0.9866"),
        ("0.9864", "1.0"),
        ("0.050 [0.041, 0.059]", "0 [0, 1]"),
        ("0.9864", "−0.9864"),
        ("1, 40", "0, 40"),
        ("1000 replicas", "1001 replicas"),
        ("153 replicas", "147 replicas"),
        ("153 replicas", "53 replicas"),
        ("16 draws", "15 draws"),
        ("16 draws, 153 replicas", "16 draws × 10"),
        ("weakest of 10", "weakest of 11"),
        ("> 0.5", "> 0.4"),
        ("1 ± 0.05", "1 ± 0.06"),
        ("holds", "fails"),
        ("S-3", "S-7"),
        (" S-4    0.9864, deterministic                               0.9 to 1 fails\n", ""),
        (", deterministic", ""),
    ],
)
def test_what_does_not_agree_stays(printed, elsewhere):
    assert printed in TABLE
    found = as_printed(TABLE, TABLE.replace(printed, elsewhere, 1))
    assert found != TABLE
    assert elsewhere in found
