"""The verb ``teacher``: one from one seed, or the best of several, here or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosearch.cli.commands import ClusterAddress, Json, OtherTorch, Overrides, Quiet, app, make_progress
from cosearch.cli.comparison import teller
from cosearch.cli.output import command_line, emit, resume_hint
from latency_tables.errors import RequestError
from latency_tables.text.terminal import say

if TYPE_CHECKING:
    from cosearch.teachers.seeds import SeedTeacher, Teachers


TRAINING = (  # parameters of a training, which --from-sb3 is none of
    "steps",
    "network",
    "seed",
    "seeds",
    "jobs",
    "cluster",
    "other_torch",
    "threads",
    "episodes",
    "train_levels",
    "test_envs",
    "runs",
)


@app.command(
    epilog="`cosearch teacher --env procgen:starpilot --steps 2000000 --out teachers/mine.json` | "
    "`cosearch teacher --env minatar:breakout --seeds 4 --jobs 2 --out teachers/best.json`"
)
def teacher(
    context: typer.Context,
    overrides: Overrides = None,
    *,
    env: Annotated[str, typer.Option(help="Task, e.g. procgen:starpilot.")],
    out: Annotated[Path, typer.Option(help="Teacher file to write (.json; the weights go beside it).")],
    from_sb3: Annotated[
        Path | None, typer.Option(help="Train nothing: make this stable-baselines3 policy (.zip) an ONNX teacher.")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="With --from-sb3: its pickles may run any code; you trust them.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Environment steps.")] = 2_000_000,
    network: Annotated[
        str, typer.Option(help="impala-cnn, nature-cnn, minatar-cnn or mlp-64x64; default: the one of the task's family.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="The one seed.")] = 1,
    seeds: Annotated[
        int, typer.Option(min=1, max=10_000, help="Train so many, of the seed and those after it; FILE gets the best one.")
    ] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Teachers at once, each in a process of its own; default: 1, on a cluster all that fit."),
    ] = None,
    cluster: ClusterAddress = "",
    other_torch: OtherTorch = False,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 0: all cores; with --seeds, --jobs or --cluster one for each.")
    ] = 0,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of the final scores.")] = 512,
    train_levels: Annotated[int | None, typer.Option(min=1, help="Procgen training levels; default: 100,000.")] = None,
    test_envs: Annotated[
        int, typer.Option(min=0, help="Environments on held-out levels beside the training, for a learning curve.")
    ] = 0,
    runs: Annotated[Path, typer.Option(help="Folder of the run folders.")] = Path("runs"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a teacher (PPO; with rl.algorithm=a2c: A2C); started again with the same values it goes on where it stopped.

    Of several seeds the best on training levels becomes the file; the others stay in their run folders.
    """
    from cosearch.fleet.cluster import Cluster
    from cosearch.rl.teacher import read_record
    from cosearch.teachers.seeds import train_teachers, worth_of
    from cosearch.teachers.train import TeacherRequest, train_teacher

    where = Cluster(cluster, other_torch).check()
    many = seeds > 1 or jobs is not None or bool(cluster)
    if from_sb3 is not None:
        words = [*_said(context, TRAINING), *(overrides or ())]
        if words:
            raise RequestError(f"--from-sb3 trains nothing: leave {' '.join(words)[:200]} out")
        from cosearch.teachers.from_sb3 import convert_sb3

        converted = convert_sb3(from_sb3, env, out, allow_pickle=allow_pickle)
        emit(converted, as_json, f"{out}: use it with {converted['use']}")
        return
    if allow_pickle:
        raise RequestError("--allow-pickle has no effect without --from-sb3: leave it out")
    request = TeacherRequest(env, network, steps, seed, threads, episodes, train_levels, test_envs, tuple(overrides or ()))
    resume_hint.set(("the same command", None))
    if many:
        made = train_teachers(request, seeds, out, runs, command_line.get(), teller(quiet), jobs=jobs, cluster=where)
        emit({"teacher": str(out), **made.to_json()}, as_json, _text(made, out))
        for name, reason in made.failed.items():
            say(f"error: {name}: {reason}", error=True)
        if made.failed:
            raise typer.Exit(1)
        return
    progress = make_progress(quiet)
    try:
        result = train_teacher(request, out, runs, command_line.get(), progress)
    finally:
        progress.close()
    emit(result, as_json, f"{out}: {_scores(worth_of(read_record(out)))}")


def _said(context: typer.Context, names: Sequence[str]) -> list[str]:
    """Which of some options were given, as they are written."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return [f"--{name.replace('_', '-')}" for name, source in sources.items() if source is not None and source.name != "DEFAULT"]


def _text(made: Teachers, out: Path) -> str:
    """The teachers, one a line, and where the best one is."""
    lines = [f"seed {one.seed}: {_scores(one)}" for one in made.trained]
    return "\n".join([*lines, f"{out}: seed {made.best.seed}, the best on training levels"])


def _scores(one: SeedTeacher) -> str:
    """Its scores on held-out and on training levels."""
    from cosearch.statistics import mean_text

    return f"{mean_text(one.score_mean, one.score_ci95, one.episodes)}, {one.score_train_mean:.2f} on training levels"
