from __future__ import annotations

import psutil
import pytest


@pytest.fixture
def own_children():
    """Gives the children that this process got since the test began; servers of other tests may be among the others."""
    before = {child.pid for child in psutil.Process().children()}
    return lambda: [child for child in psutil.Process().children() if child.pid not in before]
