"""How are a step's programs compiled side by side, before the first step needs them?

The first step would trace a program, wait for XLA, trace the next and wait again; and of a compilation, half is done by
one core. So the step is first traced whole, on shapes alone: each program that it would run is handed to a thread as
soon as it is traced, and is compiled there while Python traces the next. The step then finds all of them compiled.
"""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import jax

_R = TypeVar("_R")


class Ahead:
    """Programs on their way. Use it as a context: leaving it waits for all of them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(os.cpu_count())

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=error[0] is not None)

    def trace(self, function: Callable[[], Any]) -> None:
        """Traces a function of nothing, without computing, and begins to compile the `compilable` programs in it.

        What it computes must depend on no value, as under `jax.eval_shape`.
        """
        token = _begin.set(self._compile)
        collects = gc.isenabled()
        gc.disable()  # Tracing makes millions of objects that stay; looking through them again and again takes a tenth.
        try:
            jax.eval_shape(function)
        finally:
            if collects:
                gc.enable()
            _begin.reset(token)

    def _compile(self, program: Any, arguments: tuple[Any, ...]) -> None:
        leaves, structure = jax.tree.flatten(arguments)
        kind = (structure, *(jax.typeof(leaf) for leaf in leaves))
        if kind in _begun.setdefault(program, set()):
            return
        _begun[program].add(kind)
        token = _begin.set(None)  # what a program calls is a part of it
        try:
            lowered = program.trace(*arguments).lower()
        finally:
            _begin.reset(token)
        # JAX keeps what is compiled with the program; what failed fails again, where it is called.
        self._threads.submit(lowered.compile)


def run_program(program: Callable[..., Any], *arguments: Any) -> Any:
    """What a jitted function returns; where `Ahead` traces the call, it also compiles the function."""
    begin = _begin.get()
    if begin is not None and isinstance(program, jax.stages.Wrapped):  # not a step that somebody watches
        begin(program, arguments)
    return program(*arguments)


def compilable(program: Callable[..., _R]) -> Callable[..., _R]:
    """A jitted function of positional arguments that goes through `run_program`."""

    @functools.wraps(program)
    def call(*arguments: Any) -> _R:
        result: _R = run_program(program, *arguments)
        return result

    return call


# By program the kinds of arguments for which it was compiled: searches of one problem share programs.
_begun: WeakKeyDictionary[Any, set[Any]] = WeakKeyDictionary()
_begin: ContextVar[Callable[[Any, tuple[Any, ...]], None] | None] = ContextVar("begin", default=None)
