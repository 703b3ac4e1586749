"""The command `python -m jaxdarts.benchmark`: what can be done with a table of NAS-Bench-201 without a search?"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxdarts.runs.exit_codes import exit_code
from jaxdarts.runs.messages import say
from jaxdarts.runs.parser import CommandParser


def main(argv: Sequence[str] | None = None) -> int:
    """Converts the official files to a table, or runs the baselines on one.

    Returns:
      The exit code, as `exit_code` says.
    """
    return exit_code(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> None:
    parser = CommandParser(prog="python -m jaxdarts.benchmark", description="Tables of NAS-Bench-201.")
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser("convert", help="make a table from the official files")
    convert.add_argument("source", help="the unpacked folder NATS-tss-v1_0-*-simple (or -full)")
    convert.add_argument("target", help="the .npz file to write")
    baselines = commands.add_parser("baselines", help="searches that only query the table")
    baselines.add_argument("table", help="a table, .npz or .csv")
    baselines.add_argument("--methods", default="random,evolution", help="also bayesian (extra baselines)")
    baselines.add_argument("--data-set", default="cifar10", help="cifar10, cifar100 or imagenet16_120")
    baselines.add_argument("--budget", type=int, default=100, help="cells that a search queries")
    baselines.add_argument("--repetitions", type=int, default=50, help="searches, of which the mean is told")
    baselines.add_argument("--seed", type=int, default=0)
    baselines.add_argument("--out", default="baselines", help="folder for the curves")
    arguments = parser.parse_args(argv)
    if arguments.command == "convert":
        from jaxdarts.nasbench201.official_files import convert as write_table

        table = write_table(arguments.source, arguments.target)
        say(f"{arguments.target}: {', '.join(sorted(table.columns))}")
        return
    from jaxdarts.nasbench201.baselines import run_baselines
    from jaxdarts.reports.baselines import write_curves  # imports matplotlib
    from jaxdarts.spaces import Benchmark

    table = Benchmark.load(arguments.table)
    names = arguments.methods.split(",")
    curves = run_baselines(table, names, arguments.data_set, arguments.budget, arguments.repetitions, arguments.seed)
    for name, curve in curves.items():
        half = curve.high[-1] - curve.mean[-1]
        say(f"{name:<10} {curve.mean[-1]:.2f} +- {half:.2f} % (std {curve.std[-1]:.2f}) after {len(curve.mean)} cells")
    test = table.accuracies(arguments.data_set)
    assert test is not None  # run_baselines
    say(f"best cell  {test.max():.2f} %")
    title = f"{arguments.data_set}, {arguments.repetitions} repetitions, 95 % confidence"
    for path in write_curves(curves, arguments.out, title, float(test.max())):
        say(str(path))


if __name__ == "__main__":
    sys.exit(main())
