"""Do recurrent networks compute what their equations say, and only of the time steps that count?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.bilevel import mixed_product
from jaxdarts.methods.base import Problem, View
from jaxdarts.methods.relaxations import softmax
from jaxdarts.networks import Weights
from jaxdarts.networks.functional import Context
from jaxdarts.networks.kernels import described, why_none
from jaxdarts.networks.kernels.library import VARIABLE
from jaxdarts.networks.recurrent import CELL, Dropouts, Masks, TextNetwork, TextSupernet, draw_masks
from jaxdarts.networks.text import text_network
from jaxdarts.spaces import RecurrentGenotype, RecurrentSpace, one_hot
from jaxdarts.tasks.language import bare_task, loss
from jaxdarts.tasks.text_streams import Batch

pytestmark = pytest.mark.usefixtures("x64")

SPACE = RecurrentSpace.uniform("three nodes", ("none", "tanh", "relu", "sigmoid", "identity"), num_nodes=3)
GENOTYPE = RecurrentGenotype((("tanh", 0), ("relu", 1), ("sigmoid", 1)), (1, 2, 3))
STEPS, EXAMPLES, HIDDEN, WORDS = 5, 3, 4, 7
DROPOUTS = Dropouts(0.5, 0.4, 0.3, 0.2, 0.1)

Normalise = Callable[[np.ndarray], np.ndarray]
SIGMOID: Normalise = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
RELU: Normalise = lambda x: np.maximum(x, 0)  # noqa: E731
ACTIVATIONS = {"tanh": np.tanh, "relu": RELU, "sigmoid": SIGMOID, "identity": lambda x: x}


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


START = numbers(EXAMPLES, HIDDEN, seed=9)


def weights_of(nodes: int = 3) -> dict[str, np.ndarray]:
    return {
        "embedding": numbers(WORDS, HIDDEN, seed=1),
        "bias": numbers(WORDS, seed=2),
        "first": numbers(2 * HIDDEN, 2 * HIDDEN, seed=3),
        "nodes": numbers(nodes, HIDDEN, 2 * HIDDEN, seed=4),
    }


def tokens(seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(WORDS, size=(STEPS, EXAMPLES)).astype(np.int32)


def mixing(seed: int = 6) -> jax.Array:
    return jax.nn.softmax(jnp.asarray(numbers(*SPACE.alpha_shape(CELL), seed=seed)))


def statistics() -> dict[str, np.ndarray]:
    return {"mean": numbers(HIDDEN, seed=7), "variance": 0.5 + numbers(HIDDEN, seed=8) ** 2}


def by_hand(
    params: Any, words: np.ndarray, hidden: np.ndarray, genotype: RecurrentGenotype, normalise: Normalise
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, outputs and the last hidden state, one time step after another."""
    raw = []
    for word in words:
        entering = np.concatenate([params["embedding"][word], hidden], axis=1)
        gate, candidate = np.split(entering @ params["first"], 2, axis=1)
        states = [normalise(hidden + SIGMOID(gate) * (np.tanh(candidate) - hidden))]
        for node, (activation, source) in enumerate(genotype.edges()):
            s = states[source]
            gate, candidate = np.split(s @ params["nodes"][node], 2, axis=1)
            states.append(normalise(s + SIGMOID(gate) * (ACTIVATIONS[activation](candidate) - s)))
        hidden = np.mean([states[index] for index in genotype.concat()], axis=0)
        raw.append(hidden)
    return np.stack(raw) @ params["embedding"].T + params["bias"], np.stack(raw), hidden


def batch(words: np.ndarray, length: int, fresh: bool = False) -> Batch:
    """A text to predict; after each word comes that of the next number."""
    count = jnp.int32(length)
    return Batch(jnp.asarray(words), jnp.asarray((words + 1) % WORDS), count, count, count, jnp.bool_(fresh))


def assert_close(found: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12), found, expected)


def differ(found: Any, other: Any) -> bool:
    return any(not np.allclose(a, b) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(other), strict=True))


def relaxed(dropouts: Dropouts = DROPOUTS) -> TextSupernet:
    return TextSupernet(SPACE, WORDS, HIDDEN, dropouts)


def discrete(dropouts: Dropouts = DROPOUTS) -> TextNetwork:
    return TextNetwork(GENOTYPE, WORDS, HIDDEN, dropouts)


KINDS = pytest.mark.parametrize("make", [relaxed, discrete])


def network_of(make: Any, *arguments: Any) -> tuple[Callable[..., Any], Any]:
    """`apply` of a network as a run sees it, and running statistics."""
    return text_network(make(*arguments), EXAMPLES, jnp.float64).apply, statistics() if make is relaxed else {}


def pass_of(make: Any, words: np.ndarray, context: Context, start: np.ndarray = START, fresh: bool = False) -> Any:
    """(outputs, statistics, hidden state)."""
    apply, stats = network_of(make)
    mixed, text = Weights({CELL: mixing()}), batch(words, STEPS, fresh)
    return jax.jit(lambda params, stats: apply(params, stats, mixed, text, jnp.asarray(start), context))(
        weights_of(), stats
    )


@pytest.mark.parametrize("concat", [(1, 2, 3), (3, 1)])
def test_a_genotypes_network_is_its_equations(concat: Sequence[int]) -> None:
    genotype = RecurrentGenotype(GENOTYPE.recurrent, tuple(concat))
    outputs, hidden = TextNetwork(genotype, WORDS, HIDDEN).apply({"params": weights_of()}, tokens(), START)
    logits, raw, last = by_hand(weights_of(), tokens(), START, genotype, lambda state: state)
    assert_close((outputs.logits, outputs.raw, hidden), (logits, raw, last))
    assert_close(outputs.dropped, raw)


def test_the_supernet_of_a_genotypes_weights_is_its_cell_with_batch_norm() -> None:
    """The running statistics see states and time steps one after another, with unbiased variances."""
    mean, variance = statistics().values()

    def normalise(state: np.ndarray) -> np.ndarray:
        nonlocal mean, variance
        mean = 0.9 * mean + 0.1 * state.mean(axis=0)
        variance = 0.9 * variance + 0.1 * state.var(axis=0, ddof=1)
        return (state - state.mean(axis=0)) / np.sqrt(state.var(axis=0) + 1e-5)

    weights, options = Weights({CELL: jnp.asarray(one_hot(SPACE, GENOTYPE)[CELL], float)}), {"mutable": ["batch_stats"]}
    variables = {"params": weights_of(), "batch_stats": statistics()}
    (outputs, hidden), updated = relaxed().apply(variables, tokens(), START, weights, train=True, **options)
    assert_close((outputs.logits, outputs.raw, hidden), by_hand(weights_of(), tokens(), START, GENOTYPE, normalise))
    assert_close(updated["batch_stats"], {"mean": mean, "variance": variance})


def test_evaluation_normalises_by_the_running_statistics() -> None:
    mean, variance = statistics().values()
    weights = Weights({CELL: jnp.asarray(one_hot(SPACE, GENOTYPE)[CELL], float)})
    variables = {"params": weights_of(), "batch_stats": statistics()}
    outputs, hidden = relaxed().apply(variables, tokens(), START, weights)
    expected = by_hand(weights_of(), tokens(), START, GENOTYPE, lambda state: (state - mean) / np.sqrt(variance + 1e-5))
    assert_close((outputs.logits, outputs.raw, hidden), expected)


@pytest.mark.parametrize("train", [True, False])
@KINDS
def test_time_steps_from_the_length_on_change_nothing(make: Any, train: bool) -> None:
    """Beside the text cut there: outputs before, hidden state, statistics, and the loss's gradients."""
    length, context, mixed = 3, Context(train), mixing()
    apply, stats = network_of(make)

    def value(params: Any, mixed: Any, text: Batch) -> Any:
        outputs, new_stats, hidden = apply(params, stats, Weights({CELL: mixed}), text, jnp.asarray(START), context)
        return loss(outputs, text)[0], (jax.tree.map(lambda part: part[:length], outputs), new_stats, hidden)

    derive = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))
    whole, other = tokens(), tokens()
    other[length:] = tokens(seed=50)[length:]
    assert differ(whole, other)
    found = derive(weights_of(), mixed, batch(whole, length))
    jax.tree.map(np.testing.assert_array_equal, derive(weights_of(), mixed, batch(other, length)), found)
    assert_close(found, derive(weights_of(), mixed, batch(whole[:length], length)))
    # It does depend on the step before.
    other[length - 1] = (whole[length - 1] + 1) % WORDS
    assert differ(derive(weights_of(), mixed, batch(other, length)), found)


@KINDS
def test_a_dropout_of_zero_drops_nothing(make: Any) -> None:
    nothing, key = pass_of(make, tokens(), Context(True)), jax.random.key(0)
    assert_close(pass_of(make, tokens(), Context(True, key, {"dropout": jnp.zeros(())})), nothing)
    assert differ(pass_of(make, tokens(), Context(True, key, {"dropout": jnp.ones(())})), nothing)
    # Without the value nothing is dropped either.
    assert_close(pass_of(make, tokens(), Context(True, key)), nothing)


@KINDS
def test_evaluation_drops_nothing(make: Any) -> None:
    dropping = Context(False, jax.random.key(0), {"dropout": jnp.ones(())})
    assert_close(*(pass_of(make, tokens(), context) for context in (dropping, Context(False))))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_masks_have_the_mean_one(scale: float) -> None:
    words, examples, hidden = 4000, 64, 64
    masks = draw_masks(jax.random.key(1), DROPOUTS, words, examples, hidden, scale, jnp.float64)
    shapes = Masks((words, 1), (1, examples, hidden), (examples, hidden), (examples, hidden), (1, examples, hidden))  # type: ignore[arg-type]
    rates = Masks(0.1, 0.2, 0.3, 0.4, 0.5)  # type: ignore[arg-type]
    for mask, shape, rate in zip(masks, shapes, rates, strict=True):
        assert mask.shape == shape
        keep = 1 - scale * rate
        np.testing.assert_allclose(np.unique(mask), [0, 1 / keep])
        # Six standard deviations of the mean of so many.
        np.testing.assert_allclose(mask.mean(), 1, atol=6 * np.sqrt((1 - keep) / keep / mask.size))
    assert differ(masks.x, masks.hidden)
    for mask in draw_masks(jax.random.key(1), Dropouts(), words, examples, hidden, scale, jnp.float64):
        np.testing.assert_array_equal(mask, np.ones(mask.shape))


@KINDS
def test_outputs_are_dropped_the_same_at_every_time_step(make: Any) -> None:
    """And are carried on as they were."""
    apply, stats = network_of(make, Dropouts(output=0.5))
    context, mixed = Context(True, jax.random.key(2), {"dropout": jnp.ones(())}), Weights({CELL: mixing()})
    outputs, _, hidden = apply(weights_of(), stats, mixed, batch(tokens(), STEPS), jnp.asarray(START), context)
    kept = outputs.dropped / outputs.raw
    assert_close(kept, np.broadcast_to(kept[0], kept.shape))
    assert set(np.unique(np.round(kept, 9))) == {0.0, 2.0}
    without, _, last = pass_of(make, tokens(), Context(True))
    assert_close((outputs.raw, hidden), (without.raw, last))


@KINDS
def test_a_fresh_text_begins_with_the_hidden_state_zero(make: Any) -> None:
    fresh, carried = (pass_of(make, tokens(), Context(True), fresh=fresh) for fresh in (True, False))
    from_zero = pass_of(make, tokens(), Context(True), start=np.zeros((EXAMPLES, HIDDEN)))
    assert_close(fresh, from_zero)
    assert differ(fresh, carried)


@KINDS
def test_no_gradient_goes_back_into_the_text_before(make: Any) -> None:
    apply, stats = network_of(make)
    mixed, text, start = Weights({CELL: mixing()}), batch(tokens(), STEPS), jnp.asarray(START)
    carried = lambda params: apply(params, stats, mixed, text, start, Context(True))[2].sum()  # noqa: E731
    gradient = jax.grad(carried)(jax.tree.map(jnp.asarray, weights_of()))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def evaluated(weights: Weights) -> jax.Array:
    """Logits of the supernet, normalised by given statistics, so that no factor of a state is lost."""
    variables = {"params": weights_of(), "batch_stats": statistics()}
    return relaxed().apply(variables, tokens(), START, weights)[0].logits


def test_weights_of_edges_multiply_whole_edges() -> None:
    mixed, edges = mixing(), jnp.asarray([1.0, 0.5, 0.0, 2.0, 1.0, 0.25])
    found = evaluated(Weights({CELL: mixed}, {CELL: edges}))
    assert_close(found, evaluated(Weights({CELL: mixed * edges[:, None]})))
    assert differ(found, evaluated(Weights({CELL: mixed})))
    assert_close(evaluated(Weights({CELL: mixed}, {CELL: jnp.ones(6)})), evaluated(Weights({CELL: mixed})))


def test_none_gives_nothing_and_takes_the_share_of_others() -> None:
    """A node whose edges are all `none` is 0, whatever it reads."""
    space = RecurrentSpace.uniform("one node", ("none", "tanh"), num_nodes=1)
    variables = {
        "params": weights_of(1),
        "batch_stats": {"mean": np.zeros(HIDDEN), "variance": np.full(HIDDEN, 1 - 1e-5)},  # changes no state
    }

    def of(none: float, tanh: float) -> Any:
        weights = Weights({CELL: jnp.asarray([[none, tanh]])})
        return TextSupernet(space, WORDS, HIDDEN).apply(variables, tokens()[:1], START, weights)[0].raw

    np.testing.assert_array_equal(of(1, 0), np.zeros((1, EXAMPLES, HIDDEN)))
    assert_close(of(0.75, 0.25), 0.25 * of(0, 1))


def test_vmap_over_weights_is_a_loop() -> None:
    many = jnp.stack([mixing(seed) for seed in range(4)])
    together = jax.jit(jax.vmap(lambda mixed: evaluated(Weights({CELL: mixed}))))(many)
    assert_close(together, jnp.stack([evaluated(Weights({CELL: mixed})) for mixed in many]))
    assert differ(together[0], together[1])


def test_the_mixed_product_is_the_jacobian_of_the_gradient() -> None:
    """By columns of the Jacobian of the whole gradient in w, with dropout, whose masks are those of the key."""
    space = RecurrentSpace.uniform("two nodes", ("none", "tanh", "relu", "identity"), num_nodes=2)
    network = text_network(TextSupernet(space, WORDS, HIDDEN, DROPOUTS), EXAMPLES, jnp.float64)
    problem = Problem(space, network, bare_task(), softmax(space, dtype=jnp.float64))
    values = {"dropout": jnp.ones(())}
    stats = jax.tree.map(jnp.asarray, statistics())
    view = View(batch(tokens(), 4), stats, jnp.asarray(START), values, jax.random.key(4))
    params = jax.tree.map(jnp.asarray, weights_of(2))
    alpha = {CELL: jnp.asarray(numbers(*space.alpha_shape(CELL), seed=6))}
    direction = jax.tree.map(lambda leaf: jnp.asarray(numbers(*leaf.shape, seed=10)), params)

    def gradient(alpha: Any) -> jax.Array:
        return jax.flatten_util.ravel_pytree(jax.grad(lambda w: problem.outer(w, alpha, view)[0])(params))[0]

    columns = jax.jit(jax.jacfwd(gradient))(alpha)[CELL]
    expected = jnp.tensordot(jax.flatten_util.ravel_pytree(direction)[0], columns, 1)
    found = jax.jit(lambda w, a, v: mixed_product(problem.outer, w, a, view, v))(params, alpha, direction)
    assert_close(found, {CELL: expected})
    assert np.abs(expected).max() > 1e-3


@pytest.mark.skipif(described() == "none", reason=f"kernels none: {why_none()}")
@pytest.mark.parametrize("length", [None, 3])
def test_kernels_change_nothing(length: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs, statistics, gradients and mixed products are those of plain JAX."""
    masks = draw_masks(jax.random.key(1), DROPOUTS, WORDS, EXAMPLES, HIDDEN, 1.0, jnp.float64)
    net, stats = TextSupernet(SPACE, WORDS, HIDDEN, DROPOUTS), jax.tree.map(jnp.asarray, statistics())
    params = jax.tree.map(jnp.asarray, weights_of(SPACE.num_nodes))
    constants = {CELL: jnp.asarray(numbers(SPACE.alpha_shape(CELL)[0], seed=3))}

    def objective(params: Any, mixed: jax.Array, hidden: jax.Array) -> tuple[jax.Array, Any]:
        (outputs, last), after = net.apply(
            {"params": params, "batch_stats": stats}, tokens(), hidden, Weights({CELL: mixed}, constants=constants),
            length=None if length is None else jnp.int32(length), train=True, masks=masks, mutable=["batch_stats"],
        )  # fmt: skip
        outputs = jax.tree.map(lambda part: part[:length], outputs)  # later ones mean nothing
        return (jnp.sin(outputs.logits).sum() + jnp.square(last).sum()), (outputs, last, after)

    def everything(*arguments: Any) -> Any:
        gradient = lambda *a: jax.grad(objective, (0, 1, 2), has_aux=True)(*a)  # noqa: E731
        along = jax.tree.map(lambda x: jnp.cos(7 * x), arguments)
        product = jax.linearize(lambda *a: gradient(*a)[0], *arguments)[1](*along)
        return gradient(*arguments), jax.jvp(lambda *a: gradient(*a)[0], arguments, along)[1], product

    found = []
    for choice in ("on", "off"):
        monkeypatch.setenv(VARIABLE, choice)
        lowered = jax.jit(lambda *a: everything(*a)).lower(params, mixing(2), jnp.asarray(START))
        assert ("jaxdarts_RecurrentBackwardTangent" in lowered.as_text()) == (choice == "on")
        found.append(lowered.compile()(params, mixing(2), jnp.asarray(START)))
    # Sums have another order: entries that nearly cancel are as exact as the largest.
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * float(jnp.abs(other).max()))
