"""How do a run's metrics get into TensorBoard?"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError

FOLDER = "tensorboard"


def check_installed() -> None:
    """Raises InputError if the package that writes TensorBoard's files is missing."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError("tensorboard needs the package tensorboardX: pip install 'jaxdarts[tensorboard]'")


def write_scalars(run_dir: Path, record: Mapping[str, Any]) -> None:
    """Adds one epoch's numbers to `run_dir/tensorboard`; what an interrupted run wrote for this epoch is replaced."""
    from tensorboardX import SummaryWriter

    epoch = record["epoch"]
    with SummaryWriter(str(run_dir / FOLDER), purge_step=epoch) as writer:
        for name, value in record.items():
            if isinstance(value, int | float) and name not in ("epoch", "step"):
                writer.add_scalar(name, value, epoch)
        for cell, count in record.get("skip_connections", {}).items():
            writer.add_scalar(f"skip_connections/{cell}", count, epoch)
