"""What can be chosen about learning text, in a search and in a training from scratch?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxdarts.checks import Check, at_least, field_names, unit
from jaxdarts.methods import METHODS
from jaxdarts.plans.common_settings import POPULATION_MAPPINGS, Sgd
from jaxdarts.settings import Group, Use


@dataclass(frozen=True)
class Text(Group):
    """Data."""

    dataset: str = "pydoc"
    """Text: pydoc (the help topics of the running Python), folder:PATH, or folder with data_dir. A folder holds
    train.txt, valid.txt and test.txt, or those files of Penn Treebank (ptb.train.txt) or WikiText
    (wiki.train.tokens)."""
    data_dir: str | None = None
    """Folder of the text's files; with it dataset is folder if not given."""
    sequence_length: int = 20
    """Time steps of a window, through which gradients go; some windows have another length, and a learning rate in
    proportion."""
    count_all_rows: bool = False
    """Divide the summed loss by all rows of a text instead of by those that are predicted, as the published code does:
    perplexities are a little too small then."""
    checks: ClassVar = [
        Check("dataset", bool, "a name such as pydoc"),
        Check("sequence_length", lambda value: value >= 2, "at least 2"),
    ]


@dataclass(frozen=True)
class SearchText(Text):
    """Data."""

    data_seed: int | None = None
    """The lengths of windows follow from this; None: from seed."""
    checks: ClassVar = [
        *Text.checks,
        Check("data_seed", lambda value: 0 <= value < 2**32, "between 0 and 4294967295"),
    ]


@dataclass(frozen=True)
class TextSize(Group):
    """Size of the search."""

    epochs: int = 10
    """Passes over the text that trains w."""
    batch_size: int = 32
    """Pieces of the text that are read side by side."""
    hidden: int = 64
    """Units of the recurrent cell, and of a word's embedding."""
    checks: ClassVar = at_least(1, "epochs", "batch_size", "hidden")


@dataclass(frozen=True)
class TextTrainingSize(Group):
    """Size of the training."""

    epochs: int = 40
    """Passes over the text."""
    batch_size: int = 20
    """Pieces of the text that are read side by side."""
    hidden: int = 100
    """Units of the recurrent cell, and of a word's embedding."""
    checks: ClassVar = at_least(1, "epochs", "batch_size", "hidden")


@dataclass(frozen=True)
class TextOptimiser(Sgd):
    """Training of the network's weights."""

    learning_rate: float = 5.0
    """Learning rate of the weights in the first epoch."""
    learning_rate_min: float | None = None
    """Where the cosine schedule of the learning rate ends; None: it stays what it is."""
    momentum: float = 0.0
    """Momentum of the weights' SGD."""
    l2: float = 1.5e-5
    """L2 factor of the weights, added to the gradient before the momentum."""
    clip_norm: float = 0.25
    """Largest global norm of the weights' gradient."""


@dataclass(frozen=True)
class TrainingTextOptimiser(TextOptimiser):
    """Training of the network's weights."""

    l2: float = 8e-7
    """L2 factor of the weights, added to the gradient before the momentum."""


@dataclass(frozen=True)
class TextRegularisation(Group):
    """What is dropped in training, and what is added to the inner objective (Merity et al. 2018)."""

    dropout_output: float = 0.4
    """Probability that a unit of the output is dropped, at all time steps of a window."""
    dropout_hidden: float = 0.1
    """Probability that a unit of the cell's states is dropped where it enters a product, at all time steps."""
    dropout_x: float = 0.3
    """Probability that a unit of the cell's input is dropped where it enters the product, at all time steps."""
    dropout_input: float = 0.2
    """Probability that a unit of the embedded input is dropped, at all time steps."""
    dropout_embedding: float = 0.0
    """Probability that a word is dropped wherever it is read."""
    activation_penalty: float = 0.0
    """Weight of the mean square of the outputs."""
    slowness_penalty: float = 1e-3
    """Weight of the mean square of the differences of successive outputs."""
    checks: ClassVar = [
        *at_least(0, "activation_penalty", "slowness_penalty"),
        *unit("dropout_output", "dropout_hidden", "dropout_x", "dropout_input", "dropout_embedding"),
    ]


@dataclass(frozen=True)
class TextAlpha(Group):
    """Training of alpha on text."""

    published_difference: bool = False
    """Take finite_difference as the published code of recurrent cells does: the embedding does not move in the virtual
    step, and clipping also enlarges (docs/numerics.md)."""
    uses: ClassVar = [
        Use(
            ("published_difference",),
            "hypergradient finite_difference",
            lambda s: getattr(s, "hypergradient", "") == "finite_difference",
        )
    ]


@dataclass(frozen=True)
class TextPopulation(Group):
    """Several searches in one run, and the choice between them."""

    population: int | None = None
    """Searches side by side in one run, on the same data; their seeds are seed, seed + 1 and so on; None: 1, and of
    r-darts-l2 one a strength."""
    population_mapping: str = "auto"
    """vmap (a step of all members is computed together), map (one after another), or auto: map on a CPU, vmap
    elsewhere."""
    retrain_epochs: int = 10
    """Epochs that every genotype of a population is trained for from scratch, to choose the best; 0: the best is that
    of the supernet that is best on the validation part."""
    retrain_hidden: int | None = None
    """Units of the networks retrained; None: as in the search."""
    checks: ClassVar = [*at_least(1, "population", "retrain_hidden"), *at_least(0, "retrain_epochs")]
    uses: ClassVar = [
        Use(
            ("population_mapping", "retrain_epochs", "retrain_hidden"),
            "several searches in one run (population, r-darts-l2)",
            lambda s: s.population not in (None, 1) or METHODS[s.method].members is not None,
        )
    ]

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """How members are computed."""
        return {"population_mapping": POPULATION_MAPPINGS}


@dataclass(frozen=True)
class Averaging(Group):
    """Averaged SGD."""

    averaging_patience: int | None = 5
    """Epochs without a better loss on the validation text after which SGD becomes averaged SGD, as the published code
    counts them; None: never."""
    checks: ClassVar = at_least(1, "averaging_patience")


PAPER: Mapping[str, Any] = {
    "dataset": "folder",
    "sequence_length": 35,
    "learning_rate": 20.0,
    "dropout_output": 0.75,
    "dropout_hidden": 0.25,
    "dropout_x": 0.75,
    "dropout_input": 0.2,
}
"""Of both commands (Liu et al. 2019, appendix A.2, as their code has it)."""
SEARCH_PAPER: Mapping[str, Any] = {**PAPER, "epochs": 50, "batch_size": 256, "hidden": 300, "l2": 5e-7}
TRAINING_PAPER: Mapping[str, Any] = {
    **PAPER,
    "epochs": 8000,
    "batch_size": 64,
    "hidden": 850,
    "l2": 8e-7,
    "dropout_embedding": 0.1,
}
ALPHA: Mapping[str, Any] = {"hypergradient": "first_order", "alpha_b1": 0.9, "clip_virtual_step": True}
"""What learning alpha has otherwise than by default."""


def folder_given(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data set that a folder stands for."""
    return {"dataset": "folder"} if values.get("data_dir") is not None else {}


OWN = frozenset(
    name
    for group in (Text, TextSize, TextRegularisation, Averaging)
    for name in field_names(group)
    if name not in ("dataset", "data_dir", "epochs", "batch_size")
)
"""Names of settings that nothing but learning text has."""
