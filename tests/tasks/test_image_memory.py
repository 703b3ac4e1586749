"""Is rematerialisation chosen where a gradient would not fit, and only there?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jaxdarts.networks import Supernet
from jaxdarts.networks.functional import Network, relaxed_network
from jaxdarts.spaces import SPACES, SearchSpace
from jaxdarts.tasks import image_memory as memory
from jaxdarts.tasks.classification import Batch, loss

SPACE = SearchSpace.uniform("some", ("skip_connect", "dil_conv_3x3"), num_nodes=1)


def kept(supernet: Supernet, batch_size: int, image: int = 16) -> int:
    network = relaxed_network(supernet, (image, image, 3))
    return memory.kept_bytes(network, supernet.space, lambda: example(batch_size, image), loss)


def chosen(supernet: Supernet, batch_size: int, image: int = 16) -> int:
    shape = (image, image, 3)

    def network(remat: int) -> Network:
        return relaxed_network(supernet.clone(remat=remat), shape)

    return memory.cells_to_rematerialise(network, shape, lambda size: example(size, image), loss, batch_size)


def example(batch_size: int, image: int) -> Batch:
    return Batch(jnp.zeros((batch_size, image, image, 3)), jnp.zeros(batch_size, jnp.int32))


def small(remat: int = 0) -> Supernet:
    return Supernet(SPACE, 3, 4, 3, remat)


def test_kept_bytes_grow_with_the_batch_and_shrink_by_rematerialisation() -> None:
    few, many = (kept(small(), batch_size) for batch_size in (64, 128))
    assert 1.8 < many / few < 2.0
    assert kept(small(remat=3), 128) < many / 2


def test_choice_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = memory.PROGRAM_OVER_KEPT * kept(small(), 512, image=32)

    def choice(share: float) -> int:
        monkeypatch.setattr(memory, "memory_bytes", lambda: share * needed / 0.75)
        return chosen(small(), 512, image=32)

    assert [choice(share) for share in (1.01, 0.99, 0.01)] == [0, 1, 3]
    monkeypatch.setattr(memory, "memory_bytes", lambda: None)
    assert chosen(small(), 512, image=32) == 0
    monkeypatch.setattr(memory, "CPU_BYTES", 0.99 * needed)
    assert chosen(small(), 512, image=32) == (1 if jax.default_backend() == "cpu" else 0)


def test_cells_keep_in_proportion_to_their_weights() -> None:
    supernets = [Supernet(SPACES["s1"], 3, 4, 5, cells) for cells in (0, 1, 2, 5)]
    weights, (everything, *some, anyway) = memory._block_weights(supernets[0]), (kept(net, 64) for net in supernets)
    for cells, found in enumerate(some, start=1):
        share = (found - anyway) / (everything - anyway)
        assert share == pytest.approx(sum(weights[cells:]) / sum(weights), abs=0.1)


def test_small_settings_are_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "kept_bytes", lambda *_: pytest.fail("traced"))
    assert chosen(small(), 8) == 0


def test_this_machine_has_memory() -> None:
    found = memory.memory_bytes()
    assert found is None or found > 1 << 28


def test_a_network_with_auxiliary_skip_connections_keeps_more() -> None:
    supernet = Supernet(SPACE, 3, 4, 3, auxiliary_skip=True)
    assert kept(supernet, 64) > kept(small(), 64)
