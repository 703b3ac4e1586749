"""Folders of language modelling's runs, made by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxdarts.json_files import append_line
from jaxdarts.spaces import ACTIVATION_NAMES, RecurrentGenotype, RecurrentSpace

THREE = RecurrentSpace.uniform("three", ACTIVATION_NAMES, num_nodes=3)  # six edges
RELUS = RecurrentGenotype((("tanh", 0), ("relu", 1), ("relu", 1)), (1, 2, 3))
TANHS = RecurrentGenotype((("tanh", 0), ("identity", 1), ("tanh", 2)), (1, 2, 3))
PERPLEXITIES = (120.5, 80.25, 90.75)  # the best is that of epoch 1


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def alpha_of(genotype: RecurrentGenotype, space: RecurrentSpace, strength: float) -> list[list[float]]:
    """Zeros, but where the genotype's edges have their activations."""
    chosen = dict(zip(enumerate(source for _, source in genotype.recurrent), genotype.recurrent, strict=True))
    return [
        [strength if (edge in chosen and chosen[edge][0] == name) else 0.0 for name in names]
        for edge, names in zip(space.edges, space.operations(), strict=True)
    ]


def language_search(
    folder: Path,
    perplexities: Sequence[float | None] = PERPLEXITIES,
    *,
    planned: int | None = None,
    space: RecurrentSpace = THREE,
    genotypes: Sequence[RecurrentGenotype] = (TANHS, RELUS, RELUS),
    **changes: Any,
) -> Path:
    """A search; unfinished if more epochs were planned. `genotypes` are those after each epoch."""
    epochs = len(perplexities)
    config: dict[str, Any] = {"command": "search", "space": space.name, "dataset": "pydoc", "method": "darts"}
    config |= {"seed": 1, "hypergradient": "first_order", "epochs": planned or epochs, "hidden": 64, "batch_size": 32}
    write_json(folder / "config.json", config | {"search_space": space.to_json()} | changes)
    for epoch, (perplexity, genotype) in enumerate(zip(perplexities, genotypes, strict=False)):
        loss = None if perplexity is None else math.log(perplexity)
        record: dict[str, Any] = {"epoch": epoch, "step": 100 * (epoch + 1), "seconds": 2.5, "drop_path": None}
        record |= {"train_loss": 4.5 - epoch, "train_perplexity": math.exp(4.5 - epoch), "alpha_loss": 4.0}
        record |= {"valid_loss": loss, "valid_perplexity": perplexity, "learning_rate": 5.0, "l2": 5e-7}
        record |= {"hypergradient_norm": 0.3, "dominant_eigenvalue": 0.5 + epoch, "smallest_eigenvalue": -0.1}
        record |= {"alpha": {"recurrent": alpha_of(genotype, space, 1.0 + epoch)}}
        record |= {"genotype": genotype.to_json(), "skip_connections": {"recurrent": 0}}
        append_line(folder / "metrics.jsonl", record)
    if (planned or epochs) == epochs:
        write_json(folder / "genotype.json", genotypes[epochs - 1].to_json())
    return folder


def diagnostics(**changes: Any) -> dict[str, Any]:
    """Of an ended search."""
    found: dict[str, Any] = {
        "epoch": 2,
        "operations": {name: {"recurrent": 0} for name in ("skip_connect", "parameter_free", "all")},
        "discretisation": {
            "relaxed": {"loss": 4.5, "perplexity": 90.0},
            "one_hot": {"loss": 4.75, "perplexity": 115.5},
            "perplexity_change": 25.5,
        },
        "eigenvalues": {"values": [0.5, -0.25, 0.125], "residuals": [0.0, 1e-9, 1e-8], "of": 30},
    }
    return found | changes


def ended_search(folder: Path, **changes: Any) -> Path:
    """With an event and everything that may be known about its end."""
    language_search(folder, method="darts-ada", **changes)
    abandoned = [{"epoch": 2, "dominant_eigenvalue": 0.75, "valid_perplexity": 99.5}]
    event = {"action": "roll back", "decided_at": 2, "epoch": 1, "genotype": RELUS.to_json(), "l2": 1e-5}
    write_json(folder / "events.json", [{**event, "l2_before": 5e-7, "abandoned": abandoned}])
    candidates = [{"genotype": one.to_json(), "perplexity": 88.5 + 10 * i} for i, one in enumerate((RELUS, TANHS))]
    write_json(folder / "diagnostics.json", diagnostics(candidates=candidates))
    return folder


def language_evaluation(
    folder: Path,
    valid: Sequence[float] = PERPLEXITIES,
    *,
    planned: int | None = None,
    events: Any = None,
    penalised: bool = True,
) -> Path:
    """A training whose test perplexities are 4.25 above those on validation text."""
    config: dict[str, Any] = {"command": "evaluate", "genotype": "DARTS_V2", "dataset": "pydoc", "seed": 1}
    config |= {"epochs": planned or len(valid), "hidden": 100, "architecture": RELUS.to_json()}
    write_json(folder / "config.json", config | {"parameters": 210000, "multiply_adds": 180000})
    for epoch, perplexity in enumerate(valid):
        record: dict[str, Any] = {"epoch": epoch, "step": 100 * (epoch + 1), "seconds": 2.5, "auxiliary_loss": None}
        record |= {"train_loss": 4.0 - epoch, "train_perplexity": math.exp(4.0 - epoch), "gradient_norm": 0.5}
        record |= {"valid_loss": math.log(perplexity), "valid_perplexity": perplexity, "averaging": float(epoch > 1)}
        record |= {"test_loss": math.log(perplexity + 4.25), "test_perplexity": perplexity + 4.25, "drop_path": None}
        record |= {"penalty": 0.5 - 0.125 * epoch} if penalised else {}
        append_line(folder / "metrics.jsonl", record | {"learning_rate": 5.0, "l2": 8e-7})
    if events is not None:
        write_json(folder / "events.json", events)
    if (planned or len(valid)) == len(valid):
        best = min(range(len(valid)), key=lambda epoch: valid[epoch])
        result = {"test_perplexity": valid[-1] + 4.25, "best_epoch": best, "best_test_perplexity": valid[best] + 4.25}
        write_json(folder / "result.json", {**result, "parameters": 210000, "multiply_adds": 180000})
    return folder


def averaging_evaluation(folder: Path) -> Path:
    """With a loss that was not finite, and averaged SGD from epoch 2 on."""
    events = [{"action": "restart", "epoch": 0, "times": 1}, {"action": "change", "decided_at": 1, "averaging": 1.0}]
    return language_evaluation(folder, events=events)


def language_population(folder: Path, *, retrained: bool = True) -> Path:
    """Of two, whose second is the best."""
    language_search(folder / "member_0", (120.0, 100.0, 95.5))
    language_search(folder / "member_1", (110.0, 90.0, 85.25), genotypes=(RELUS, TANHS, TANHS))
    for member in (0, 1):
        write_json(folder / f"member_{member}" / "diagnostics.json", diagnostics())
    config = read_json(folder / "member_0" / "config.json") | {"retrain_epochs": 5}
    members = [{"seed": seed, "l2": 5e-7, "drop_path": 0.0, "cutout": False} for seed in (0, 1)]
    write_json(folder / "config.json", config | {"members": members})
    write_json(folder / "genotype.json", TANHS.to_json())
    append_line(folder / "metrics.jsonl", {"epoch": 0, "seconds": 1.5, "train_loss": [1.0, 2.0]})
    found = [(1, TANHS, 77.125), (0, RELUS, 79.0)]
    candidates = [
        {"member": member, "genotype": genotype.to_json(), "perplexity": perplexity, "loss": math.log(perplexity)}
        for member, genotype, perplexity in found
    ]
    choice = {"member": 1, "chosen_by": "retraining" if retrained else "supernet", "candidates": candidates}
    write_json(folder / "diagnostics.json", diagnostics(**choice))
    return folder


# Of each run: space, L2, seed, eigenvalue, validation perplexity, its change, held-out and test perplexity.
RUNS = [
    ("three", 1e-6, 0, 0.50, 90.0, 30.0, 80.0, 84.0),
    ("three", 1e-6, 1, 0.70, 94.0, 10.0, 76.0, 78.0),
    ("three", 1e-5, 0, 0.10, 99.0, 2.0, 70.0, 74.0),
    ("three", 1e-5, 1, 0.20, 97.0, 4.0, 72.0, 73.0),
]


def sweep_entries(folder: Path) -> list[dict[str, Any]]:
    """The runs of a sweep with their folders, for its sweep.json."""
    entries = []
    for space, l2, seed, eigenvalue, valid, change, held_out, test in RUNS:
        path = folder / f"{space}-l2_{l2:g}-seed_{seed}"
        language_search(path, (300.0, valid, 50.0), genotypes=(TANHS, RELUS, TANHS), l2=l2, seed=seed)
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for line, known in zip(lines, (eigenvalue, eigenvalue, 9.0), strict=True):  # epoch 1 is returned
            line["dominant_eigenvalue"] = known
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        write_json(path / "genotype.json", RELUS.to_json())
        write_json(path / "diagnostics.json", {"epoch": 1, "discretisation": {"perplexity_change": change}})
        language_evaluation(path / "evaluate", (200.0, held_out))
        write_json(path / "evaluate" / "result.json", {"test_perplexity": test})
        values = {"space": space, "l2": l2, "seed": seed}
        entries.append({"name": path.name, "values": values, "state": "done", "error": None})
    return entries


def language_sweep(folder: Path) -> Path:
    """Four finished runs."""
    content = {"search": {"dataset": "pydoc"}, "fields": ["space", "l2", "seed"], "runs": sweep_entries(folder)}
    write_json(folder / "sweep.json", content)
    return folder
