"""How long is a search step of recurrent cells, how long is its compilation, and what memory does it take?

    python benchmarks/text_step_time.py --quick
    python benchmarks/text_step_time.py --sizes small --output text_step_time.json

A step is one step on alpha and one on the weights, on a window of the usual length of random words. Ours: first order,
exact second order and the central difference, in parts as the search command runs them. PyTorch's
(`pytorch_recurrent.py`, if torch is installed): first order and the published difference, in the published order of
operations (`published`) and in a leaner one of ours, the better of one thread and all. Medians over rounds that run
every form once, ours and PyTorch's in a process each.

Then every form in a new process without a compilation cache that takes three steps: what the first takes longer than a
later one, tracing and compilation, and the peak of the resident memory, interpreter, libraries and compiler included.
`search` is a whole search of one epoch of a short text: the seconds in which JAX traces and compiles, and the programs.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _common import command, headline, interleaved_medians, setting, table, write_json
from _process import in_new_process
from memory import peak_megabytes

import jaxdarts as jd
from jaxdarts.bilevel import Parts
from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.methods.base import Ingredients, Method, Problem, SearchState
from jaxdarts.methods.relaxations import softmax
from jaxdarts.networks.recurrent import TextSupernet
from jaxdarts.networks.text import text_network
from jaxdarts.runs.allocator import keep_freed_memory, step_size
from jaxdarts.runs.scheduled_values import set_values
from jaxdarts.spaces import RNN
from jaxdarts.tasks.language import bare_task, dropouts
from jaxdarts.tasks.text_streams import Batch


class Size(NamedTuple):
    """What decides how much work a step is."""

    hidden: int
    batch: int
    steps: int  # of time, in a window
    words: int  # different ones


SIZES = {"tiny": Size(8, 4, 5, 40), "small": Size(64, 32, 20, 1396), "paper": Size(300, 256, 35, 10_000)}
FORMS = {"first order": "first_order", "exact": "unrolled", "finite difference": "finite_difference"}
# Whether they have the published order of operations, and are of second order.
TORCH_FORMS = {
    "published first order": (True, False),
    "published finite difference": (True, True),
    "PyTorch first order": (False, False),
    "PyTorch finite difference": (False, True),
}


@dataclass(frozen=True)
class Options:
    sizes: tuple[str, ...] = ("small",)  # tiny, small or paper
    forms: tuple[str, ...] = tuple(FORMS)  # of ours
    torch: bool = True  # also PyTorch, if it is installed
    cold: bool = True  # also compilation and memory
    repeats: int = 7  # rounds
    keep_memory: bool = True  # what steps free is kept for the next, as the commands do for small networks
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


QUICK = {"sizes": ("tiny",), "forms": ("first order",), "repeats": 2}


class Ready(NamedTuple):
    """A method with all that its step takes."""

    problem: Problem
    method: Method
    state: SearchState
    train: Batch
    valid: Batch
    step: Callable[[], Any]  # from the start, in parts


def size_of(name: str) -> Size:
    if name not in SIZES:
        raise unknown_choice("size", name, SIZES)
    return SIZES[name]


def settings_of(size: Size, form: str = "first order", **others: Any) -> Any:
    """Of a search of that size."""
    sizes = {"hidden": size.hidden, "batch_size": size.batch, "sequence_length": size.steps}
    return jd.SearchConfig(space=RNN.name, hypergradient=FORMS[form], **sizes, **others)


def random_words(size: Size, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and targets, int32[steps, batch]."""
    words = np.random.default_rng(seed).integers(size.words, size=(size.steps + 1, size.batch)).astype(np.int32)
    return words[:-1], words[1:]


def make_ready(settings: Any, words: int, dtype: Any = jnp.float32) -> Ready:
    """A search of random words at initialisation."""
    size = Size(settings.hidden, settings.batch_size, settings.sequence_length, words)
    supernet = TextSupernet(RNN, words, settings.hidden, dropouts(settings))
    task = bare_task(settings.sequence_length, settings.activation_penalty, settings.slowness_penalty)
    network = text_network(supernet, settings.batch_size, dtype)
    problem = Problem(RNN, network, task, softmax(RNN, settings.alpha_init_scale, dtype))
    method = jd.METHODS[settings.method].build(Ingredients(problem, settings))
    state = jax.jit(method.init)(jax.random.key(0))
    state = set_values(state, {name: schedule(0) for name, schedule in method.schedules.items()})
    length = jnp.int32(size.steps)
    train, valid = (
        Batch(*map(jnp.asarray, random_words(size, seed)), length, length, length, jnp.bool_(False)) for seed in (1, 2)
    )
    step = partial(Parts().run(method.step), state, train, valid)
    return Ready(method.problem, method, jax.block_until_ready(state), train, valid, step)


def torch_forms(size: Size) -> dict[str, Callable[[], Any]]:
    """PyTorch's steps by name, for one thread and for all."""
    import torch
    from pytorch_recurrent import Rates, Search, SearchNetwork, Window

    settings = settings_of(size)
    torch.manual_seed(0)
    rates = Rates(settings.learning_rate, settings.l2, settings.clip_norm, settings.slowness_penalty)
    train, valid = (Window(*(torch.tensor(a).long() for a in random_words(size, seed))) for seed in (1, 2))

    def search(published: bool) -> Search:
        network = SearchNetwork(RNN, size.words, size.hidden, dropouts(settings), published)
        alpha = (settings.alpha_init_scale * torch.randn(RNN.alpha_shape("recurrent"))).requires_grad_()
        return Search(network, alpha, size.batch, rates)

    searches = {published: search(published) for published in (True, False)}

    def run(threads: int, published: bool, second_order: bool) -> None:
        torch.set_num_threads(threads)
        searches[published].step(train, valid, second_order)

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        f"{name}, {threads}": partial(run, threads, *form)
        for threads in sorted({1, cores})
        for name, form in TORCH_FORMS.items()
    }


def _keep_memory(size: Size, keep: bool) -> None:
    if keep:
        keep_freed_memory(step_size(settings_of(size)))


def our_seconds(size_name: str, names: Sequence[str], repeats: int, keep: bool) -> dict[str, float]:
    """Median seconds of our forms. Run in a new process."""
    size = size_of(size_name)
    _keep_memory(size, keep)
    return interleaved_medians({name: make_ready(settings_of(size, name), size.words).step for name in names}, repeats)


def torch_seconds(size_name: str, repeats: int, keep: bool) -> dict[str, float]:
    """Median seconds of PyTorch's forms, with the same settings of the allocator. Run in a new process."""
    size = size_of(size_name)
    _keep_memory(size, keep)
    return interleaved_medians(torch_forms(size), repeats)


def first_steps(size_name: str, form: str, keep: bool) -> dict[str, float]:
    """Seconds of initialising, and of the first step less a later one; peak MB after imports and after three steps.

    Run in a new process.
    """
    size = size_of(size_name)
    _keep_memory(size, keep)
    if form in TORCH_FORMS:
        import torch  # noqa: F401
    before, began = peak_megabytes(), time.perf_counter()
    step = (
        torch_forms(size)[f"{form}, 1"] if form in TORCH_FORMS else make_ready(settings_of(size, form), size.words).step
    )
    times = [time.perf_counter()]
    for _ in range(3):
        jax.block_until_ready(step())
        times.append(time.perf_counter())
    seconds = np.diff(times)
    return {
        "initialise": times[0] - began,
        "first": float(seconds[0] - seconds[1:].min()),
        "step": float(seconds[1:].min()),
        "before": before,
        "peak": peak_megabytes(),
    }


def whole_search(size_name: str, form: str, folder: str) -> dict[str, float]:
    """Seconds of tracing and compiling in a search of one epoch, programs, and seconds of all. Run in a new process."""
    size, path = size_of(size_name), Path(folder)
    write_text(size, path)
    spans: list[tuple[str, float, float]] = []

    def record(event: str, duration: float, **_: Any) -> None:
        now = time.perf_counter()
        spans.append((event.rpartition("/")[2], now - duration, now))

    jax.monitoring.register_event_duration_secs_listener(record)
    settings = settings_of(size, form, epochs=1, data_dir=folder)
    began = time.perf_counter()
    with open(os.devnull, "w") as nowhere:
        jd.run_search(settings, path / "run", stream=nowhere)
    whole = time.perf_counter() - began
    compiled = [span for span in spans if span[0] == "backend_compile_duration"]
    names = {"jaxpr_trace_duration", "jaxpr_to_mlir_module_duration"}
    traced = union_length([span[1:] for span in spans if span[0] in names])
    return {
        "trace": traced,
        "compile": sum(end - start for _, start, end in compiled),
        "programs": len(compiled),
        "whole": whole,
    }


def write_text(size: Size, folder: Path) -> None:
    """A short text in which every word comes, as a search reads it: an epoch is a few windows."""
    generator, all_words = np.random.default_rng(0), np.arange(size.words)
    for name, rows in (("train", 4 * size.steps), ("valid", 2 * size.steps), ("test", 2)):
        ids = generator.integers(size.words, size=rows * size.batch)
        words = [f"w{number}" for number in (np.concatenate([all_words, ids]) if name == "train" else ids)]
        lines = [" ".join(words[first : first + 20]) for first in range(0, len(words), 20)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def union_length(spans: Sequence[tuple[float, float]]) -> float:
    """The length of what (start, end) pairs cover: a function is traced inside of another, and both are recorded."""
    total, until = 0.0, -np.inf
    for start, end in sorted(spans):
        total += max(end - max(start, until), 0.0)
        until = max(until, end)
    return float(total)


def measure(options: Options, size: str) -> dict[str, Any]:
    """Median seconds of every form and what they compare to; `cold` by form, and `search`."""
    cache = jax.config.jax_compilation_cache_dir
    has_torch = options.torch and importlib.util.find_spec("torch") is not None
    rounds = (options.repeats, options.keep_memory)
    seconds = in_new_process("text_step_time", "our_seconds", size, options.forms, *rounds, cache=cache and Path(cache))
    if has_torch:
        seconds |= in_new_process("text_step_time", "torch_seconds", size, *rounds)
    row = {"size": size, "seconds": seconds, "ratios": ratios(seconds)}
    if options.cold:
        names = [*options.forms, *(TORCH_FORMS if has_torch else ())]
        row["cold"] = {
            name: in_new_process("text_step_time", "first_steps", size, name, options.keep_memory) for name in names
        }
        with tempfile.TemporaryDirectory() as folder:
            row["search"] = in_new_process("text_step_time", "whole_search", size, options.forms[0], folder)
    return row


def ratios(seconds: Mapping[str, float]) -> dict[str, float]:
    """What is compared; of PyTorch's to ours above 1 ours is faster."""
    found = {}
    for form in TORCH_FORMS:
        times = [value for name, value in seconds.items() if name.startswith(form)]
        ours = "first order" if form.endswith("first order") else "exact"
        if times and ours in seconds:
            found[f"{form} / our {ours}"] = min(times) / seconds[ours]
    for one, other in (("exact", "first order"), ("exact", "finite difference")):
        if one in seconds and other in seconds:
            found[f"our {one} / our {other}"] = seconds[one] / seconds[other]
    return found


def show(row: Mapping[str, Any], searched: str) -> None:
    """Prints a row's tables; `searched` is the form of the whole search."""
    print(table(["", "ms a step"], [[form, f"{1e3 * value:.1f}"] for form, value in row["seconds"].items()]))
    print(table(["", "ratio"], [[what, f"{value:.2f}"] for what, value in row["ratios"].items()]))
    if "cold" not in row:
        return
    columns = ("initialise", "first", "before", "peak")
    lines = [[form, *(f"{found[name]:.1f}" for name in columns)] for form, found in row["cold"].items()]
    print(table(["from cold", "initialise, s", "first step, s", "MB resident before", "peak"], lines))
    found = row["search"]
    seconds = "traced in {trace:.1f} s, compiled in {compile:.1f} s, {whole:.1f} s in all".format(**found)
    print(f"a search of one epoch, {searched}: {found['programs']} programs, {seconds}", flush=True)


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    sizes = {name: size_of(name) for name in options.sizes}
    if not options.forms:
        raise InputError(f"forms must be one or more of {', '.join(FORMS)}; got none")
    for name in options.forms:
        if name not in FORMS:
            raise unknown_choice("form", name, FORMS)
    if options.repeats < 1:
        raise InputError(f"repeats must be at least 1; got {options.repeats}")
    content = setting(options) | {"rows": []}
    if importlib.util.find_spec("torch") is not None:
        content["versions"]["torch"] = importlib.metadata.version("torch")
    print(headline(content))
    for name, size in sizes.items():
        row = measure(options, name)
        content["rows"].append(row)
        print(f"\n{name}: {size.hidden} units, batch {size.batch}, {size.steps} time steps, {size.words} words")
        show(row, options.forms[0])
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
