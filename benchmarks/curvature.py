"""How much cheaper is Lanczos than the full alpha-Hessian of a supernet, and how exact after how many products?

    python benchmarks/curvature.py --quick
    python benchmarks/curvature.py --space s3 --channels 16 --cells 8 --batch-size 64 --output curvature.json

Every form is jitted; times are the median over interleaved repeats, compilation apart. Errors are relative, against
the eigenvalues of the dense Hessian in float64 arithmetic; the products are float32, so that about 1e-6 is the floor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import command, compile_form, headline, interleaved_medians, number, setting, write_json
from _common import table as aligned

from jaxdarts.curvature import extreme_eigenvalues, hessian, hvp, hvp_function

QUICK_FORMS = ("gradient", "Hessian, 8 at a time")


@dataclass(frozen=True)
class Options:
    space: str = "s2"  # search space
    channels: int = 8  # channels of the first cell
    cells: int = 4  # cells in the chain
    image_size: int = 16  # pixels a side
    batch_size: int = 32  # images in the held batch
    products: tuple[int, ...] = (5, 10, 15, 20, 30)  # Lanczos products to compare
    repeats: int = 5  # timings per form
    seed: int = 0
    quick: bool = False  # a single cell and fewer forms, to see that everything works
    output: Path | None = None  # where to write the rows as JSON


QUICK = {
    "space": "s5",
    "channels": 4,
    "cells": 1,
    "image_size": 8,
    "batch_size": 8,
    "products": (2, 12),
    "repeats": 2,
}


def make_problem(options: Options) -> tuple[Callable[[Any], jax.Array], Any]:
    """(f, alpha): the loss of a supernet on a random batch, batch statistics in train mode, as a function of alpha."""
    from jaxdarts.networks import Supernet, init_alpha, softmax_weights
    from jaxdarts.spaces import load_space

    space = load_space(options.space)
    network = Supernet(space, num_classes=10, channels=options.channels, num_cells=options.cells)
    param_key, alpha_key, image_key, label_key = jax.random.split(jax.random.key(options.seed), 4)
    images = jax.random.normal(image_key, (options.batch_size, options.image_size, options.image_size, 3))
    labels = jax.random.randint(label_key, (options.batch_size,), 0, 10)
    alpha = init_alpha(space, alpha_key, scale=1.0)
    variables = jax.jit(network.init)(param_key, images, softmax_weights(space, alpha))

    def f(alpha: Any) -> jax.Array:
        weights = softmax_weights(space, alpha)
        logits, _ = network.apply(variables, images, weights, train=True, mutable=["batch_stats"])
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(labels.size), labels])

    return f, alpha


def measure(
    f: Callable[[Any], jax.Array], alpha: Any, products: tuple[int, ...], repeats: int, seed: int, quick: bool = False
) -> list[dict[str, Any]]:
    """One row per form: seconds, seconds to compile, time relative to the fastest dense Hessian, relative errors."""
    key = jax.random.key(seed)
    size = sum(leaf.size for leaf in jax.tree.leaves(alpha))
    forms: dict[str, Callable[[Any], Any]] = {
        "gradient": jax.grad(f),
        "one product": lambda a: hvp(f, a, a),
        "Hessian, 1 at a time": lambda a: hessian(f, a, 1),
        "Hessian, 8 at a time": lambda a: hessian(f, a, 8),
        "Hessian, all at once": lambda a: hessian(f, a, None),
    }
    for count in products:
        forms[f"Lanczos, {count} products"] = partial(extreme_eigenvalues, f, key=key, num_matvecs=count)

    def repeat_products(a: Any, linearize: bool) -> Any:
        # each product takes the last one's result, so that none can be left out
        step = hvp_function(f, a, linearize=linearize)
        return jax.lax.fori_loop(0, 10, lambda _, v: jax.tree.map(lambda leaf: jnp.tanh(leaf) + 1, step(v)), a)

    # Compiling takes nearly all of the time.
    if quick:
        forms = {name: form for name, form in forms.items() if name in QUICK_FORMS or name.startswith("Lanczos")}
    else:
        forms["10 products, linearized once"] = lambda a: repeat_products(a, True)
        forms["10 products, each anew"] = lambda a: repeat_products(a, False)

    compiled: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for name, form in forms.items():
        compiled[name], cost = compile_form(form, alpha)
        rows.append({"form": name, **cost})
    results = {name: jax.block_until_ready(run(alpha)) for name, run in compiled.items()}
    seconds = interleaved_medians({name: partial(run, alpha) for name, run in compiled.items()}, repeats)

    dense = np.asarray(results["Hessian, 8 at a time"], np.float64)
    true = np.linalg.eigvalsh((dense + dense.T) / 2)
    truth = {"smallest": true[0], "largest": true[-1], "largest_magnitude": true[np.argmax(np.abs(true))]}
    fastest = min(seconds[name] for name in forms if name.startswith("Hessian"))
    for row in rows:
        row["seconds"] = seconds[row["form"]]
        row["hessian_ratio"] = row["seconds"] / fastest
        row["numbers"] = size
        if row["form"].startswith("Lanczos"):
            for end, value in truth.items():
                row[f"{end}_error"] = float(abs(float(getattr(results[row["form"]], end)) - value) / abs(value))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    headers = ["form", "ms", "/ Hessian", "compile s", "temporary MB", "LA error", "SA error", "LM error"]
    lines = [
        [
            row["form"],
            f"{1e3 * row['seconds']:.1f}",
            f"{row['hessian_ratio']:.3f}",
            f"{row['compile_seconds']:.1f}",
            number(row["temporary_megabytes"], ".0f"),
            *(number(row.get(f"{end}_error"), ".0e") for end in ("largest", "smallest", "largest_magnitude")),
        ]
        for row in rows
    ]
    return aligned(headers, lines)


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    f, alpha = make_problem(options)
    rows = measure(f, alpha, options.products, options.repeats, options.seed, options.quick)
    content = setting(options) | {"rows": rows}
    print(headline(content))
    print(
        f"space {options.space}, {rows[0]['numbers']} numbers in alpha, {options.channels} channels, "
        f"{options.cells} cells, {options.batch_size} images of {options.image_size}x{options.image_size}"
    )
    print(table(rows))
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
