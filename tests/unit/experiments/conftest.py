"""What tests of networks on pictures share: noise in the place of CIFAR-10."""

from __future__ import annotations

import pytest
from descent.data import images
from tidy import pictures


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "load", pictures)
        yield
