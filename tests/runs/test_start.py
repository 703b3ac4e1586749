"""Does a run say what computes it, and whether it began on something else?"""

from __future__ import annotations

import pytest

from jaxdarts.networks import kernels
from jaxdarts.precision import device_name
from jaxdarts.runs.start import _device, _device_line


def test_device_with_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _device() == f"{device_name()}, kernels {kernels.described()}"
    monkeypatch.setenv("JAXDARTS_KERNELS", "off")
    assert _device() == f"{device_name()}, kernels none"
    assert _device_line(None) == f"{device_name()}, kernels none: JAXDARTS_KERNELS is off"


def test_a_continued_run_says_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "described", lambda: "x86-64-v3")
    monkeypatch.setattr(kernels, "why_none", lambda: None)
    now = _device()
    assert _device_line(now) == now  # nothing to say
    before = now.replace("v3", "v4")
    assert _device_line(before) == f"{now} (the run began on {before}: last digits may differ)"


def test_without_kernels_it_does_not_matter_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is for people at the time, not among what a run began on."""
    monkeypatch.setattr(kernels, "described", lambda: "none")
    monkeypatch.setattr(kernels, "why_none", lambda: "not built")
    assert _device_line(_device()) == f"{_device()}: not built"
