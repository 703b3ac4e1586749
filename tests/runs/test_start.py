"""Does a run say what computes it, and whether it began on something else?"""

from __future__ import annotations

import pytest

from jaxdarts.networks import kernels
from jaxdarts.precision import device_name
from jaxdarts.runs.start import _device


def test_device_with_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _device() == f"{device_name()}, kernels {kernels.described()}"
    monkeypatch.setenv("JAXDARTS_KERNELS", "off")
    assert _device() == f"{device_name()}, kernels none"


def test_a_continued_run_says_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAXDARTS_KERNELS", "off")
    now = _device()
    assert _device(now) == now  # nothing to say
    before = now.replace("none", "x86-64-v4")
    assert _device(before) == f"{now} (the run began on {before}: last digits may differ)"
