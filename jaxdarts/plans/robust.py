"""Several searches side by side, and the best of what they found, by a short training from scratch.

Four seeds (Liu et al. 2019, section 3.1), or R-DARTS (Zela et al. 2020, section 5.3), whose searches also differ in
how strongly w is regularised.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdarts.json_files import read_json, read_lines
from jaxdarts.plans.base import Built, Ended, Outcome, Plan, Stage
from jaxdarts.plans.evaluate import RESULT_FILE, build_evaluation
from jaxdarts.plans.members import MEMBER_FIELDS, describe_fields
from jaxdarts.plans.search import DIAGNOSTICS_FILE, Found, build_search
from jaxdarts.spaces import Architecture, CellSpace, load_genotype
from jaxdarts.spaces.files import GENOTYPE_FILE
from jaxdarts.tasks import kind_of
from jaxdarts.tasks.base import Metric, Task

RETRAIN_FOLDER = "retrain"  # below a member's own


def robust_plan(settings: Any, members: Sequence[Any], space: CellSpace | None = None) -> Plan:
    """The searches as one stage; then, if the settings ask for it, a training of each genotype that they found."""
    shared: dict[str, Built] = {}

    def build() -> Built:
        by_map = settings.population_mapping == "map" or (
            settings.population_mapping == "auto" and jax.default_backend() == "cpu"
        )
        built = build_search(members, settings, space, together=1 if by_map else len(members))
        shared["search"] = built
        facts = {**built.facts, "members": [describe_fields(member) for member in members]}
        return built._replace(
            experiments=tuple(
                dataclasses.replace(one, settings={"command": settings.command, **one.settings})
                for one in built.experiments
            ),
            facts=facts,
            recall=recall_member,
            banner=lambda state: _banner(built, members, state),
        )

    search = Stage(build=build, epochs=settings.epochs)

    def plan(ended: Sequence[Ended]) -> Stage | None:
        if not ended:
            return search
        found: list[Found] = ended[0].results
        names = _to_retrain([one.genotype for one in found]) if settings.retrain_epochs else []
        if len(ended) > len(names):
            return None
        index = names[len(ended) - 1]
        genotype = found[index].genotype
        own = retrain_settings(settings, genotype, f"member_{index}")
        data = kind_of(genotype).retraining_data(shared["search"].data)
        return Stage(
            build=lambda: build_evaluation(own, genotype, data, f"member_{index}"),
            epochs=own.epochs,
            name=f"member_{index}/{RETRAIN_FOLDER}",
            settings=_recorded(own, genotype, data),
            recall=_recall,
        )

    return plan


class Choice(NamedTuple):
    """The best of what several searches found."""

    genotype: Architecture
    diagnostics: dict[str, Any]  # as in diagnostics.json


def choose(settings: Any, members: Sequence[Any], ended: Sequence[Ended], task: Task) -> Choice:
    """The best genotype: by its training from scratch, or without one by the supernet; of equals the lower loss.

    What was not finite is worst.
    """
    found: list[Found] = ended[0].results
    genotypes = [one.genotype for one in found]
    objective = task.objective
    if settings.retrain_epochs:
        scored = {
            genotypes[index].canonical(): _retrained(one, objective)
            for index, one in zip(_to_retrain(genotypes), ended[1:], strict=True)
        }
        scores = [scored[genotype.canonical()] for genotype in genotypes]
    else:
        scores = [_as_searched(one, ended[0].path / f"member_{i}", objective) for i, one in enumerate(found)]
    order = ranking(scores, task.metrics[objective])
    candidates = [
        {
            "member": i,
            **describe_fields(members[i]),
            "genotype": genotypes[i].to_json(),
            objective: scores[i][0],
            "loss": scores[i][1],
        }
        for i in order
    ]
    chosen_by = "retraining" if settings.retrain_epochs else "supernet"
    own = {"member": order[0], "chosen_by": chosen_by, "candidates": candidates}
    return Choice(genotypes[order[0]], {**found[order[0]].diagnostics, **own})


def ranking(scores: Sequence[tuple[float | None, float | None]], metric: Metric) -> list[int]:
    """Indices of (objective, loss), best first: the better objective, of equals the lower loss, then the first.

    None, what was not measured or not finite, is worse than any number.
    """

    def badness(i: int) -> tuple[bool, float, bool, float, int]:
        objective, loss = scores[i]
        value = 0.0 if objective is None else objective if metric.better == "less" else -objective
        return objective is None, value, loss is None, loss or 0.0, i

    return sorted(range(len(scores)), key=badness)


def retrain_settings(settings: Any, genotype: Architecture, name: str) -> Any:
    """How a genotype is trained for a short time: as in an evaluation, at the size of the search.

    L2, drop path, cutout and the auxiliary head are those of the evaluation's preset whatever the search's own are, as
    in the final training (Zela et al. 2020, appendix C), so that all candidates are treated alike.
    """
    from jaxdarts.plans.training_settings import EvaluateConfig

    shared = ("checkpoint_every_minutes", "checkpoints_to_keep", "seed", "precision")
    return EvaluateConfig(
        preset=settings.preset,
        genotype=name,
        epochs=settings.retrain_epochs,
        **kind_of(genotype).retrained_with(settings),
        **{field: getattr(settings, field) for field in shared},
    )


def _recorded(settings: Any, genotype: Architecture, data: Any) -> dict[str, Any]:
    """What the config.json of a retraining holds, so that it can be reported like any evaluation."""
    cost = kind_of(genotype).cost(genotype, data, settings)
    facts = {
        "architecture": genotype.to_json(),
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
    }
    return {"command": settings.command, **settings.flat(), **facts}


def _recall(path: Path) -> list[Any] | None:
    """A training that has ended is not built again: its last record says all that is needed."""
    return [None] if (path / RESULT_FILE).is_file() else None


def _to_retrain(genotypes: Sequence[Architecture]) -> list[int]:
    """The members whose genotypes are trained: one that several have found is trained once."""
    first: dict[Architecture, int] = {}
    for index, genotype in enumerate(genotypes):
        first.setdefault(genotype.canonical(), index)
    return list(first.values())


def _retrained(ended: Ended, objective: str) -> tuple[float | None, float | None]:
    last = read_lines(ended.path / "metrics.jsonl", "metrics")[-1]
    return last[f"valid_{objective}"], last["valid_loss"]


def _as_searched(found: Found, path: Path, objective: str) -> tuple[float | None, float | None]:
    """The supernet's objective and loss, where it has some."""
    if found.diagnostics.get("candidates"):  # chosen by its score
        return found.diagnostics["candidates"][0][objective], None
    records = read_lines(path / "metrics.jsonl", "metrics")
    record = next(record for record in records if record["epoch"] == found.diagnostics["epoch"])
    return record[f"valid_{objective}"], record["valid_loss"]


def recall_member(outcome: Outcome) -> Found | None:
    """What a member found in an earlier process; None: it has not ended."""
    if not (outcome.path / GENOTYPE_FILE).is_file():
        return None
    diagnostics = read_json(outcome.path / DIAGNOSTICS_FILE, "run_dir")
    return Found(load_genotype(outcome.path / GENOTYPE_FILE), diagnostics, outcome)


def _banner(built: Built, members: Sequence[Any], state: Any) -> tuple[str, dict[str, str]]:
    assert built.banner is not None
    title, facts = built.banner(state)
    varied = [name for name in MEMBER_FIELDS if len({getattr(member, name, None) for member in members}) > 1]
    texts = [
        f"{i}: " + ", ".join(f"{name} {getattr(member, name)}" for name in varied) for i, member in enumerate(members)
    ]
    return title, {**facts, "members": "; ".join(texts)}
