"""Is a run on several devices the run on one, and does each device do its part only?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What several_devices.py finds with four devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-m", "tests.runs.several_devices", str(tmp_path_factory.mktemp("devices"))],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": flags},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "reference"), [("parts", "one"), ("resumed on one", "one"), ("whole", "state")], ids=lambda name: name
)
def test_a_search_on_two_devices_is_that_on_one(found: Any, name: str, reference: str) -> None:
    np.testing.assert_allclose(found["searches"][name], found["searches"][reference], rtol=1e-7, atol=1e-10)


def test_a_search_on_two_devices_resumes_to_the_same_bits(found: Any) -> None:
    assert found["searches"]["resumed"] == found["searches"]["parts"]


def test_every_device_has_the_whole_state(found: Any) -> None:
    assert found["searches"]["places"] == ["P()"]


def test_an_evaluation_on_two_devices_is_that_on_one(found: Any) -> None:
    np.testing.assert_allclose(found["evaluations"]["two"], found["evaluations"]["one"], rtol=1e-7, atol=1e-10)


def test_each_of_two_devices_does_half_of_the_work(found: Any) -> None:
    assert found["program"]["gathers"] == 0
    assert found["program"]["share"] < 0.75  # of the program before XLA simplifies it


def test_numbers_of_devices_that_cannot_be_used(found: Any) -> None:
    three, nine, small = found["refusals"]
    assert "batch_size must be a multiple of 3, the devices" in three and "such as 9 or 12; got 10" in three
    assert "devices must be at most 4, the cpu devices here; got 9" in nine
    assert "batch_size must be a multiple of 4" in small and "such as 4; got 3" in small
