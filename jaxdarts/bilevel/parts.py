"""Which pieces of a step are programs of their own, and who keeps them?

Nothing in this package compiles by itself: estimators and products are plain functions, and a loss that has changed,
or is made anew at every step, is evaluated as under `jax.grad`. Who steps through one problem many times without one
`jax.jit` around everything runs the step by a `Parts`: each piece is then compiled once and used wherever it is called
with the same functions. A second-order step needs one gradient three times, and so compiles in half the time of a step
that contains it three times.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr

from jaxdarts.bilevel.ahead import run_program

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Parts:
    """Compiled pieces, kept with the functions that they were compiled for as long as this object.

    These functions (losses, optimisers) must be pure and stay what they are, as under any `jax.jit` that is kept.

    Args:
      in_place: piece -> the function of the same arguments that computes it here.
    """

    def __init__(self, in_place: Mapping[Callable[..., Any], Callable[..., Any]] = {}) -> None:
        self._programs: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._in_place = {inspect.unwrap(piece): function for piece, function in in_place.items()}

    def run(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """`function`, its pieces as programs of this object; inside of another's `run`, of that one.

        The outermost wins, so that a run's steps and measurements share their programs.
        """

        @functools.wraps(function)
        def in_parts(*arguments: _P.args, **named: _P.kwargs) -> _R:
            if _active.get() is not None:
                return function(*arguments, **named)
            token = _active.set(self)
            try:
                return function(*arguments, **named)
            finally:
                _active.reset(token)

        return in_parts

    def program(self, function: Callable[..., Any], *fixed: Any) -> Callable[..., Any]:
        """The jitted piece `function(*fixed, ...)`, of the arguments that follow."""
        function = inspect.unwrap(function)
        key = (function, *fixed)
        if key not in self._programs:

            def piece(*arguments: Any) -> Any:
                own = self._in_place.get(function, function)
                if function in _with_unused:
                    return _without_unused(functools.partial(own, *fixed), *arguments)
                return own(*fixed, *arguments)

            piece.__name__ = piece.__qualname__ = function.__name__
            # A function of its own: JAX keeps what it has compiled as long as the function lives.
            self._programs[key] = jax.jit(piece)
        return self._programs[key]


def _without_unused(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, traced without what nothing of it depends on."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    jaxpr, _ = dce_jaxpr(closed.jaxpr, True, instantiate=True)
    results = jaxpr_as_fun(ClosedJaxpr(jaxpr, closed.consts))(*jax.tree.leaves(arguments))
    return jax.tree.unflatten(jax.tree.structure(shape), results)


_active: ContextVar[Parts | None] = ContextVar("parts", default=None)
_with_unused: set[Callable[..., Any]] = set()


def part(fixed: int, drops_results: bool = False) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Makes a function a piece of a step, one program for each value of its first `fixed` arguments, the functions.

    `drops_results`: it uses few results of the pieces that it differentiates. What only the others need is then left
    out where it is traced: a compiler removes it anyway, but a step as one program would first hand it over.
    """

    def mark(function: Callable[_P, _R]) -> Callable[_P, _R]:
        if drops_results:
            _with_unused.add(function)

        @functools.wraps(function)
        def call(*arguments: _P.args, **named: _P.kwargs) -> _R:
            parts = _active.get()
            if parts is None or named:
                return function(*arguments, **named)
            result: _R = run_program(parts.program(function, *arguments[:fixed]), *arguments[fixed:])
            return result

        return call

    return mark
