"""Do the processes of a run meet, and do all of them hear why if not?"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxdarts.errors import InputError, RunError
from jaxdarts.runs import processes
from jaxdarts.runs.command_line import ProcessOptions
from jaxdarts.runs.processes import connect


@pytest.fixture
def address() -> str:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What JAX is asked to join."""
    calls: list[Any] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments, **_: calls.append(arguments))
    collectives = jax.config.jax_cpu_collectives_implementation
    yield calls
    jax.config.update("jax_cpu_collectives_implementation", collectives)


def test_alone_nothing_is_joined(joined: list[Any]) -> None:
    connect(ProcessOptions(), {})
    assert not joined


def test_what_is_left_out_is_asked_of_the_cluster(joined: list[Any]) -> None:
    connect(ProcessOptions(coordinator="localhost:1", process_id=1, process_count=2), {})
    connect(ProcessOptions(coordinator="auto"), {})
    assert joined == [("localhost:1", 2, 1), (None, None, None)]


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (ValueError("coordinator_address should be defined.\nMore"), InputError, "no cluster says which .*defined"),
        (RuntimeError("DEADLINE_EXCEEDED: no\nMore"), RunError, "cannot meet at 'auto': DEADLINE_EXCEEDED: no"),
    ],
)
def test_why_they_do_not_meet_is_one_line(
    joined: list[Any], monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[Exception], message: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(kind, match=message) as caught:
        connect(ProcessOptions(coordinator="auto"), {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ProcessOptions(process_id=0), "process_id and process_count need --coordinator HOST:PORT"),
        (ProcessOptions(coordinator="nowhere"), "coordinator must be HOST:PORT or auto; got 'nowhere'"),
        (ProcessOptions(coordinator="localhost:99999"), "coordinator must be HOST:PORT or auto; got"),
        (ProcessOptions(coordinator="localhost:1", process_count=0), "process_count must be at least 1; got 0"),
        (ProcessOptions(coordinator="localhost:1", process_id=-1), "process_id must be at least 0; got -1"),
        (
            ProcessOptions(coordinator="localhost:1", process_id=2, process_count=2),
            "process_id must be at least 0 and less than process_count 2; got 2",
        ),
        (ProcessOptions(coordinator="auto", coordinator_timeout=0), "coordinator_timeout must be at least 1 second"),
    ],
)
def test_options_that_cannot_be_used(options: ProcessOptions, message: str, joined: list[Any]) -> None:
    with pytest.raises(InputError, match=message):
        connect(options, {})
    assert not joined


def test_a_process_that_counts_otherwise_is_refused(joined: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "from_first", lambda make: {"process_count": 2, "space": "s1"})
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", lambda value: np.array([0, 1]))
    with pytest.raises(InputError, match="process_count must be the same in all processes; got 2 in process 0 and 3"):
        connect(ProcessOptions(coordinator="localhost:1", process_id=1, process_count=3), {"space": "s1"})
    with pytest.raises(InputError, match="the settings must be the same in all processes; those of process 1 differ"):
        connect(ProcessOptions(coordinator="localhost:1", process_id=0, process_count=2), {"space": "s1"})


TALK = """
import json, sys
from pathlib import Path
import jax, jax.numpy as jnp
from jaxdarts.errors import InputError, RunError
from jaxdarts.runs import processes
from jaxdarts.runs.command_line import ProcessOptions
from jaxdarts.runs.exit_codes import exit_code
from jaxdarts.runs.processes import connect, from_first, is_first
from jaxdarts.runs.folder import create
from jaxdarts.runs.store import Store

def talk():
    process, address, settings = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    connect(ProcessOptions(coordinator=address, process_id=process, process_count=2, coordinator_timeout=60), settings)
    print(from_first(lambda: [process, "x" * 5000])[0], flush=True)
    try:
        from_first(lambda: (_ for _ in ()).throw(InputError("only the first")))
    except InputError as error:
        print(error, flush=True)
    if len(sys.argv) > 4:
        share(Path(sys.argv[4]), process)

def share(path, process):
    state = [{"w": jnp.full(3, process), "key": jax.random.key(process)}]
    where = Path(from_first(lambda: str(create(path, "", {"space": "s1"}, {}, "", 3).path)))
    with Store(where, where, 3) as store:
        store.append({"epoch": 0, "loss": float(from_first(lambda: process))})
        print(store.records[0])
        store.save(10, state, {"process": process})
    with Store(where, where, 3) as store:
        restored = store.restore_latest(state)
        store.load()
        print(restored.step, restored.extra, restored.state[0]["w"], store.records)
        if is_first():
            (path / "metrics.jsonl").unlink()
        try:
            store.forget(1)
        except RunError as error:
            print(str(error).partition(" lacks")[2], flush=True)

sys.exit(exit_code(talk))
"""


def talk(address: str, *settings: str, path: Path | None = None) -> list[tuple[int, str, str]]:
    """The exit codes and outputs of two processes."""
    commands = [
        [sys.executable, "-c", TALK, str(process), address, text, *([] if path is None else [str(path)])]
        for process, text in enumerate(settings)
    ]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for command in commands]
    try:
        ended = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(started, ended, strict=True)]


def test_what_the_first_says_is_heard_by_all(address: str) -> None:
    same = '{"epochs": 2, "space": "s1"}'
    for code, output, errors in talk(address, same, same):
        assert code == 0 and output.endswith("0\nonly the first\n"), errors  # Gloo writes a line of its own before


def test_a_store_is_the_first_ones(address: str, tmp_path: Path) -> None:
    (code, first, errors), (_, second, _) = talk(address, "{}", "{}", path=tmp_path / "run")
    assert code == 0, errors
    first_lines, second_lines = (output.splitlines()[-3:] for output in (first, second))
    assert first_lines == second_lines
    record = "{'epoch': 0, 'loss': 0.0}"
    assert first_lines[0] == record
    assert first_lines[1] == f"10 {{'process': 0}} [0 0 0] [{record}]"
    assert first_lines[2].startswith(" epoch 0 ")


def test_other_settings_are_refused_by_all(address: str) -> None:
    (code, _, first), (code_second, _, second) = talk(address, '{"a": 1, "epochs": 2}', '{"a": 1, "epochs": 3}')
    assert code == code_second == 2
    assert "error: the settings must be the same in all processes; those of process 1 differ" in first
    assert "error: epochs must be the same in all processes; got 2 in process 0 and 3 in process 1" in second


@pytest.mark.parametrize("process", ["0", "1"])
def test_others_that_never_come(address: str, process: str) -> None:
    flags = ["--coordinator", address, "--process-id", process, "--process-count", "2", "--coordinator-timeout", "1"]
    command = [sys.executable, "-m", "jaxdarts.search", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    message = f"error: coordinator: the processes did not meet at '{address}' within 1 s\n"
    assert (done.returncode, done.stderr) == (1, message)
