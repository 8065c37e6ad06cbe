"""What the shipped teachers score when their policies are sharpened: what a student of ``distill.temperature`` is to learn.

``python -m cosearch.benchmarks.learning.temperature`` plays episodes on held-out levels with each teacher at each temperature
(the probabilities to the power of 1 / temperature, normalised; actions drawn), keeps each result as it comes (a kill loses one),
prints the table and writes ``temperature.json`` and the page's table. Intervals of 95 % over episodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import check_same, program, save, saved
from cosearch.config.env import EnvConfig
from cosearch.planning.builtins import load_builtins
from cosearch.registry import unknown_name
from cosearch.rl.evaluate import evaluate
from cosearch.rl.learning.labels import tempered
from cosearch.rl.policy import policy_of
from cosearch.rl.task import make_task
from cosearch.rl.teacher import Teacher, TeacherRecord, list_teachers
from cosearch.seeding import Streams
from cosearch.statistics import estimate_text
from cosearch.training.threads import set_threads

OUT = Path(__file__).with_suffix(".json")
TEMPERATURES = (1.0, 0.5, 0.25)
SEED = 78  # of the levels and the actions; the default run's teacher has another one
ENVS = 64


def play(record: TeacherRecord, temperature: float, episodes: int) -> dict[str, object]:
    """Score of a teacher at a temperature.

    Args:
        record: which one.
        temperature: above 0; 1: as it is.
        episodes: at least so many, on held-out levels where the game has levels.

    Returns:
        ``mean``, its ``ci95`` and the number of ``episodes``.
    """
    teacher, streams = Teacher(record, device=torch.device("cpu"), bf16=False), Streams(SEED)
    env = make_task(EnvConfig(name=record.env), ENVS, streams.derive("eval"), test=True)
    policy = policy_of(env)

    def forward(frames: Tensor) -> tuple[Tensor, Tensor]:
        outputs, value = teacher.plays(frames)
        return tempered(policy, outputs, temperature), value

    try:
        score = evaluate(forward, env, episodes, torch.Generator().manual_seed(streams.derive("eval", 1)))
    finally:
        env.close()
    return {"mean": score.mean, "ci95": score.ci95, "episodes": len(score.returns)}


def markdown(result: dict[str, Any]) -> str:
    """The table of the page."""
    rows: dict[str, dict[str, dict[str, Any]]] = result["teachers"]
    temperatures = sorted({float(each) for row in rows.values() for each in row}, reverse=True)
    lines = [
        "| teacher | " + " | ".join("as it is" if each == 1.0 else f"temperature {each:g}" for each in temperatures) + " |",
        "| --- |" + " --- |" * len(temperatures),
    ]
    for name, row in sorted(rows.items()):
        known = (row.get(str(each)) for each in temperatures)
        cells = ["" if each is None else estimate_text(each["mean"], each["ci95"], "episode") for each in known]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    teachers: Annotated[list[str] | None, typer.Option("--teacher", help="May be given again; default: all shipped.")] = None,
    temperatures: Annotated[list[float] | None, typer.Option("--temperature", help="May be given again.")] = None,
    episodes: Annotated[int, typer.Option(min=ENVS, help="Episodes of each.")] = 1024,
    out: Annotated[Path, typer.Option(help="The JSON file, gone on with.")] = OUT,
) -> None:
    """Play, print, save."""
    load_builtins()
    set_threads(1)
    shipped = {record.name: record for record in list_teachers()}
    if wrong := [name for name in teachers or () if name not in shipped]:
        raise unknown_name("shipped teacher", wrong[0], list(shipped), "`cosearch list teachers` shows all")
    if wrong_values := [each for each in temperatures or () if not each > 0]:
        raise typer.BadParameter(f"expected temperatures above 0, got {wrong_values[0]:g}")
    settings = {"episodes": episodes, "seed": SEED}
    result: dict[str, Any] = saved(out) or {**settings, "teachers": {}}
    check_same(out, result, settings)
    page = DOCS / "evidence" / "distillation.md"
    for name in teachers or shipped:
        row = result["teachers"].setdefault(name, {})
        for each in (each for each in map(float, temperatures or TEMPERATURES) if str(each) not in row):
            row[str(each)] = play(shipped[name], each, episodes)
            typer.echo(f"{name} at {each:g}: {row[str(each)]['mean']:.2f}")
            save(result, out)
    keep(result, out, page, "temperature", markdown(result))
    typer.echo(markdown(result))


if __name__ == "__main__":
    program(main)
