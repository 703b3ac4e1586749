"""How does a benchmark run one of its functions in a process of its own?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from jaxdarts import quicken_compilation
from jaxdarts.errors import RunError


def in_new_process(
    module: str,
    function: str,
    *arguments: Any,
    cache: Path | None = None,
    cpu_devices: int | None = None,
    timeout: float | None = None,
) -> Any:
    """What `benchmarks/<module>.py`'s function returns in a new process, with that compilation cache or none.

    Its CPU counts as `cpu_devices` devices, if that is given.

    Raises:
      RunError: the process failed, with the last line that it wrote to standard error; or it took longer than `timeout`
        seconds.
    """
    quicken_compilation()
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE"))
    }
    if cache is not None:
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    if cpu_devices is not None:
        flags = f"{environment.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={cpu_devices}"
        environment["XLA_FLAGS"] = flags.strip()
    code = f"import json, {module} as m; print(json.dumps(m.{function}(*{arguments!r})))"
    paths = [str(Path(__file__).parent), *(path or os.getcwd() for path in sys.path)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"{function}{arguments} took longer than {timeout:.0f} s") from None
    if done.returncode:
        raise RunError(
            f"{function}{arguments} failed: {(done.stderr.strip() or str(done.returncode)).splitlines()[-1]}"
        )
    return json.loads(done.stdout.splitlines()[-1])
