"""How do several searches in one program run to their reports, and which of their genotypes is returned?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TextIO

import jax
import numpy as np

from jaxdarts.bilevel import set_hyperparameters
from jaxdarts.errors import RunInterrupted
from jaxdarts.methods import RollBack, SearchState
from jaxdarts.runs import reporting, tensorboard
from jaxdarts.runs.folder import CONFIG_FILE, RunFolder, one_line_errors, run_facts
from jaxdarts.runs.interrupt import Interrupt
from jaxdarts.runs.metrics import append_metrics, read_metrics
from jaxdarts.runs.population.member import Member
from jaxdarts.runs.population.members import describe_fields, describe_member
from jaxdarts.runs.population.selection import Retrained, ranking, retrain, retrain_config
from jaxdarts.runs.population.steps import Population, apart, joined, stack
from jaxdarts.runs.record import DIAGNOSTICS_FILE, REPORT_FILE, member_folder
from jaxdarts.runs.schedules import start_epoch
from jaxdarts.runs.search.assemble import EpochSums
from jaxdarts.runs.search.events import describe, make_event
from jaxdarts.runs.search.files import SearchResult, search_facts, write_genotype, write_result
from jaxdarts.runs.search.measure import measure_epoch
from jaxdarts.runs.stepping import SteppedRun
from jaxdarts.spaces import Architecture, load_genotype
from jaxdarts.spaces.files import GENOTYPE_FILE

RETRAIN_FOLDER = "retrain"  # below a member's own
_SUMMARY = ("train_loss", "valid_loss", "valid_accuracy", "dominant_eigenvalue")  # of metrics.jsonl, one a member


class PopulationRun(SteppedRun[SearchState, SearchResult]):
    """A population's part of a run: every member's measurements and files, and the choice between them.

    What `SteppedRun` calls an epoch are here rounds, of which there are more when a member goes back.
    """

    watched = "hypergradient"
    rates = "learning_rate or alpha_learning_rate"

    def __init__(
        self,
        population: Population,
        folder: RunFolder,
        interrupt: Interrupt,
        stream: TextIO | None,
        device: str,
        facts: Mapping[str, Any],
    ) -> None:
        """`facts`: what a search's config.json holds beside the fields."""
        super().__init__(population, population.config, folder, interrupt, stream, device)
        self.population = population
        self.configs = tuple(search.config for search in population.members)
        self.members = []
        for index, search in enumerate(population.members):
            own = RunFolder(member_folder(folder.path, index), None)
            recorded = {**dataclasses.asdict(search.config), **run_facts(device), **facts, "part_of": ".."}
            own.write_json(CONFIG_FILE, {"command": search.config.command, **recorded})
            self.members.append(Member(index, search, own))
        self.records: dict[int, dict[str, Any]] = {}  # of the newest epoch, by member

    @property
    def num_steps(self) -> int:
        """Steps of the whole run, until the last member ends."""
        return self.steps.steps_per_epoch * (1 + max(member.last_round for member in self.members))

    def no_sums(self) -> EpochSums:
        """The sums over no steps."""
        return stack([EpochSums.zero(self.members[0].search.problem.dtype)] * len(self.members))

    def start_epoch(self, state: Any, epoch: int) -> Any:
        """Sets what follows a schedule, in every member that of its own epoch."""
        epochs = [member.epoch_in(epoch) for member in self.members]
        states = [start_epoch(*one) for one in zip(self.configs, self._apart(state), epochs, strict=True)]
        return self._together(states)

    def order(self, epoch: int) -> Any:
        """What the steps draw from; where members are stepped in turn, nothing for those that have ended."""
        if not self.population.in_turn:
            return self.population.order([member.epoch_in(epoch) for member in self.members])
        return [m.search.order(m.epoch_in(epoch)) if m.takes_part(epoch) else None for m in self.members]

    def extra(self) -> dict[str, Any]:
        """The events of every member so far."""
        return {"events": [member.events for member in self.members]}

    def also_keep(self, epoch: int) -> Collection[int]:
        """The rounds that ended with epochs that later verdicts may name, and with those that are returned."""
        return {number for member in self.members for number in member.rounds_to_keep(epoch)}

    def return_to(self, extra: Mapping[str, Any], epoch: int) -> None:
        """Brings all files to what a checkpoint knows: nothing of this epoch and later ones, and the events so far."""
        super().return_to(extra, epoch)
        for member, events in zip(self.members, extra.get("events") or [[]] * len(self.members), strict=True):
            member.events = events
            member.return_files(epoch)

    def banner(self, state: SearchState) -> tuple[str, dict[str, str]]:
        """What is searched, how and where."""
        search, config, number = self.members[0].search, self.config, len(self.members)
        num_weights = sum(leaf.size for leaf in jax.tree.leaves(state.params)) // number
        facts = search_facts(search._replace(config=self.population.config), num_weights)
        facts["members"] = "; ".join(f"{i}: {describe_member(own, self.configs)}" for i, own in enumerate(self.configs))
        facts |= {"device": self.device, "folder": str(self.folder.path)}
        title = f"{number} searches in {search.space.name} on {search.dataset.name} (preset {config.preset})"
        return title, facts

    def measure(self, state: SearchState, sums: EpochSums, epoch: int, step: int) -> dict[str, Any]:
        """The round's line of metrics.jsonl, with lists over members; None for those that have ended."""
        states, all_sums = (self._apart(tree) for tree in (state, sums))
        self.records = {
            member.index: measure_epoch(
                member.search,
                states[member.index],
                all_sums[member.index],
                member.epoch_in(epoch),
                (member.epoch_in(epoch) + 1) * self.steps.steps_per_epoch,
                read_metrics(member.metrics_path),
            )
            for member in self.members
            if member.takes_part(epoch)
        }

        def of_each(name: str) -> list[Any]:
            return [self.records[i][name] if i in self.records else None for i in range(len(self.members))]

        summary = {name: of_each(name) for name in _SUMMARY}
        return {"epoch": epoch, "step": step, "member_epoch": of_each("epoch"), **summary}

    def shown(self, record: Mapping[str, Any]) -> dict[str, str]:
        """Accuracy, curvature and skip connections of every member, and its own epoch where some have gone back."""
        facts = {}
        if any(own not in (None, record["epoch"]) for own in record["member_epoch"]):
            facts["own epochs"] = " ".join("-" if own is None else str(own + 1) for own in record["member_epoch"])
        facts |= {
            name.replace("_", " "): " ".join("-" if value is None else f"{value:.3f}" for value in record[name])
            for name in ("valid_accuracy", "dominant_eigenvalue")
            if any(value is not None for value in record[name])
        }
        skips = [
            str(next(iter(self.records[i]["skip_connections"].values()))) if i in self.records else "-"
            for i in range(len(self.members))
        ]
        return {**facts, "skips": " ".join(skips)}

    def end_epoch(self, state: SearchState, step: int) -> tuple[SearchState, int]:
        """Writes what was measured to the members' folders, asks and obeys their methods, and saves the state.

        A run that is killed before the checkpoint measures the epoch again; files that follow verdicts come after it.
        """
        seconds = read_metrics(self.metrics_path)[-1]["seconds"]
        decided = []
        for member in self.members:
            if member.index not in self.records:
                continue
            record = {**self.records[member.index], "seconds": seconds}
            member.folder.write_json(f"genotypes/epoch_{record['epoch']:04d}.json", record["genotype"])
            with one_line_errors("write", member.metrics_path):
                append_metrics(member.metrics_path, record)
                if self.config.tensorboard:
                    tensorboard.write_scalars(member.folder.path, record)
            history = read_metrics(member.metrics_path)
            is_last = record["epoch"] == member.search.config.epochs - 1
            verdict = None if is_last else member.search.method.decide(history)
            if verdict is not None:
                if isinstance(verdict, RollBack):
                    state = self._gone_back(state, member, verdict)
                member.events = [*member.events, make_event(verdict, history)]
                decided.append(member)
        state, step = super().end_epoch(state, step)
        for member in decided:
            member.return_files(step // self.steps.steps_per_epoch)
            self.progress.message(f"member {member.index}: {describe(member.events[-1])} (Epochs counted from 0.)")
        self.progress.resize(self.num_steps, self.num_steps // self.steps.steps_per_epoch)
        return state, step

    def _gone_back(self, state: Any, member: Member, verdict: RollBack) -> Any:
        """The population's state with one member's at the end of an earlier epoch of its own, and with another L2."""
        states = list(self._apart(state))
        earlier = self._restored(member, verdict.epoch)
        opt_state = set_hyperparameters(earlier.opt_state, l2=verdict.l2)
        states[member.index] = dataclasses.replace(earlier, opt_state=opt_state)
        return self._together(states)

    def _restored(self, member: Member, epoch: int) -> SearchState:
        """A member's state at the end of an earlier epoch of its own."""
        return self._apart(self.restore(member.round_of(epoch))[0])[member.index]

    def conclude(self, state: Any, step: int) -> SearchResult:
        """Writes every member's result, chooses between their genotypes, and writes the choice and the report."""
        states = list(self._apart(state))
        last = step // self.steps.steps_per_epoch - 1
        earlier = [member for member in self.members if member.round_of(member.last_epoch) < last]
        for member in earlier:
            states[member.index] = self._restored(member, member.last_epoch)
        for member in self.members:
            if not (member.folder.path / GENOTYPE_FILE).exists():
                self._conclude_member(member, states[member.index])
            elif not (member.folder.path / REPORT_FILE).exists():  # killed between the two
                reporting.write_report(member.folder.path)
        genotypes = [load_genotype(member.folder.path / GENOTYPE_FILE) for member in self.members]
        candidates = (
            self._retrained(genotypes) if self.population.config.retrain_epochs else self._as_searched(genotypes)
        )
        order = ranking([(candidate["accuracy"] or 0.0, candidate["loss"] or 0.0) for candidate in candidates])
        best = self.members[order[0]]
        found = json.loads((best.folder.path / DIAGNOSTICS_FILE).read_text())
        chosen_by = "retraining" if self.population.config.retrain_epochs else "supernet"
        found |= {"member": best.index, "chosen_by": chosen_by, "candidates": [candidates[i] for i in order]}
        genotype = genotypes[best.index]
        write_genotype(self.folder, genotype, found)
        return SearchResult(
            genotype, self.folder.path, read_metrics(self.metrics_path), joined(states if earlier else state)
        )

    def _conclude_member(self, member: Member, state: SearchState) -> None:
        metrics = read_metrics(member.metrics_path)
        returned = next(record for record in metrics if record["epoch"] == member.last_epoch)
        step = len(metrics) * self.steps.steps_per_epoch
        write_result(member.search, member.folder, state, returned, step, self.progress.message)

    def _retrained(self, genotypes: Sequence[Architecture]) -> list[dict[str, Any]]:
        """Every member's candidate, trained from scratch; a genotype that several have found is trained once."""
        found: dict[Architecture, Retrained] = {}
        for member, genotype in zip(self.members, genotypes, strict=True):
            if genotype.canonical() in found:
                continue
            name = member.folder.path.name
            try:
                found[genotype.canonical()] = retrain(
                    member.search,
                    retrain_config(self.population.config, name),
                    genotype,
                    member.folder.path / RETRAIN_FOLDER,
                    self.interrupt.own,
                    self.stream,
                    self.device,
                )
            except RunInterrupted:
                raise RunInterrupted(self._resume_hint(self.num_steps)) from None
        scores = [found[genotype.canonical()] for genotype in genotypes]
        return [self._candidate(i, genotypes[i], *score) for i, score in enumerate(scores)]

    def _as_searched(self, genotypes: Sequence[Architecture]) -> list[dict[str, Any]]:
        """Every member's candidate with the supernet's accuracy and loss, where it has some."""
        found = []
        for member, genotype in zip(self.members, genotypes, strict=True):
            diagnostics = json.loads((member.folder.path / DIAGNOSTICS_FILE).read_text())
            records = read_metrics(member.metrics_path)
            record = next(record for record in records if record["epoch"] == diagnostics["epoch"])
            accuracy, loss = record["valid_accuracy"], record["valid_loss"]
            if diagnostics.get("candidates"):  # chosen by its score
                accuracy, loss = diagnostics["candidates"][0]["accuracy"], None
            found.append(self._candidate(member.index, genotype, accuracy, loss))
        return found

    def _candidate(
        self, member: int, genotype: Architecture, accuracy: float | None, loss: float | None
    ) -> dict[str, Any]:
        fields = describe_fields(self.configs[member])
        return {"member": member, **fields, "genotype": genotype.to_json(), "accuracy": accuracy, "loss": loss}

    def _apart(self, tree: Any) -> list[Any]:
        """One pytree for each member, all on the first device."""
        trees = apart(tree, len(self.members))
        return trees if len(jax.devices()) == 1 else jax.device_put(trees, jax.devices()[0])

    def _together(self, states: list[Any]) -> Any:
        """The inverse, as the steps take it."""
        return states if self.population.in_turn else stack(states)

    def _save(self, step: int, state: Any, sums: Any, seconds: float) -> None:
        super()._save(step, joined(state), joined(sums), seconds)

    def _check_finite(self, value: jax.Array | None, epoch: int, step: int) -> None:
        if value is None:
            return
        numbers = np.asarray(value)
        for member, config in zip(self.members, self.configs, strict=True):
            if member.takes_part(epoch) and not np.isfinite(numbers[member.index]):
                self.watched = f"hypergradient in member {member.index} ({describe_member(config, self.configs)})"
                super()._check_finite(value[member.index], member.epoch_in(epoch), step)
