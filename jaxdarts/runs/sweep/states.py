"""What does a sweep's folder say of its runs?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxdarts import forms
from jaxdarts.forms import Null

SWEEP_FILE = "sweep.json"
EVALUATE_FOLDER = "evaluate"  # below a run's own
RUN = {
    "name": forms.file_name,
    "state?": ("pending", "running", "failed", "done"),
    "error?": Null(str),
    "seconds?": float,
}
"""What sweep.json says of a run, beside its values."""


def read_states(folder: Path) -> dict[str, dict[str, Any]]:
    """What sweep.json says of every run, by its name. Raises InputError if it cannot be read."""
    runs = forms.read_json(folder / SWEEP_FILE, {"runs": [RUN]})["runs"]
    return {run["name"]: run for run in runs}
