"""Has the package's build compile the kernels for CPUs, if it can; without them the package computes in plain JAX."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = "jaxdarts/networks/kernels"


class Kernels(BuildHookInterface):  # type: ignore[misc]
    """What hatchling calls before it makes a wheel or an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles, and has the wheel hold what was compiled."""
        if self.target_name != "wheel":
            return
        spec = importlib.util.spec_from_file_location("build_kernels", Path(self.root) / KERNELS / "build.py")
        assert spec is not None and spec.loader is not None
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        if reason := build.compile_all():
            self.app.display_warning(f"kernels for CPUs were not built, layers will be computed in plain JAX: {reason}")
            return
        build_data["artifacts"].append(f"/{KERNELS}/built/*")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
