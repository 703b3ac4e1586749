"""Is a device that is not there told in one line?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_without_devices_is_one_line(tmp_path: Path, platform: str) -> None:
    try:
        import jax_cuda13_plugin  # noqa: F401

        pytest.skip("there may be such a device")
    except ImportError:
        pass
    command = [sys.executable, "-m", "jaxdarts.search", "--run-dir", str(tmp_path / "run")]
    environment = {**os.environ, "JAX_PLATFORMS": platform}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"JAX_PLATFORMS {platform!r}" in line and "JAX_PLATFORMS=cpu always works" in line
    assert not list(tmp_path.iterdir())
