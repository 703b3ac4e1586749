"""Which value wins, and what does a mistake on the command line or in a file say?"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdarts.errors import InputError
from jaxdarts.runs.command_line import ProcessOptions, parse_search
from jaxdarts.runs.folder import RunFolder
from jaxdarts.runs.search.config import PRESETS, SearchConfig
from jaxdarts.runs.search.validity import check_config

CONFIGS = Path(__file__).parents[2] / "configs"


def test_no_flags_give_the_quick_preset() -> None:
    assert parse_search([]) == (PRESETS["quick"], ProcessOptions())


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('preset = "paper"\nl2 = 27e-4\nepochs = 5\nflip = false\nimage_size = 16\n')
    config, options = parse_search(["--epochs=6", "--config", str(file), "--run-dir", "out"])
    assert config == dataclasses.replace(PRESETS["paper"], l2=27e-4, epochs=6, flip=False, image_size=16)
    assert options == ProcessOptions(run_dir="out", config=str(file))
    config, _ = parse_search(["--preset", "quick", "--config", str(file), "--flip"])
    assert config == dataclasses.replace(PRESETS["quick"], l2=27e-4, epochs=5, image_size=16)


def test_set_is_the_flag_and_the_last_one_wins() -> None:
    config, _ = parse_search(["--set", "epochs=3", "--set=cutout=true", "--set", "data-dir=a=b", "--set", "flip=False"])
    assert config == SearchConfig(epochs=3, cutout=True, data_dir="a=b", flip=False)
    assert parse_search(["--epochs", "4", "--set", "epochs=3"])[0].epochs == 3
    assert parse_search(["--set", "epochs=3", "--epochs", "4"])[0].epochs == 4
    assert parse_search(["--preset", "paper", "--set", "image_size=None"])[0] == PRESETS["paper"]


def test_a_negative_value_is_no_flag() -> None:
    assert parse_search(["--learning-rate", "-0.5"])[0].learning_rate == -0.5  # check_config refuses it


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--epoch 3", "unknown flag '--epoch' .did you mean '--epochs'"),
        ("--no-epochs", "unknown flag '--no-epochs'"),
        ("--epochs x", "--epochs must be a whole number; got 'x'"),
        ("--image-size 1.5", "--image-size must be a whole number or None; got '1.5'"),
        ("--es-threshold fast", "--es-threshold must be a number or None; got 'fast'"),
        ("--learning-rate fast", "--learning-rate must be a number; got 'fast'"),
        ("--epochs", "--epochs needs a value"),
        ("s1", "unexpected argument: s1"),
        ("--set epochs", "--set needs FIELD=VALUE, e.g. --set epochs=3; got 'epochs'"),
        ("--set epoch=3", "--set: unknown field 'epoch' .did you mean 'epochs'"),
        ("--set run_dir=x", "--set: unknown field 'run_dir'"),
        ("--set cutout=2", "cutout must be true or false; got '2'"),
        ("--preset papers", "unknown preset 'papers'; choose from paper, quick .did you mean 'paper'"),
        ("--resume", "resume needs --run-dir"),
        ("--resume --run-dir absent", "resume: there is no folder 'absent'"),
        ("--config none.toml", "config: cannot read 'none.toml': No such file"),
    ],
)
def test_mistakes_in_flags(flags: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as caught:
        parse_search(flags.split())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch = 3", "in FILE: unknown key 'epoch' .did you mean 'epochs'"),
        ("run_dir = 'x'", "in FILE: unknown key 'run_dir'"),
        ("batch_size = 'x'", "in FILE: batch_size must be a whole number; got 'x'"),
        ("epochs = true", "in FILE: epochs must be a whole number; got 'True'"),
        ("cutout = 1", "in FILE: cutout must be true or false; got 1"),
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


def test_a_finished_run_is_a_configuration_and_resume_takes_it(tmp_path: Path) -> None:
    config = dataclasses.replace(PRESETS["paper"], epochs=3, data_dir=None, alpha_l2=0.0)
    RunFolder.create(config, tmp_path / "run", device="a laptop").close()
    assert parse_search(["--config", str(tmp_path / "run" / "config.json"), "--seed", "5"])[0] == dataclasses.replace(
        config, seed=5
    )
    resumed, options = parse_search(["--resume", "--run-dir", str(tmp_path / "run"), "--epochs", "4"])
    assert resumed == dataclasses.replace(config, epochs=4)  # RunFolder.reopen refuses the difference
    assert options.resume and options.config is None


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_shipped_configurations_are_possible(path: Path) -> None:
    config, _ = parse_search(["--config", str(path)])
    check_config(config)
    assert f"--config configs/{path.name}" in path.read_text()


def test_help_shows_every_field_and_does_not_wait_for_jax() -> None:
    code = """
import sys
from jaxdarts.search import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code
assert "jax" not in sys.modules
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert shown.returncode == 0, shown.stderr
    for field in dataclasses.fields(SearchConfig):
        assert f"--{field.name.replace('_', '-')}" in shown.stdout
