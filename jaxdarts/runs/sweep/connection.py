"""Is there a Ray cluster at an address, and can every machine of it work on a sweep?"""

from __future__ import annotations

import importlib
import importlib.util
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.runs.sweep.worker import Place, make_inspection, unseen

_REACH_SECONDS = 5.0
_CONNECT_SECONDS = 45.0
_CONNECT_ATTEMPTS = 4
# At a ray:// address every connection gets a process of its own there, which now and then dies while it starts (Ray's
# issue 63202).
_DIED_AT_ITS_START = "Starting Ray client server failed"
_INSPECT_SECONDS = 120.0  # a cluster starts its first processes slowly
# Ray waits minutes for a cluster that does not answer, and then ends the process: another one tries first.
_PROBE = """
import logging, sys
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
except BaseException as error:
    sys.exit("PROBE " + " ".join(str(error).split()))
"""
_EXAMPLES = "give auto on a machine of the cluster, HOST:PORT as ray start --head printed it, or ray://HOST:PORT"


def load_ray() -> Any:
    """The package. Raises InputError if it is missing."""
    if importlib.util.find_spec("ray") is None:
        raise InputError("cluster needs the package ray: pip install 'jaxdarts[cluster]'")
    return importlib.import_module("ray")


def connect(ray: Any, address: str) -> None:
    """Connects this process to a cluster that runs already; does nothing if it is connected to one.

    Raises:
      InputError: nothing answers there, within 5 seconds or, where something listens, 45; or the cluster has another
        version of Ray or Python.
    """
    if ray.is_initialized():
        return
    _check_reachable(address)
    _retry(address, lambda: _probe(address))
    before = signal.getsignal(signal.SIGTERM)
    try:
        _retry(address, lambda: _init(ray, address))
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray's own would end this process before its runs have saved


def _retry(address: str, refusal: Callable[[], str | None]) -> None:
    """Calls until there is no refusal. Raises InputError for one that another attempt will not change."""
    for _ in range(_CONNECT_ATTEMPTS):
        said = refusal()
        if said is None:
            return
        if _DIED_AT_ITS_START not in said:
            break
    raise InputError(f"cluster: cannot connect to {address!r}: {said}; {_EXAMPLES}")


def _probe(address: str) -> str | None:
    """What another process hears when it connects; None if it could."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, address],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CONNECT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"cluster: no Ray cluster answers at {address!r} within {_CONNECT_SECONDS:.0f} seconds; {_EXAMPLES}"
        ) from None
    if not probe.returncode:
        return None
    said = probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"]
    reasons = [line.removeprefix("PROBE ") for line in said if line.startswith("PROBE ")]
    return (reasons or said)[-1]


def _init(ray: Any, address: str) -> str | None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        return " ".join(str(error).split())
    return None


def check_resources(nodes: list[Mapping[str, Any]], cpus: float, gpus: float) -> list[Mapping[str, Any]]:
    """The machines on which a run fits, of those that `ray.nodes()` lists; warns if there is none."""
    wanted = {"CPU": cpus, "GPU": gpus}
    alive = [node for node in nodes if node["Alive"]]
    fitting = [n for n in alive if all(n["Resources"].get(name, 0) >= number for name, number in wanted.items())]
    if not fitting:
        largest = {name: max((n["Resources"].get(name, 0) for n in alive), default=0) for name in wanted}
        warnings.warn(
            f"no machine of the cluster has {cpus:g} CPUs and {gpus:g} GPUs for a run, at most {largest['CPU']:g} and "
            f"{largest['GPU']:g}; runs wait until one joins (--cpus-per-run, --gpus-per-run)",
            stacklevel=2,
        )
    return fitting


def check_machines(ray: Any, nodes: list[Mapping[str, Any]], place: Place) -> None:
    """Lets every one of these machines look at the sweep's folder.

    Raises:
      InputError: a machine does not see it, does not answer, or has other versions than this one.
    """

    def on_each(function: Any, *arguments: Any) -> list[Any]:
        task = ray.remote(num_cpus=0, max_retries=0)(function)
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        references = [
            task.options(scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(*arguments) for node in nodes
        ]
        try:
            return ray.get(references, timeout=_INSPECT_SECONDS)
        except ray.exceptions.RayError as error:
            raise InputError(f"cluster: a machine could not be looked at: {error}") from error

    importlib.import_module("ray.util.scheduling_strategies")
    inspect = make_inspection()
    _, here = inspect()
    for host, versions in on_each(inspect):
        for name, version in versions.items():
            if version != here[name]:
                found = f"has {name} {version}" if version else f"lacks {name}"
                raise InputError(f"cluster: machine {host} {found}; install {here[name]} there, as on this one")
    for node, problem in zip(nodes, on_each(unseen, place), strict=True):
        if problem is not None:
            raise InputError(
                f"cluster: machine {node['NodeManagerHostname']} {problem}; put it, with --sweep-dir, on a file "
                "system that all machines share under the same path"
            )


def _check_reachable(address: str) -> None:
    """Raises InputError if nothing listens at the address, or if it is none."""
    if address == "auto":
        return
    if address in ("", "local"):
        raise InputError(f"cluster must be the address of a cluster that runs; got {address!r}; {_EXAMPLES}")
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon and address.startswith("ray://"):
        host, port = port, "10001"
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"cluster must be an address; got {address!r}; {_EXAMPLES}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cluster: nothing answers at {address!r}: {reason}; {_EXAMPLES}") from error
