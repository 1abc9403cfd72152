"""The chapters by axe-core, in both themes and on a phone: nothing serious. A file of its own: axe takes its time."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe import VIEWS, check
from descent.book.sources.project import find_project

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@VIEWS
@pytest.mark.parametrize("shown", find_project(Path(__file__).parent).notebooks, indirect=True)
def test_nothing_serious(shown, theme, width):
    check(shown, theme, width)
