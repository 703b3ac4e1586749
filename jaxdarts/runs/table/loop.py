"""How are all architectures of a space trained, one after the other, however often that is stopped?"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import NamedTuple, TextIO

import jax
import jax.numpy as jnp

from jaxdarts.errors import InputError, RunError, RunInterrupted
from jaxdarts.networks import OPERATIONS
from jaxdarts.networks.macro import cells_text
from jaxdarts.runs import reporting
from jaxdarts.runs.compilation import enable_compilation_cache
from jaxdarts.runs.device import device_name, precision
from jaxdarts.runs.evaluate.assemble import (
    Images,
    RetrainSums,
    Training,
    assemble_training,
    read_images,
    seed_keys,
    training_cost,
)
from jaxdarts.runs.folder import RunFolder, check_creatable, check_resumable, check_same_config
from jaxdarts.runs.inputs import working_dtype
from jaxdarts.runs.interrupt import Interrupt, catch_interrupts
from jaxdarts.runs.progress import RunProgress, format_seconds, print_banner
from jaxdarts.runs.record import read_config
from jaxdarts.runs.schedules import start_epoch
from jaxdarts.runs.stepping import open_run_dir
from jaxdarts.runs.table.config import TabulateConfig, check_tabulate_config
from jaxdarts.runs.table.record import TABLE_FILE, Entry, Table, read_table
from jaxdarts.spaces import Architecture, load_space, space_to_json


class TabulationResult(NamedTuple):
    """A finished table, and where its files are."""

    table: Table
    run_dir: Path


def run_tabulation(
    config: TabulateConfig, run_dir: str | Path | None = None, *, resume: bool = False, stream: TextIO | None = None
) -> TabulationResult:
    """Trains every architecture of a space from scratch: everything that `python -m jaxdarts.tabulate` does.

    Each is trained as `run_evaluation` trains it, to the same bits where the data set does not depend on the seed: the
    images are those of `config.seed` for all. The table is written after every training; what is not in it yet is the
    training in progress.

    Args:
      config: which space, and how its architectures are trained.
      run_dir: where the files go; None makes a new folder below `runs/`.
      resume: go on with the table in `run_dir`; trainings in it are not repeated.
      stream: where progress is shown; standard output if None.

    Raises:
      InputError: something given cannot be used; nothing was compiled or written.
      RunInterrupted: SIGINT or SIGTERM came; the table holds the trainings that had ended.
      RunError: a loss was not finite, or a file could not be written.
    """
    path = None if run_dir is None else Path(run_dir)
    check_tabulate_config(config)
    _check_run_dir(config, path, resume)
    with precision(config.precision):
        enable_compilation_cache()
        space = load_space(config.space, OPERATIONS)
        images = read_images(config)
        device = device_name()
        facts = {"search_space": space_to_json(space), "class_names": list(images.dataset.class_names)}
        folder = open_run_dir(config, path, resume, device=device, facts=facts)
        with folder, catch_interrupts() as interrupt:
            return _Tabulation(config, images, folder, interrupt, stream, device).finish()


def _check_run_dir(config: TabulateConfig, run_dir: Path | None, resume: bool) -> None:
    if not resume:
        check_creatable(run_dir)
        return
    if run_dir is None:
        raise InputError("resume: name the table's folder with --run-dir")
    check_resumable(run_dir, config.command)
    check_same_config(config, run_dir)


class _Tabulation:
    """The trainings between the folder's opening and closing."""

    def __init__(
        self,
        config: TabulateConfig,
        images: Images,
        folder: RunFolder,
        interrupt: Interrupt,
        stream: TextIO | None,
        device: str,
    ) -> None:
        self.config, self.images, self.folder = config, images, folder
        self.interrupt, self.stream, self.device = interrupt, stream, device
        assert images.test is not None  # `read_images` asks for them
        self.test = images.test
        if not (folder.path / TABLE_FILE).exists():
            self._write([])
        self.table = read_table(folder.path)  # its space is the recorded one, since a space's file may have changed

    def finish(self) -> TabulationResult:
        """Trains what is missing in the table, and writes the report."""
        config, entries = self.config, list(self.table.entries)
        done = {(entry.genotype, entry.seed) for entry in entries}
        size = len(self.images.train.labels)
        self.steps_each = config.epochs * (size // config.batch_size)
        print_banner(*self._banner(len(entries)), self.stream)
        steps = self.steps_each * self.table.planned
        first = self.steps_each * len(entries)
        with RunProgress(steps, self.table.planned, first_step=first, stream=self.stream, unit="training") as progress:
            for genotype in self.table.space.genotypes():
                genotype = genotype.canonical()
                seeds = [seed for seed in self._seeds() if (genotype, seed) not in done]
                # Seeds share the compiled programs, which belong to one architecture: on a CPU as fast as all in one
                # program (docs/performance.md), and simpler.
                training = assemble_training(config, genotype, self.images)
                for seed in seeds:
                    entries.append(self._train(training, genotype, seed, len(entries), progress))
                    self._write(entries)
                    shown = {"test error": f"{entries[-1].test_error:.2%}", "in": format_seconds(entries[-1].seconds)}
                    progress.epoch(len(entries) - 1, shown)
        reporting.write_report(self.folder.path)
        return TabulationResult(read_table(self.folder.path), self.folder.path)

    def _seeds(self) -> range:
        return range(self.config.seed, self.config.seed + self.config.seeds)

    def _train(
        self, training: Training, genotype: Architecture, seed: int, number: int, progress: RunProgress
    ) -> Entry:
        """A whole training; `number` counts those before it."""
        config, began = self.config, time.monotonic()
        init_key, order_key, draw_key = seed_keys(seed)
        state = training.init(init_key)
        zero = RetrainSums.zero(working_dtype(config))
        sums, done = zero, number * self.steps_each
        for epoch in range(config.epochs):
            state = start_epoch(config, state, epoch)
            order = training.order(order_key, jnp.int32(epoch))
            sums, pending = jax.tree.map(jnp.copy, zero), None
            for _ in range(training.steps_per_epoch):
                state, sums, finite = training.step(draw_key, state, sums, self.images.train, order)
                done += 1
                # Looks at the step before, so that the device never waits for the host.
                self._check_finite(pending, genotype, seed, epoch)
                pending = finite
                progress.advance(done, number)
                if self.interrupt.requested:
                    raise RunInterrupted(
                        f"{number} of {self.table.planned} trainings are in the table; continue with: python -m "
                        f"jaxdarts.{config.command} --resume --run-dir {self.folder.path}"
                    )
            self._check_finite(pending, genotype, seed, epoch)
        valid = None if self.images.valid is None else 1 - training.measure(state, self.images.valid)[1]
        _, accuracy = training.measure(state, self.test)
        cost = training_cost(config, genotype, self.images.dataset)
        return Entry(
            genotype=genotype,
            seed=seed,
            test_error=1 - accuracy,
            valid_error=valid,
            train_loss=float(sums.train_loss) / training.steps_per_epoch,
            parameters=cost.parameters,
            multiply_adds=cost.multiply_adds,
            seconds=round(time.monotonic() - began, 3),
        )

    def _check_finite(self, value: jax.Array | None, genotype: Architecture, seed: int, epoch: int) -> None:
        if value is not None and not math.isfinite(float(value)):
            raise RunError(
                f"the loss or its gradient is not finite in epoch {epoch} (counted from 0) of {genotype.to_text()}, "
                f"seed {seed}; the trainings before it are in {str(self.folder.path / TABLE_FILE)!r}; a smaller "
                "learning_rate may help"
            )

    def _write(self, entries: list[Entry]) -> None:
        recorded = read_config(self.folder.path)
        self.folder.write_json(TABLE_FILE, {**recorded, "entries": [entry.to_json() for entry in entries]})

    def _banner(self, done: int) -> tuple[str, dict[str, str]]:
        config, data, space = self.config, self.images.dataset, self.table.space
        height, width, channels = data.image_shape
        held_out = 0 if self.images.valid is None else len(self.images.valid.labels)
        facts = {
            "space": f"{space.name}: {space.num_genotypes()} architectures, "
            + ("one training of each" if config.seeds == 1 else f"{config.seeds} trainings of each"),
            "data": f"{data.name}: {len(self.images.train.labels)} images to train on, "
            + (f"{held_out} held out, " if held_out else "")
            + f"{len(self.test.labels)} to test; {height}x{width}x{channels}, {data.num_classes} classes",
            "network": f"{cells_text(space.macro, config.cells)}, {config.channels} channels",
            "training": f"{config.epochs} epochs, batch {config.batch_size}, seed {config.seed}"
            + (f" to {config.seed + config.seeds - 1}" if config.seeds > 1 else ""),
            "device": self.device,
            "folder": str(self.folder.path),
        }
        if done:
            facts["resumed"] = f"after {done} of {self.table.planned} trainings"
        return f"tabulate {space.name} on {data.name} (preset {config.preset})", facts
