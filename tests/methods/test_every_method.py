"""Every method with every part: one trace, the same when continued, in parts and under vmap; an entry is enough."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.bilevel import HYPERGRADIENTS
from jaxdarts.errors import InputError
from jaxdarts.methods import METHODS, Method, SearchState
from jaxdarts.methods.parts import EARLY_STOPPING
from jaxdarts.methods.settings import TEMPERATURE_FORMS
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.runs.checkpoint import Checkpoints
from jaxdarts.tasks.base import Totals, means
from jaxdarts.tasks.classification import Batch
from tests.methods import making
from tests.methods.making import at_epoch, batches, started
from tests.methods.test_methods import assert_same
from tests.methods.toy import make

# One for each builder: entries that share one differ in their defaults only.
DIFFERENT = sorted({entry.build: name for name, entry in reversed(METHODS.items())}.values())
LEARNING = [name for name in DIFFERENT if METHODS[name].learns_alpha]
# Of two steps of idarts one moves alpha; in a shorter stage nothing could stop early.
OWN: dict[str, dict[str, Any]] = {"idarts": {"inner_steps": 2}, "p-darts": {"epochs": 10}}


class Jitted:
    """A method, its step as one program, and how often that was traced."""

    def __init__(self, method: Method) -> None:
        self.method, self.traces = method, 0

        def step(state: SearchState, train: Batch, valid: Batch) -> tuple[SearchState, Totals]:
            self.traces += 1
            return method.step(state, train, valid)

        self.step = jax.jit(step)


@functools.cache
def jitted(method: str) -> Jitted:
    """With its own defaults."""
    learns = {"hypergradient": SearchConfig(method=method).hypergradient} if METHODS[method].learns_alpha else {}
    return Jitted(make(method, **learns, **OWN.get(method, {})))


def are_finite(totals: Totals) -> bool:
    """Whether every mean is, of what was measured."""
    return all(np.isfinite(value) for name, value in means(totals).items() if totals[name][1])


def moved(before: Any, after: Any) -> bool:
    return any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_steps_move_everything_trace_once_and_can_be_continued(method: str, tmp_path: Path) -> None:
    case = jitted(method)
    first = state = started(case.method)
    checkpoints = Checkpoints(tmp_path)
    for seed in range(2):
        # Another learning rate, weight or temperature must not compile again.
        state = at_epoch(case.method, state, 9 * seed)
        checkpoints.save(seed, state)
        state, totals = case.step(state, *batches(seed))
        assert are_finite(totals)
    assert case.traces == 1
    assert int(state.step) == 2
    restored = checkpoints.restore_latest(first)
    assert restored is not None and restored.step == 1
    assert_same(case.step(restored.state, *batches(1))[0], state)
    assert case.traces == 1
    # Random search draws its alpha, which counts as moving.
    for name in ("params", "alpha", "stats") if case.method.learns else ():
        assert moved(getattr(first, name), getattr(state, name)), name


@pytest.mark.parametrize("method", DIFFERENT)
def test_a_step_in_parts_equals_the_step_as_one_program(method: str) -> None:
    case = jitted(method)
    state = at_epoch(case.method, started(case.method), 3)
    for seed in range(2):
        train, valid = batches(seed)
        whole, whole_totals = case.step(state, train, valid)
        parts, parts_totals = case.method.step(state, train, valid)
        assert_same(whole, parts, 1e-4)
        assert_same(whole_totals, parts_totals, 1e-4)
        state = whole


@pytest.mark.parametrize("method", DIFFERENT)
def test_seeds_under_vmap_equal_seeds_one_by_one(method: str) -> None:
    case = jitted(method)
    states = [started(case.method, seed=seed) for seed in (3, 4)]
    train, valid = batches(0)
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together, _ = jax.jit(jax.vmap(case.method.step, in_axes=(0, None, None)))(together, train, valid)
    for index, alone in enumerate(states):
        state, _ = case.step(alone, train, valid)
        assert_same(jax.tree.map(lambda leaf, i=index: leaf[i], together), state, 1e-4)


COMBINATIONS: dict[str, dict[str, Any]] = {
    "first_order": {"beta_weight": 5.0, "beta_variant": "zero", "early_stopping": "stop"},
    "finite_difference": {"temperature_start": 2.0, "temperature_end": 0.5, "beta_schedule": "50-0"},
    "unrolled": {"drop_path": 0.3, "temperature_start": 2.0, "early_stopping": "go-back", "edge_normalisation": True},
    "neumann": {
        "temperature_start": 1.01,
        "temperature_form": "update",
        "drop_path": 0.3,
        "beta_variant": "global",
        "beta_weight": 5.0,
    },
    "conjugate_gradient": {"alpha_weight_decay": 0.1, "beta_weight": 5.0, "clip_norm": 1.0, "alpha_clip_norm": 1.0},
}


@pytest.mark.parametrize("hypergradient", sorted(COMBINATIONS))
@pytest.mark.parametrize("method", LEARNING)
def test_every_method_takes_every_part(method: str, hypergradient: str) -> None:
    own = {"hypergradient": hypergradient, **COMBINATIONS[hypergradient], **OWN.get(method, {})}
    # Ahead there is only something to look at where alpha and w have a gradient each.
    one_level = SearchConfig(method=method).single_level and hypergradient == "first_order"
    case = Jitted(make(method, **own, single_level=one_level))
    first = state = started(case.method)
    for epoch in range(2):
        state, totals = case.step(at_epoch(case.method, state, 8 * epoch + 1), *batches(epoch))
        assert are_finite(totals)
    assert case.traces == 1
    for name in ("params", "alpha", "stats"):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(getattr(state, name)))
        assert moved(getattr(first, name), getattr(state, name)), name


def test_the_combinations_hold_every_part() -> None:
    """A new hypergradient, temperature or way of stopping early asks for a place here."""
    assert set(COMBINATIONS) == set(HYPERGRADIENTS)
    default, own = SearchConfig(), list(COMBINATIONS.values())
    for name, choices in (("early_stopping", EARLY_STOPPING), ("temperature_form", TEMPERATURE_FORMS)):
        assert {case.get(name, getattr(default, name)) for case in own} == set(choices), name


@pytest.mark.parametrize("method", LEARNING)
def test_alpha_rests_in_every_method_s_warm_up(method: str) -> None:
    """And w learns; Adam remembers nothing of the rest."""
    search = make(method, **{**dict.fromkeys(OWN.get(method, {}), 1), "alpha_warm_up": 0.4, "epochs": 10})
    step = jax.jit(search.step)
    first = started(search, 3)
    resting, totals = step(first, *batches())
    adam = [state.alpha_opt_state.inner_state for state in (first, resting)]
    assert_same((first.alpha, adam[0]), (resting.alpha, adam[1]))
    assert moved(first.params, resting.params) and float(totals["hypergradient_norm"][0]) > 0
    awake, _ = step(at_epoch(search, resting, 4), *batches(1))
    assert moved(resting.alpha, awake.alpha)


@pytest.mark.parametrize("method", LEARNING)
def test_one_gradient_moves_both_or_is_refused(method: str) -> None:
    own = {"single_level": True, "hypergradient": "first_order", "alpha_warm_up": 0.0}
    if not METHODS[method].takes_single_level:
        with pytest.raises(InputError, match=f"single_level cannot be used by method '{method}'"):
            SearchConfig(method=method, **own)
        return
    search = make(method, **own)
    first = started(search)
    state, totals = jax.jit(search.step)(first, *batches())
    assert moved(first.alpha, state.alpha) and moved(first.params, state.params)
    assert means(totals)["alpha_loss"] == means(totals)["train_loss"] or search.problem.weights_loss is not None
    with pytest.raises(InputError, match="hypergradient must be first_order with single_level"):
        SearchConfig(method=method, **{**own, "hypergradient": "unrolled"})


@pytest.mark.parametrize("method", LEARNING)
def test_every_method_on_part_of_the_channels(method: str) -> None:
    """In a supernet, whose options a method may also have its own of."""
    search = making.make(method, partial_channels=2, edge_normalisation=True, cells=3)
    state = started(search)
    for seed in range(2):
        state, totals = search.step(state, *batches(seed))
        assert are_finite(totals)
    assert search.problem.network.module.partial_channels == 2
    assert "edges" in state.alpha


@pytest.mark.parametrize("name", METHODS)
def test_settings_of_a_method_are_told_and_no_others(name: str) -> None:
    """Each group has a title; what a method changes by preset, and by space, are presets' names."""
    entry = METHODS[name]
    assert {key.partition("/")[0] for key in entry.defaults} <= {"", *SearchConfig.presets}
    for key, values in entry.defaults.items():
        preset, _, space = key.partition("/")
        own = {"preset": preset or "quick"} | ({"space": space} if space else {})
        found = SearchConfig(method=name, **own).flat()
        if space or not any(set(values) & set(other) for k, other in entry.defaults.items() if k.startswith(key + "/")):
            assert {field: found[field] for field in values if key} == (values if key else {})
    for group in entry.settings:
        assert group.__doc__ and not group.__doc__.startswith(f"{group.__name__}("), "a dataclass without a docstring"
    assert set(entry.draws) <= set(making.make(name).schedules if entry.learns_alpha else ())
