"""The results of a comparison for people: a table, and pages with the plots, written from the run folders alone.

``compare.md`` and ``compare.html`` show the same; the second holds its pictures and loads nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.table import Table

from cosearch.compare.data import ALL, ComparedRun, Comparison, StrategyRow, compared_runs, comparison
from cosearch.compare.plots import all_plots
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.workers import read_workers
from cosearch.report.facts import facts
from cosearch.report.format import duration_text, share_text, time_text, truth_text
from cosearch.report.work import FAULT_COLUMNS, WORKER_COLUMNS, WorkSection, work_section
from cosearch.statistics import Estimate, estimate_text
from latency_tables.text.markdown import table as markdown_table
from latency_tables.text.markdown import word
from latency_tables.text.terminal import plain_if_text

COLUMNS = (
    "strategy",
    "runs",
    "IQM of the score",
    "mean",
    "better than random",
    "better than largest",
    "latency",
    "targets met",
    "hypervolume",
    "steps",
    "time a run",
)
SEED_COLUMNS = (
    "seed",
    "score [95 %, episodes]",
    "of the teacher's score",
    "latency, predicted",
    "measured",
    "target met",
)
SHARE, SOLVED = "of the teacher's score", "solved"
IN_A_TERMINAL = {0: "strategy", 1: "runs", 2: "IQM [95 %]", 4: "P(> random)", 6: "latency", 8: "HV"}  # 80 letters
WORK = "How the work went"
CAPTIONS = {
    "scatter.png": "Score on held-out episodes against predicted latency: one point a run; the lines border what the "
    "runs of a strategy dominate together.",
    "curves.png": "Training score, mean over the seeds with its 95 % interval. A gradient strategy shows its supernet during the "
    "search, a proposal strategy the candidate that is in training.",
    "intervals.png": "Inter-quartile mean with its 95 % stratified bootstrap interval over the seeds, and probability of "
    "improvement with Newcombe's interval.",
}
NOTE = (
    "IQM: inter-quartile mean over the runs (with three or fewer: the mean). Better than random: probability that a run "
    "scores more than one of random search. Better than largest: than one of the network with the most multiply-accumulates "
    "within the target; than a named network: than that one, as wide as the target allows. Brackets: 95 % over the runs, "
    "one a seed; of the IQM a percentile bootstrap, "
    "too narrow for few of them, of the probabilities Newcombe's interval. "
    "Latency: predicted, median of the runs. Hypervolume: share that a run dominates, in the mean over a strategy's runs, of the "
    "box from the target and the lowest score to the fastest and the highest that any run of the comparison has. "
    "Of the teacher's score: counted from a random policy's, mean over the runs."
)


def write_comparison(folder: Path) -> tuple[Comparison, list[Path]]:
    """Write figures, plots and pages into a comparison's folder.

    Args:
        folder: of the comparison; its runs need not all be finished.

    Returns:
        The figures, and the files that were written.

    Raises:
        RunFolderError: the folder holds no comparison, or a run's files are damaged.
        ConfigError: its runs cannot be compared.
    """
    folder = Path(folder)
    result = comparison(folder)
    runs = compared_runs(folder)
    plots, seeds = all_plots(runs, result), seed_rows(runs)
    summaries = {item.planned.name: item.run.summary for item in runs if item.run is not None}
    own_s = {name: summary.wall_s for name, summary in summaries.items() if summary is not None}
    work = work_section(read_workers(folder), own_s)
    pages = {
        "compare-results.json": json.dumps(result.to_json(), indent=1).encode() + b"\n",
        **plots,
        "compare.md": markdown(result, list(plots), seeds, work).encode(),
        "compare.html": _page(result, plots, seeds, work).encode(),
    }
    for name, content in pages.items():
        write_bytes_atomic(folder / name, content)
    return result, [folder / name for name in pages]


def tables(result: Comparison) -> list[tuple[str, list[list[str]]]]:
    """For each task its name and the cells of its table.

    Args:
        result: the figures.
    """
    rows = result.strategies
    networks, more = _hand_made(result), _judged(result)
    return [
        (env, [_cells(row, networks, more) for row in rows if row.env == env]) for env in dict.fromkeys(row.env for row in rows)
    ]


def columns(result: Comparison) -> list[str]:
    """Titles of the columns of :func:`tables`; those of hand-made networks stand at the end."""
    return [*COLUMNS, *(f"better than {network}" for network in _hand_made(result)), *_judged(result)]


def _judged(result: Comparison) -> list[str]:
    """Titles of the columns on what the evaluations amount to, where a row has them."""
    shares = any(row.share_of_teacher is not None for row in result.strategies)
    solved = any(row.solved is not None for row in result.strategies)
    return [title for title, there in ((SHARE, shares), (SOLVED, solved)) if there]


def _hand_made(result: Comparison) -> list[str]:
    return list(dict.fromkeys(network for row in result.strategies for network in row.improvement_hand_made or ()))


def _cells(row: StrategyRow, networks: Sequence[str], more: Sequence[str]) -> list[str]:
    latency = row.latency_predicted_s
    beside = [(row.improvement_hand_made or {}).get(network) for network in networks]
    judged = {
        SHARE: "" if row.share_of_teacher is None else share_text(row.share_of_teacher),
        SOLVED: "" if row.solved is None else f"{row.solved} of {row.runs}",
    }
    return [
        row.strategy,
        str(row.runs),
        _estimate(row.iqm),
        f"{row.score_mean:.2f}",
        "" if row.improvement is None else _estimate(row.improvement),
        "" if row.improvement_largest is None else _estimate(row.improvement_largest),
        "" if latency is None else time_text(latency),
        "" if row.targets_met is None else f"{row.targets_met} of {row.runs}",
        f"{row.hypervolume:.2f}" if isinstance(row.hypervolume, float) else "",
        "" if row.env_steps is None else f"{row.env_steps:,}",
        "" if row.wall_s is None else duration_text(row.wall_s),
        *("" if estimate is None else _estimate(estimate) for estimate in beside),
        *(judged[title] for title in more),
    ]


def _estimate(figure: Estimate) -> str:
    return estimate_text(figure.value, figure.ci95, "run")


def terminal_tables(result: Comparison) -> list[Table]:
    """The tables for a terminal, without the columns that only the pages have room for."""
    made, shown = [], dict(IN_A_TERMINAL)
    if not any(row.improvement for row in result.strategies):  # there is no random search to be better than
        del shown[4]
        shown |= {place: name for place, name in enumerate(columns(result)) if name in (SHARE, SOLVED)}
    for env, rows in tables(result):
        table = Table(title=env if env != ALL else f"{env}, scores between the lowest (0) and the highest (1)")
        for name in shown.values():
            table.add_column(name, no_wrap=name == "strategy")
        for row in rows:
            table.add_row(*(row[column] for column in shown))
        made.append(table)
    return made


def markdown(
    result: Comparison,
    plots: Sequence[str],
    seeds: Sequence[tuple[str, list[str]]] = (),
    work: WorkSection | None = None,
) -> str:
    """The page as Markdown.

    Args:
        result: the figures.
        plots: names of the pictures beside it.
        seeds: see :func:`seed_rows`.
        work: how it went; None: not recorded.
    """
    lines, titles = [f"# {word(title(result))}", ""], columns(result)
    for env, rows in tables(result):
        lines += [f"## {word(env)}", "", *markdown_table(titles, rows), ""]
    if seeds:
        lines += ["## Each seed", "", *markdown_table(SEED_COLUMNS, [cells for _, cells in seeds]), ""]
    lines += [NOTE, "", *(line for remark in remarks(result) for line in (word(remark), ""))]
    for name in plots:
        lines += [f"![{word(name)}]({quote(name)})", "", _caption(name), ""]
    if work is not None:
        lines += [f"## {WORK}", "", " ".join(map(word, work.sentences)), "", *markdown_table(WORKER_COLUMNS, work.workers), ""]
        lines += [*markdown_table(FAULT_COLUMNS, work.faults), ""] if work.faults else []
    return "\n".join(lines)


def title(result: Comparison) -> str:
    """What the pages are about: strategies side by side, or one of them over its seeds."""
    names = list(dict.fromkeys(row.strategy for row in result.runs))
    return f"{names[0]} over {len(result.runs)} seeds" if len(names) == 1 else "Comparison of strategies"


def seed_rows(runs: Sequence[ComparedRun]) -> list[tuple[str, list[str]]]:
    """Name of the folder and cells of each run, where all are of one strategy; else none.

    Args:
        runs: of the comparison.
    """
    if len({item.planned.strategy for item in runs}) > 1:
        return []
    return [(item.planned.name, _seed_cells(item)) for item in runs]


def _seed_cells(item: ComparedRun) -> list[str]:
    run = item.run
    summary = None if run is None else run.summary
    if run is None or summary is None:
        return [str(item.planned.seed), "not finished", "", "", "", ""]
    share = None if summary.evaluation is None else summary.evaluation.share_of_teacher
    measured_s, kind = summary.latency_measured_s, facts(run).measured_word
    return [
        str(item.planned.seed),
        estimate_text(summary.score_mean, summary.score_ci95, "episode"),
        "" if share is None else share_text(share),
        time_text(summary.latency_predicted_s),
        "" if measured_s is None else time_text(measured_s) + ("" if kind == "measured" else f" {kind}"),
        truth_text(summary.target_met),
    ]


def remarks(result: Comparison) -> list[str]:
    """What is not in the figures, and which of them say little; a sentence each."""
    told = []
    if result.unfinished:
        told.append(f"Not finished, so not in the figures: {', '.join(result.unfinished)}.")
    if result.unlearned:
        told.append(
            "Searches whose shared weights had hardly learned when they ended, so that their ranking of networks says little: "
            f"{', '.join(result.unlearned)}."
        )
    if result.spent_otherwise:
        told.append(
            "Runs that took more or fewer environment steps than planned (a repair of the target adds some, a candidate that "
            f"failed leaves some out): {', '.join(f'{name} {steps:,}' for name, steps in result.spent_otherwise.items())}."
        )
    return told


def _caption(name: str) -> str:
    return next(caption for end, caption in CAPTIONS.items() if name.endswith(end))


def _page(result: Comparison, plots: dict[str, bytes], seeds: Sequence[tuple[str, list[str]]], work: WorkSection | None) -> str:
    environment = Environment(
        loader=PackageLoader("cosearch.compare", "templates"), autoescape=True, undefined=StrictUndefined, finalize=plain_if_text
    )
    pictures = [(base64.b64encode(content).decode(), _caption(name)) for name, content in plots.items()]
    return environment.get_template("compare.html").render(
        title=title(result),
        tables=tables(result),
        columns=columns(result),
        seed_columns=SEED_COLUMNS,
        seeds=seeds,
        note=NOTE,
        pictures=pictures,
        remarks=remarks(result),
        work_title=WORK,
        work=work,
        worker_columns=WORKER_COLUMNS,
        fault_columns=FAULT_COLUMNS,
    )
