"""How fast is each primitive of the networks, against the plain form of the same thing?

    python benchmarks/layers.py --quick
    python benchmarks/layers.py --primitives separable --kernel-sizes 3 --dilations 1 --output layers.json

Value, gradient, and forward derivative of the gradient (what an exact step takes), all in every argument at once:
milliseconds a call, medians over rounds that run every form once, and seconds to compile. The loss is a third of the
sum of cubes. `--primitives kernels`: what the kernels for CPUs compute in one pass, and XLA's programs of the same.
Separable convolutions: `matrix`, `columns` and `library` (`networks/separable.py`), reading one array or
a row each. Dense convolutions: eight, one after the other in straight code and in a `lax.scan`; in a loop XLA's CPU
backend does not bring the library form's derivatives into the order of axes that its fast code needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _common import command, compile_form, headline, interleaved_medians, setting, table, write_json
from jax import lax

from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.networks import kernels, layers, separable
from jaxdarts.networks.separable import Kernels

Form = Callable[..., jax.Array]
REPETITIONS = 8  # dense convolutions one after the other


class Shape(NamedTuple):
    """Of the arrays that primitives read."""

    channels: int
    image: int  # pixels a side
    batch: int


SIZES = {
    "tiny": Shape(2, 4, 4),
    "8x8x8": Shape(8, 8, 32),
    "16x16x16": Shape(16, 16, 64),
    "16x32x32": Shape(16, 32, 64),
    "64x8x8": Shape(64, 8, 64),
}


class Case(NamedTuple):
    """One primitive at one setting, in every form."""

    name: str
    forms: dict[str, Form]
    arguments: tuple[jax.Array, ...]


@dataclass(frozen=True)
class Options:
    primitives: tuple[str, ...] = ("separable", "batch norm", "mix", "max pool", "average pool", "dense")
    sizes: tuple[str, ...] = ("8x8x8", "16x16x16", "16x32x32", "64x8x8")  # channels x height x width; or tiny
    rows: int = 4  # layers that are computed together
    kernel_sizes: tuple[int, ...] = (3, 5)  # odd
    dilations: tuple[int, ...] = (1, 2)  # of separable convolutions
    matrix_entries: int = 65536  # up to here the matrix form; 16x16 images have 65536, 32x32 a million
    repeats: int = 7  # rounds
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


QUICK = {"sizes": ("tiny",), "rows": 2, "kernel_sizes": (3,), "dilations": (1,), "repeats": 2}


def random(seed: int, *shape: int) -> jax.Array:
    """Standard normal values."""
    return jax.random.normal(jax.random.key(seed), shape)


def separable_conv(form: Form, dilation: int, x: jax.Array, kernel: jax.Array, pointwise: jax.Array) -> jax.Array:
    """A form of depthwise convolution, and the 1x1 convolutions."""
    return layers.pointwise_conv(form(x, [Kernels(kernel, pointwise, dilation)], 1), pointwise)


def separable_cases(shape: Shape, options: Options) -> Iterator[Case]:
    """Every kernel size and dilation, reading one array and a row each."""
    forms: dict[str, Form] = {"columns": separable.columns, "library": separable.library}
    channels, image, batch = shape
    if image**4 <= options.matrix_entries:
        forms = {"matrix": separable.matrix, **forms}
    for size in options.kernel_sizes:
        kernels = (
            random(1, options.rows, channels, size, size) / size,
            random(2, options.rows, channels, channels) / channels**0.5,
        )
        for dilation in options.dilations:
            chosen: dict[str, Form] = {name: partial(separable_conv, form, dilation) for name, form in forms.items()}
            for reading, rows in (("shared", 1), ("a row each", options.rows)):
                x = random(0, rows, channels, image, image, batch)
                apart = "" if dilation == 1 else f" dilated by {dilation}"
                yield Case(f"separable {size}x{size}{apart}, {reading}", chosen, (x, *kernels))


def plain_batch_norm(x: jax.Array) -> jax.Array:
    """The definition, differentiated by JAX."""
    mean, variance = (statistic(x, axis=(2, 3, 4), keepdims=True) for statistic in (jnp.mean, jnp.var))
    return (x - mean) / jnp.sqrt(variance + layers.BATCH_NORM_EPSILON)


def batch_norm_cases(shape: Shape, options: Options) -> Iterator[Case]:
    """Normalisation by the batch's own statistics."""
    channels, image, batch = shape
    forms = {"standardise": lambda x: layers.standardise(x)[0], "plain": plain_batch_norm}
    yield Case("batch norm", forms, (random(0, options.rows, channels, image, image, batch),))


def broadcast_mix(gates: jax.Array, outputs: jax.Array) -> jax.Array:
    """What `layers.mix` computes, by multiplying and summing."""
    return (gates[:, :, None, None, None] * outputs).sum(axis=1)


def mix_cases(shape: Shape, options: Options) -> Iterator[Case]:
    """As many gated sums as rows."""
    channels, image, batch = shape
    outputs = random(1, options.rows, channels, image, image, batch)
    forms = {"product": layers.mix, "broadcast": broadcast_mix}
    yield Case("mix", forms, (random(0, options.rows, options.rows, 1), outputs))


def window_max(x: jax.Array) -> jax.Array:
    """`layers.max_pool_3x3` with stride 1 by the library."""
    return lax.reduce_window(x, -np.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def window_mean(x: jax.Array) -> jax.Array:
    """`layers.avg_pool_3x3` with stride 1 by the library."""

    def total(values: jax.Array) -> jax.Array:
        return lax.reduce_window(values, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")

    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def pool_cases(name: str, ours: Form, plain: Form, shape: Shape, options: Options) -> Iterator[Case]:
    """3x3, stride 1."""
    channels, image, batch = shape
    forms = {"slices": lambda x: ours(x, 1), "reduce_window": plain}
    yield Case(name, forms, (random(0, channels, image, image, batch),))


def library_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`layers.dense_conv` with its derivatives left to JAX."""
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def own_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`layers.dense_conv`, "same" padding."""
    return layers.dense_conv(x, kernel, (1, 1), (kernel.shape[0] // 2, kernel.shape[1] // 2))


def straight(conv: Form, x: jax.Array, kernels: jax.Array) -> jax.Array:
    """One convolution after the other."""
    for kernel in kernels:
        x = conv(x, kernel)
    return x


def scanned(conv: Form, x: jax.Array, kernels: jax.Array) -> jax.Array:
    """The same in a loop."""
    return lax.scan(lambda y, kernel: (conv(y, kernel), None), x, kernels)[0]


def dense_cases(shape: Shape, options: Options) -> Iterator[Case]:
    """Every kernel size, without dilation, in straight code and in a loop."""
    channels, image, batch = shape
    x = random(0, batch, image, image, channels)
    for size in options.kernel_sizes:
        kernels = random(1, REPETITIONS, size, size, channels, channels) / (size * channels**0.5)
        for where, run in (("straight", straight), ("scan", scanned)):
            forms: dict[str, Form] = {"dense_conv": partial(run, own_conv), "library": partial(run, library_conv)}
            yield Case(f"{REPETITIONS} dense {size}x{size}, {where}", forms, (x, kernels))


def kernel_cases(shape: Shape, options: Options) -> Iterator[Case]:
    """What the kernels for CPUs compute in one pass, beside the same in plain JAX as the networks have it without."""
    if not kernels.usable(jnp.float32):
        raise InputError(f"primitives: kernels none: {kernels.why_none() or 'they are for CPUs'}")
    channels, image, batch = shape

    def separable_plain(dilation: int, x: jax.Array, depthwise: jax.Array, pointwise: jax.Array) -> jax.Array:
        group = Kernels(depthwise, pointwise, dilation)
        return layers.standardise(separable.separable_convs(layers.relu(x), [group], 1))[0]

    def separable_kernel(dilation: int, *arguments: jax.Array) -> jax.Array:
        return kernels.separable_norm(*arguments, 1, dilation).y

    for size in options.kernel_sizes:
        weights = random(1, options.rows, channels, size, size), random(2, options.rows, channels, channels)
        for dilation in options.dilations:
            for reading, rows in (("shared", 1), ("a row each", options.rows)):
                forms = {"kernel": partial(separable_kernel, dilation), "XLA": partial(separable_plain, dilation)}
                arguments = (random(0, rows, channels, image, image, batch), *weights)
                apart = "" if dilation == 1 else f" dilated by {dilation}"
                yield Case(f"ReLU, separable {size}x{size}{apart}, {reading}, batch norm", forms, arguments)
    for largest, name, pool in ((True, "max", layers.max_pool_3x3), (False, "average", layers.avg_pool_3x3)):
        forms = {
            "kernel": lambda x, largest=largest: kernels.pool_norm(x, 1, largest).y,
            "XLA": lambda x, pool=pool: layers.standardise(pool(x[0], 1)[None])[0],
        }
        yield Case(f"{name} pool, batch norm", forms, (random(0, 1, channels, image, image, batch),))
    forms = {"kernel": lambda gates, x: jnp.stack(kernels.mix(gates, (x,))), "XLA": layers.mix}
    outputs = random(1, options.rows, channels, image, image, batch)
    yield Case("gated sums", forms, (random(0, options.rows, options.rows, 1), outputs))


PRIMITIVES: dict[str, Callable[[Shape, Options], Iterator[Case]]] = {
    "separable": separable_cases,
    "batch norm": batch_norm_cases,
    "mix": mix_cases,
    "max pool": partial(pool_cases, "max pool", layers.max_pool_3x3, window_max),
    "average pool": partial(pool_cases, "average pool", layers.avg_pool_3x3, window_mean),
    "dense": dense_cases,
    "kernels": kernel_cases,
}


def derivatives(form: Form) -> dict[str, Callable[..., Any]]:
    """What is measured, as functions of a form's arguments and of as many directions."""

    def gradient(*arguments: jax.Array) -> Any:
        return jax.grad(lambda args: (form(*args) ** 3).sum() / 3)(arguments)

    return {
        "value": lambda arguments, _: form(*arguments),
        "gradient": lambda arguments, _: gradient(*arguments),
        # In all arguments at once: what a direction does not reach would leave a layer with its own reverse rule
        # undifferentiated, and forward mode fails on it.
        "forward derivative": lambda arguments, directions: jax.jvp(gradient, arguments, directions)[1],
    }


def measure(case: Case, repeats: int) -> list[dict[str, Any]]:
    """One row a form and what is computed: seconds a call and to compile."""
    given = (case.arguments, tuple(jnp.cos(argument) for argument in case.arguments))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    runs: dict[str, dict[str, Callable[[], Any]]] = {}
    for form, function in case.forms.items():
        for what, computed in derivatives(function).items():
            compiled, cost = compile_form(computed, *given)
            rows[form, what] = {"case": case.name, "form": form, "what": what, **cost}
            runs.setdefault(what, {})[form] = partial(compiled, *given)
    for what, forms in runs.items():
        for form, seconds in interleaved_medians(forms, repeats).items():
            rows[form, what]["seconds"] = seconds
    return list(rows.values())


def lines_of(rows: list[dict[str, Any]]) -> list[list[str]]:
    """One line a form: milliseconds, then seconds to compile."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault(f"{row['case']}: {row['form']}", []).append(row)
    return [
        [name, *(f"{1e3 * one['seconds']:.3f}" for one in found), *(f"{one['compile_seconds']:.2f}" for one in found)]
        for name, found in lines.items()
    ]


def check(options: Options) -> None:
    """Bad input is refused before anything is measured."""
    for name in options.primitives:
        if name not in PRIMITIVES:
            raise unknown_choice("primitive", name, PRIMITIVES)
    for name in options.sizes:
        if name not in SIZES:
            raise unknown_choice("size", name, SIZES)
    for size in options.kernel_sizes:
        if size < 1 or size % 2 == 0:
            raise InputError(f"kernel_sizes: sizes are odd, got {size}")
    for dilation in options.dilations:
        if dilation < 1:
            raise InputError(f"dilations: at least 1, got {dilation}")
    if options.rows < 1:
        raise InputError(f"rows must be at least 1, got {options.rows}")


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    check(options)
    content = setting(options) | {"rows": []}
    print(headline(content))
    for size in options.sizes:
        shape = SIZES[size]
        print(f"\n{shape.channels} channels, {shape.image}x{shape.image}, batch {shape.batch}, {options.rows} rows")
        lines = []
        for primitive in options.primitives:
            for case in PRIMITIVES[primitive](shape, options):
                rows = measure(case, options.repeats)
                content["rows"] += [{"size": size, "primitive": primitive, **row} for row in rows]
                lines += lines_of(rows)
                jax.clear_caches()
        times = ["value ms", "gradient ms", "its derivative ms"]
        print(table(["form", *times, "compile s: value", "gradient", "its derivative"], lines))
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
