"""Do the processes of a run meet, and do all of them hear why if not?"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import pytest

from jaxdarts import evaluate, search
from jaxdarts.errors import InputError
from jaxdarts.runs.command_line import ProcessOptions
from jaxdarts.runs.rendezvous import connect


@pytest.fixture
def address() -> str:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


@pytest.fixture(autouse=True)
def joined(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What JAX is asked to join."""
    calls: list[Any] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments, **_: calls.append(arguments))
    yield calls


def meet(*processes: tuple[ProcessOptions, dict[str, Any]]) -> list[str]:
    """What each process raises; empty text for nothing."""

    def one(process: tuple[ProcessOptions, dict[str, Any]]) -> str:
        try:
            connect(*process)
        except InputError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(one, processes))


def option(address: str, process: int, count: int = 2, timeout: int = 20) -> ProcessOptions:
    return ProcessOptions(coordinator=address, process_id=process, process_count=count, coordinator_timeout=timeout)


def test_processes_that_agree_are_joined_whoever_is_early(address: str, joined: list[Any]) -> None:
    same = {"epochs": 2, "space": "s1"}
    assert meet(*((option(address, process, 3), same) for process in (2, 1, 0))) == ["", "", ""]
    assert sorted(joined) == [(address, 3, process) for process in range(3)]


def test_alone_nothing_is_joined(joined: list[Any]) -> None:
    connect(ProcessOptions(), {})
    assert not joined


def test_other_settings_are_refused_by_all(address: str, joined: list[Any]) -> None:
    found = meet(*((option(address, process), {"space": "s1", "epochs": 2 + process}) for process in range(2)))
    assert found == ["epochs must be the same in all processes; got 2 in process 0 and 3 in process 1"] * 2
    assert not joined


def test_other_counts_and_one_number_twice_are_refused(address: str) -> None:
    counts = meet((option(address, 0, 2), {}), (option(address, 1, 3), {}))
    assert counts == ["process_count must be the same in all processes; got 2 and 3"] * 2
    twice = meet((option(address, 0, 3), {}), (option(address, 1, 3, timeout=2), {}), (option(address, 1, 3), {}))
    assert twice[0] == "process_id must be another in each process; got 1 twice"


def test_who_is_missing_is_said_in_time(address: str, joined: list[Any]) -> None:
    began = time.monotonic()
    found = meet((option(address, 0, 3, timeout=1), {}), (option(address, 2, 3), {}))
    message = f"coordinator: not all of 3 processes came to '{address}' within 1 s; missing: process_id 1"
    assert found == [message, message] and not joined
    assert time.monotonic() - began < 5


def test_a_stranger_at_the_port_does_no_harm(address: str) -> None:
    def strange() -> None:
        host, port = address.split(":")
        for content in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"{}\n"):
            for _ in range(100):
                try:
                    with socket.create_connection((host, int(port))) as connection:
                        connection.sendall(content)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.02)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet, (option(address, 0), {}))
        pool.submit(strange).result()
        assert meet((option(address, 1), {})) == [""]
        assert first.result() == [""]


@pytest.mark.parametrize("command", [search, evaluate])
def test_a_coordinator_that_cannot_be_reached(command: Any, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--coordinator", address, "--process-id", "1", "--process-count", "2", "--coordinator-timeout", "1"]
    began = time.monotonic()
    assert command.main(flags) == 2
    assert time.monotonic() - began < 5
    message = f"error: coordinator: cannot reach process 0 at '{address}' within 1 s (Connection refused)\n"
    assert capsys.readouterr().err == message


def test_a_port_in_use(address: str) -> None:
    with socket.create_server(("", int(address.split(":")[1]))):
        assert "cannot listen on port" in meet((option(address, 0), {}))[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ProcessOptions(process_id=0), "process_id and process_count need --coordinator HOST:PORT"),
        (ProcessOptions(coordinator="nowhere"), "coordinator must be HOST:PORT; got 'nowhere'"),
        (ProcessOptions(coordinator="localhost:99999"), "coordinator must be HOST:PORT; got"),
        (ProcessOptions(coordinator="localhost:1", process_id=0), "process_count must be at least 1"),
        (option("localhost:1", 2), "process_id must be at least 0 and less than process_count 2; got 2"),
        (option("localhost:1", 1, timeout=0), "coordinator_timeout must be at least 1 second; got 0"),
    ],
)
def test_options_that_cannot_be_used(options: ProcessOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        connect(options, {})
