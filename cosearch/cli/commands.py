"""The verbs. Each one parses, calls the pipeline and prints its result: text for people, ``--json`` for machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosearch.cli.output import command_line, emit, resume_hint
from cosearch.record.json_record import to_json

if TYPE_CHECKING:
    from cosearch.cli.progress import TerminalProgress
    from cosearch.record.rundir import RunDir

app = typer.Typer(
    name="cosearch",
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Search the deep-RL agent for a device, retrain, export, measure and report it.",
    epilog="`cosearch --device jetson` | `cosearch list devices` | `cosearch search --preset smoke --dry-run`",
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Configuration values, e.g. rl.lr=3e-4.")]
ClusterAddress = Annotated[
    str, typer.Option("--cluster", metavar="ADDRESS|local", help="Work on a Ray cluster (extra `ray`); local: of this machine.")
]
OtherTorch = Annotated[
    bool, typer.Option("--other-torch", help="Let machines of the cluster have another version of torch; run.json says which.")
]
TablePlaces = Annotated[
    list[Path] | None,
    typer.Option("--table", help="The run's own table or design, where it lies now; again for each one that was moved."),
]
TeacherPlace = Annotated[Path | None, typer.Option("--teacher", help="The run's own teacher, where it lies now.")]
AgentName = Annotated[str | None, typer.Option("--agent", help="Which agent of a run that made several.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, e.g. runs/NAME.")]


def make_progress(quiet: bool) -> TerminalProgress:
    """The display of a command; none of it where ``quiet``."""
    from cosearch.cli.progress import TerminalProgress

    return TerminalProgress(quiet)


@app.command(epilog="`cosearch search --device jetson --preset quick --run first` | `cosearch search --preset smoke rl.lr=3e-4`")
def search(
    overrides: Overrides = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Target device; `cosearch list devices`. 'this': measure this machine first. Several, with commas: an agent "
            "for each."
        ),
    ] = None,
    env: Annotated[str | None, typer.Option(help="Task, e.g. procgen:starpilot; `cosearch list envs`.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Search method; `cosearch list strategies`.")] = None,
    metric: Annotated[str | None, typer.Option(help="Score: mean return (default), success or length of an episode.")] = None,
    preset: Annotated[str, typer.Option(help="smoke, quick, judged, standard or paper; `cosearch list presets`.")] = "quick",
    seed: Annotated[int | None, typer.Option(help="The one seed of the run.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="Make so many runs, of the seed and those after it.")] = 1,
    latency_target_ms: Annotated[
        str | None,
        typer.Option(
            help="Upper bound in ms; default: a fifth of the IMPALA-CNN's (vectors: the 64-64 MLP's). Several, with commas: an "
            "agent for each."
        ),
    ] = None,
    target_statistic: Annotated[
        str | None, typer.Option(help="Of the latency that the bound is on: median (default) or p99.")
    ] = None,
    target_at: Annotated[str | None, typer.Option(help="Calls back-to-back (default), or one a control period of 20 ms.")] = None,
    table: Annotated[
        Path | None, typer.Option(help="Latency table, or accelerator design, to use instead of the device's own.")
    ] = None,
    fixed_accelerator: Annotated[
        bool, typer.Option("--fixed-accelerator", help="Keep the accelerator's own design; default: it is searched, too.")
    ] = False,
    order_of: Annotated[
        Path | None, typer.Option(help="Run folder: tell candidates in the order that it recorded, whichever ends first.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with configuration values.")] = None,
    run: Annotated[str | None, typer.Option(help="Name of the run folder; default: made from task, device and seed.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the run folders.")] = Path("runs"),
    cluster: ClusterAddress = "",
    other_torch: OtherTorch = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved plan, expected time and memory; do nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The main job: search, retrain, export, measure, report."""
    from cosearch.cli.lists import device_options, target_options
    from cosearch.fleet.cluster import Cluster
    from cosearch.pipeline.local_table import with_own_tables
    from cosearch.pipeline.run import check_cluster, default_name, free_name, start_run
    from cosearch.planning.plan import make_plan
    from cosearch.planning.task import resolve_task
    from cosearch.record.order import recorded_order
    from cosearch.record.rundir import RunDir

    where = Cluster(cluster, other_torch).check()
    options = {
        **device_options(device),
        "env.name": env,
        "env.metric": metric,
        "strategy.name": strategy,
        "seed": seed,
        "table": str(table) if table else None,
        "accel.fixed": fixed_accelerator or None,
        **target_options(latency_target_ms),
        "objective.target_statistic": target_statistic,
        "objective.target_at": target_at,
        "strategy.order": None if order_of is None else recorded_order(order_of),
    }
    resolved = resolve_task(preset=preset, file=config, overrides=overrides or (), options=options)
    if not dry_run:
        RunDir.check_new(runs, run if seeds == 1 else None)
    progress = make_progress(quiet)
    resolved = with_own_tables(resolved, runs, progress, dry_run=dry_run)
    if seeds > 1:
        from cosearch.cli.seeds import search_seeds

        search_seeds(resolved, seeds, runs, run, where=where, dry_run=dry_run, as_json=as_json, quiet=quiet)
        return
    plan = make_plan(resolved)
    check_cluster(plan, where)
    if dry_run:
        from cosearch.pipeline.forecast import forecast

        result = forecast(plan)
        emit(result.to_json(), as_json, result.text())
        return
    name = run or free_name(runs, default_name(plan))
    resume_hint.set((f"`cosearch resume {runs / name}`", runs / name))
    try:
        finished = start_run(plan, runs, name, command_line.get(), progress, where)
    finally:
        progress.close()
    finish_run(finished, as_json)


def finish_run(run: RunDir, as_json: bool) -> None:
    """Print what a finished run amounts to."""
    from cosearch.record.results.family import Family, agent_names
    from cosearch.record.results.summary import Summary
    from cosearch.report.family import render_family
    from cosearch.report.page import render_summary

    if agent_names(run):
        emit({"run": str(run.path), **to_json(run.read(Family))}, as_json, render_family(run.path))
        return
    summary = run.read(Summary)
    emit({"run": str(run.path), **to_json(summary)}, as_json, render_summary(run.path))


@app.command(epilog="`cosearch resume runs/first`")
def resume(
    run: RunPath,
    table: TablePlaces = None,
    teacher: TeacherPlace = None,
    fresh_episodes: Annotated[
        bool, typer.Option("--fresh-episodes", help="Go on with fresh episodes where the environment does not replay.")
    ] = False,
    cluster: ClusterAddress = "",
    other_torch: OtherTorch = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on with an interrupted run, whatever stage it was in."""
    from cosearch.fleet.cluster import Cluster
    from cosearch.pipeline.opening import Places
    from cosearch.pipeline.run import resume_run

    where = Cluster(cluster, other_torch).check()
    progress = make_progress(quiet)
    resume_hint.set((f"`cosearch resume {run}`", run))
    try:
        finished = resume_run(run, progress, Places(tuple(table or ()), teacher), fresh_episodes=fresh_episodes, cluster=where)
    finally:
        progress.close()
    finish_run(finished, as_json)


@app.command(epilog="`cosearch evaluate runs/first --episodes 500` | `cosearch evaluate runs/s0 runs/s1 runs/s2`")
def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, e.g. runs/NAME; several: seeds")],
    episodes: Annotated[int, typer.Option(min=1, help="At least this many episodes of each.")] = 256,
    levels: Annotated[str, typer.Option(help="test (held out) or train.")] = "test",
    greedy: Annotated[bool, typer.Option("--greedy", help="Most likely action instead of sampling.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of levels and actions.")] = 1,
    metric: Annotated[str | None, typer.Option(help="Score: mean return, success or length; default: the run's.")] = None,
    solved_at: Annotated[float | None, typer.Option(help="Mean score that counts as solved; default: the task's.")] = None,
    as_json: Json = False,
) -> None:
    """Play exported agents: each one's score with its 95 % interval, and the inter-quartile mean over several runs."""
    from cosearch.cli.progress import TerminalProgress
    from cosearch.deploy.evaluation import evaluate_run, evaluate_runs, judged_text
    from cosearch.statistics import estimate_text, mean_text

    how: dict[str, Any] = {
        "episodes": episodes,
        "levels": levels,
        "greedy": greedy,
        "seed": seed,
        "note": TerminalProgress().note,
    }
    how |= {"metric": metric, "threshold": solved_at}
    result = evaluate_runs(runs, **how) if len(runs) > 1 else evaluate_run(runs[0], **how)
    text = [
        f"{row['run'] + ', ' if 'run' in row else ''}{levels} levels: "
        f"{mean_text(row['score_mean'], row['score_ci95'], row['episodes'])}{judged_text(row)}"
        for row in result.get("runs", [result])
    ]
    if "iqm" in result:
        iqm = estimate_text(result["iqm"]["value"], result["iqm"]["ci95"], "run")
        text.append(f"inter-quartile mean over {len(runs)} runs: {iqm}")
    emit(result, as_json, "\n".join(text))


@app.command(epilog="`cosearch export runs/first` | `cosearch export runs/first --actions sampled --opset 16`")
def export(
    run: RunPath,
    table: TablePlaces = None,
    teacher: TeacherPlace = None,
    agent: AgentName = None,
    opset: Annotated[int | None, typer.Option(help="Of the bundle's file; default: the lowest that its graph needs.")] = None,
    actions: Annotated[
        str, typer.Option(help="Where the action is chosen: outside the bundle's file, or in it: greedy, sampled.")
    ] = "outside",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a finished run's agent again: ONNX, parity gate, measured latency, bundle, report. Of a family: every agent."""
    from cosearch.deploy.bundle.folder import BundleOptions
    from cosearch.pipeline.opening import Places
    from cosearch.pipeline.run import export_again
    from cosearch.record.results.family import agent_folder

    run = run if agent is None else agent_folder(run, agent)
    progress = make_progress(quiet)
    resume_hint.set((f"`cosearch export {run}`", run))
    try:
        finished = export_again(run, progress, Places(tuple(table or ()), teacher), BundleOptions(opset, actions))
    finally:
        progress.close()
    finish_run(finished, as_json)


@app.command(epilog="`cosearch report runs/first`")
def report(run: RunPath, as_json: Json = False) -> None:
    """Write report.html again, also of an unfinished run. Of a family: its page, and each agent's report."""
    from cosearch.report.family import write_reports

    path = write_reports(run)
    emit({"report": str(path)}, as_json, str(path))


@app.command(epilog="`cosearch video runs/first` | `cosearch video runs/first --frames 300 --seed 7 --out agent.gif`")
def video(
    run: RunPath,
    frames: Annotated[int, typer.Option(min=1, max=2000, help="Environment steps to show.")] = 120,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of levels and actions; default: the run's.")] = None,
    out: Annotated[Path | None, typer.Option(help="File (.gif); default: clip.gif in the run folder.")] = None,
    as_json: Json = False,
) -> None:
    """Write an animated image of an exported agent playing; `cosearch report` embeds the run's own."""
    from cosearch.deploy.evaluation import write_clip

    path = write_clip(run, frames=frames, seed=seed, out=out)
    emit({"video": str(path), "bytes": path.stat().st_size}, as_json, str(path))


@app.command(epilog="`cosearch sample --space chain --n 30 --seed 0 --out samples`")
def sample(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    space: Annotated[str, typer.Option(help="Kind of space; auto: by the task's observations.")] = "auto",
    n: Annotated[int, typer.Option("--n", min=1, max=1_000_000, help="How many.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of choices and weights.")] = 0,
    env: Annotated[str, typer.Option(help="Task that gives frame shape and actions.")] = "procgen:starpilot",
    as_json: Json = False,
) -> None:
    """Write random architectures and their ONNX files."""
    from cosearch.config.run import resolve
    from cosearch.deploy.sampling import write_samples
    from cosearch.planning.space import make_space

    made = make_space(resolve(options={"env.name": env, "space.name": space}))
    files = [str(path) for path in write_samples(made, n, seed, out)]
    emit({"files": files}, as_json, f"{n} architectures in {out}")


@app.command(epilog="`cosearch sample --out samples && cosearch predict --device jetson samples/0000.json`")
def predict(
    architecture: Annotated[Path, typer.Argument(metavar="ARCH.json", help="Architecture file.")],
    device: Annotated[str | None, typer.Option(help="Device whose table, or accelerator whose own design, is used.")] = None,
    table: Annotated[Path | None, typer.Option(help="File of a table or design instead of a device.")] = None,
    as_json: Json = False,
) -> None:
    """What an architecture costs on a device, by operation."""
    from cosearch.deploy.sampling import predict_architecture, prediction_text
    from cosearch.planning.builtins import load_builtins
    from cosearch.planning.device.hardware import table_to_predict
    from latency_tables.errors import RequestError

    load_builtins()
    if (device is None) == (table is None):
        raise RequestError("give either --device NAME or --table FILE, e.g. `cosearch predict --device jetson ARCH.json`")
    result = predict_architecture(architecture, table_to_predict(device or "", str(table or "")))
    emit(result, as_json, prediction_text(result))


@app.command(name="list", epilog="`cosearch list devices` | `cosearch list strategies --json`")
def list_(
    what: Annotated[str, typer.Argument(help="devices, strategies, envs, ops, presets, spaces, teachers or wrappers.")],
    as_json: Json = False,
) -> None:
    """What there is, one line each, with its provenance."""
    from cosearch.cli.listing import listing, listing_table

    rows = listing(what)
    emit(rows, as_json, listing_table(what, rows))
