"""Which runs does a sweep file give, what are they called, and what does a mistake in it say?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jaxdarts.errors import InputError
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.runs.sweep.file import read_sweep, run_name

CONFIGS = Path(__file__).parents[2] / "configs"


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(text)
    return path


def test_the_product_is_run_in_the_files_order(tmp_path: Path) -> None:
    text = "[search]\nepochs = 12\n[grid]\nseed = [1, 0]\nl2 = [0, 1e-3]\nspace = ['s2']\n[evaluate]\nepochs = 3\n"
    sweep = read_sweep(write(tmp_path, text))
    names = ["s2-l2_0.0-seed_1", "s2-l2_0.001-seed_1", "s2-l2_0.0-seed_0", "s2-l2_0.001-seed_0"]
    assert [point.name for point in sweep.points] == names
    assert [(point.search.seed, point.search.l2) for point in sweep.points] == [(1, 0), (1, 1e-3), (0, 0), (0, 1e-3)]
    assert {point.search.epochs for point in sweep.points} == {12}
    assert sweep.points[1].values == {"seed": 1, "l2": 1e-3, "space": "s2"}
    evaluations = [point.evaluate for point in sweep.points]
    assert [(config.genotype, config.seed, config.epochs) for config in evaluations if config] == [
        (name, seed, 3) for name, seed in zip(names, (1, 1, 0, 0), strict=True)
    ]


def test_variants_replace_what_search_says(tmp_path: Path) -> None:
    tables = "[search]\nl2 = 1e-3\nepochs = 3\n[variants.plain]\n[variants.more-l2]\nl2 = 1\nmethod = 'beta-darts'\n"
    sweep = read_sweep(write(tmp_path, tables + "[grid]\nseed = [0, 1]\nspace = ['s1']\n"))
    names = ["plain-s1-seed_0", "more-l2-s1-seed_0", "plain-s1-seed_1", "more-l2-s1-seed_1"]
    assert [point.name for point in sweep.points] == names
    assert [(point.search.l2, point.search.method) for point in sweep.points] == [
        (1e-3, "darts"),
        (1.0, "beta-darts"),
    ] * 2
    assert {point.search.epochs for point in sweep.points} == {3}
    assert sweep.fields == ("variant", "space", "seed") and sweep.points[1].values["variant"] == "more-l2"


def test_an_evaluation_has_its_searchs_data_unless_it_says_otherwise(tmp_path: Path) -> None:
    grid = "[grid]\ndataset = ['digits', 'photos10']\nimage_size = ['none']\n"
    for tables, datasets in (("[evaluate]\n", ["digits", "photos10"]), ("[evaluate]\ndataset='x'\n", ["x", "x"])):
        points = read_sweep(write(tmp_path, grid + tables)).points
        assert [point.evaluate.dataset for point in points if point.evaluate] == datasets
        assert points[0].search.image_size is None and points[0].name == "digits-image_size_none"
    assert read_sweep(write(tmp_path, grid)).points[0].evaluate is None


def test_a_preset_in_the_grid_gives_its_values(tmp_path: Path) -> None:
    quick, paper = read_sweep(write(tmp_path, "[grid]\npreset = ['quick', 'paper']\n")).points
    assert (quick.search, paper.search) == (SearchConfig(), SearchConfig(preset="paper"))


def test_a_run_has_of_the_common_settings_what_it_uses(tmp_path: Path) -> None:
    tables = "[search]\nes_rule = 'code'\nselection_samples = 7\nalpha_l2 = 0.5\nepochs = 30\n"
    grid = "[grid]\nmethod = ['darts', 'darts-es', 'random-ws']\n"
    plain, early, random = (point.search for point in read_sweep(write(tmp_path, tables + grid)).points)
    assert plain == SearchConfig(epochs=30, alpha_l2=0.5)
    assert early == SearchConfig(method="darts-es", epochs=30, alpha_l2=0.5, es_rule="code")
    assert random == SearchConfig(method="random-ws", epochs=30, selection_samples=7)


def test_names_are_safe_different_and_stable_when_a_list_grows() -> None:
    assert (
        run_name({"seed": 3, "space": "s1", "method": "darts-es", "cutout": True}) == "s1-darts-es-cutout_true-seed_3"
    )
    assert run_name({"seed": 3, "l2": 3e-5}) == "l2_3e-05-seed_3"
    paths = ["a/mine.toml", "b/mine.toml", "npz:/data/x y.npz", "../..", "ab", "a b"]
    names = [run_name({"space": path}) for path in paths]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) for name in names)
    assert names[0].startswith("mine_")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid\n", "sweep: 'FILE' is not TOML"),
        ("", "in FILE: grid must name at least one field with a list of values, e.g. seed = [0, 1, 2]"),
        ("seeds = [0]\n", "in FILE: unknown key 'seeds'; choose from evaluate, grid, search, variants"),
        ("[gird]\nseed = [0]\n", "in FILE: unknown key 'gird' (did you mean 'grid'?); choose from"),
        ("[grid]\nsed = [0]\n", "in FILE: unknown key 'sed' in [grid] (did you mean 'seed'?); python -m jaxdarts.sea"),
        (
            "[grid]\nseed = [0]\n[search]\nepoch = 1\n",
            "in FILE: unknown key 'epoch' in [search] (did you mean 'epochs'",
        ),
        ("[grid]\nseed = [0]\n[evaluate]\nspaces = 's1'\n", "in FILE: unknown key 'spaces' in [evaluate]"),
        ("[grid]\nseed = []\n", "in FILE: seed in [grid] must be a list with at least one value; got []"),
        ("[grid]\nseed = 3\n", "in FILE: seed in [grid] must be a list with at least one value; got 3"),
        ("[grid]\nseed = [[3]]\n", "in FILE: seed in [grid] must be a list of single values; got [3] in it"),
        ("[grid]\nseed = [0]\n[search]\nl2 = [1]\n", "in FILE: l2 in [search] must be one value; lists belong into"),
        ("[grid]\nseed = [0]\n[search]\nseed = 1\n", "in FILE: seed is in [search] and in [grid]"),
        ("[grid]\nseed = [0]\n[variants.a]\nseed = 1\n", "in FILE: seed is in [variants.a] and in [grid]"),
        ("[grid]\nseed = [0]\n[variants.a]\nepoch = 1\n", "in FILE: unknown key 'epoch' in [variants.a] (did you"),
        ("[grid]\nseed = [0]\n[variants.a]\nl2 = [1]\n", "in FILE: l2 in [variants.a] must be one value; lists belong"),
        ("[grid]\nseed = [0]\n[variants]\na = 1\n", "in FILE: a in [variants] must be a table of fields; got 1"),
        ("[grid]\nseed = [0]\n[variants.'a b']\n", "in FILE: variants: 'a b' names folders, so it must be of letters"),
        ("[grid]\nseed = [0]\n[variants.logs]\n[variants.a]\nl2 = -1.0\n", "in FILE: run a-seed_0: l2 must be at"),
        ("[grid]\nl2 = [1, 1.0]\n", "in FILE: grid: run l2_1.0 is asked for twice"),
        ("[grid]\nspace = ['s1', 's9']\n", "in FILE: run s9: unknown space 's9'; choose from darts, "),
        ("[grid]\nseed = [0, 'x']\n", "in FILE: run x: seed must be a whole number; got 'x'"),
        ("[grid]\npreset = ['fast']\n", "in FILE: run fast: unknown preset 'fast'; choose from paper, quick"),
        ("[search]\nneumann_terms = 3\n[grid]\nseed = [0]\n", "in FILE: neumann_terms in [search] has no effect in"),
        ("[grid]\nseed = [0]\nneumann_terms = [3]\n", "in FILE: run neumann_terms_3-seed_0: neumann_terms 3 is only"),
        ("[grid]\nmethod = ['darts', 'darts-ada']\nl2 = [0.0]\n", "in FILE: run darts-ada-l2_0.0: l2 must be greater"),
        ("[grid]\nseed = [0]\n[evaluate]\ncells = 1\n", "in FILE: run seed_0: in [evaluate]: cells must be at least 3"),
        ("[grid]\nseed = [0]\n[evaluate]\ngenotype = 'x'\n", "in FILE: genotype in [evaluate] is what each search"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_sweep(file)
    assert str(caught.value).startswith(message.replace("FILE", str(file))), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path", sorted([*CONFIGS.glob("sweeps/*.toml"), *CONFIGS.glob("paper/*.toml")]), ids=lambda path: path.name
)
def test_shipped_sweeps_are_possible(path: Path) -> None:
    assert len(read_sweep(path).points) > 1
    assert f"python -m jaxdarts.sweep configs/{path.parent.name}/{path.name}" in path.read_text()
