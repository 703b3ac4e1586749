"""How much memory does a search step take, against PyTorch's?

    python benchmarks/memory.py --quick
    python benchmarks/memory.py --spaces darts --sizes paper --output memory.json

Every case is a new process that takes two steps: the peak of its resident memory (interpreter and libraries, and the
compiler at work, included), and the same before anything was built. PyTorch's if torch is installed. `temporaries` is
what the compiled programs of our step ask for at once.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import command, headline, number, setting, table, write_json
from _process import in_new_process
from _search import size_of

FORMS = ("exact", "finite difference", "first order", "PyTorch finite difference", "PyTorch first order")


@dataclass(frozen=True)
class Options:
    spaces: tuple[str, ...] = ("s1", "darts")  # search spaces
    sizes: tuple[str, ...] = ("small",)  # tiny, small, medium or paper
    forms: tuple[str, ...] = FORMS
    remat: int = 0  # of ours, first cells of which the backward pass keeps only the inputs
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


QUICK = {"spaces": ("s5",), "sizes": ("tiny",), "forms": ("exact", "PyTorch first order")}


def peak_megabytes() -> float:
    """Of this process until now."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def two_steps(space: str, size: str, form: str, remat: int) -> dict[str, float]:
    """Peak resident memory in MB: after imports, and after two steps; seconds of the second. Run in a new process."""
    import time

    times = []
    if form.startswith("PyTorch"):
        import torch  # noqa: F401
        from step_time import torch_forms

        before = peak_megabytes()
        run = torch_forms(space, size_of(size), (1,))[f"{form}, 1"]
        step = run
    else:
        import jax
        from _search import make_ready
        from step_time import FORMS as OURS

        before = peak_megabytes()
        ready = make_ready(space, size_of(size), OURS[form](), remat=remat)

        def step() -> Any:
            return jax.block_until_ready(ready.step())

    for _ in range(2):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return {"before": before, "peak": peak_megabytes(), "seconds": times[-1]}


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    content = setting(options) | {"rows": []}
    print(headline(content))
    has_torch = importlib.util.find_spec("torch") is not None
    lines = []
    for size in options.sizes:
        size_of(size)
        for space in options.spaces:
            for form in options.forms:
                if form.startswith("PyTorch") and not has_torch:
                    continue
                found = in_new_process("memory", "two_steps", space, size, form, options.remat)
                content["rows"].append({"space": space, "size": size, "form": form, **found})
                lines.append(
                    [f"{space} {size}, {form}", *(number(found[key], ".0f") for key in ("before", "peak"))]
                    + [number(found["seconds"], ".3f")]
                )
    print(table(["MB resident", "before", "peak", "seconds a step"], lines))
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
