"""What if a run is killed just there?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def death_at(owner: Any, function: str, call: int) -> Iterator[None]:
    """Within it, the so manieth call of a method or a module's function ends everything before it does anything.

    The call must come.
    """
    original, calls = getattr(owner, function), 0

    def deadly(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt  # as sudden as a kill: nothing catches it
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, function, deadly)
        yield
