"""What came of training a genotype from scratch, on one page?"""

from __future__ import annotations

from collections.abc import Iterable

from jaxdarts.reports.evaluation_record import EvaluationRecord, best_epoch
from jaxdarts.reports.page import Quantities, line_card, render_page, time_text, versions_text

_QUANTITIES: Quantities = (
    ("train_loss", "Training loss", min),
    ("train_accuracy", "Training accuracy", max),
    ("auxiliary_loss", "Auxiliary head's loss", min),
    ("valid_loss", "Validation loss", min),
    ("valid_error", "Validation error", min),
    ("test_loss", "Test loss", min),
    ("test_error", "Test error", min),
    ("gradient_norm", "Gradient norm before clipping", None),
    ("learning_rate", "Learning rate", None),
    ("l2", "L2 factor", None),
    ("drop_path", "Drop-path probability", None),
    ("seconds", "Seconds", None),
)


def render_evaluation(run: EvaluationRecord) -> str:
    """The page as HTML."""
    config = run.config
    return render_page(
        heading=f"{config.get('genotype', 'Genotype')} trained on {config.get('dataset', 'unknown data')}",
        name=run.name,
        facts={
            "Genotype": config.get("genotype"),
            "Data set": config.get("dataset"),
            "Network": f"{config.get('cells')} cells, {config.get('channels')} channels",
            "Parameters": _whole(config.get("parameters")),
            "Multiply-adds an image": _whole(config.get("multiply_adds")),
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
        quantities=_QUANTITIES,
    )


def _whole(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _outcome(run: EvaluationRecord) -> Iterable[str]:
    """A few sentences that say how the run ended."""
    if not run.finished:
        yield f"This run has not finished: {len(run.epochs)} of {run.config.get('epochs')} epochs are done."
    errors = dict(zip(run.epochs, run.values("test_error"), strict=True))
    tested = {epoch: error for epoch, error in errors.items() if error is not None}
    if tested:
        last = max(tested)
        yield f"The test error after {'the last epoch' if run.finished else f'epoch {last}'} is {tested[last]:.2%}."
    elif run.finished and (valid_error := run.values("valid_error")[-1]) is not None:
        yield f"The validation error after the last epoch is {valid_error:.2%}; nothing was tested."
    best = best_epoch(run.metrics)
    if best is not None and best in tested:
        valid = dict(zip(run.epochs, run.values("valid_error"), strict=True))[best]
        yield f"Epoch {best} has the best validation error, {valid:.2%}; its test error is {tested[best]:.2%}."
    elif run.config.get("valid_portion") == 0:
        yield "No images were held out, so the last epoch's error is the one to report."


def _charts(run: EvaluationRecord) -> str:
    errors = {"train_error": "training", "valid_error": "validation", "test_error": "test"}
    losses = {"train_loss": "training", "valid_loss": "validation", "test_loss": "test"}
    note = (
        "Training images are cropped, mirrored and masked at random and see drop path; validation and test images "
        "are not and do not."
    )
    wide = line_card("Errors", "errors", run, errors, note, width=11.4, percent=True)
    pairs = [
        line_card("Losses", "losses", run, losses),
        line_card("Auxiliary head's loss", "head", run, {"auxiliary_loss": "training"}),
        line_card("Learning rate", "rates", run, {"learning_rate": "learning rate"}),
        line_card("Gradient norm before clipping", "norms", run, {"gradient_norm": "norm"}),
    ]
    return f'<div class="wide">{wide}</div><div class="pair">{"".join(pairs)}</div>'
