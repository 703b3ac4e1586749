"""What happened in a run of several searches, and which of their genotypes is returned, on one page?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxdarts.reports import charts
from jaxdarts.reports.charts import COLOURS, Line
from jaxdarts.reports.counts import count_headings, count_lines, count_texts, is_recurrent
from jaxdarts.reports.evaluation_record import RESULT_FILE
from jaxdarts.reports.layouts import ROUND
from jaxdarts.reports.page import card, escape, quantity, render_page, table, time_text, versions_text
from jaxdarts.reports.run_record import (
    RunRecord,
    Values,
    member_folder,
    read_choice,
    read_epochs,
    read_genotype,
    read_run,
    result_folder,
)
from jaxdarts.reports.search import how_decided, search_quantities
from jaxdarts.runs.events import describe
from jaxdarts.spaces import CellSpace
from jaxdarts.spaces.files import GENOTYPE_FILE


def render_population(folder: Path, config: Mapping[str, Any]) -> str:
    """The page as HTML; the numbers at its end are those of the member whose genotype is shown.

    Raises:
      InputError: no epoch has ended yet, or a member's file cannot be read; naming the file.
    """
    members = [read_run(member_folder(folder, i)) for i in range(len(config["members"]))]
    finished = (folder / GENOTYPE_FILE).exists()
    shown = members[int(result_folder(folder).name.removeprefix("member_"))]
    found = read_choice(folder, config) if finished else None
    names = _names(config["members"])
    seconds = [record.get("seconds") for record in read_epochs(folder, ROUND)]  # of what was given up too
    longest = max(members, key=lambda run: len(run.epochs))
    return render_page(
        heading=f"{len(members)} searches in {config.get('space')} on {config.get('dataset', 'unknown data')}",
        name=folder.resolve().name,
        facts={
            "Search space": config.get("space"),
            "Data set": config.get("dataset"),
            "Method": config.get("method"),
            "Members": "; ".join(f"{i}: {name}" for i, name in enumerate(names)),
            "Epochs": f"{len(longest.epochs)} of {config.get('epochs')}",
            "Time": f"{time_text(seconds)}, for all members together",
            "Device": config.get("device"),
            "Versions": versions_text(config),
        },
        outcome=" ".join(_outcome(members, config, found, names)),
        finished=finished,
        cells_heading=f"Found cells, member {found['member']}" if found else "Newest cells of member 0",
        genotype=read_genotype(folder) if finished else shown.genotype,
        sections=_members(folder, members, names, found) + _curves(members, longest.epochs, names),
        config=config,
        run=shown,
        quantities=search_quantities(shown.measure),
    )


def _names(members: list[Mapping[str, Any]]) -> list[str]:
    """What sets each member apart."""
    varied = [field for field in members[0] if len({str(member.get(field)) for member in members}) > 1]
    return [", ".join(f"{field} {member.get(field)}" for field in varied) for member in members]


def _outcome(
    members: list[RunRecord], config: Mapping[str, Any], found: Mapping[str, Any] | None, names: list[str]
) -> Iterator[str]:
    """A few sentences that say how the run decides and how it ended."""
    yield from how_decided(config)
    done, measure, words = max(len(run.epochs) for run in members), members[0].measure, members[0].measure.words
    if found is None:
        yield f"This run has not finished: {done} of {config.get('epochs')} epochs are done."
    else:
        best, score = found["member"], found["candidates"][0][measure.objective]
        yield f"The genotype returned is that of member {best} ({names[best]})."
        if found["chosen_by"] == "retraining":
            yield (
                f"Trained from scratch for {config.get('retrain_epochs')} epochs on the {words.examples} that train w, "
                f"it has the best {measure.objective} on those that train alpha: {measure.text(score) or 'not known'}."
            )
        elif score is not None:
            score_text = measure.text(score)
            yield f"With the search's own weights it has the best validation {measure.objective}: {score_text}."
        else:
            yield "Nothing was measured to choose by."
        yield "The numbers at the end of this page are that member's."
    for i, run in enumerate(members):
        for event in run.events:
            yield f"Member {i}: {describe(event)}"


def _members(folder: Path, members: list[RunRecord], names: list[str], found: Mapping[str, Any] | None) -> str:
    """A row for each member: the best first, if it is known."""
    candidates = {entry["member"]: entry for entry in found["candidates"]} if found else {}
    retrained = found is not None and found["chosen_by"] == "retraining"
    measure, objective = members[0].measure, members[0].measure.objective
    header = ["Member", "", f"Validation {objective}", "Dominant eigenvalue"]
    header += count_headings(members[0].space, short=True)
    header += [f"Retrained: {objective}", "Retrained: loss"] if retrained else []
    rows = []
    for i in candidates or range(len(members)):
        run = members[i]
        epoch = (run.diagnostics or {}).get("epoch", run.epochs[-1])
        at = run.epochs.index(epoch)
        row = [f"{i}", names[i], measure.text(run.values(f"valid_{objective}")[at])]
        row += [quantity("", run.values("dominant_eigenvalue")[at]), *count_texts(run.genotype)]
        if retrained:
            row += [measure.text(candidates[i][objective]), quantity("", candidates[i]["loss"])]
        rows.append(row)
    links = []
    for i in range(len(members)):
        own = member_folder(folder, i)
        links.append(f'<a href="{own.name}/report.html">member {i}</a>')
        if (own / "retrain" / RESULT_FILE).exists():
            links.append(f'<a href="{own.name}/retrain/report.html">retrained</a>')
    note = (
        f"{objective.capitalize()} and eigenvalue are the supernet's, in the epoch whose genotype is returned."
        + (" Members that found the same genotype share a retraining." if retrained else "")
        + f" Reports: {', '.join(links)}."
    )
    heading = "Members, the best first" if candidates else "Members"
    return f'<h2>Members</h2><div class="wide">{card(escape(heading), table(header, rows), note)}</div>'


def _curves(members: list[RunRecord], epochs: tuple[int, ...], names: list[str]) -> str:
    def lines(key: str, stepped: bool = False) -> list[Line]:
        return [
            Line(f"{i}: {name}", _filled(run, key, epochs), COLOURS[i % len(COLOURS)], stepped=stepped)
            for i, (run, name) in enumerate(zip(members, names, strict=True))
        ]

    wide = card(
        "Dominant eigenvalue of the alpha-Hessian, local average",
        charts.line_chart("eigenvalues", epochs, lines("local_average"), width=11.4, zero_line=True),
        f"The centred mean of {2 * members[0].rule.reach + 1} measurements, of every member.",
    )
    measure = members[0].measure
    chart = charts.line_chart("valid", epochs, lines(f"valid_{measure.objective}"), percent=measure.percent)
    cards = [
        card(f"Validation {measure.objective}", chart),
        card("Training loss", charts.line_chart("losses", epochs, lines("train_loss"))),
    ]
    for number, (key, (heading, most)) in enumerate(_counts(members[0].space).items()):
        chart = charts.line_chart(f"skips{number or ''}", epochs, lines(key, True), counts_up_to=most)
        cards.append(card(heading, chart))
    cards.append(card("Validation loss", charts.line_chart("valid_losses", epochs, lines("valid_loss"))))
    return f'<h2>Search</h2><div class="wide">{wide}</div><div class="pair">{"".join(cards)}</div>'


def _counts(space: CellSpace) -> dict[str, tuple[str, int]]:
    """What is counted in every member's cell: by quantity the heading and the most there can be."""
    if is_recurrent(space):
        counted, names = count_lines(space)
        return {key: (f"{counted}: {name}", space.num_nodes) for key, name in names.items()}
    return {"skip_normal": ("Skip connections, normal cell", 2 * space.num_nodes)}


def _filled(run: RunRecord, key: str, epochs: tuple[int, ...]) -> Values:
    """A quantity at all epochs; None where a member had stopped."""
    known = dict(zip(run.epochs, run.values(key), strict=True))
    return [known.get(epoch) for epoch in epochs]
