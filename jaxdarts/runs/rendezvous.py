"""How do the processes of one run find each other before JAX joins them?

JAX ends a process without an error to catch where another does not come, and computes nonsense or waits for ever where
they do not run the same. So they meet at the coordinator's address first, for a line of JSON each way, and all hear the
same verdict.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxdarts.errors import InputError
from jaxdarts.runs.command_line import ProcessOptions

_SHUTDOWN_SECONDS = 30  # that an ended process waits for the others; one that failed alone ends them then
_LONGEST_LINE = 1 << 20


def connect(options: ProcessOptions, settings: Mapping[str, Any]) -> None:
    """Makes this process one of several, if it is to be one. To be called before JAX looks for its devices.

    Args:
      options: which of how many it is, and where they meet.
      settings: JSON values that must be the same in all, by name.

    Raises:
      InputError: an option cannot be used, nobody answers, not all come in time, or their settings differ; in the last
        two cases all of those that came raise it.
    """
    address = _check(options)
    if address is None:
        return
    first = options.process_id == 0
    if first:
        _gather(address, options, settings)
    else:
        _report(address, options, settings)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        options.coordinator,
        options.process_count,
        options.process_id,
        initialization_timeout=options.coordinator_timeout,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )


def _check(options: ProcessOptions) -> tuple[str, int] | None:
    """The address to meet at; None for a process that is alone."""
    if options.coordinator is None:
        if options.process_id is not None or options.process_count is not None:
            raise InputError("process_id and process_count need --coordinator HOST:PORT, where the processes meet")
        return None
    host, _, port = options.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise InputError(f"coordinator must be HOST:PORT; got {options.coordinator!r}")
    count, process = options.process_count, options.process_id
    if count is None or count < 1:
        raise InputError(f"process_count must be at least 1 where a coordinator is given; got {count}")
    if process is None or not 0 <= process < count:
        raise InputError(f"process_id must be at least 0 and less than process_count {count}; got {process}")
    if options.coordinator_timeout < 1:
        raise InputError(f"coordinator_timeout must be at least 1 second; got {options.coordinator_timeout}")
    return host.strip("[]"), int(port)


def _gather(address: tuple[str, int], options: ProcessOptions, settings: Mapping[str, Any]) -> None:
    """The first process: waits for the others and tells them the verdict."""
    end = time.monotonic() + options.coordinator_timeout
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        server = socket.create_server(("", address[1]), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise InputError(f"coordinator: cannot listen on port {address[1]}: {error.strerror}") from error
    here = _introduction(options, settings)
    came: dict[int, socket.socket] = {}
    verdict = ""
    with server, contextlib.ExitStack() as stack:
        while not verdict and len(came) + 1 < here["process_count"]:
            left = end - time.monotonic()
            if left <= 0:
                verdict = _missing(came, options)
                break
            server.settimeout(left)
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # whatever else may knock at a port
                connection = stack.enter_context(server.accept()[0])
                connection.settimeout(5)
                there = _receive(connection)
                verdict = _difference(here, there, list(came))
                came[int(there["process_id"])] = connection
        for connection in came.values():
            with contextlib.suppress(OSError):
                _send(connection, {"error": verdict})
    if verdict:
        raise InputError(verdict)


def _report(address: tuple[str, int], options: ProcessOptions, settings: Mapping[str, Any]) -> None:
    """Another process: introduces itself to the first one and hears the verdict."""
    end, reason = time.monotonic() + options.coordinator_timeout, "no answer"
    while (left := end - time.monotonic()) > 0:
        try:
            with socket.create_connection(address, timeout=left) as connection:
                connection.settimeout(options.coordinator_timeout)  # the first one's, which began before this
                _send(connection, _introduction(options, settings))
                verdict = _receive(connection)["error"]
        except (OSError, ValueError) as error:  # ValueError: closed without a verdict
            reason = getattr(error, "strerror", None) or str(error)
            time.sleep(min(0.2, max(0.0, end - time.monotonic())))
            continue
        if verdict:
            raise InputError(verdict)
        return
    raise InputError(
        f"coordinator: cannot reach process 0 at {options.coordinator!r} within {options.coordinator_timeout} s "
        f"({reason})"
    )


def _introduction(options: ProcessOptions, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"process_id": options.process_id, "process_count": options.process_count, "settings": dict(settings)}


def _difference(here: Mapping[str, Any], there: Mapping[str, Any], came: Sequence[int]) -> str:
    """What keeps a process from taking part; empty text if nothing does."""
    process, count = there["process_id"], there["process_count"]
    if count != here["process_count"]:
        return f"process_count must be the same in all processes; got {here['process_count']} and {count}"
    if process in (0, *came):
        return f"process_id must be another in each process; got {process} twice"
    ours, theirs = here["settings"], there["settings"]
    for name in ours:
        if theirs[name] != ours[name]:
            return (
                f"{name} must be the same in all processes; got {ours[name]!r} in process 0 and "
                f"{theirs[name]!r} in process {process}"
            )
    return ""


def _missing(came: Mapping[int, Any], options: ProcessOptions) -> str:
    missing = [process for process in range(1, options.process_count or 0) if process not in came]
    return (
        f"coordinator: not all of {options.process_count} processes came to {options.coordinator!r} within "
        f"{options.coordinator_timeout} s; missing: process_id {', '.join(map(str, missing))}"
    )


def _send(connection: socket.socket, value: Any) -> None:
    connection.sendall(json.dumps(value).encode() + b"\n")


def _receive(connection: socket.socket) -> Any:
    with connection.makefile("rb") as lines:
        return json.loads(lines.readline(_LONGEST_LINE))
