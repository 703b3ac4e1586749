"""Which value wins, and what does a mistake on the command line or in a file say?"""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jaxdarts.errors import InputError
from jaxdarts.evaluate import main as evaluate
from jaxdarts.methods import METHODS
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.plans.training_settings import EvaluateConfig, TabulateConfig
from jaxdarts.runs.command_line import FLAGS, ProcessOptions, RunOptions, parse_evaluate, parse_search, parse_tabulate
from jaxdarts.runs.config_json import check_same_settings
from jaxdarts.runs.folder import check_resumable, create
from jaxdarts.search import main as search
from jaxdarts.settings import Settings, field_types
from jaxdarts.tabulate import main as tabulate

PAPER = SearchConfig(preset="paper")


def record(config: Settings, path: Path, **facts: Any) -> Path:
    """The folder of a run with these settings."""
    settings = {"command": config.command, **config.flat()}
    create(path, "s1", settings, facts, device="a laptop", keep=3).close()
    return path


def test_no_flags_give_the_quick_preset() -> None:
    assert parse_search([]) == (SearchConfig(), ProcessOptions())
    assert parse_tabulate([]) == (TabulateConfig(), RunOptions())


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('preset = "paper"\nl2 = 27e-4\nepochs = 5\nflip = false\nimage_size = 16\n')
    config, options = parse_search(["--epochs=6", "--config", str(file), "--run-dir", "out"])
    assert config == PAPER.replace(l2=27e-4, epochs=6, flip=False, image_size=16)
    assert options == ProcessOptions(run_dir="out", config=str(file))
    config, _ = parse_search(["--preset", "quick", "--config", str(file), "--flip"])
    assert config == SearchConfig(l2=27e-4, epochs=5, image_size=16)
    file.write_text('preset = "paper"\ngenotype = "DARTS_V1"\nepochs = 5\ncutout = false\n')
    config, _ = parse_evaluate(["--epochs=6", "--config", str(file), "--no-flip"])
    assert config == EvaluateConfig(preset="paper", genotype="DARTS_V1", epochs=6, cutout=False, flip=False)
    with pytest.raises(InputError, match="unknown flag '--alpha-l2'"):
        parse_evaluate(["--alpha-l2", "0"])


def test_the_last_of_several_flags_wins_however_it_is_spelt() -> None:
    config, _ = parse_search(["--epochs", "3", "--batch_size=7", "--epochs=4", "--flip", "--no-flip", "--data_dir=a=b"])
    assert config == SearchConfig(epochs=4, batch_size=7, flip=False, data_dir="a=b")


def test_none_is_none_only_where_a_setting_may_have_it(tmp_path: Path) -> None:
    for word in ("none", "None", "NONE"):
        assert parse_search(["--image-size", word, f"--limit={word}"])[0] == SearchConfig(image_size=None, limit=None)
        assert parse_search(["--early-stopping", "none"])[0] == SearchConfig()
    file = tmp_path / "x.toml"
    file.write_text('image_size = "none"\nearly_stopping = "none"\n')
    assert parse_search(["--config", str(file)])[0] == SearchConfig(image_size=None)
    with pytest.raises(InputError, match="--epochs must be a whole number; got 'none'"):
        parse_search(["--epochs", "none"])


@pytest.mark.parametrize("value", ["-0.5", "-.5", "-5e-1"])
def test_a_negative_value_is_no_flag(value: str) -> None:
    for flags in (["--learning-rate", value], [f"--learning-rate={value}"]):
        with pytest.raises(InputError, match=r"^--learning-rate must be greater than 0; got -0.5$"):
            parse_search(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--epoch 3", "unknown flag '--epoch' .did you mean '--epochs'"),
        ("--no-epochs", "unknown flag '--no-epochs'"),
        ("--epochs x", "--epochs must be a whole number; got 'x'"),
        ("--epochs 1e3", "--epochs must be a whole number; got '1e3'"),
        ("--epochs=", "--epochs must be a whole number; got ''"),
        ("--image-size 1.5", "--image-size must be a whole number or None; got '1.5'"),
        ("--es-threshold fast", "--es-threshold must be a number or None; got 'fast'"),
        ("--learning-rate fast", "--learning-rate must be a number; got 'fast'"),
        ("--learning-rate nan", "--learning-rate must be a finite number; got nan"),
        ("--epochs", "--epochs needs a value"),
        ("--epochs --flip", "--epochs needs a value"),
        ("--flip=3", "--flip takes no value; got '3'"),
        ("--no-flip=false", "--flip takes no value; got 'false'"),
        ("s1", "unexpected argument: s1"),
        ("-x", "unexpected argument: -x"),
        ("--set epochs=3", "--set is no more: give the setting's own flag, e.g. --epochs 3"),
        ("--set=epochs=3", "--set is no more: give the setting's own flag, e.g. --epochs 3"),
        ("--preset papers", "unknown preset 'papers'; choose from paper, quick .did you mean 'paper'"),
        ("--method drats", "unknown method 'drats'; choose from .*did you mean 'darts'"),
        ("--selection-samples 3", "--selection-samples 3 is only for method random-ws; got method 'darts'"),
        ("--method random --alpha-l2 0", "--alpha-l2 0.0 cannot be used by method 'random', which learns no alpha"),
        ("--es-window 7", "--es-window 7 is only for methods darts-es and darts-ada"),
        ("--resume", "resume needs --run-dir"),
        ("--resume --run-dir absent", "resume: there is no folder 'absent'"),
        ("--config none.toml", "config: cannot read 'none.toml': No such file"),
        ("--config .", "config: cannot read '.': Is a directory"),
    ],
)
def test_mistakes_in_flags(
    flags: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^{message}") as caught:
        parse_search(flags.split())
    assert "\n" not in str(caught.value)
    assert search(flags.split()) == 2
    assert capsys.readouterr() == ("", f"error: {caught.value}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch = 3", "in FILE: unknown setting 'epoch' .did you mean 'epochs'"),
        ("run_dir = 'x'", "in FILE: unknown setting 'run_dir'"),
        ("batch_size = 'x'", "in FILE: batch_size must be a whole number; got 'x'"),
        ("epochs = true", "in FILE: epochs must be a whole number; got True"),
        ("epochs = 'none'", "in FILE: epochs must be a whole number; got 'none'"),
        ("cutout = 1", "in FILE: cutout must be true or false; got 1"),
        ("cutout_length = 4", "in FILE: cutout_length 4 is only for cutout"),
        ("selection_samples = 3", "in FILE: selection_samples 3 is only for method random-ws; got method 'darts'"),
        ("[epochs]\na = 1", "in FILE: epochs must be one value, not a list or a table"),
        ("epochs = ", "config: 'FILE' is not TOML: Invalid value"),
        ("preset = 'big'", "unknown preset 'big'"),
    ],
)
def test_mistakes_in_a_file_name_the_file_and_the_key(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(content)
    with pytest.raises(InputError, match="^" + message.replace("FILE", str(file))) as caught:
        parse_search(["--config", str(file)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['epochs = 3\nspace = "s2"\n', 'epochs = 3\r\nspace = "s2"\r\n'])
@pytest.mark.parametrize(
    "encode",
    [
        str.encode,
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    ],
)
def test_files_as_any_editor_saves_them(tmp_path: Path, text: str, encode: Any) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(encode(text))
    assert parse_search(["--config", str(file)])[0] == SearchConfig(epochs=3, space="s2")
    run = record(SearchConfig(epochs=3), tmp_path / "run") / "config.json"
    run.write_bytes(encode(run.read_text()))
    assert parse_search(["--config", str(run)])[0].epochs == 3


def test_a_finished_run_is_a_configuration_and_resume_takes_it(tmp_path: Path) -> None:
    config = PAPER.replace(epochs=3, data_dir=None, alpha_l2=0.0)
    run = str(record(config, tmp_path / "run", search_space={"name": "s1"}))
    assert parse_search(["--config", f"{run}/config.json", "--seed", "5"])[0] == config.replace(seed=5)
    resumed, options = parse_search(["--resume", "--run-dir", run, "--epochs", "4"])
    assert resumed == config.replace(epochs=4)  # check_same_settings refuses the difference
    assert options.resume and options.config is None


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_any_method_is_a_configuration_for_any_other(tmp_path: Path, method: str) -> None:
    run = record(SearchConfig(method=method, preset="paper", l2=0.001), tmp_path / "run")
    flags = ["--config", str(run / "config.json")]
    assert parse_search(flags)[0] == SearchConfig(method=method, preset="paper", l2=0.001)
    for other in METHODS:
        assert parse_search([*flags, "--method", other])[0] == SearchConfig(method=other, preset="paper", l2=0.001)


def test_what_older_versions_recorded_is_read(tmp_path: Path) -> None:
    run = record(SearchConfig(), tmp_path / "run") / "config.json"
    recorded = json.loads(run.read_text())
    # Every setting of every method, also where it has no effect, and one that is no more.
    older = {**recorded, "selection_samples": 7, "es_window": 7, "neumann_terms": 9, "rounds": 3, "strengths": None}
    for name in ("early_stopping", "temperature_start", "started_in"):
        older.pop(name)
    run.write_text(json.dumps(older))
    assert parse_search(["--config", str(run)])[0] == SearchConfig()
    assert parse_search(["--resume", "--run-dir", str(run.parent)])[0] == SearchConfig()


def test_what_a_flag_turns_off_is_dropped_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("method = 'random-ws'\nselection_samples = 7\ncurvature_products = 5\n")
    assert parse_search(["--config", str(file), "--curvature-every", "0"])[0] == SearchConfig(
        method="random-ws", selection_samples=7, curvature_every=0
    )
    assert parse_search(["--config", str(file), "--method", "darts"])[0] == SearchConfig(curvature_products=5)


def test_relative_paths_are_found_from_the_folder_in_which_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    for folder in (there, elsewhere):
        folder.mkdir()
    for name in ("tiny.toml", "d.npz", "g.json", "t.csv"):
        (there / name).touch()
    monkeypatch.chdir(there)
    config = SearchConfig(space="tiny.toml", dataset="npz:d.npz", data_dir=".", benchmark="t.csv")
    run = record(config, there / "run")
    evaluation = record(EvaluateConfig(genotype="g.json", dataset="digits"), there / "evaluation")
    assert parse_search(["--resume", "--run-dir", "run"])[0] == config

    monkeypatch.chdir(elsewhere)
    (elsewhere / "digits").mkdir()  # no path is meant
    (there / "digits").mkdir()
    found, _ = parse_search(["--resume", "--run-dir", str(run)])
    assert (found.space, found.dataset) == (str(there / "tiny.toml"), f"npz:{there / 'd.npz'}")
    assert Path(found.data_dir).samefile(there) and found.benchmark == str(there / "t.csv")
    check_same_settings(found.flat(), check_resumable(run, "search"), run, ())
    check_same_settings({"space": "../there/tiny.toml"}, check_resumable(run, "search"), run, ())
    (elsewhere / "tiny.toml").touch()
    with pytest.raises(InputError, match="differs from .* in space .'tiny.toml' in the run, '.*elsewhere/tiny.toml'"):
        check_same_settings({"space": str(elsewhere / "tiny.toml")}, check_resumable(run, "search"), run, ())
    found, _ = parse_evaluate(["--config", str(evaluation / "config.json")])
    assert (found.genotype, found.dataset) == (str(there / "g.json"), "digits")

    there.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert parse_search(["--resume", "--run-dir", "run"])[0] == config


@pytest.mark.parametrize("main", [search, evaluate, tabulate])
def test_help_is_short_and_help_all_has_every_setting(main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    kind = {search: SearchConfig, evaluate: EvaluateConfig, tabulate: TabulateConfig}[main]
    for flags in (["--help"], ["-h"], ["--help", "--preset", "paper"]):
        with pytest.raises(SystemExit) as ended:
            main(flags)
        shown = capsys.readouterr().out.splitlines()
        assert not ended.value.code and len(shown) < 50 and max(map(len, shown)) <= 120
        assert any("--help-all" in line for line in shown)
    with pytest.raises(SystemExit):
        main(["--help-all"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    for name in kind.names({}):
        assert f"{name.replace('_', '-')} " in shown, name


@pytest.mark.parametrize("method", METHODS)
def test_help_of_a_method_shows_its_own_settings(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        search(["--method", method, "--help"])
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 80 and max(map(len, shown.splitlines())) <= 120
    own = [name for group in METHODS[method].settings for name in field_types(group)]
    own += [name for changes in METHODS[method].defaults.values() for name in changes]
    for name in own:  # what is on is shown by the flag that turns it off
        off = "no-" if SearchConfig(method=method).flat()[name] is True else ""
        flag = FLAGS.get(name, f"--{off}{name.replace('_', '-')}")
        assert f"{flag} " in shown
    if method != "random-ws":
        assert "--selection-samples" not in shown


def test_help_waits_for_no_pictures_and_no_device() -> None:
    code = """
import sys
from jaxdarts.search import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code
assert not {"matplotlib", "sklearn", "jaxdarts.runs.engine"} & set(sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env=os.environ)
    assert shown.returncode == 0, shown.stderr
