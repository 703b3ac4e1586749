"""What was decided during a run, as its events.json says?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxdarts import forms
from jaxdarts.forms import NUMBER
from jaxdarts.reports.measure import OBJECTIVES
from jaxdarts.runs.events import CHANGE, RESTART, ROLL_BACK, STOP, Event
from jaxdarts.runs.store import EVENTS_FILE

_ABANDONED = {"epoch": int, "dominant_eigenvalue": NUMBER, **{f"valid_{name}?": NUMBER for name in OBJECTIVES}}
_STOP = {"decided_at": int, "epoch": int, "genotype": forms.genotype}
_FORMS: dict[str, dict[str, Any]] = {
    STOP: _STOP,
    ROLL_BACK: {**_STOP, "l2": float, "l2_before": NUMBER, "abandoned?": [_ABANDONED]},
    CHANGE: {"decided_at": int, "averaging": float},
    RESTART: {"epoch": int, "times?": int},
}


def read_events(folder: Path) -> list[Event]:
    """The events of a run in order; none if the file is missing. Raises InputError if it cannot be read."""
    path = folder / EVENTS_FILE
    if not path.exists():
        return []
    return [
        forms.fit(event, _FORMS[event["action"]], f"run_dir: event {number} of {str(path)!r}")
        for number, event in enumerate(forms.read_json(path, [{"action": tuple(_FORMS)}]))
    ]
