"""Do recurrent cells agree with the reference's PyTorch code, and does the checker tell when not?

The files are copies of cases computed by the public code of DARTS (see tests/golden/check.py); some without gradients
that others of them contain.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_golden import GOLDEN, check, networks

PASS = {"log_prob", "loss", "raw_output", "dropped_output"}
OF_GENOTYPES = PASS | {"hidden", "activation_term", "slowness_term", "total_loss", "total_grad_norm"}
ESTIMATE = {"unrolled_loss", "valid_grad_norm", "vector_clip_coefficient", "fd_radius"}
ESTIMATE |= {"direct", "implicit_product", "limit", "fd"}
STEP = {"train_loss", "train_grad_norm", "clip_coefficient", "valid_loss", "first_order", "unrolled_loss"}
STEP |= {"exact_constant_clip", "exact_through_clip", "hidden_next", "fixed_alpha_after_adam", "fd_error_by_radius"}
STEP |= {f"fixed_{name}" for name in ESTIMATE}
FILES = {
    "evaluate_rnn.npz": {"train_total_grad"}
    | {f"{kind}_{name}" for kind in ("eval", "train") for name in OF_GENOTYPES},
    "search_rnn_masks.npz": PASS
    | {"hidden_next", "grad_w", "grad_alpha", "bn_running_mean", "bn_running_var", "bn_batches", "genotype"}
    | {"eval_log_prob", "eval_loss", "eval_hidden_next"},
    "search_rnn_architect.npz": STEP
    | {"virtual", "alpha_after_adam", "reference_hidden_next"}
    | {f"reference_{name}" for name in ESTIMATE},
    "search_rnn_architect_unclipped.npz": STEP,
    "rnn_asgd.npz": {"params", "average", "step_size_used"},
    "rnn_asgd_switch.json": {f"cases/{number}: switch_after_epoch" for number in range(10)},
    "rnn_genotypes.json": {f"cases/{number}: genotype" for number in range(10)},
    "rnn_batching.json": {"batchified", "batch_at_3_len_4", "evaluation_steps", "search_steps", "scan_for_scoring"}
    | {"scoring_denominator", "predicted_rows", "alpha_batches"},
}


@pytest.fixture(scope="module")
def tables() -> dict[str, dict[str, float]]:
    """Of every file its rows, by one command: programs of files with the same sizes are compiled once."""
    command = [sys.executable, str(GOLDEN / "check.py"), *(str(GOLDEN / name) for name in FILES)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == (1 if "above" in done.stdout else 0), done.stdout + done.stderr
    found: dict[str, dict[str, float]] = {}
    rows: dict[str, float] = {}
    for line in done.stdout.splitlines():
        if line.startswith("  "):
            quantity, error = line.split("  above")[0].rsplit(maxsplit=1)
            rows[quantity.split(",")[0].strip()] = float(error)
        else:
            rows = found[Path(line.split(":")[0]).name] = {}
    return found


@pytest.mark.parametrize("name", FILES)
def test_agreement(name: str, tables: dict[str, dict[str, float]]) -> None:
    assert set(tables[name]) == FILES[name]
    assert max(tables[name].values()) < 1e-11, tables[name]


def changed(name: str, change: Callable[[Any], None], folder: Path, *left_out: str) -> Path:
    """A copy of a file after a change of its content: its arrays and `meta`, or its JSON."""
    path = folder / name
    if path.suffix == ".json":
        content = json.loads((GOLDEN / name).read_text())
        change(content)
        path.write_text(json.dumps(content))
        return path
    case = networks.read_case(GOLDEN / name)
    content = {key: array for key, array in case.arrays.items() if not key.startswith(left_out)}
    content["meta"] = copy.deepcopy(case.meta)
    change(content)
    np.savez(path, **{**content, "meta": json.dumps(content["meta"])})
    return path


def scaled(name: str) -> Callable[[Any], None]:
    return lambda content: content.update({name: content[name] * (1 + 1e-8)})


# What would take programs of its own.
OF_ALPHA = ("first_order", "valid_loss", "unrolled_", "exact_", "reference_", "fixed_", "hidden_", "alpha_", "fd_")
COSTLY = {"evaluate_rnn.npz": ("train_",), "search_rnn_masks.npz": ("eval_",), "search_rnn_architect.npz": OF_ALPHA}
DISAGREEMENTS: list[tuple[str, str, Callable[[Any], Any], str]] = [
    ("evaluate_rnn.npz", "eval_slowness_term", scaled("eval_slowness_term"), "1.00e-08"),
    ("search_rnn_masks.npz", "bn_running_var", scaled("bn_running_var"), "1.00e-08"),
    ("search_rnn_architect.npz", "clip_coefficient", scaled("clip_coefficient"), "1.00e-08"),
    ("rnn_asgd.npz", "average", scaled("average"), "1.00e-08"),
    ("rnn_asgd.npz", "step_size_used", scaled("step_size_used"), "1.00e-08"),
    ("rnn_asgd_switch.json", "cases/3:", lambda c: c["cases"][3].update(switch_after_epoch=15), "inf"),
    ("rnn_asgd_switch.json", "cases/3:", lambda c: c["cases"][3].update(switch_after_epoch=None), "inf"),
    ("rnn_genotypes.json", "cases/8:", lambda c: c["cases"][8]["recurrent"][1].__setitem__(1, 1), "inf"),
    ("rnn_batching.json", "batchified", lambda c: c["batchified"][9].__setitem__(1, 0), "inf"),
    ("rnn_batching.json", "batch_at_3_len_4", lambda c: c["batch_at_3_len_4"]["y"].pop(), "inf"),
    ("rnn_batching.json", "evaluation_steps", lambda c: c["evaluation_steps"][6].__setitem__(2, 26), "inf"),
    ("rnn_batching.json", "search_steps", lambda c: c["search_steps"].pop(), "inf"),
    ("rnn_batching.json", "scan_for_scoring", lambda c: c["scan_for_scoring"][7].__setitem__(1, 5), "inf"),
    ("rnn_batching.json", "scoring_denominator", lambda c: c.update(scoring_denominator=249), "inf"),
    ("rnn_batching.json", "predicted_rows", lambda c: c.update(predicted_rows=250), "inf"),
    ("rnn_batching.json", "alpha_batches", lambda c: c["alpha_batches"][3].__setitem__(1, 8), "inf"),
]


@pytest.mark.parametrize(("name", "quantity", "change", "error"), DISAGREEMENTS)
def test_disagreement(
    name: str,
    quantity: str,
    change: Callable[[Any], Any],
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    x64: None,
) -> None:
    assert check.main([str(changed(name, change, tmp_path, *COSTLY.get(name, ())))]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "above 1e-09" in line]
    assert line.split()[0] == quantity and error in line


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("evaluate_rnn.npz", lambda c: c.pop("params/decoder.bias"), "no tensor 'decoder.bias'"),
        ("evaluate_rnn.npz", lambda c: c.update(y=c["y"][:3]), "x has shape (6, 4); expected"),
        ("evaluate_rnn.npz", lambda c: c.pop("params/rnns.0._Ws.7"), "genotype has 8 nodes, params 7"),
        ("evaluate_rnn.npz", lambda c: c["meta"].pop("genotype"), "genotype: recurrent, concat missing"),
        ("search_rnn_masks.npz", lambda c: c.update(alpha=c["alpha"][:6]), "alpha has shape (6, 5); expected (36, 5)"),
        ("search_rnn_masks.npz", lambda c: c["meta"].update(ops=["none", "sine"]), "'sine'"),
        ("search_rnn_masks.npz", lambda c: c.pop("masks/x_mask"), "holds no 'masks/x_mask'"),
        ("search_rnn_architect.npz", lambda c: c.pop("valid_x"), "holds no 'valid_x'"),
        ("rnn_asgd.npz", lambda c: c["meta"].update({"lambda": 0.1}), "lambda 0.1"),
        ("rnn_asgd_switch.json", lambda c: c["cases"][0].pop("nonmono"), "holds no 'nonmono'"),
        ("rnn_batching.json", lambda c: c.pop("bptt"), "holds no 'bptt'"),
    ],
)
def test_files_not_understood(
    name: str, change: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], x64: None
) -> None:
    path = changed(name, change, tmp_path)
    assert check.main([str(path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {path}: ") and message in line
