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

Exit code: 0 when every error is at most 1e-9; 1 when one is larger; 2 when a file can't be read or understood.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxdarts.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))  # also where a test loads this file
from check_methods import check_method  # noqa: E402
from check_networks import check_case, read_case  # noqa: E402
from check_runs import check_run, read_runs, table  # noqa: E402
from check_text import check_text  # noqa: E402
from check_text_training import check_averaging, is_averaging, read_text  # noqa: E402
from relative_errors import Row  # noqa: E402

TOLERANCE = 1e-9


def main(arguments: list[str] | None = None) -> int:
    """Prints a table for each file; returns the exit code."""
    parser = argparse.ArgumentParser(description="Relative errors against golden cases of the PyTorch reference.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    code = 0
    for path in parser.parse_args(arguments).files:
        try:
            of_text = read_text(path) if Path(path).suffix == ".json" else None
            if Path(path).suffix == ".json" and of_text is None:
                rows = [check_run(run) for run in read_runs(path)]
                print(f"{path}: early stopping of RobustDARTS", *table(rows), sep="\n", flush=True)
                code = code if all(row.agrees for row in rows) else max(code, 1)
                continue
            title, found = (of_text.title, of_text.rows()) if of_text is not None else _of_arrays(path)
            print(f"{path}: {title}", flush=True)
            for row in found:
                verdict = "" if row.error <= TOLERANCE else f"  above {TOLERANCE:.0e}"
                print(f"  {row.quantity:<56} {row.error:9.2e}{verdict}", flush=True)
                code = code if row.error <= TOLERANCE else max(code, 1)
        except (InputError, KeyError) as error:
            missing = f"holds no {error}" if isinstance(error, KeyError) else str(error)
            print(f"error: {path}: {missing}", file=sys.stderr)
            code = 2
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
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    sys.exit(main())
