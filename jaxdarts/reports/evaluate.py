"""What came of training a genotype from scratch, on one page?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxdarts.reports.counts import is_recurrent
from jaxdarts.reports.evaluation_record import EvaluationRecord
from jaxdarts.reports.measure import Measure, plural
from jaxdarts.reports.page import Quantities, line_card, render_page, time_text, versions_text
from jaxdarts.runs.events import CHANGE, Event, describe
from jaxdarts.spaces import Architecture

_PARTS = {"train": "training", "valid": "validation", "test": "test"}


def _quantities(measure: Measure) -> Quantities:
    objective, result = measure.objective, measure.result
    found: dict[str, tuple[str, Any]] = {
        "train_loss": ("Training loss", min),
        f"train_{objective}": (f"Training {objective}", measure.best),
        "auxiliary_loss": ("Auxiliary head's loss", min),
        "penalty": ("Penalty of outputs", None),
        "valid_loss": ("Validation loss", min),
        f"valid_{result}": (f"Validation {result}", min),
        "test_loss": ("Test loss", min),
        f"test_{result}": (f"Test {result}", min),
        "gradient_norm": ("Gradient norm before clipping", None),
        "learning_rate": ("Learning rate", None),
        "l2": ("L2 factor", None),
        "drop_path": ("Drop-path probability", None),
        "seconds": ("Seconds", None),
    }
    return [(key, *told) for key, told in found.items()]


def render_evaluation(run: EvaluationRecord) -> str:
    """The page as HTML."""
    config = run.config
    return render_page(
        heading=f"{config.get('genotype', 'Genotype')} trained on {config.get('dataset', 'unknown data')}",
        name=run.name,
        facts={
            "Genotype": config.get("genotype"),
            "Data set": config.get("dataset"),
            **network_fact(config, run.genotype),
            "Parameters": _whole(config.get("parameters")),
            f"Multiply-adds {run.measure.words.example}": _whole(config.get("multiply_adds")),
            "Seed": config.get("seed"),
            "Epochs": f"{len(run.epochs)} of {config.get('epochs', len(run.epochs))}",
            "Time": time_text(run.values("seconds")),
            "Device": config.get("device"),
            "Versions": versions_text(config),
        },
        outcome=" ".join(_outcome(run)),
        finished=run.finished,
        cells_heading="Cells",
        genotype=run.genotype,
        sections=f"<h2>Training</h2>{_charts(run)}",
        config=config,
        run=run,
        quantities=_quantities(run.measure),
    )


def network_fact(config: Mapping[str, Any], genotype: Architecture) -> dict[str, str]:
    """How large the network is."""
    if is_recurrent(genotype):
        return {"Network": f"cell of {genotype.num_nodes} nodes, {config.get('hidden')} units"}
    return {"Network": f"{config.get('cells')} cells, {config.get('channels')} channels"}


def _whole(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _outcome(run: EvaluationRecord) -> Iterable[str]:
    """A few sentences that say how the run ended."""
    if not run.finished:
        yield f"This run has not finished: {len(run.epochs)} of {run.config.get('epochs')} epochs are done."
    averaged = _averaged(run)
    for event in run.events:
        if not _is_averaging(event):
            yield describe(event)
    if averaged is not None:
        yield f"From after epoch {averaged} on the mean of the weights is measured (averaged SGD)."
    name, text = run.measure.result, run.measure.text
    results = dict(zip(run.epochs, run.values(f"test_{name}"), strict=True))
    tested = {epoch: value for epoch, value in results.items() if value is not None}
    if tested:
        last = max(tested)
        yield f"The test {name} after {'the last epoch' if run.finished else f'epoch {last}'} is {text(tested[last])}."
    elif run.finished and (of_last := run.values(f"valid_{name}")[-1]) is not None:
        yield f"The validation {name} after the last epoch is {text(of_last)}; nothing was tested."
    best = run.best_epoch
    if best is not None and best in tested:
        valid = dict(zip(run.epochs, run.values(f"valid_{name}"), strict=True))[best]
        yield f"Epoch {best} has the best validation {name}, {text(valid)}; its test {name} is {text(tested[best])}."
    elif run.config.get("valid_portion") == 0:
        yield f"No {run.measure.words.examples} were held out, so the last epoch's {name} is the one to report."


def _averaged(run: EvaluationRecord) -> int | None:
    """The epoch after which the mean of the weights was measured; None: it never was."""
    return next((event["decided_at"] for event in run.events if _is_averaging(event)), None)


def _is_averaging(event: Event) -> bool:
    return event["action"] == CHANGE and bool(event.get("averaging"))


def _charts(run: EvaluationRecord) -> str:
    averaged = _averaged(run)
    marks = [] if averaged is None else [(averaged, "averaged SGD")]
    measure, name = run.measure, plural(run.measure.result)
    results = {f"{part}_{measure.result}": told for part, told in _PARTS.items()}
    losses = {f"{part}_loss": told for part, told in _PARTS.items()}
    note, percent = measure.words.training, measure.percent
    wide = line_card(name.capitalize(), name, run, results, note, width=11.4, percent=percent, marks=marks)
    added = [line_card("Auxiliary head's loss", "head", run, {"auxiliary_loss": "training"})]
    if is_recurrent(run.genotype):
        has_penalty = any(value is not None for value in run.values("penalty"))
        added = [line_card("Penalty of outputs", "penalty", run, {"penalty": "training"})] if has_penalty else []
    pairs = [
        line_card("Losses", "losses", run, losses, marks=marks),
        *added,
        line_card("Learning rate", "rates", run, {"learning_rate": "learning rate"}),
        line_card("Gradient norm before clipping", "norms", run, {"gradient_norm": "norm"}),
    ]
    return f'<div class="wide">{wide}</div><div class="pair">{"".join(pairs)}</div>'
