"""What does a run hand to its network and to its method? All that these tests know of the package's inside is here.

A run gets a network of one linear layer in place of its own. It compiles in no time, a few lines of NumPy say what it
answers (`by_hand.py`), and it tells every batch that it sees. A method that only writes its batches down is registered.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxdarts.tasks.classification
from jaxdarts.evaluate import run_evaluation
from jaxdarts.methods import METHODS, Method, MethodEntry, gradient_method
from jaxdarts.networks import DiscreteNetwork, Supernet
from jaxdarts.search import run_search
from jaxdarts.tabulate import run_tabulation
from tests.meaning.by_hand import EPSILON, RECORDER, features, gain, ids_of
from tests.runs.tiny import tiny_config, tiny_evaluation, tiny_tabulation


class Call(NamedTuple):
    """One forward pass of a network."""

    network: str  # supernet or discrete
    train: bool  # normalised by the batch's own statistics
    ids: tuple[int, ...]  # of the images
    key: tuple[int, ...] | None  # of drop path
    drop_path: float | None


class Draw(NamedTuple):
    """What the registered method is given in one step."""

    step: int
    train: np.ndarray  # images of w's batch
    valid: np.ndarray  # of alpha's
    train_labels: np.ndarray
    valid_labels: np.ndarray


class Spied:
    """What was written down during one run, and the run's result."""

    result: Any

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.draws: list[Draw] = []
        self.augment_keys: list[tuple[int, ...]] = []

    def seen(self, *, train: bool, network: str = "supernet") -> list[tuple[int, ...]]:
        """The ids of every batch that a network saw in this mode, in order."""
        return [call.ids for call in self.calls if call.train == train and call.network == network]

    @property
    def drawn(self) -> list[Draw]:
        """The method's batches in the order of the steps."""
        return sorted(self.draws, key=lambda draw: draw.step)

    @property
    def folder(self) -> Path:
        """Of the run."""
        path: Path = self.result.run_dir
        return path


_current: list[Spied] = []  # the run that is going on: programs outlive the run that compiled them


def _tell_call(network: str, train: bool, images: jax.Array, key: Any, drop_path: Any) -> None:
    def write(images: Any, key: Any, drop_path: Any) -> None:
        if _current:
            data = None if key is None else _key(key)
            rate = None if drop_path is None else float(drop_path)
            _current[-1].calls.append(Call(network, train, ids_of(np.asarray(images)), data, rate))

    jax.debug.callback(write, images, None if key is None else jax.random.key_data(key), drop_path)


def _key(data: Any) -> tuple[int, ...]:
    return tuple(int(word) for word in np.asarray(data))


class LinearSupernet(Supernet):
    """Scores BN(x W) times a gain that is linear in the mixing weights."""

    @nn.compact
    def __call__(
        self,
        images: Any,
        weights: Any,
        *,
        train: Any = False,
        drop_path: Any = None,
        auxiliary_skip: Any = None,
        skip_dropout: Any = None,
        key: Any = None,
    ) -> Any:
        if not self.is_initializing():
            _tell_call("supernet", train, images, key, drop_path)
        return _normalised(self, images, self.num_classes, train) * gain(weights.operations, self.num_classes)


class LinearNetwork(DiscreteNetwork):
    """Scores BN(x W), and those of a second layer as the auxiliary head's."""

    @nn.compact
    def __call__(self, images: Any, *, train: Any = False, drop_path: Any = None, key: Any = None) -> Any:
        if not self.is_initializing():
            _tell_call("discrete", train, images, key, drop_path)
        scores = _normalised(self, images, self.num_classes, train)
        if not (self.auxiliary and (train or self.is_initializing())):
            return scores, None
        x = features(images)
        return scores, x @ self.param("head", nn.initializers.normal(0.5), (x.shape[-1], self.num_classes), x.dtype)


def _normalised(module: nn.Module, images: jax.Array, num_classes: int, train: bool) -> jax.Array:
    x = features(images)
    linear = x @ module.param("kernel", nn.initializers.normal(0.5), (x.shape[-1], num_classes), x.dtype)
    mean = module.variable("batch_stats", "mean", jnp.zeros, (num_classes,), x.dtype)
    var = module.variable("batch_stats", "var", jnp.ones, (num_classes,), x.dtype)
    if not train:
        return (linear - mean.value) / jnp.sqrt(var.value + EPSILON)
    now = linear.mean(axis=0), linear.var(axis=0)
    if module.is_mutable_collection("batch_stats"):
        mean.value, var.value = 0.9 * mean.value + 0.1 * now[0], 0.9 * var.value + 0.1 * now[1]
    return (linear - now[0]) / jnp.sqrt(now[1] + EPSILON)


def _recorder(ingredients: Any) -> Method:
    """Starts as DARTS does and changes nothing: what the network sees is what is measured."""

    def write(step: Any, *arrays: Any) -> None:
        if _current:
            _current[-1].draws.append(Draw(int(step), *(np.array(array) for array in arrays)))

    def step(state: Any, train: Any, valid: Any) -> Any:
        jax.debug.callback(write, state.step, train.images, valid.images, train.labels, valid.labels)
        return dataclasses.replace(state, step=state.step + 1), {}

    return gradient_method(ingredients)._replace(step=step)


def _told_augment(augment: Any) -> Any:
    """As `augment`, but cuts out nothing: it would hide ids, and a population's retrainings always do."""

    def told(key: Any, *arguments: Any, **options: Any) -> Any:
        def write(data: Any) -> None:
            if _current:
                _current[-1].augment_keys.append(_key(data))

        jax.debug.callback(write, jax.random.key_data(key))
        return augment(key, *arguments, **{**options, "cutout_length": 0})

    return told


@contextmanager
def patched() -> Iterator[None]:
    """Runs have the linear networks, and there is the method `RECORDER`."""
    with pytest.MonkeyPatch.context() as patch:
        task = jaxdarts.tasks.classification
        patch.setattr(task, "Supernet", LinearSupernet)
        patch.setattr(task, "DiscreteNetwork", LinearNetwork)
        patch.setattr(task, "augment", _told_augment(task.augment))
        patch.setitem(METHODS, RECORDER, MethodEntry(_recorder, "nothing"))
        yield


# What is random in an image would hide its id; float64, so that numbers by hand agree to more than seven digits.
_PLAIN: dict[str, Any] = {
    "limit": None,
    "batch_size": 10,
    "flip": False,
    "crop_padding": 0,
    "cutout": False,
    "momentum": 0.0,
    "l2": 0.0,
    "precision": "float64",
}


def search(folder: Path, run_dir: Path, dataset: Path, **changes: Any) -> Spied:
    """A search of two epochs. `curvature_products` are as many as alpha has entries, so that eigenvalues are exact."""
    changes = {"remat": "off", "spectrum_size": 0, "dataset": f"npz:{dataset}", **_PLAIN, **changes}
    return _spied(run_search, tiny_config(folder, **changes), run_dir)


def evaluate(folder: Path, run_dir: Path, dataset: Path, **changes: Any) -> Spied:
    """An evaluation of two epochs on all training images."""
    changes = {"valid_portion": 0.0, "dataset": f"npz:{dataset}", **_PLAIN, **changes}
    return _spied(run_evaluation, tiny_evaluation(folder, **changes), run_dir)


def tabulate(folder: Path, run_dir: Path, dataset: Path, **changes: Any) -> Spied:
    """A table of two architectures, one training each."""
    changes = {"valid_portion": 0.0, "seeds": 1, "dataset": f"npz:{dataset}", **_PLAIN, **changes}
    return _spied(run_tabulation, tiny_tabulation(folder, **changes), run_dir)


def _spied(run: Any, config: Any, run_dir: Path) -> Spied:
    spied = Spied()
    _current.append(spied)
    try:
        spied.result = run(config, run_dir, stream=io.StringIO())
        jax.effects_barrier()
    finally:
        _current.pop()
    return spied


def weights_of(spied: Spied) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernel, running mean and running variance of a run's last state."""
    state = spied.result.state
    return tuple(  # type: ignore[return-value]
        np.asarray(leaf) for leaf in (state.params["kernel"], state.stats["mean"], state.stats["var"])
    )


def alpha_of(spied: Spied) -> dict[str, np.ndarray]:
    """Alpha in a run's last state."""
    return {cell: np.asarray(value) for cell, value in spied.result.state.alpha.items()}
