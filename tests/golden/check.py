"""How far are these networks and derivatives from a golden case, a file computed by the reference's PyTorch code?

    python tests/golden/check.py FILE.npz ...

prints, for every quantity that a file holds, the relative error of ours, computed in float64 on the CPU. Everything is
read off the file: settings from its `meta`, sizes from the shapes of its arrays. Five kinds of file are understood.

Search networks: `params/*` (running statistics among them or not), `alpha/*`, optional `momentum/*` (SGD's buffer,
else zero), `train_x`, `train_y`, `valid_x`, `valid_y`; and any of `train_logits`, `train_loss`, `grad_w/*`, `after/*`
(running statistics after the train batch), `valid_logits`, `valid_loss`, `first_order/*`, `unrolled_exact/*`,
`unrolled_valid_loss`, `unrolled_fd/*`, `hessian`, `eigenvalues`, and the genotype in `meta`.
Search methods: where `meta` has a `method`, what that method makes of it as well, see check_methods.py.
Networks of a genotype: `state/*`, `x`; and any of `eval_logits`, `train_logits`, `train_aux_logits`, `after/*`.
Recurrent cells: where `meta` has the space "rnn", passes with given dropout masks, gradients, hypergradients and what
the published code makes of them, see check_text.py.
Averaged SGD on a quadratic: `A`, `b`, `p0`, `lengths`; and any of `params`, `average`, `step_size_used`, see
check_text_training.py.

The error of a quantity is |ours - reference| / |reference| in the Euclidean norm, all arrays of a group together;
"worst tensor" is the largest error of a single array. Where the reference is zero up to rounding (norm below 1e-12, or
for a single array below 1e-12 of its group's), the error is absolute, or relative to that group. Genotypes are equal
(0) or not (inf).

    python tests/golden/check.py FILE.json ...

compares our early stopping with the decisions that RobustDARTS took in logged searches: a list of runs with `epochs`
(those measured), `lambda_max`, and `local_average` and `early_stop` (null: ran to the end), see check_runs.py. Of
recurrent cells it compares windows of a text, genotypes, and when a training switches to averaged SGD, which are equal
(0) or not (inf), see check_text_training.py.

    python tests/golden/check.py --backend gpu --precision float32 --tf32 on FILE ...

computes elsewhere or less precisely. Errors of arrays may then be at most

  1e-9 in float64;
  1e-4 in float32, 25 times the largest error of the networks' files on a CPU (4e-6);
  1e-1 in float32 with `--tf32 on`, where a GPU rounds the factors of products to 11 significant bits instead of 24. By
       those bits errors could grow to 8000 times float32's, 3e-2. Chosen so, not measured. It changes nothing on a CPU.

Exit code: 0 when no error is larger; 1 when one is; 2 when an option or a file can't be used.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxdarts.errors import InputError, shorten, unknown_choice
from jaxdarts.precision import precision

sys.path.insert(0, str(Path(__file__).parent))  # also where a test loads this file
from check_methods import check_method  # noqa: E402
from check_networks import check_case, read_case  # noqa: E402
from check_runs import check_run, read_runs, table  # noqa: E402
from check_text import check_text  # noqa: E402
from check_text_training import check_averaging, is_averaging, read_text  # noqa: E402
from relative_errors import Row  # noqa: E402

BACKENDS = ("cpu", "gpu", "tpu")
TOLERANCES = {("float64", "off"): 1e-9, ("float32", "off"): 1e-4, ("float32", "on"): 1e-1}  # by precision and TF32


def main(arguments: list[str] | None = None) -> int:
    """Prints a table for each file; returns the exit code."""
    parser = argparse.ArgumentParser(description="Relative errors against golden cases of the PyTorch reference.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--backend", metavar="NAME", help="cpu (default of the command), gpu or tpu")
    parser.add_argument("--precision", default="float64", metavar="NAME", help="float64 (default) or float32")
    parser.add_argument("--tf32", default="off", metavar="on|off", help="whether products in float32 may be in TF32")
    options = parser.parse_args(arguments)
    try:
        tolerance = tolerance_of(options.precision, options.tf32)
        if options.backend is not None:
            check_backend(options.backend)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with precision(options.precision), products_in(options.tf32):
        return max([_check(path, tolerance) for path in options.files])


def tolerance_of(name: str, tf32: str) -> float:
    """The largest error that is accepted. Raises InputError where a name is unknown, or the two don't go together."""
    for argument, value, place in (("precision", name, 0), ("tf32", tf32, 1)):
        if value not in (choices := {pair[place] for pair in TOLERANCES}):
            raise unknown_choice(argument, value, choices)
    if (name, tf32) not in TOLERANCES:
        raise InputError(f"tf32 {tf32!r} is for products in float32; got precision {name!r}")
    return TOLERANCES[name, tf32]


def check_backend(name: str) -> None:
    """Lets JAX use that kind of device. Raises InputError where there is none."""
    if name not in BACKENDS:
        raise unknown_choice("backend", name, BACKENDS)
    platforms(name)
    try:
        found = jax.default_backend()
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"backend {name!r} cannot be used: {shorten(' '.join(str(error).split()), 200)}") from error
    if found != name:  # JAX has begun with another one
        raise InputError(f"backend {name!r} cannot be used: this process uses {found!r}")


def platforms(name: str) -> None:
    """Of a process that has no device yet, the kind that it may use."""
    jax.config.update("jax_platforms", name)


@contextlib.contextmanager
def products_in(tf32: str) -> Iterator[None]:
    """How precise the products are that ask for nothing themselves; batch statistics ask for full precision."""
    with jax.default_matmul_precision("tensorfloat32" if tf32 == "on" else "highest"):
        yield


def _check(path: str, tolerance: float) -> int:
    """Prints a file's table; returns its exit code."""
    code = 0
    try:
        of_text = read_text(path) if Path(path).suffix == ".json" else None
        if Path(path).suffix == ".json" and of_text is None:
            rows = [check_run(run) for run in read_runs(path)]
            print(f"{path}: early stopping of RobustDARTS", *table(rows), sep="\n", flush=True)
            return 0 if all(row.agrees for row in rows) else 1
        title, found = (of_text.title, of_text.rows()) if of_text is not None else _of_arrays(path)
        print(f"{path}: {title}", flush=True)
        for row in found:
            verdict = "" if row.error <= tolerance else f"  above {tolerance:.0e}"
            print(f"  {row.quantity:<56} {row.error:9.2e}{verdict}", flush=True)
            code = code if row.error <= tolerance else 1
    except (InputError, KeyError) as error:
        missing = f"holds no {error}" if isinstance(error, KeyError) else str(error)
        print(f"error: {path}: {missing}", file=sys.stderr)
        return 2
    return code


def _of_arrays(path: str) -> tuple[str, Iterator[Row]]:
    """What a file of arrays is about, and the rows of its table."""
    case = read_case(path)
    space = case.meta.get("space", "genotype network")
    if isinstance(case.meta.get("method"), str):
        return f"{case.meta['method']} in {space}", check_method(case)
    if is_averaging(case):
        return "averaged SGD", check_averaging(case)
    return space, check_text(case) if space == "rnn" else check_case(case)


if __name__ == "__main__":
    # These networks are tiny and their programs long: compiling takes all the time, so optimise little.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    sys.exit(main(["--backend", "cpu", *sys.argv[1:]]))
