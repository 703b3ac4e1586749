"""Do names of every kind get an answer instead of a traceback, and is text read as editors save it?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaxdarts import paths
from jaxdarts.errors import InputError
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.report import main as report_main
from jaxdarts.reports.table_record import read_table
from jaxdarts.runs.command_line import parse_search, read_config_file
from jaxdarts.runs.folder import check_creatable, check_resumable
from jaxdarts.runs.sweep.file import read_sweep
from jaxdarts.spaces import Benchmark, find_genotype, load_genotype, load_space

LONG = "x" * 300
CELLS = '{"normal":[["skip_connect",0],["skip_connect",1]],"normal_concat":[2],"reduce":[["noise",0],["skip_connect",1]],"reduce_concat":[2]}'  # noqa: E501


@pytest.mark.parametrize("name", [LONG, f"a/{LONG}/b", "a\0b", "", "missing"])
def test_names_that_lead_nowhere(name: str) -> None:
    assert not (paths.exists(name) or paths.is_file(name) or paths.is_folder(name))
    with pytest.raises(InputError, match="^config: cannot read"):
        paths.read_text(name, "config")


def test_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert paths.exists(tmp_path / "file") and paths.is_file(tmp_path / "file")
    assert not paths.is_folder(tmp_path / "file") and not paths.exists(tmp_path / "file" / "below")
    assert paths.exists(tmp_path) and paths.is_folder(tmp_path) and not paths.is_file(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_that_may_not_be_entered(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(InputError, match="cannot look at .*Permission denied"):
        paths.exists(tmp_path / "closed" / "file")


@pytest.mark.parametrize("name", [LONG, "a\0b"])
def test_every_place_that_takes_a_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for call in (
        lambda: check_creatable(Path(name)),
        lambda: check_resumable(Path(name), "search"),
        lambda: parse_search(["--resume", "--run-dir", name]),
        lambda: parse_search(["--config", name]),
        lambda: read_sweep(name),
        lambda: read_table(name),
        lambda: load_space(name + ".toml"),
        lambda: find_genotype(name),
        lambda: find_genotype(name + "/genotype.json"),
        lambda: load_genotype(name),
        lambda: Benchmark.load(name + ".csv"),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert report_main([name]) == 2
    assert "run_dir: there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_as_editors_save_it(tmp_path: Path, encoding: str) -> None:
    """With a byte order mark or without, lines ended as on Windows."""

    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode(encoding))
        return tmp_path / name

    assert paths.read_text(write("text", "ä\nb"), "text") == "ä\nb"
    assert read_config_file(write("c.toml", "epochs = 2\nseed = 1\n"), SearchConfig, {}) == {"epochs": 2, "seed": 1}
    assert read_config_file(write("c.json", '{"epochs": 2}'), SearchConfig, {}) == {"epochs": 2}
    assert load_space(str(write("own.toml", 'num_nodes = 1\noperations = ["noise"]\n'))).operation_names == ("noise",)
    assert len(read_sweep(write("w.toml", "[grid]\nseed = [0, 1]\n")).points) == 2
    found = load_genotype(write("g.json", CELLS))
    assert load_genotype(write("g.txt", f"BEST = {found.to_text()}\n")) == found
    with pytest.raises(InputError, match="0 different cells"):  # so its head has been understood
        Benchmark.load(write("t.csv", "architecture,cifar10_test_200\n"))
