"""The verb ``compare``: strategies x seeds x tasks from one command, and their table and plots from the run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cosearch.cli.commands import ClusterAddress, Json, OtherTorch, Overrides, Quiet, app
from cosearch.cli.comparison import make_and_show, show_comparison, show_forecast, teller


@app.command(
    epilog="`cosearch compare --strategies a3cs,reinforce,random --seeds 5 --env minatar:breakout --name mine` | "
    "`cosearch compare --from runs/mine`"
)
def compare(
    context: typer.Context,
    overrides: Overrides = None,
    strategies: Annotated[
        str,
        typer.Option(help="Names with commas, or LABEL=NAME for a variant; the controls, random and largest, are always added."),
    ] = "reinforce,a3cs,random",
    hand_made: Annotated[
        str,
        typer.Option(
            help="Hand-made networks that are controls, too, each as wide as the target allows: names with commas, or all; "
            "`cosearch list spaces`."
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="Seeds 0 .. N - 1 of each strategy.")] = 5,
    env: Annotated[
        list[str] | None, typer.Option(help="Task; may be given several times. Default: the file's, else procgen:starpilot.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Target device; `cosearch list devices`.")] = None,
    preset: Annotated[str, typer.Option(help="smoke, quick, judged, standard or paper.")] = "quick",
    config: Annotated[Path | None, typer.Option(help="TOML file with configuration values.")] = None,
    name: Annotated[str, typer.Option(help="Name of the comparison's folder.")] = "comparison",
    runs: Annotated[Path, typer.Option(help="Folder that gets it.")] = Path("runs"),
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at once, each in a process of its own; default: 1, on a cluster all that fit."),
    ] = None,
    cluster: ClusterAddress = "",
    other_torch: OtherTorch = False,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Write table and plots of this comparison again; run nothing.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and the expected time; do nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare strategies: equal environment steps, several seeds, intervals, random search and the largest network as controls.

    Values for one strategy or variant alone are written STRATEGY:KEY=VALUE or LABEL:KEY=VALUE. The same command goes on with
    an interrupted comparison.
    """
    from cosearch.cli.lists import device_options
    from cosearch.compare.plan import planned_runs
    from cosearch.config.run import resolve
    from cosearch.fleet.cluster import Cluster
    from cosearch.record.rundir import RunDir, check_one_folder

    if from_ is not None:
        _refuse_beside_from(context)
        show_comparison(from_, as_json)
        return
    where = Cluster(cluster, other_torch).check()
    check_one_folder(name, "--name")
    folder = (runs / name).resolve()
    if not dry_run:
        RunDir.check_new(folder, None)
    tell = teller(quiet)
    options = device_options(device)
    planned = planned_runs(
        folder,
        strategies.split(","),
        range(seeds),
        env or [resolve(preset=preset, file=config).env.name],
        preset=preset,
        file=config,
        words=overrides or (),
        options=options,
        hand_made=[name for name in hand_made.split(",") if name],
        tell=tell,
    )
    if dry_run:
        show_forecast(planned, jobs or 1, as_json)
        return
    make_and_show(runs / name, planned, jobs, where=where, tell=tell, as_json=as_json)


def _refuse_beside_from(context: typer.Context) -> None:
    """Raise where more than the form of the answer was given: there is nothing else to choose."""
    from latency_tables.errors import RequestError

    given: list[str] = []
    for param in context.command.params:
        source = context.get_parameter_source(str(param.name))
        if param.name not in ("from_", "as_json", "quiet") and source is not None and source.name == "COMMANDLINE":
            given += context.params["overrides"] if param.name == "overrides" else [param.opts[0]]
    if given:
        has, it = ("has", "it") if len(given) == 1 else ("have", "them")
        raise RequestError(f"--from shows the runs that are there: {', '.join(given)} {has} no effect beside it, leave {it} out")
