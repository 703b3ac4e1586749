"""How does a search run from its configuration to its report?"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TextIO

import jax

from jaxdarts.bilevel import set_hyperparameters
from jaxdarts.errors import InputError
from jaxdarts.methods import RollBack, SearchState
from jaxdarts.runs.compilation import enable_compilation_cache
from jaxdarts.runs.device import device_name, precision
from jaxdarts.runs.devices import traced_for
from jaxdarts.runs.folder import RunFolder
from jaxdarts.runs.interrupt import Interrupt, catch_interrupts
from jaxdarts.runs.metrics import read_metrics
from jaxdarts.runs.population.loop import PopulationRun
from jaxdarts.runs.population.members import describe_fields, member_configs
from jaxdarts.runs.population.steps import assemble_population
from jaxdarts.runs.search.assemble import EpochSums, Search, assemble
from jaxdarts.runs.search.config import SearchConfig
from jaxdarts.runs.search.events import Event, describe, make_event, stopped_at
from jaxdarts.runs.search.files import SearchResult, forget_epochs, search_facts, write_result
from jaxdarts.runs.search.measure import measure_epoch
from jaxdarts.runs.search.validity import check_config
from jaxdarts.runs.stepping import SteppedRun, check_run_dir, open_run_dir
from jaxdarts.spaces import space_to_json


def run_search(
    config: SearchConfig,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    stream: TextIO | None = None,
) -> SearchResult:
    """A whole search: everything that `python -m jaxdarts.search` does.

    Args:
      config: what to search, and how.
      run_dir: where its files go; None makes a new folder below `runs/`.
      resume: continue the run in `run_dir` from its newest checkpoint; the result is that of an unbroken run.
      stream: where progress is shown; standard output if None.

    Raises:
      InputError: something given cannot be used; nothing was compiled or written.
      RunInterrupted: SIGINT or SIGTERM came; the state was saved first.
      RunError: a loss was not finite, or a file could not be written.
    """
    folder_path = None if run_dir is None else Path(run_dir)
    check_config(config)
    is_population = len(member_configs(config)) > 1
    if is_population and jax.process_count() > 1:
        raise InputError(
            f"population must be 1 where several processes make one run; got {len(member_configs(config))} "
            f"(method {config.method!r})"
        )
    check_run_dir(config, folder_path, resume)
    with precision(config.precision), traced_for(config.devices):
        enable_compilation_cache()
        population = assemble_population(config) if is_population else None
        search = assemble(config) if population is None else population.members[0]
        device = device_name()
        facts = {"search_space": space_to_json(search.space), "class_names": list(search.dataset.class_names)}
        members = {} if population is None else {"members": [describe_fields(one.config) for one in population.members]}
        folder = open_run_dir(config, folder_path, resume, device=device, facts={**facts, **members})
        with folder, catch_interrupts() as interrupt:
            if population is None:
                return _Run(search, folder, interrupt, stream, device).finish()
            return PopulationRun(population, folder, interrupt, stream, device, facts).finish()


class _Run(SteppedRun[SearchState, SearchResult]):
    """A search's own part of a run: its measurements, and the verdicts of its method, which it obeys."""

    watched = "hypergradient"
    rates = "learning_rate or alpha_learning_rate"

    def __init__(
        self, search: Search, folder: RunFolder, interrupt: Interrupt, stream: TextIO | None, device: str
    ) -> None:
        super().__init__(search, search.config, folder, interrupt, stream, device)
        self.search = search
        self.events: list[Event] = []

    @property
    def ended(self) -> bool:
        """Whether a verdict has ended the search."""
        return stopped_at(self.events) is not None

    def no_sums(self) -> EpochSums:
        """The sums over no steps."""
        return EpochSums.zero(self.search.problem.dtype)

    def extra(self) -> dict[str, Any]:
        """The events so far."""
        return {"events": self.events}

    def also_keep(self, epoch: int) -> Collection[int]:
        """The epochs that later verdicts may name, and the one that is returned."""
        history = read_metrics(self.metrics_path)[: epoch + 1]
        epochs = {*self.search.method.returnable(history), stopped_at(self.events)}
        return [epoch for epoch in epochs if epoch is not None]

    def return_to(self, extra: Mapping[str, Any], epoch: int) -> None:
        """Brings the files to what a checkpoint knows: nothing of this epoch and later ones, and the events so far."""
        self.events = extra.get("events", [])  # an older version saved none
        forget_epochs(self.folder, epoch, self.events)

    def banner(self, state: SearchState) -> tuple[str, dict[str, str]]:
        """What is searched, how and where."""
        num_weights = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        facts = search_facts(self.search, num_weights) | {"device": self.device, "folder": str(self.folder.path)}
        title = f"search {self.search.space.name} on {self.search.dataset.name} (preset {self.search.config.preset})"
        return title, facts

    def measure(self, state: SearchState, sums: EpochSums, epoch: int, step: int) -> dict[str, Any]:
        """The epoch's line of metrics.jsonl, its duration excepted; its genotype also becomes a file."""
        record = measure_epoch(self.search, state, sums, epoch, step, read_metrics(self.metrics_path))
        self.folder.write_json(f"genotypes/epoch_{epoch:04d}.json", record["genotype"])
        return record

    def shown(self, record: Mapping[str, Any]) -> dict[str, str]:
        """Loss, accuracy, curvature and skip connections."""
        digits = {"train_loss": 3, "valid_loss": 3, "valid_accuracy": 3, "dominant_eigenvalue": 4}
        known = [name for name in digits if record[name] is not None]
        facts = {name.replace("_", " "): f"{record[name]:.{digits[name]}f}" for name in known}
        if record.get("benchmark"):
            facts |= {
                name: f"{value['accuracy']:.2%}" for name, value in record["benchmark"].items() if name != "index"
            }
        return {**facts, "skips": str(next(iter(record["skip_connections"].values())))}

    def end_epoch(self, state: SearchState, step: int) -> tuple[SearchState, int]:
        """Saves the state that the method's verdict on the epoch asks to continue from, and returns it and its step.

        The checkpoint comes before the files are brought to it: a run killed in between does that when it is resumed,
        and one killed before comes to the same verdict again.
        """
        history = read_metrics(self.metrics_path)
        verdict = None if step == self.num_steps else self.search.method.decide(history)
        if verdict is not None:
            self.events = [*self.events, make_event(verdict, history)]
        if isinstance(verdict, RollBack):
            state, step = self.restore(verdict.epoch)
            opt_state = set_hyperparameters(state.opt_state, l2=verdict.l2)
            state = dataclasses.replace(state, opt_state=opt_state)
        state, step = super().end_epoch(state, step)
        if verdict is not None:
            self.return_to(self.extra(), step // self.search.steps_per_epoch)
            self.progress.rewind(step)
            self.progress.message(f"{describe(self.events[-1])} (Epochs counted from 0.)")
        return state, step

    def conclude(self, state: SearchState, step: int) -> SearchResult:
        """Chooses the genotype, and writes it, what is known about it, and the report."""
        metrics = read_metrics(self.metrics_path)
        returned = metrics[-1]
        stopped = stopped_at(self.events)
        if stopped is not None and stopped != returned["epoch"]:
            returned = next(record for record in metrics if record["epoch"] == stopped)
            state, _ = self.restore(stopped)
        genotype = write_result(self.search, self.folder, state, returned, step, self.progress.message)
        return SearchResult(genotype, self.folder.path, metrics, state)
