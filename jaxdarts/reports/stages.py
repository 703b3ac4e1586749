"""What happened in a search in stages, on one page?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxdarts.paths import is_file
from jaxdarts.reports import charts
from jaxdarts.reports.charts import COLOURS, Line
from jaxdarts.reports.counts import count_sentence, count_texts, is_recurrent
from jaxdarts.reports.graphs import CELL_NAMES, state_name
from jaxdarts.reports.page import card, escape, render_page, table, time_text, versions_text
from jaxdarts.reports.projection import tournaments
from jaxdarts.reports.run_record import METRICS_FILE, RunRecord, read_genotype, read_run
from jaxdarts.reports.search import how_decided, search_quantities
from jaxdarts.spaces.files import GENOTYPE_FILE


def render_stages(folder: Path, config: Mapping[str, Any]) -> str:
    """The page as HTML; the numbers at its end are those of the newest stage.

    Raises:
      InputError: no epoch has ended yet, or a stage's file cannot be read; naming the file.
    """
    begun = [name for name in config["stages"] if is_file(folder / name / METRICS_FILE)] or config["stages"][:1]
    stages = {name: read_run(folder / name) for name in begun}
    newest = list(stages.values())[-1]
    finished = (folder / GENOTYPE_FILE).exists()
    seconds = [value for run in stages.values() for value in run.values("seconds")]
    return render_page(
        heading=f"Search in {config.get('space')} on {config.get('dataset', 'unknown data')}, in stages",
        name=folder.resolve().name,
        facts={
            "Search space": config.get("space"),
            "Data set": config.get("dataset"),
            "Method": config.get("method"),
            "Stages": ", ".join(config["stages"]),
            "Seed": config.get("seed"),
            "Time": f"{time_text(seconds)}, for all stages together",
            "Device": config.get("device"),
            "Versions": versions_text(config),
        },
        outcome=" ".join(_outcome(config, stages, finished)),
        finished=finished,
        cells_heading="Found cells" if finished else f"Newest cells, of {begun[-1]}",
        genotype=read_genotype(folder) if finished else newest.genotype,
        sections=_summary(stages) + _curves(stages) + tournaments(newest) + _operations(stages),
        config=config,
        run=newest,
        quantities=search_quantities(newest.measure),
    )


def _outcome(config: Mapping[str, Any], stages: Mapping[str, RunRecord], finished: bool) -> Iterator[str]:
    yield from how_decided(config)
    if not finished:
        done = sum(run.finished for run in stages.values())
        yield f"This run has not finished: {done} of {len(config['stages'])} stages have."
    yield count_sentence(list(stages.values())[-1].genotype)
    yield "The numbers at the end of this page are those of the newest stage."


def _summary(stages: Mapping[str, RunRecord]) -> str:
    """A row a stage."""
    names, first = list(stages), next(iter(stages.values()))
    measure, recurrent = first.measure, is_recurrent(first.space)
    header = ["Stage", "Epochs", *([] if recurrent else ["Cells"]), "Operations an edge"]
    header += ["Activations" if recurrent else "Skips", f"Validation {measure.objective}", "Time"]
    rows = []
    for name, run in stages.items():
        epoch = (run.diagnostics or {}).get("epoch", run.epochs[-1])
        counts = [len(edge) for cell in run.space.cell_types for edge in run.space.operations(cell)]
        least, most = min(counts), max(counts)
        rows.append(
            [
                name,
                f"{len(run.epochs)} of {run.config.get('epochs')}",
                *([] if recurrent else [str(run.config.get("cells"))]),
                str(most) if least == most else f"{least} to {most}",
                " and ".join(count_texts(run.genotype)),
                measure.text(run.values(f"valid_{measure.objective}")[run.epochs.index(epoch)]),
                time_text(run.values("seconds")) or "",
            ]
        )
    links = ", ".join(f'<a href="{escape(name)}/report.html">{escape(name)}</a>' for name in names)
    name = measure.objective.capitalize()
    note = f"{name} is the supernet's, in the epoch whose genotype is returned. Reports: {links}."
    return f'<h2>Stages</h2><div class="wide">{card("Stages", table(header, rows), note)}</div>'


def _curves(stages: Mapping[str, RunRecord]) -> str:
    """Each stage from its own first epoch on."""
    longest = max(stages.values(), key=lambda run: len(run.epochs)).epochs

    def lines(key: str) -> list[Line]:
        found = []
        for number, (name, run) in enumerate(stages.items()):
            known = dict(zip(run.epochs, run.values(key), strict=True))
            values = [known.get(epoch) for epoch in longest]
            found.append(Line(name, values, COLOURS[number % len(COLOURS)]))
        return found

    measure = next(iter(stages.values())).measure
    chart = charts.line_chart("valid", longest, lines(f"valid_{measure.objective}"), percent=measure.percent)
    cards = [
        card(f"Validation {measure.objective}", chart),
        card("Training loss", charts.line_chart("losses", longest, lines("train_loss"))),
    ]
    return f'<div class="pair">{"".join(cards)}</div>'


def _operations(stages: Mapping[str, RunRecord]) -> str:
    """What each edge had to choose from in every stage, and what it has in the result."""
    runs = list(stages.values())
    if len({run.space for run in runs}) == 1:
        return ""
    found = ""
    for cell in runs[0].space.cell_types:
        chosen = {
            (node, source): name
            for node, (name, source) in zip(runs[-1].genotype.nodes(cell), runs[-1].genotype.edges(cell), strict=True)
        }
        rows = []
        for edge, (node, source) in enumerate(runs[0].space.edges):
            inputs = runs[0].space.num_inputs
            name = f"{state_name(node + inputs, inputs)} \N{LEFTWARDS ARROW} {state_name(source, inputs, cell)}"
            left = [", ".join(run.space.operations(cell)[edge]) for run in runs]
            rows.append([name, *left, chosen.get((node, source), "")])
        header = ["Edge", *stages, "Genotype" if runs[-1].finished else "Genotype so far"]
        found += f'<div class="wide">{card(CELL_NAMES[cell], _left_aligned(header, rows))}</div>'
    return f"<h2>Operations left on every edge</h2>{found}"


def _left_aligned(header: list[str], rows: list[list[str]]) -> str:
    """A table of text, in which nothing is a number."""
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"
