"""Do networks and derivatives agree with the reference's PyTorch code, and does the checker tell when not?

The files are copies of cases computed by the public reference codes (see tests/golden/check.py), the one of S3 without
gradients in the weights and second derivatives. Those of recurrent cells are in test_golden_text.py.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.interop import to_torch
from jaxdarts.networks import Supernet
from jaxdarts.spaces import SearchSpace

GOLDEN = Path(__file__).parent / "golden"
SEARCH_QUANTITIES = {
    "train_logits",
    "train_loss",
    "grad_w",
    "valid_logits",
    "valid_loss",
    "first_order",
    "unrolled_exact",
    "unrolled_valid_loss",
    "unrolled_fd",
    "hessian",
    "eigenvalues",
    "genotype",
}
INPUTS = ("params/", "alpha/", "train_x", "train_y", "valid_x", "valid_y")


def load_checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_check", GOLDEN / "check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["golden_check"] = module
    spec.loader.exec_module(module)
    return module


check = load_checker()
# Beside check.py, which has put its folder on the path.
networks, relative_errors = (importlib.import_module(name) for name in ("check_networks", "relative_errors"))


def run(path: Path) -> dict[str, float]:
    """The checker as a command: it sets up the compiler for speed, and a process has one setting."""
    command = [sys.executable, str(GOLDEN / "check.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.rsplit(maxsplit=1) for line in done.stdout.splitlines()[1:]]
    return {quantity.split(",")[0].strip(): float(error) for quantity, error in lines}


def errors(case: Any) -> dict[str, float]:
    return {row.quantity.split(",")[0]: row.error for row in networks.check_case(case)}


def part(case: Any, names: tuple[str, ...]) -> Any:
    return case._replace(arrays={name: array for name, array in case.arrays.items() if name.startswith(names)})


def test_search_network_of_s1() -> None:
    found = run(GOLDEN / "search_s1.npz")
    assert set(found) == SEARCH_QUANTITIES
    assert max(found.values()) < 1e-12, found


def test_search_network_of_nasbench201() -> None:
    found = run(GOLDEN / "search_nasbench201.npz")
    assert set(found) == (SEARCH_QUANTITIES | {"beta_loss", "beta_grad"}) - {"unrolled_valid_loss", "unrolled_fd"}
    assert max(found.values()) < 1e-12, found


@pytest.mark.slow
def test_search_network_of_s3() -> None:
    found = run(GOLDEN / "search_s3.npz")
    assert set(found) == {"train_logits", "train_loss", "valid_logits", "valid_loss", "first_order", "genotype"}
    assert max(found.values()) < 1e-12, found


def test_evaluation_network() -> None:
    found = run(GOLDEN / "evaluate_darts_v2.npz")
    assert set(found) == {"eval_logits", "train_logits", "train_aux_logits", "after"}
    assert max(found.values()) < 1e-12, found


PASS = {"train_logits", "train_loss", "grad_w", "valid_logits", "valid_loss", "first_order"}
STEP = {"step/alpha", "step/clip_norm", "step/params"}
METHODS = {
    "gdas_nasbench201": PASS
    | STEP
    | {f"{half}{name}" for half in ("", "valid_") for name in ("soft_weights", "hard_weights", "index")}
    | {f"cold/{name}" for name in ("soft_weights", "first_order", "first_order_dense", "first_order_selected")}
    | {f"{name}{form}" for name in ("first_order", "weight_grad") for form in ("", "_dense", "_selected")}
    | {"train_grad_alpha", "step/mean_train_loss", "step/mean_valid_loss", "tau_schedule", "arch_str", "cases"},
    "pc_darts": PASS
    | {f"{kind}{name}" for kind in ("", "frozen_") for name in (*STEP, "step/train_loss", "step/beta")}
    | {"weights", "edge_weights", "mix", "first_order_beta", "genotype", "cases", "cases_beta_zero"},
    "darts_minus": STEP
    | {f"{where}{name}" for where in ("", "second/", "zero/") for name in PASS}
    | {"step/train_loss", "eigenvalues", "zero/eigenvalues", "skip_beta", "second/skip_beta", "genotype", "cases"}
    | {f"schedule/{name}" for name in ("linear", "cosine", "slow_cosine", "constant")},
    "snas": PASS
    | STEP
    | {"weights", "grad_alpha", "cold/weights", "cold/logits", "cold/loss", "cold/grad_alpha", "step/train_loss"}
    | {f"resource/{way}/log_{of}" for way in ("reparametrization", "discrete") for of in ("penalty", "grad")}
    | {"tau_schedule", "genotype", "cases"},
    "sdarts_adv": {"train_logits", "train_loss", "valid_logits", "valid_loss", "genotype", "weights", "clip_output"}
    | {"start", "iterates", "attack_grad", "attack_losses", "perturbed", "undone/last_iterate", "undone/result"},
    "idarts": {f"inner_{name}" for name in ("losses", "grad_norms", "params", "valid_loss", "train_loss")}
    | {"direct", "neumann_term_0", "hypergradient", "mixed", "quadratic/trajectory", "quadratic/hypergradient"},
    # Without the networks of the stages.
    "p_darts": {"dropout_p", "train_alpha", "switches_stage1", "switches_stage2", "switches_stage3"}
    | {f"genotypes/{which}" for which in ("unrestricted", "restricted", "skips_at_most_2")},
    "dots": {"op_weights", "mask", "tp_op_weights", "edge_weights", "pair_weights", "pairs", "temperature"}
    | {f"linear_{what}/{cell}" for what in ("value", "grad") for cell in ("normal", "reduce")}
    | {f"{which}{what}" for which in ("", *(f"cases/{n}/" for n in range(6))) for what in ("op_genotype", "genotype")},
    "darts_pt": {"weights", "supernet_train_mode", "supernet_eval_mode", "masked/normal", "masked/reduce"}
    | {"masked_choice_acc", "masked_choice_loss", "masked_logits", "masked_logits_weights"}
    | {f"{run}: {what}" for run in ("acc", "loss", "tuned") for what in ("scores of 34 decisions", "decisions")}
    | {"final_acc", "final_loss", "final_tuned", "tuned_alpha", "tuned_params"},
    # Without the supernet (weights, scores, gradients, eigenvalues): its loss is linear in the weights of operations.
    "fair_darts": {"sigmoid", "first_order", "first_order_cross_entropy", "step/alpha", "genotype"}
    | {f"zero_one/{name}" for name in ("l2", "l1", "l2_grad", "l1_grad")}
    | {f"evaluation/{name}" for name in ("concatenated", "state", "eval_logits", "train_logits")}
    | {"cases/threshold_sparse", "cases/darts"},
}


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    """Steps of the authors' own training functions among them; gradients of some weights, and no dense Hessians."""
    found = run(GOLDEN / f"{name}.npz")
    assert set(found) == METHODS[name]
    assert max(found.values()) < 1e-12, found


def test_a_method_without_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "snas.npz", meta=json.dumps({"method": "NAO", "space": "darts"}))
    assert check.main([str(tmp_path / "snas.npz")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no comparison with the method 'NAO'; choose from GDAS, PC-DARTS, DARTS-" in error


def test_forward_of_the_slow_file(tmp_path: Path) -> None:
    case = part(networks.read_case(GOLDEN / "search_s3.npz"), (*INPUTS, "train_logits", "train_loss", "valid_l"))
    np.savez(tmp_path / "forward.npz", **case.arrays, meta=json.dumps(case.meta))
    found = run(tmp_path / "forward.npz")
    assert set(found) == {"train_logits", "train_loss", "valid_logits", "valid_loss", "genotype"}
    assert max(found.values()) < 1e-12, found


def test_spaces_of_other_sizes() -> None:
    """Nodes come from alpha, concatenated states from the classifier; tables that differ between edges are cut."""

    def space(name: str, rows: int, columns: int, classifier: int, **meta: Any) -> Any:
        alpha = {f"alpha/{cell}": np.zeros((rows, columns)) for cell in ("normal", "reduce")}
        params = {
            "params/stem.0.weight": np.zeros((12, 3, 3, 3)),
            "params/classifier.weight": np.zeros((7, classifier)),
            "params/cells.5.preprocess0.op.1.weight": np.zeros((4, 12, 1, 1)),
        }
        return networks.search_space(networks.Case(alpha | params, {"space": name} | meta))

    two = space("s1", 5, 2, 2 * 16)
    assert (two.num_nodes, two.concat) == (2, (2, 3))
    assert two.normal == networks.SPACES["s1"].normal[:5]
    six = space("s3", 27, 3, 4 * 16, nodes=6)
    assert (six.num_nodes, six.concat) == (6, (4, 5, 6, 7))
    assert six.normal == networks.SPACES["s3"].normal[:1] * 27
    assert space("s5", 2, 3, 16).normal == networks.SPACES["s5"].normal
    assert space("s5", 14, 8, 64).normal == networks.SPACES["darts"].normal
    for arguments in [("s1", 20, 2, 80), ("s3", 4, 3, 64), ("s3", 5, 3, 80), ("s3", 5, 3, 7), ("s9", 2, 3, 16)]:
        with pytest.raises(networks.InputError):
            space(*arguments)
    with pytest.raises(networks.InputError, match="does not fit 3 nodes"):
        space("s3", 14, 3, 64, nodes=3)


def test_search_case_of_other_sizes_with_running_statistics(x64: None) -> None:
    """Grey images that aren't square, two nodes of which the last is the output, other classes; made by ourselves."""
    space = SearchSpace.uniform("s2", ("skip_connect", "sep_conv_3x3"), num_nodes=2, concat=(3,))
    network = Supernet(space, num_classes=5, channels=2, num_cells=2)
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {f"alpha/{cell}": random.normal(size=(5, 2)) for cell in ("normal", "reduce")}
    for half, batch in (("train", 3), ("valid", 2)):
        arrays |= {f"{half}_x": random.normal(size=(batch, 1, 8, 12)), f"{half}_y": random.integers(5, size=batch)}
    images, weights = (
        jnp.asarray(arrays["train_x"].transpose(0, 2, 3, 1)),
        {cell: jax.nn.softmax(arrays[f"alpha/{cell}"]) for cell in ("normal", "reduce")},
    )
    shapes = jax.eval_shape(network.init, jax.random.key(0), images, weights)
    variables = jax.tree.map(lambda leaf: random.random(leaf.shape) + 0.1, shapes)
    logits, updated = jax.jit(lambda v: network.apply(v, images, weights, train=True, mutable=["batch_stats"]))(
        variables
    )
    arrays |= {f"params/{name}": array for name, array in to_torch(network, variables).items()}
    after = to_torch(network, {"params": variables["params"], **updated})
    arrays |= {f"after/{name}": array for name, array in after.items() if "running" in name}
    arrays["train_logits"] = np.asarray(logits)
    case = networks.Case(arrays, {"space": "s2", "nodes": 2, "lr": 0.1, "momentum": 0.5, "weight_decay": 0})
    assert networks.search_space(case) == space
    found = errors(case)
    assert set(found) == {"train_logits", "after"}
    assert max(found.values()) < 1e-12
    arrays["after/stem.1.running_var"] = arrays["after/stem.1.running_var"] * 1.001
    assert errors(case)["after"] > 1e-6


class TestRuns:
    """Logged searches, as JSON: whatever a file holds is compared, and only that."""

    @pytest.fixture
    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((GOLDEN / "robustdarts_runs.json").read_text())
        return found

    def check(self, content: Any, path: Path) -> int:
        file = path / "runs.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        code: int = check.main([str(file)])
        return code

    def test_the_file_as_a_command(self) -> None:
        command = [sys.executable, str(GOLDEN / "check.py"), str(GOLDEN / "robustdarts_runs.json")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "44 of 44 runs agree" in done.stdout and "runs to the end" in done.stdout

    @pytest.mark.parametrize(
        "change",
        [
            lambda run: run.update(early_stop=None),
            lambda run: run["early_stop"].update(returns=12),
            lambda run: run["early_stop"].update(decided_at=24),
            lambda run: run["local_average"].__setitem__(3, run["local_average"][3] * (1 + 1e-8)),
            lambda run: run["local_average"].__delitem__(slice(10, None)),
            lambda run: run.update(lambda_max=[1.0] * len(run["epochs"]), local_average=None),
        ],
    )
    def test_disagreement(
        self, change: Any, runs: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        change(runs[0])
        assert self.check(runs, tmp_path) == 1
        output = capsys.readouterr().out
        assert output.count("disagrees") == 1 and "43 of 44 runs agree" in output

    def test_logs_that_hold_less(self, runs: list[dict[str, Any]], tmp_path: Path) -> None:
        stopped, cut = runs[0], dict(runs[0])
        for name in ("epochs", "lambda_max"):  # up to epoch 24, when three newest averages were not yet known
            cut[name] = cut[name][:13]
        cut["local_average"] = cut["local_average"][:11]
        to_the_end = next(run for run in runs if run["early_stop"] is None)
        only_needed = {name: stopped[name] for name in ("epochs", "lambda_max")}
        assert self.check([stopped, cut, to_the_end, only_needed], tmp_path) == 0
        assert self.check(stopped, tmp_path) == 0
        for count in (0, 1):  # too few for an average
            short = {"epochs": [0] * count, "lambda_max": [0.1] * count, "local_average": [], "early_stop": None}
            assert self.check([short], tmp_path) == 0

    def test_measurements_that_failed_and_other_frequencies(self, tmp_path: Path) -> None:
        jump = [1.0 if epoch < 30 else 3.0 for epoch in range(50)]
        averages = [sum(jump[max(0, i - 2) : i + 3]) / len(jump[max(0, i - 2) : i + 3]) for i in range(50)]
        every = {"epochs": list(range(50)), "lambda_max": jump, "local_average": averages}
        # One of five at 3 is 1.4 times: at epoch 30, the average of 28 beside that of 24.
        assert self.check([every | {"early_stop": {"decided_at": 30, "returns": 24}}], tmp_path) == 0
        # A failed one takes no part: the averages that are left are those of 49 measurements.
        failed = every | {"lambda_max": [None if epoch == 3 else value for epoch, value in enumerate(jump)]}
        failed["local_average"] = averages[:3] + averages[4:]
        assert self.check([failed | {"early_stop": {"decided_at": 30, "returns": 24}}], tmp_path) == 0

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[", "cannot be read"),
            ("[]", "no list of runs"),
            ("3", "no list of runs"),
            ("[3]", "run 0 is not an object"),
            ([{}], "epochs must be a list"),
            ([{"epochs": [0, 2], "lambda_max": [1.0]}], "lambda_max must be a list of 2 numbers"),
            ([{"epochs": [0, 2], "lambda_max": [1.0, "x"]}], "lambda_max must be"),
            ([{"epochs": [2, 0], "lambda_max": [1.0, 2.0]}], "epochs must ascend"),
            ([{"epochs": [0], "lambda_max": [1.0], "local_average": "x"}], "local_average must be"),
            ([{"epochs": [0], "lambda_max": [1.0], "early_stop": 3}], "early_stop must be null or have"),
        ],
    )
    def test_files_not_understood(
        self, content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.check(content, tmp_path) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and message in line
        assert check.main([str(tmp_path / "missing.json")]) == 2


class TestCommand:
    """Exit codes and the one line that says why."""

    @pytest.fixture
    def forward_only(self, tmp_path: Path) -> Path:
        case = part(networks.read_case(GOLDEN / "search_s1.npz"), (*INPUTS, "train_logits"))
        path = tmp_path / "forward.npz"
        np.savez(path, **case.arrays, meta=json.dumps(case.meta))
        return path

    def test_agreement(self, forward_only: Path, capsys: pytest.CaptureFixture[str], x64: None) -> None:
        assert check.main([str(forward_only)]) == 0
        output = capsys.readouterr().out
        assert "train_logits" in output and "genotype" in output and "above" not in output

    def test_single_precision(self, forward_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Is told from double precision, is what is computed, and ends with the command."""
        before = jax.config.read("jax_enable_x64")
        with np.load(forward_only) as file:
            arrays = dict(file)
        arrays["train_logits"] = arrays["train_logits"] * (1 + 2e-6)
        np.savez(forward_only, **arrays)
        assert check.main(["--precision", "float64", str(forward_only)]) == 1
        assert check.main(["--precision", "float32", str(forward_only)]) == 0
        first, second = (line for line in capsys.readouterr().out.splitlines() if "train_logits" in line)
        assert "above 1e-09" in first and "2.00e-06" in first and "2.00e-06" not in second
        arrays["train_logits"] = arrays["train_logits"] * (1 + 2e-4)
        np.savez(forward_only, **arrays)
        assert check.main(["--precision", "float32", str(forward_only)]) == 1
        assert "above 1e-04" in capsys.readouterr().out
        assert check.main(["--precision", "float32", "--tf32", "on", str(forward_only)]) == 0
        assert jax.config.read("jax_enable_x64") == before

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--precision", "float16"], "unknown precision 'float16'; choose from float32, float64"),
            (["--tf32", "maybe", "--precision", "float32"], "unknown tf32 'maybe'; choose from off, on"),
            (["--tf32", "on"], "tf32 'on' is for products in float32; got precision 'float64'"),
            (["--backend", "cuda"], "unknown backend 'cuda'; choose from cpu, gpu, tpu"),
            (["--backend", "tpu"], "backend 'tpu' cannot be used"),
        ],
    )
    def test_options_not_understood(
        self, options: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(check, "platforms", lambda name: None)
        assert check.main([*options, "no.npz"]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith(f"error: {message}")

    def test_disagreement(self, forward_only: Path, capsys: pytest.CaptureFixture[str], x64: None) -> None:
        case = networks.read_case(forward_only)
        case.arrays["train_logits"] = case.arrays["train_logits"] * (1 + 1e-8)
        case.meta["genotype"]["normal"][0] = ["skip_connect", 0]
        np.savez(forward_only, **case.arrays, meta=json.dumps(case.meta))
        assert check.main([str(forward_only)]) == 1
        lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
        assert "above 1e-09" in lines["train_logits"] and "1.00e-08" in lines["train_logits"]
        assert "inf" in lines["genotype"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "No such file"),
            (b"", "cannot be read"),
            (b"PK\3\4 cut", "cannot be read"),
            (b"text", "cannot be read"),
            ({"x": 1.0}, "holds no meta"),
            ({"meta": "{"}, "meta is not JSON"),
            ({"meta": "[]"}, "meta is not a JSON object"),
            ({"meta": "{}", "x": 1.0}, "is neither"),
            ({"meta": '{"space": "rnn"}', "params/a": 1.0, "alpha": 1.0}, "no tensor 'encoder.weight' of a"),
            ({"meta": '{"space": "nasbench101"}', "params/a": 1.0, "alpha/normal": np.ones((2, 2))}, "unknown space"),
            (
                {"meta": '{"space": "s3"}', "params/a": 1.0, "alpha/normal": np.ones((2, 3))},
                "no tensor 'stem.0.weight'",
            ),
            ({"meta": "{}", "state/a": 1.0, "x": 1.0}, "genotype"),
        ],
    )
    def test_files_not_understood(
        self, content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "file.npz"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            np.savez(path, **content)
        assert check.main([str(path)]) == 2
        error = capsys.readouterr().err
        assert message in error and str(path) in error
        assert error.count("\n") == 1


def test_error_measure() -> None:
    ones = np.ones(4)
    assert relative_errors.relative_error({"a": ones}, {"a": ones}) == 0
    assert relative_errors.relative_error({"a": ones * 1.5}, {"a": ones}) == pytest.approx(0.5)
    assert relative_errors.relative_error({"a": ones * np.nan}, {"a": ones}) == np.inf
    assert relative_errors.relative_error({"a": ones * 1e-3}, {"a": np.zeros(4)}) == pytest.approx(2e-3)
    # Rounding beside a group of norm 100 is measured against the group.
    assert relative_errors.relative_error({"a": ones * 1e-15}, {"a": ones * 2e-15}, scale=100.0) == pytest.approx(2e-17)
    with pytest.raises(networks.InputError, match=r"has shape \(4,\); expected \(1,\)"):
        relative_errors.relative_error({"a": np.ones(1)}, {"a": ones})
