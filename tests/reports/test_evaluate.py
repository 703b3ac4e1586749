"""Does an evaluation's report show what its files say, whatever state the run is in?"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.json_files import append_line
from jaxdarts.report import main
from jaxdarts.reports.write import write_report
from jaxdarts.spaces import GENOTYPES
from tests.reports.test_search import Page


def synthetic_evaluation(
    folder: Path, *, epochs: int = 3, planned: int | None = None, held_out: bool = True, test_every: int = 1
) -> Path:
    """A run folder with plausible numbers; unfinished if more epochs were planned."""
    folder.mkdir(parents=True)
    planned = planned or epochs
    config: dict[str, Any] = {"command": "evaluate", "genotype": "DARTS_V2", "dataset": "photos10", "seed": 1}
    config |= {"epochs": planned, "cells": 5, "channels": 8, "valid_portion": 0.1 if held_out else 0.0}
    config |= {"versions": {"python": "3.11.2", "jax": "0.10.2"}, "device": "2-core CPU"}
    config |= {"architecture": GENOTYPES["DARTS_V2"].to_json(), "parameters": 37018, "multiply_adds": 1849088}
    (folder / "config.json").write_text(json.dumps(config))
    generator = np.random.default_rng(0)
    for epoch in range(epochs):
        noise = generator.normal(0, 0.01, 4)
        progress = (epoch + 1) / planned
        record: dict[str, Any] = {"epoch": epoch, "step": 10 * (epoch + 1), "seconds": 6.5, "l2": 3e-4}
        record |= {"train_loss": 2 - progress + noise[0], "train_accuracy": 0.3 + 0.5 * progress}
        record |= {"auxiliary_loss": 2.2 - progress, "gradient_norm": 1 + noise[1], "drop_path": 0.2 * progress}
        record |= {"learning_rate": 0.025 * (1 - progress), "valid_loss": None, "valid_accuracy": None}
        if held_out:
            record |= {"valid_loss": 2.1 - progress, "valid_accuracy": 0.25 + 0.5 * progress + noise[2]}
        tested = (epoch + 1) % test_every == 0 or epoch == planned - 1
        record |= {"test_loss": 2.1 - progress if tested else None}
        record |= {"test_accuracy": 0.24 + 0.5 * progress + noise[3] if tested else None}
        append_line(folder / "metrics.jsonl", record)
    if epochs == planned:
        (folder / "result.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(synthetic_evaluation(tmp_path_factory.mktemp("report") / "run")).read_text()


def test_loads_nothing_and_is_well_formed(page: str) -> None:
    parsed = Page(page)
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert not {"script", "link", "iframe"} & set(parsed.tags)
    assert "{{" not in page and not re.search(r"\bnan\b", page)


def test_says_errors_size_and_settings(page: str) -> None:
    for text in ("DARTS_V2 trained on photos10", "37,018", "1,849,088", "2-core CPU", "Genotype(normal=["):
        assert text in page
    assert "The test error after the last epoch is" in page
    assert "Epoch 2 has the best validation error" in page
    assert len(re.findall("<svg", page)) == 6  # cells, errors, losses, head, learning rate, norm


def test_few_tests_are_still_a_line(tmp_path: Path) -> None:
    text = write_report(synthetic_evaluation(tmp_path / "run", epochs=40, held_out=False, test_every=7)).read_text()
    Page(text)
    assert "No images were held out" in text and ">test</text>" in text


def test_unfinished_run(tmp_path: Path) -> None:
    folder = synthetic_evaluation(tmp_path / "run", epochs=2, planned=5, test_every=9, held_out=False)
    text = write_report(folder).read_text()
    assert "has not finished: 2 of 5 epochs" in text and "test error" not in text.split("</header>")[0]


def test_command_and_a_broken_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = synthetic_evaluation(tmp_path / "run", epochs=1)
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    (folder / "config.json").write_text('{"command": "evaluate"}')
    with pytest.raises(InputError, match="holds no architecture"):
        write_report(folder)
