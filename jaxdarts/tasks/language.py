"""Language modelling: each word of a text from those before it, read in windows whose hidden state is carried on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxdarts.data import Text, load_text, text_facts
from jaxdarts.data.windows import search_lengths, training_lengths
from jaxdarts.errors import InputError
from jaxdarts.networks.functional import Network
from jaxdarts.networks.recurrent import Dropouts, TextNetwork, TextOutputs, TextSupernet
from jaxdarts.networks.text import text_cost, text_network
from jaxdarts.precision import compute_dtype
from jaxdarts.spaces import RecurrentGenotype, RecurrentSpace
from jaxdarts.tasks.base import Loss, Metric, Stream, Task, Totals
from jaxdarts.tasks.kind import TaskKind
from jaxdarts.tasks.text_streams import Batch, Epochs, followed, measured, trained

VALID_SIDE_BY_SIDE, TEST_SIDE_BY_SIDE = 10, 1  # texts that are measured side by side, as in the reference


METRICS: Mapping[str, Metric] = {
    "loss": Metric("less"),
    "perplexity": Metric("less", of=("loss", lambda loss: math.exp(min(loss, 700.0)))),
}


class Texts(NamedTuple):
    """What is learned from: a text, for one device."""

    text: Text
    mesh: Mesh | None = None
    has_test: bool = True


def loss(outputs: TextOutputs, batch: Batch) -> tuple[jax.Array, Totals]:
    """Mean cross-entropy of the words, in nats."""
    value = _each(outputs, batch).sum() / (batch.length * batch.tokens.shape[1]).astype(outputs.logits.dtype)
    return value, _told(value, batch)


def regularised_loss(activation: float, slowness: float) -> Loss:
    """What w is trained by: a term for large outputs and one for outputs that change fast are added.

    `activation` times the mean square of the outputs that the logits are made of, and `slowness` times that of the
    differences of the cell's successive outputs (Merity et al. 2018).
    """

    def with_terms(outputs: TextOutputs, batch: Batch) -> tuple[jax.Array, Totals]:
        main = loss(outputs, batch)[0]
        width = outputs.raw.shape[1] * outputs.raw.shape[2]

        def mean(values: jax.Array, length: jax.Array) -> jax.Array:
            counts = jnp.arange(len(values))[:, None, None] < length
            number = (width * jnp.maximum(length, 1)).astype(values.dtype)
            return jnp.where(counts, jnp.square(values), 0).sum() / number

        terms = activation * mean(outputs.dropped, batch.length)
        terms += slowness * mean(outputs.raw[1:] - outputs.raw[:-1], batch.length - 1)
        return main + terms, {**_told(main, batch), "penalty": (terms, jnp.ones((), jnp.int32))}

    return with_terms


def measure(outputs: TextOutputs, batch: Batch, mask: jax.Array) -> Totals:
    """The sum over the words of the time steps where mask bool[T] holds."""
    total = jnp.where(mask[:, None], _each(outputs, batch), 0).sum()
    return {"loss": (total, batch.counted * batch.tokens.shape[1])}


def _each(outputs: TextOutputs, batch: Batch) -> jax.Array:
    """float[T, B]: the cross-entropy of each word, 0 after the window's end."""
    logits = outputs.logits
    # Not by indexing with the words, whose reverse is a loop over them.
    words = jnp.arange(logits.shape[-1], dtype=batch.targets.dtype)
    right = jnp.where(batch.targets[..., None] == words, logits, 0).sum(axis=-1)
    counts = jnp.arange(logits.shape[0])[:, None] < batch.length
    return jnp.where(counts, jax.nn.logsumexp(logits, axis=-1) - right, 0)


def _told(value: jax.Array, batch: Batch) -> Totals:
    return {"loss": (value * batch.length.astype(value.dtype), batch.length)}


def bare_task(usual: int | None = None, activation: float = 0.0, slowness: float = 0.0) -> Task:
    """The losses without data, for research code that makes its own batches.

    `usual`: time steps of a window with which w has the learning rate that is set; one of another length has a rate in
    proportion. None: all have the same.
    """
    inner = regularised_loss(activation, slowness) if activation or slowness else loss
    rate = None if usual is None else lambda batch: batch.wanted.astype(float) / usual
    return Task(loss, inner, measure, METRICS, "perplexity", ("perplexity", _perplexity), rate=rate)


def _perplexity(means: Mapping[str, float]) -> float:
    return means["perplexity"]


def searching(texts: Texts, settings: Any) -> Task:
    """The task of a search: the training text trains w, the validation text trains alpha and measures.

    A step on alpha reads the window that begins at the row of the one that w is trained on, of the usual length, as
    the reference: windows overlap, and its hidden state is carried on whatever was read before.
    """
    text, usual, size = texts.text, settings.sequence_length, settings.batch_size
    seed = settings.seed if settings.data_seed is None else settings.data_seed
    epochs = Epochs(seed, len(text.train) // size, search_lengths(usual))
    valid = measured(text.valid, VALID_SIDE_BY_SIDE, usual, "trains alpha", settings.count_all_rows)
    task = bare_task(usual, settings.activation_penalty, settings.slowness_penalty)
    return task._replace(
        train=trained(text.train, size, epochs, "trains w"),
        valid=followed(valid, text.valid, size, epochs, "trains alpha"),
        facts=text_facts(text),
        notes=text.notes,
        told=f"{text.name}: {len(text.train):,} words train w, {len(text.valid):,} train alpha; "
        f"{len(text.words):,} different",
    )


def training(texts: Texts, settings: Any) -> Task:
    """The task of a training from scratch, with windows of random lengths."""
    text, usual, size = texts.text, settings.sequence_length, settings.batch_size
    epochs = Epochs(settings.seed, len(text.train) // size, training_lengths(usual))
    task = bare_task(usual, settings.activation_penalty, settings.slowness_penalty)

    def part(tokens: Any, side_by_side: int, purpose: str) -> Stream:
        return measured(tokens, side_by_side, usual, purpose, settings.count_all_rows)

    tested = f"{len(text.test):,} to test; " if texts.has_test else ""
    return task._replace(
        train=trained(text.train, size, epochs, "is trained on"),
        valid=part(text.valid, VALID_SIDE_BY_SIDE, "is held out"),
        test=part(text.test, TEST_SIDE_BY_SIDE, "is tested") if texts.has_test else None,
        facts=text_facts(text),
        notes=text.notes,
        told=f"{text.name}: {len(text.train):,} words to train on, {len(text.valid):,} held out, {tested}"
        f"{len(text.words):,} different",
    )


def read_texts(settings: Any, mesh: Mesh | None = None) -> Texts:
    """The text that settings name. Raises InputError where it cannot be used."""
    if mesh is not None:
        raise InputError(f"devices must be 1 for text, which is not split over devices; got {settings.devices}")
    return Texts(load_text(settings.dataset, settings.data_dir))


# What plans ask for.


def dropouts(settings: Any) -> Dropouts:
    """Those that settings name."""
    return Dropouts(
        settings.dropout_output,
        settings.dropout_hidden,
        settings.dropout_x,
        settings.dropout_input,
        settings.dropout_embedding,
    )


def _relaxed(
    space: RecurrentSpace, data: Texts, settings: Any, dtype: Any, together: int, options: Mapping[str, Any]
) -> Network:
    module = TextSupernet(space, len(data.text.words), settings.hidden, dropouts(settings), **options)
    return text_network(module, settings.batch_size, dtype, compute_dtype(settings.precision))


def _discrete(genotype: RecurrentGenotype, data: Texts, settings: Any, dtype: Any) -> Network:
    module = TextNetwork(genotype, len(data.text.words), settings.hidden, dropouts(settings))
    return text_network(module, settings.batch_size, dtype, compute_dtype(settings.precision))


def _retrained_with(settings: Any) -> dict[str, Any]:
    # The space says that the settings are those of text, before there is a genotype's file.
    names = ("space", "dataset", "data_dir", "batch_size", "sequence_length", "count_all_rows")
    return {"hidden": settings.retrain_hidden or settings.hidden, **{name: getattr(settings, name) for name in names}}


def _network_text(of: RecurrentSpace | RecurrentGenotype, settings: Any) -> str:
    nodes = f"{of.num_nodes} nodes" if of.num_nodes > 1 else "1 node"
    return f"cell of {nodes}, {settings.hidden} units"


LANGUAGE = TaskKind(
    subject="text",
    unit="a word",
    search_data=read_texts,
    training_data=read_texts,
    facts=lambda data: text_facts(data.text),
    retraining_data=lambda data: data._replace(has_test=False),
    search=lambda data, settings, dtype: searching(data, settings),
    member=lambda task, data, common, settings, dtype: task,
    training=lambda data, settings, dtype: training(data, settings),
    relaxed=_relaxed,
    discrete=_discrete,
    network_text=_network_text,
    retrained_with=_retrained_with,
    cost=lambda genotype, data, settings: text_cost(genotype.num_nodes, len(data.text.words), settings.hidden),
    metrics=METRICS,
    objective="perplexity",
    result="perplexity",
)
