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
    name: str, results: Sequence[Result], arguments: Sequence[jax.Array], **attributes: int | tuple[int, ...]
) -> tuple[jax.Array, ...]:
    """Arrays of the shapes and dtypes of `results`; floats have one dtype. Under `vmap` one member after another."""
    return _bound(name, [results], arguments, attributes, chooses=False)


def call_for_wanted(
    name: str, results: Sequence[Sequence[Result]], arguments: Sequence[jax.Array], **attributes: int | tuple[int, ...]
) -> tuple[jax.Array, ...]:
    """As `call`, of groups of results; the kernel leaves out the groups that nothing in the program depends on.

    It gets an attribute `wanted`, which has a bit for each group from the lowest on, and gives the results of those.
    Here all results come one after the other.
    """
    return _bound(name, results, arguments, attributes, chooses=True)


def _bound(
    name: str,
    results: Sequence[Sequence[Result]],
    arguments: Sequence[jax.Array],
    attributes: dict[str, Any],
    chooses: bool,
) -> tuple[jax.Array, ...]:
    floats = {argument.dtype for argument in arguments if jnp.issubdtype(argument.dtype, jnp.floating)}
    assert len(floats) == 1, name
    groups = tuple((number, tuple(map(_abstract, group))) for number, group in enumerate(results))
    options = {"name": f"jaxdarts_{name}", "groups": groups, "attributes": tuple(attributes.items())}
    return tuple(_kernel.bind(*arguments, **options, chooses=chooses))


def _abstract(result: Result) -> jax.core.ShapedArray:
    return jax.core.ShapedArray(result.shape, result.dtype)


def _results(groups: Any) -> list[jax.core.ShapedArray]:
    return [one for _, group in groups for one in group]


def _given(groups: Any, attributes: Any, chooses: bool) -> dict[str, Any]:
    """What the kernel is told beside its arrays."""
    wanted = (("wanted", sum(1 << number for number, _ in groups)),) if chooses else ()
    return {key: np.asarray(value, np.int64)[()] for key, value in (*attributes, *wanted)}


def _called(*arguments: jax.Array, name: str, groups: Any, attributes: Any, chooses: bool) -> tuple[jax.Array, ...]:
    shapes = [jax.ShapeDtypeStruct(one.shape, one.dtype) for one in _results(groups)]
    return tuple(jax.ffi.ffi_call(name, shapes)(*arguments, **_given(groups, attributes, chooses)))


def _lowered(context: Any, *operands: Any, name: str, groups: Any, attributes: Any, chooses: bool) -> Any:
    return jax.ffi.ffi_lowering(name)(context, *operands, **_given(groups, attributes, chooses))


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
    if not equation.params["chooses"] and any(used):
        return [True] * count, equation
    if not groups:
        return [False] * count, None
    return [True] * count, equation.replace(outvars=kept, params=equation.params | {"groups": tuple(groups)})


_kernel = Primitive("jaxdarts_kernel")
_kernel.multiple_results = True
_kernel.def_impl(_called)
_kernel.def_abstract_eval(lambda *_, groups, **__: _results(groups))
mlir.register_lowering(_kernel, _lowered)
batching.primitive_batchers[_kernel] = _members
dce_rules[_kernel] = _without_unused
