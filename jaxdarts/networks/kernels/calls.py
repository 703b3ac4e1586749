"""How is a kernel called?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jax.interpreters.partial_eval import dce_rules

Result = jax.Array | jax.ShapeDtypeStruct


def alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """All in the widest of their dtypes."""
    dtype = jnp.result_type(*arrays)
    return tuple(array if array.dtype == dtype else array.astype(dtype) for array in arrays)


def call(
    name: str, results: Sequence[Result], arguments: Sequence[jax.Array], **attributes: int | Sequence[int]
) -> tuple[jax.Array, ...]:
    """Arrays of the shapes and dtypes of `results`; floats have one dtype. Under `vmap` one member after another."""
    floats = {argument.dtype for argument in arguments if jnp.issubdtype(argument.dtype, jnp.floating)}
    assert len(floats) == 1, name
    shapes = [jax.ShapeDtypeStruct(result.shape, result.dtype) for result in results]
    function = jax.ffi.ffi_call(f"jaxdarts_{name}", shapes, vmap_method="sequential")
    return tuple(function(*arguments, **{key: np.asarray(value, np.int64)[()] for key, value in attributes.items()}))


def call_for_wanted(
    name: str, results: Sequence[Sequence[Result]], arguments: Sequence[jax.Array], **attributes: int | tuple[int, ...]
) -> tuple[jax.Array, ...]:
    """As `call`, of groups of results; the kernel leaves out the groups that nothing in the program depends on.

    It gets an attribute `wanted`, which has a bit for each group from the lowest on, and gives the results of those.
    Here all results come one after the other.
    """
    shapes = tuple(tuple(jax.ShapeDtypeStruct(one.shape, one.dtype) for one in group) for group in results)
    groups = tuple(enumerate(shapes))
    return tuple(_kernel.bind(*arguments, name=name, groups=groups, attributes=tuple(attributes.items())))


def _called(*arguments: jax.Array, name: str, groups: Any, attributes: Any) -> tuple[jax.Array, ...]:
    wanted = sum(1 << number for number, _ in groups)
    return call(name, _results(groups), arguments, wanted=wanted, **dict(attributes))


def _results(groups: Any) -> list[jax.ShapeDtypeStruct]:
    return [one for _, group in groups for one in group]


def _members(arguments: Sequence[jax.Array], axes: Sequence[int | None], **parameters: Any) -> Any:
    """One member of a population after another."""
    apart = {place: axis for place, axis in enumerate(axes) if axis is not None}
    members = {place: jax.numpy.moveaxis(arguments[place], axis, 0) for place, axis in apart.items()}

    def one(own: dict[int, jax.Array]) -> Any:
        return _kernel.bind(*(own.get(place, given) for place, given in enumerate(arguments)), **parameters)

    found = jax.lax.map(one, members)
    return found, [0] * len(found)


def _without_unused(used: Sequence[bool], equation: Any) -> Any:
    """The equation without the groups of which no result is used, and which arguments it needs."""
    results, uses = iter(equation.outvars), iter(used)
    kept, groups = [], []
    for number, group in equation.params["groups"]:
        own = [(next(results), next(uses)) for _ in group]
        if any(is_used for _, is_used in own):
            groups.append((number, group))
            kept += [result for result, _ in own]
    count = len(equation.invars)
    if not groups:
        return [False] * count, None
    return [True] * count, equation.replace(outvars=kept, params=equation.params | {"groups": tuple(groups)})


_kernel = Primitive("jaxdarts_kernel")
_kernel.multiple_results = True
_kernel.def_impl(_called)
_kernel.def_abstract_eval(lambda *_, groups, **__: [jax.core.ShapedArray(r.shape, r.dtype) for r in _results(groups)])
mlir.register_lowering(_kernel, mlir.lower_fun(_called, multiple_results=True))
batching.primitive_batchers[_kernel] = _members
dce_rules[_kernel] = _without_unused
