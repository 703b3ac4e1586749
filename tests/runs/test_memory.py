"""Is rematerialisation chosen where a gradient would not fit, and only there?"""

from __future__ import annotations

import pytest

from jaxdarts.methods import SearchProblem
from jaxdarts.networks import Supernet
from jaxdarts.runs import memory
from jaxdarts.spaces import SearchSpace

SPACE = SearchSpace.uniform("some", ("skip_connect", "dil_conv_3x3"), num_nodes=1)


def problem(remat: bool = False, image: int = 16) -> SearchProblem:
    return SearchProblem(SPACE, Supernet(SPACE, 3, 4, 3, remat), (image, image, 3))


def test_kept_bytes_grow_with_the_batch_and_shrink_by_rematerialisation() -> None:
    few, many = (memory.kept_bytes(problem(), batch_size) for batch_size in (64, 128))
    assert 1.8 < many / few < 2.0
    assert memory.kept_bytes(problem(remat=True), 128) < many / 2


def test_choice_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    large = problem(image=32)
    monkeypatch.setattr(memory, "memory_bytes", lambda: 1 << 50)
    assert not memory.exceeds_memory(large, 512)
    monkeypatch.setattr(memory, "memory_bytes", lambda: 1 << 20)
    assert memory.exceeds_memory(large, 512)
    monkeypatch.setattr(memory, "memory_bytes", lambda: None)
    assert not memory.exceeds_memory(large, 512)


def test_small_settings_are_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "kept_bytes", lambda *_: pytest.fail("traced"))
    assert not memory.exceeds_memory(problem(), 8)


def test_this_machine_has_memory() -> None:
    found = memory.memory_bytes()
    assert found is None or found > 1 << 28
