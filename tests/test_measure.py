from __future__ import annotations

import time

import numpy as np
import pytest

from letheon.measure import Measured


def test_seconds_and_peak() -> None:
    with Measured() as small:
        time.sleep(0.05)
    with Measured() as large:
        block = np.ones(25_000_000)  # 200 MB
        time.sleep(0.05)
        del block
    assert 0.05 <= small.seconds < 5
    assert small.peak_mb > 0
    assert large.peak_mb > small.peak_mb + 150


def test_an_error_passes_and_the_sampling_ends() -> None:
    with pytest.raises(KeyError), Measured() as cost:
        raise KeyError
    assert cost.seconds > 0
    assert not cost._sampler.is_alive()
