"""Is rematerialisation chosen where a gradient would not fit, and only there?"""

from __future__ import annotations

import jax
import pytest

from jaxdarts.methods import SearchProblem
from jaxdarts.networks import Supernet
from jaxdarts.runs import memory
from jaxdarts.spaces import SPACES, SearchSpace

SPACE = SearchSpace.uniform("some", ("skip_connect", "dil_conv_3x3"), num_nodes=1)


def problem(remat: int = 0, image: int = 16) -> SearchProblem:
    return SearchProblem(SPACE, Supernet(SPACE, 3, 4, 3, remat), (image, image, 3))


def test_kept_bytes_grow_with_the_batch_and_shrink_by_rematerialisation() -> None:
    few, many = (memory.kept_bytes(problem(), batch_size) for batch_size in (64, 128))
    assert 1.8 < many / few < 2.0
    assert memory.kept_bytes(problem(remat=3), 128) < many / 2


def test_choice_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    large = problem(image=32)
    needed = memory.PROGRAM_OVER_KEPT * memory.kept_bytes(large, 512)

    def chosen(share: float) -> int:
        monkeypatch.setattr(memory, "memory_bytes", lambda: share * needed / 0.75)
        return memory.cells_to_rematerialise(large, 512)

    assert [chosen(share) for share in (1.01, 0.99, 0.01)] == [0, 1, 3]
    monkeypatch.setattr(memory, "memory_bytes", lambda: None)
    assert memory.cells_to_rematerialise(large, 512) == 0
    monkeypatch.setattr(memory, "CPU_BYTES", 0.99 * needed)
    assert memory.cells_to_rematerialise(large, 512) == (1 if jax.default_backend() == "cpu" else 0)


def test_cells_keep_in_proportion_to_their_weights() -> None:
    def kept(cells: int) -> int:
        supernet = Supernet(SPACES["s1"], 3, 4, 5, cells)
        return memory.kept_bytes(SearchProblem(SPACES["s1"], supernet, (16, 16, 3)), 64)

    weights, everything = memory._block_weights(Supernet(SPACES["s1"], 3, 4, 5)), kept(0)
    for cells in (1, 2):
        assert kept(cells) / everything == pytest.approx(sum(weights[cells:]) / sum(weights), abs=0.1)


def test_small_settings_are_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "kept_bytes", lambda *_: pytest.fail("traced"))
    assert memory.cells_to_rematerialise(problem(), 8) == 0


def test_this_machine_has_memory() -> None:
    found = memory.memory_bytes()
    assert found is None or found > 1 << 28
