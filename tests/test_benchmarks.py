"""Every benchmark runs with --quick, writes what it says, and its numbers fit each other. Speed is not looked at."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdarts as jd
from jaxdarts.errors import InputError, RunError
from jaxdarts.networks.recurrent import Dropouts, draw_masks
from jaxdarts.reports.sweep_record import SweepRun
from jaxdarts.spaces import Benchmark
from jaxdarts.spaces.nasbench201 import NUM_CELLS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# Need PyTorch, which is no dependency; step_time and memory measure it where it is installed.
NAMES = sorted(
    {path.stem for path in BENCHMARKS.glob("[!_]*.py")} - {"pytorch_confopt", "pytorch_recurrent", "pytorch_supernet"}
)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """name -> (module, what --quick returned, folder of the JSON and the figure); each runs once."""
    done: dict[str, tuple[Any, dict[str, Any], Path]] = {}

    def run(name: str) -> tuple[Any, dict[str, Any], Path]:
        if name not in done:
            module, folder = importlib.import_module(name), tmp_path_factory.mktemp(name)
            figure = {"figure": folder / "figure.png"} if hasattr(module.Options, "figure") else {}
            content = module.main(module.Options(quick=True, output=folder / "rows.json", **figure))
            done[name] = module, content, folder
        return done[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield run


@pytest.mark.parametrize("name", NAMES)
def test_quick_writes_machine_versions_and_rows(name: str, benchmark: Any) -> None:
    _, content, folder = benchmark(name)
    written = json.loads((folder / "rows.json").read_text())
    assert set(written) == set(content)
    assert written["versions"]["jax"] and written["machine"] and written["options"]["quick"]


def test_lanczos_with_all_products_is_exact(benchmark: Any) -> None:
    _, content, _ = benchmark("curvature")
    row = next(row for row in content["rows"] if row["form"] == "Lanczos, 12 products")
    assert row["largest_error"] < 1e-3 and row["smallest_error"] < 1e-3


def test_exact_hypergradient_agrees_with_a_tiny_difference(benchmark: Any) -> None:
    module, content, folder = benchmark("hypergradient")
    rows = {(row["precision"], row["radius"]): row for row in content["errors"]}
    assert rows["float64", None]["error"] == 0
    assert rows["float32", None]["error"] < 1e-4
    tiny = min(radius for _, radius in rows if radius is not None)
    assert rows["float64", tiny]["mixed_error"] < 1e-4 < rows["float32", tiny]["mixed_error"]
    assert len(module.verification(content["errors"])) == 1
    assert (folder / "figure.png").stat().st_size > 10_000


def test_swept_difference_is_the_librarys(benchmark: Any) -> None:
    _, content, _ = benchmark("hypergradient")
    rows = {(row["precision"], row["radius"]): row for row in content["errors"]}
    costs = {(row["estimator"], row["precision"]): row for row in content["costs"]}
    library = costs["finite_difference(0.01)", "float64"]
    assert library["distance"] == pytest.approx(rows["float64", 0.01]["error"], rel=1e-6)
    assert library["cosine"] == pytest.approx(rows["float64", 0.01]["cosine"], rel=1e-6)
    assert costs["unrolled(1)", "float64"]["distance"] < 1e-12
    assert costs["first_order()", "float64"]["distance"] > 1e-6
    assert {row["estimator"].split("(")[0] for row in content["costs"]} == {
        "first_order",
        "finite_difference",
        "unrolled",
        "neumann",
        "conjugate_gradient",
    }


def test_what_independent_batches_share_is_told_from_noise(benchmark: Any) -> None:
    benchmark("hypergradient")
    shared_part = importlib.import_module("_comparison").shared_part
    random = np.random.default_rng(0)
    truths = [np.array([3.0, 4.0])] * 400
    noise = list(random.normal(size=(400, 2)))
    assert shared_part(noise, truths) < 0.05
    assert shared_part([one + np.array([0.0, 5.0]) for one in noise], truths) == pytest.approx(1, abs=0.05)


def test_searches_in_nasbench201_are_looked_up(benchmark: Any, tmp_path: Path) -> None:
    module, content, folder = benchmark("nasbench201")
    (row,) = content["rows"]
    assert row["variant"] == "darts" and row["runs"] == 1 and tuple(row["paper"]) == (54.30, 15.61, 16.32)
    assert 0 <= row["skips"][0] <= 6 and row["skips"][1] is None
    assert all(10 <= row[name][0] <= 95 for name in ("cifar10", "cifar100", "imagenet16_120"))
    assert (folder / "figure.png").stat().st_size > 5_000
    sweeps = [module.SWEEP, module.SWEEP.with_name("nasbench201_methods.toml")]
    assert set(module.PAPER) <= {name for path in sweeps for name in tomllib.loads(path.read_text())["variants"]}
    with pytest.raises(InputError, match="cannot read"):
        module.main(module.Options(table=tmp_path / "no.npz"))
    Benchmark({"cifar100_test_200": np.zeros(NUM_CELLS)}).save(tmp_path / "table.npz")
    with pytest.raises(InputError, match="figure: .* CIFAR-10"):
        module.main(module.Options(table=tmp_path / "table.npz", figure=tmp_path / "figure.png"))


def test_rows_are_means_over_seeds(benchmark: Any) -> None:
    module, _, _ = benchmark("nasbench201")
    values = (("a", 0.5, 2.0), ("b", 0.9, 0.0), ("a", 0.7, 4.0))
    runs = [
        SweepRun(str(n), {"variant": name}, "done", None, {"benchmark/cifar10/accuracy": accuracy, "skip_cell": skips})
        for n, (name, accuracy, skips) in enumerate(values)
    ]
    first, second = module.rows_of(runs, {"0": 10.0, "1": 7.0, "2": 20.0})
    assert first["cifar10"] == pytest.approx([60, 10 * 2**0.5]) and first["skips"] == pytest.approx([3, 2**0.5])
    assert (first["seconds"], first["runs"], first["cifar100"]) == (15.0, 2, None)
    assert second["cifar10"] == pytest.approx([90, None]) and second["paper"] is None


def test_counting_words_by_hand(benchmark: Any) -> None:
    """Ids 1 2 1 3 0 after an end: 1 follows two different words, 2, 3 and 0 one each, 4 none; 5 words in all."""
    module, _, _ = benchmark("kneser_ney")
    one, two = (module.kneser_ney([1, 2, 1, 3, 0], 5, order, 0.75, end=0) for order in (1, 2))
    assert two((4, 1)) == pytest.approx((2 - 0.75 + 0.75 * 4 / 5) / 5)
    assert two((4, 4)) == pytest.approx(0.75 * 4 / 5 / 5)
    assert two((1, 2)) == pytest.approx((1 - 0.75 + 0.75 * 2 * (1 - 0.75 + 0.6) / 5) / 2)
    assert two((0, 1)) == pytest.approx(1 - 0.75 + 0.75 * 0.37)
    assert one((2,)) == pytest.approx((1 - 0.75 + 0.6) / 5)
    # 2 comes twice, but after 1 only: elsewhere it is as improbable as if it came once.
    assert module.kneser_ney([1, 2, 1, 2, 3, 0], 5, 2, 0.75, end=0)((4, 2)) == pytest.approx((1 - 0.75 + 0.6) / 5)
    assert module.unigram([1, 2, 1, 3, 0], 5)((9, 1)) == pytest.approx(3 / 10)
    assert list(module.grams([1, 2, 3], 3, 0)) == [(0, 0, 1), (0, 1, 2), (1, 2, 3)]
    # The first token is not predicted: what is left is 2 after 1, and 1 after 2.
    assert module.perplexity(two, [1, 2, 1], 2, 0) == pytest.approx((two((1, 2)) * two((2, 1))) ** -0.5)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_of_the_next_word_sum_to_one(order: int, benchmark: Any) -> None:
    module, _, _ = benchmark("kneser_ney")
    tokens = np.random.default_rng(0).integers(6, size=60).tolist()
    model = module.kneser_ney(tokens, 8, order, 0.75, end=0)
    for context in np.random.default_rng(1).integers(8, size=(50, order - 1)).tolist():
        following = [model((*context, word)) for word in range(8)]
        assert sum(following) == pytest.approx(1) and min(following) > 0


def test_counted_perplexities_are_those_measured_elsewhere(benchmark: Any) -> None:
    """An independent program gave 220, 98.4 and 86.5 for the topics of Python 3.11.7; there <eos> was an <unk> too."""
    module, content, _ = benchmark("kneser_ney")
    unigram, bigram = content["rows"]
    assert bigram["valid"] < unigram["valid"] < len(module.load_text("pydoc").words)
    if sys.version_info[:3] == (3, 11, 7):
        text = module.load_text("pydoc")
        train, valid, test = (np.maximum(part, 1) for part in (text.train, text.valid, text.test))
        words = ("", "<eos>", *text.words[2:])
        rows = module.measure(text._replace(train=train, valid=valid, test=test, words=words), (2, 3), 0.75)
        np.testing.assert_allclose([row["valid"] for row in rows], [220, 98.4, 86.5], rtol=0.0015)


def test_a_peer_that_fails_is_reported_and_the_others_are_timed(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, content, _ = benchmark("step_time")
    assert set(content["rows"][0]["compile_seconds"]) == set(module.FORMS) and not content["rows"][0]["failures"]

    def broken() -> None:
        raise NotImplementedError("no in-place\nsecond line")

    forms = {"good": lambda: None, "bad": broken}
    found = module.timed(forms, 2, may_fail=True)
    assert set(found["seconds"]) == set(found["compile_seconds"]) == {"good"}
    assert found["failures"] == {"bad": "NotImplementedError: no in-place"}
    with pytest.raises(NotImplementedError):
        module.timed(forms, 2)

    def killed(*_: Any) -> None:
        raise RunError("killed")

    monkeypatch.setattr(module, "in_new_process", killed)
    module.add(found, module.attempted("peer", "confopt_seconds", "tiny", 1, False))
    assert found["failures"] == {"bad": "NotImplementedError: no in-place", "peer": "killed"}
    rows = [{"space": "s5", **found, "ratios": {}}, {**content["rows"][0], "space": "s4"}]
    first, other, *_, bad, peer = module.step_tables(rows).replace("\n\n", "\n").splitlines()
    assert "good" in first and "exact" in first and other.split()[0] == "s5"
    assert bad == "s5: bad failed: NotImplementedError: no in-place" and peer == "s5: peer failed: killed"


def test_the_better_number_of_threads_is_compared(benchmark: Any) -> None:
    module, _, _ = benchmark("step_time")
    seconds = {
        "exact": 2.0,
        "first order": 1.0,
        "PyTorch finite difference, 1": 8.0,
        "PyTorch finite difference, 2": 6.0,
    }
    seconds |= {"compiled PyTorch first order, 1": 5.0, "ConfigurableOptimizer first order, 2": 9.0}
    assert module.ratios(seconds) == {
        "PyTorch's finite difference / our exact": 3.0,
        "compiled PyTorch's first order / our first order": 5.0,
        "ConfigurableOptimizer's first order / our first order": 9.0,
    }


def test_a_namesake_is_not_the_peer(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyPI's `confopt` is another package than ConfigurableOptimizer's."""
    benchmark("step_time")
    module = importlib.import_module("pytorch_confopt")
    (tmp_path / "confopt").mkdir()
    (tmp_path / "confopt" / "__init__.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    assert not module.installed()
    (tmp_path / "confopt" / "searchspace").mkdir()
    assert module.installed()


def test_exponent_of_a_power_is_its_own(benchmark: Any) -> None:
    module, _, _ = benchmark("scaling")
    points = (1, 2, 3, 8)
    for power in (-1.0, 0.0, 0.5, 2.0):
        assert module.exponent(points, [3 * point**power for point in points]) == pytest.approx(power, abs=1e-12)
    # By hand: logarithms 0, 1, 2 and 0, 1, 1 have the least-squares slope (-1 * 0 + 0 * 1 + 1 * 1) / 2.
    assert module.exponent([1, math.e, math.e**2], [1, math.e, math.e]) == pytest.approx(0.5)
    # What has no logarithm is left out; a line needs two points.
    assert module.exponent([1, 2, 4, 8], [None, 2, -0.1, 8]) == pytest.approx(1)
    for one, values in (((4,), [1.0]), ((4, 4), [1.0, 2.0]), ((1, 2), [1.0, None]), ((), [])):
        assert module.exponent(one, values) is None
    for wrong, values in (((0, 1), [1.0, 2.0]), ((1, 2), [1.0])):
        with pytest.raises(InputError, match="points must be positive and as many as values"):
            module.exponent(wrong, values)


def test_growth_beyond_what_is_expected_is_marked(benchmark: Any) -> None:
    module, content, _ = benchmark("scaling")
    rows = [
        {"point": n, "step_seconds": n**1.3, "temporary_megabytes": n**1.2, "compile_seconds": None} for n in (1, 2, 8)
    ]
    growth = module.growth_of("batch", rows, module.EXPECTED["batch"])
    assert growth["time"] == pytest.approx(1.3) and growth["memory"] == pytest.approx(1.2)
    assert growth["compile"] is None and growth["worse"] == ["time"]
    assert growth["expected"] == {"time": 1, "memory": 1, "compile": 0}
    lines = module.growth_table([growth, module.growth_of("channels", rows, module.EXPECTED["channels"])]).splitlines()
    assert "1.30!" in lines[1] and "1.20!" not in lines[1] and "1.30!" not in lines[2]
    assert [entry["axis"] for entry in content["exponents"]] == [*dict.fromkeys(row["axis"] for row in content["rows"])]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"axes": ("depth",)}, "unknown axis"),
        ({"axes": ()}, "axes: name at least one"),
        ({"batch": (8, 0)}, "batch: every point must be at least 1"),
        ({"operations": (2, 9)}, "operations: there are 8 to choose from, got 9"),
        ({"devices": (1, 3)}, "devices: a batch of 32 cannot be split over 3"),
    ],
)
def test_bad_input_to_scaling_is_refused(wrong: dict[str, Any], message: str, benchmark: Any) -> None:
    module = importlib.import_module("scaling")
    with pytest.raises(InputError, match=message):
        module.main(module.Options(**wrong))


@pytest.fixture
def pytorch(benchmark: Any) -> Any:
    """benchmarks/pytorch_recurrent.py; the test is skipped where PyTorch is not installed."""
    pytest.importorskip("torch")
    return importlib.import_module("pytorch_recurrent")


TEXT_SIZE = {"hidden": 6, "batch_size": 5, "sequence_length": 4}
WORDS = 11


def text_search(**settings: Any) -> Any:
    """A search of random words in double precision, with hidden states that are not zero."""
    config = jd.SearchConfig(space="rnn", **TEXT_SIZE, **settings)
    ready = importlib.import_module("text_step_time").make_ready(config, WORDS, jnp.float64)
    memory = ready.state.memory._replace(train=hidden_state(0), valid=hidden_state(1))
    # Larger weights than at initialisation, so that no part of the network is nearly linear.
    params = jax.tree.map(lambda leaf: 10 * leaf, ready.state.params)
    return ready._replace(state=dataclasses.replace(ready.state, params=params, memory=memory))


def hidden_state(seed: int) -> jax.Array:
    shape = (TEXT_SIZE["batch_size"], TEXT_SIZE["hidden"])
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def same_in_pytorch(pytorch: Any, ready: Any, settings: Any) -> tuple[Any, Any, Any]:
    """(search, train window, valid window), with copies of the state's arrays."""
    import torch

    copied = lambda array: torch.tensor(np.array(array))  # noqa: E731
    params = ready.state.params
    network = pytorch.SearchNetwork(ready.problem.space, WORDS, TEXT_SIZE["hidden"]).double()
    own = {"encoder.weight": params["embedding"], "decoder.bias": params["bias"], "rnns.0._W0": params["first"]}
    own |= {f"rnns.0._Ws.{node}": kernel for node, kernel in enumerate(params["nodes"])}
    network.load_state_dict({name: copied(value) for name, value in own.items()}, strict=False)
    rates = pytorch.Rates(
        settings.learning_rate, settings.l2, settings.clip_norm, settings.slowness_penalty, settings.alpha_learning_rate
    )
    alpha = copied(ready.state.alpha["recurrent"]).requires_grad_()
    search = pytorch.Search(network, alpha, TEXT_SIZE["batch_size"], rates)
    search.train_hidden, search.valid_hidden = map(copied, ready.state.memory)
    windows = [pytorch.Window(copied(b.tokens).long(), copied(b.targets).long()) for b in (ready.train, ready.valid)]
    return search, *windows


def ours_of(network: Any, values: Any) -> dict[str, np.ndarray]:
    """Tensors in the order of the network's parameters as a tree of ours."""
    by_name = {
        name: value.detach().numpy() for (name, _), value in zip(network.named_parameters(), values, strict=True)
    }
    nodes = [value for name, value in by_name.items() if name.startswith("rnns.0._Ws.")]
    names = {"embedding": "encoder.weight", "bias": "decoder.bias", "first": "rnns.0._W0"}
    return {**{ours: by_name[name] for ours, name in names.items()}, "nodes": np.stack(nodes)}


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * 0.1), found, expected)


def test_pytorchs_recurrent_network_is_the_librarys(pytorch: Any, x64: None) -> None:
    """Both objectives, their gradients in the weights and in alpha, hidden states and statistics, with given masks."""
    import torch

    settings = jd.SearchConfig(space="rnn", **TEXT_SIZE)
    ready = text_search()
    search, train, valid = same_in_pytorch(pytorch, ready, settings)
    rates = Dropouts(output=0.5, hidden=0.4, x=0.3, inputs=0.2, embedding=0.1)
    masks = draw_masks(jax.random.key(5), rates, WORDS, TEXT_SIZE["batch_size"], TEXT_SIZE["hidden"], 1.0, jnp.float64)
    assert all((mask == 0).any() for mask in masks)
    given = pytorch.Masks(*(torch.tensor(np.array(mask)) for mask in masks))

    def ours(loss: Any, batch: Any, hidden: Any) -> Any:
        def value(params: Any, alpha: Any) -> Any:
            variables = {"params": params, "batch_stats": ready.state.stats}
            weights = ready.problem.mean_weights(alpha, {})
            options = {"train": True, "masks": masks, "length": batch.length, "mutable": ["batch_stats"]}
            module = ready.problem.network.module
            (outputs, after), updated = module.apply(variables, batch.tokens, hidden, weights, **options)
            return loss(outputs, batch)[0], (after, updated["batch_stats"])

        return jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))(ready.state.params, ready.state.alpha)

    for theirs, window, loss, batch, hidden in (
        (search.inner, train, ready.problem.task.inner_loss, ready.train, ready.state.memory.train),
        (search.outer, valid, ready.problem.task.loss, ready.valid, ready.state.memory.valid),
    ):
        search.network.rnns[0].bn.reset_running_stats()
        value, after = theirs(window, given)
        *gradient, slope = torch.autograd.grad(value, [*search.params, search.alpha])
        norm = search.network.rnns[0].bn
        found = (value.item(), (after, {"mean": norm.running_mean, "variance": norm.running_var}))
        expected = ours(loss, batch, hidden)
        assert_close((found, (ours_of(search.network, gradient), {"recurrent": slope})), expected, 1e-10)


@pytest.mark.parametrize(
    ("second_order", "own"),
    [(False, {"hypergradient": "first_order"}),
     (True, {"hypergradient": "finite_difference", "published_difference": True})],
)  # fmt: skip
def test_pytorchs_recurrent_steps_are_the_librarys(
    second_order: bool, own: dict[str, Any], pytorch: Any, x64: None
) -> None:
    """Alpha, weights and hidden states after two steps without dropout, of which both clip."""
    nothing = dict.fromkeys((f"dropout_{name}" for name in ("output", "hidden", "x", "input")), 0.0)
    given = {**own, **nothing, "l2": 1e-2, "slowness_penalty": 0.1}
    settings, ready = jd.SearchConfig(space="rnn", **TEXT_SIZE, **given), text_search(**given)
    search, train, valid = same_in_pytorch(pytorch, ready, settings)
    state = ready.state
    for _ in range(2):
        state, _ = ready.method.step(state, ready.train, ready.valid)
        search.step(train, valid, second_order)
    assert not np.allclose(state.params["nodes"], ready.state.params["nodes"], rtol=1e-3)
    hidden = (search.train_hidden.numpy(), search.valid_hidden.numpy())
    found = (ours_of(search.network, search.params), {"recurrent": search.alpha.detach().numpy()}, hidden)
    assert_close(found, (state.params, state.alpha, tuple(state.memory)), 1e-8 if second_order else 1e-10)


@pytest.mark.parametrize("name", ["search_rnn_masks", "search_rnn_architect", "search_rnn_architect_unclipped"])
@pytest.mark.parametrize("published", [False, True])
def test_pytorchs_recurrent_network_agrees_with_the_public_code(name: str, published: bool, pytorch: Any) -> None:
    errors = pytorch.golden_errors(Path(__file__).parent / "golden" / f"{name}.npz", published)
    assert {"train_loss", "first_order", "fixed_fd"} <= set(errors) or {"log_prob", "grad_alpha"} <= set(errors)
    assert max(errors.values()) < 1e-11, errors


def test_time_that_spans_cover(benchmark: Any) -> None:
    """Two apart from each other, one inside of another, and one that goes on where another ends."""
    module = importlib.import_module("text_step_time")
    assert module.union_length([(4.0, 9.0), (0.0, 1.0), (5.0, 6.0), (8.0, 11.0)]) == pytest.approx(8)
    assert module.union_length([]) == 0


@pytest.mark.parametrize("wrong", [{"sizes": ("huge",)}, {"forms": ("second order",)}, {"forms": ()}, {"repeats": 0}])
def test_bad_input_to_timing_text_is_refused(wrong: dict[str, Any], benchmark: Any) -> None:
    module = importlib.import_module("text_step_time")
    with pytest.raises(InputError, match=next(iter(wrong)).removesuffix("s")):
        module.main(module.Options(**wrong))


def test_a_row_on_a_gpu_that_fails_does_not_end_the_others(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, path = importlib.import_module("gpu"), tmp_path / "rows.json"

    def fails(seconds: float) -> dict[str, Any]:
        raise RunError("out of memory")

    def counts(seconds: float) -> dict[str, Any]:
        return {"step": len(json.loads(path.read_text())["rows"])}  # what was written before

    rows = [module.Row("a", fails), module.Row("b", counts)]
    monkeypatch.setattr(module, "rows_of", lambda section, options: rows)
    content = module.main(module.Options(sections=("steps", "search"), output=path))
    assert [row.get("error_message", row.get("step")) for row in content["rows"]] == [
        "out of memory",
        1,
        "out of memory",
        3,
    ]
    assert json.loads(path.read_text())["rows"] == content["rows"]
    assert capsys.readouterr().out.count("out of memory") == 2


def test_what_there_is_no_time_for_is_said(benchmark: Any) -> None:
    module = importlib.import_module("gpu")
    rows = module.main(module.Options(quick=True, minutes=0.01))["rows"]
    assert {row["section"] for row in rows} == set(module.SECTIONS)
    assert all(row["skipped"] == "not measured: its part of 0.01 minutes is over" for row in rows)


def test_every_section_on_a_gpu_measures_something(benchmark: Any) -> None:
    module, content, _ = benchmark("gpu")
    assert not [row for row in content["rows"] if "skipped" in row or "error_message" in row]
    by_section = {row["section"]: row for row in content["rows"]}
    assert set(by_section) == set(module.SECTIONS)
    assert by_section["goldens"]["agrees"] and by_section["goldens"]["error"] > 1e-12
    assert all(by_section[name]["step"] > 0 for name in ("steps", "difference", "populations", "evaluation"))
    assert by_section["populations"]["members"] == 2


@pytest.mark.parametrize("wrong", [{"sections": ("fast",)}, {"sizes": ("huge",)}, {"minutes": 0.0}, {"members": (0,)}])
def test_bad_input_to_measuring_a_gpu_is_refused(wrong: dict[str, Any], benchmark: Any) -> None:
    module = importlib.import_module("gpu")
    with pytest.raises(InputError, match=next(iter(wrong)).removesuffix("s")):
        module.main(module.Options(**wrong))


@pytest.mark.parametrize("wrong", [{"orders": ()}, {"orders": (1,)}, {"discount": 1.0}, {"dataset": "ptb"}])
def test_bad_input_to_counting_is_refused(wrong: dict[str, Any], benchmark: Any) -> None:
    module, _, _ = benchmark("kneser_ney")
    with pytest.raises(InputError, match=next(iter(wrong))):
        module.main(module.Options(**wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"spaces": ("s9",)},
        {"radii": (0.0,)},
        {"precisions": ("float16",)},
        {"batch_sizes": (10**6,)},
        {"train_steps": ()},
        {"draws": 0},
    ],
)
def test_bad_input_is_refused(wrong: dict[str, Any], benchmark: Any) -> None:
    module = importlib.import_module("hypergradient")
    with pytest.raises(InputError, match=next(iter(wrong)).removesuffix("s")):
        module.measure(module.Options(**wrong))
