"""Agents searched for one device, on another one: ``python -m cosearch.benchmarks.searches.crossed RUNS... --measure``.

The runs were searched for two or more devices with tables, under targets of their own. Each network is priced by every one of
these tables and, with ``--measure``, timed in every one of their runtimes here, in the form that is deployed there (quantised for
int8, compiled for TVM; weights are random, for latency does not depend on them). Which of them hold the other device's target,
and what score does an agent lose there against those that were searched for it? Seeds are the unit.

Results are kept run by run; the same command goes on where it was interrupted. Wants a quiet machine where it measures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cosearch.api import predict
from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import program
from cosearch.benchmarks.searches.under_target import with_target
from cosearch.deploy.readings import Meter
from cosearch.pipeline.target.repair import model_of, running_of
from cosearch.planning.builtins import load_builtins
from cosearch.planning.recorded import config_of
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.results.summary import Summary
from cosearch.record.rundir import RunDir
from cosearch.statistics import estimate_text, student_interval
from latency_tables.board.temporary import temporary_folder
from latency_tables.errors import RequestError
from latency_tables.text.reading import read_json

OUT, PAGE = Path(__file__).with_suffix(".json"), DOCS / "evidence" / "crossed.md"


@dataclass(frozen=True)
class Crossed:
    """One agent on all devices.

    Attributes:
        run: name of its folder and of the folder around it.
        game, seed: of the run.
        device: that it was searched for.
        target_s: its target there, seconds.
        score: mean return of its evaluation.
        predicted_s: by each device's table, seconds.
        measured_s: median here in each device's runtime, seconds; empty: not measured.
    """

    run: str
    game: str
    seed: int
    device: str
    target_s: float
    score: float
    predicted_s: dict[str, float]
    measured_s: dict[str, float]


def table_of(run: RunDir) -> str:
    """The device of a run as its command names it: with the identity of its table, where it gave one."""
    return config_of(run).device


def crossed(run: RunDir, devices: Sequence[str], *, measure: bool) -> Crossed:
    """One run on all devices.

    Args:
        run: a finished run with an agent.
        devices: names of devices with tables.
        measure: whether to time the network here, too.

    Raises:
        MissingOpError: a table lacks one of its operations.
    """
    summary, config = run.read(Summary), config_of(run)
    choices = run.read(ArchitectureRecord).choices
    predicted, measured = {}, {}
    for device in devices:
        predicted[device] = predict(run.path / ArchitectureRecord.FILE, device).latency_s
        if measure:
            plan = with_target(replace(config, device=device, table="", control=""), 1.0)
            with temporary_folder("cosearch-") as folder:
                model = model_of(plan, plan.space.architecture(choices), folder)
                reading = Meter(running_of(plan)).read(model, plan.targets).of(plan.targets[0])
            if reading is None:
                raise RequestError(f"{run.path}: its latency on {device} was not measured")
            measured[device] = reading.value
    return Crossed(
        run=f"{run.path.parent.name}/{run.path.name}",
        game=config.env.name,
        seed=summary.seed,
        device=table_of(run),
        target_s=summary.latency_target_s,
        score=summary.score_mean,
        predicted_s=predicted,
        measured_s=measured,
    )


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval over seeds, as text."""
    return estimate_text(float(np.mean(values)), student_interval(values), "seed")


def over(shares: Sequence[float]) -> str:
    """How many shares of a target are above it, as text."""
    return f"{sum(share > 1 for share in shares)} of {len(shares)}"


def markdown(rows: Sequence[Crossed]) -> str:
    """The table of the docs: one line for each game, device that agents were searched for, and device that they are on.

    A device with runs of several targets is several here, each with its target in its name. Where no agent is priced on a
    device yet there is no line.

    Args:
        rows: of all runs.
    """
    lines = [
        "| game | searched for | on | agents | over its target, by the table | measured | latency there, of its target | score |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for game in sorted({row.game for row in rows}):
        of = [row for row in rows if row.game == game]
        places = list(dict.fromkeys((row.device, row.target_s) for row in of))
        targets = Counter(device for device, _ in places)
        names = {each: each[0] if targets[each[0]] == 1 else f"{each[0]} within {each[1] * 1e3:.4g} ms" for each in places}
        for there in places:
            on, target_s = there
            for place in places:
                agents = [row for row in of if (row.device, row.target_s) == place and on in row.predicted_s]
                if not agents:
                    continue
                predicted = [row.predicted_s[on] / target_s for row in agents]
                measured = [row.measured_s[on] / target_s for row in agents if on in row.measured_s]
                cells = (
                    *(game, names[place], names[there], str(len(agents)), over(predicted), over(measured) if measured else ""),
                    *(interval(measured or predicted), interval([row.score for row in agents])),
                )
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, searched for two or more devices with tables.")],
    measure: Annotated[bool, typer.Option("--measure", help="Time each network here in each device's runtime, too.")] = False,
    out: Annotated[Path, typer.Option(help="The JSON file with the results so far.")] = OUT,
) -> None:
    """Price and time what is missing, save after each run, print the table and write it into the page."""
    load_builtins()
    folders = [RunDir.open(path) for path in runs]
    devices = sorted({table_of(run) for run in folders})
    if len(devices) < 2:
        raise typer.BadParameter(f"runs of two or more devices are needed, these are all for {', '.join(devices)}")
    found = read_json(out, "results", RequestError) if out.is_file() else {}
    known = found.get("rows") if isinstance(found, dict) else None
    rows = {row.run: row for row in (Crossed(**each) for each in known or ())}
    for run in folders:
        name = f"{run.path.parent.name}/{run.path.name}"
        if name not in rows or set(rows[name].predicted_s) != set(devices) or (measure and not rows[name].measured_s):
            rows[name] = crossed(run, devices, measure=measure)
            keep({"rows": [asdict(row) for row in rows.values()]}, out, PAGE, "crossed", markdown(list(rows.values())))
    typer.echo(markdown(list(rows.values())))


if __name__ == "__main__":
    program(main)
