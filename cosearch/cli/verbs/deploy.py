"""The verb ``deploy``: the agent's bundle on its device, tested and measured there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosearch.cli.commands import AgentName, Json, Quiet, RunPath, TablePlaces, TeacherPlace, app, emit, resume_hint
from cosearch.record.json_record import to_json
from latency_tables.errors import RequestError
from latency_tables.text.terminal import say

if TYPE_CHECKING:
    from cosearch.record.results.deployment import Deployment


@app.command(
    epilog="`cosearch deploy runs/first` | `cosearch deploy runs/first --host me@board --name my-board` | "
    "`cosearch deploy runs/several --agent 0.4ms`"
)
def deploy(
    run: RunPath,
    agent: AgentName = None,
    host: Annotated[str | None, typer.Option(help="user@board, reached over ssh; default: this machine.")] = None,
    ssh_option: Annotated[list[str] | None, typer.Option(help="Further option of ssh, such as --ssh-option=-p2222.")] = None,
    python: Annotated[str, typer.Option(help="The board's Python, with numpy and onnxruntime.")] = "python3",
    tracker: Annotated[
        str | None, typer.Option(help="TVM RPC tracker, host:port, for an agent that TVM compiled for the board.")
    ] = None,
    tracker_key: Annotated[str, typer.Option(help="The board's key at the tracker.")] = "board",
    name: Annotated[str, typer.Option(help="Name of the device in the results; default: its host's, or its key.")] = "",
    seconds: Annotated[float, typer.Option(help="Time for measuring.")] = 15.0,
    period_ms: Annotated[float | None, typer.Option(help="Control period; default: the one in the contract, 20 ms.")] = None,
    until_under: Annotated[
        bool,
        typer.Option(
            "--until-under",
            help="Where the agent is over its targets there, measure further architectures, retrain one that holds, deploy that.",
        ),
    ] = False,
    table: TablePlaces = None,
    teacher: TeacherPlace = None,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="The device is emulated: its figures are no measurement of a board.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy the agent's bundle to its device, run its self-test and measure it there; started again, it goes on.

    The run's summary and report then have the figures of that device, and its target is checked by them; not by those of this
    machine where the run is for another device, unless --name says that this is one.
    """
    from cosearch.deploy.deployment import DeployRequest, deploy
    from cosearch.pipeline.opening import Places
    from cosearch.pipeline.run import compare_again
    from cosearch.pipeline.target.on_board import deploy_until_under
    from cosearch.record.results.family import agent_folder
    from latency_tables.measuring.remote import Location

    if not until_under and (table or teacher is not None):
        raise RequestError(
            "--table and --teacher say where files of a run lie that only --until-under reads: leave them out, or add it"
        )
    run = run if agent is None else agent_folder(run, agent)

    location = Location(host=host, python=python, ssh_options=tuple(ssh_option or ()), tracker=tracker, tracker_key=tracker_key)
    request = DeployRequest(location, name, seconds, None if period_ms is None else period_ms / 1e3, synthetic)
    resume_hint.set(("the same command", None))
    if until_under:
        from cosearch.cli.progress import TerminalProgress

        progress = TerminalProgress(quiet)
        try:
            found, _ = deploy_until_under(run, request, progress, Places(tuple(table or ()), teacher))
        finally:
            progress.close()
    else:
        found = deploy(run, request, note=lambda text: None if quiet else say(text, error=True))
    compare_again(run)
    emit({"run": str(run), **to_json(found)}, as_json, _text(run, found))
    if found.target_met:
        return
    if found.target_met is None:
        say(f"not known whether it is within its targets on {found.name}: not all of them were measured there", error=True)
        return
    if until_under:
        say(f"no agent was found that is within its targets on {found.name}; {run}/report.html has the rounds", error=True)
        raise typer.Exit(1)
    say(f"over its targets on {found.name}: the same command with --until-under looks for an agent that holds them", error=True)


def _text(run: Path, found: Deployment) -> str:
    from cosearch.report.format import NOT_KNOWN, time_text

    kind = "" if found.provenance == "measured" else f" ({found.provenance}: the device is emulated)"
    met = {True: "met", False: "not met", None: NOT_KNOWN}[found.target_met]
    lines = [
        f"self-test: {found.self_test}",
        f"back to back: median {time_text(found.measured.p50_s)}, p99 {time_text(found.measured.p99_s)}{kind}",
    ]
    for words, calls in (("after a sleep", found.paced), ("warmed up", found.warmed)):
        if calls is not None:
            every, median, p99 = time_text(calls.period_s), time_text(calls.p50_s), time_text(calls.p99_s)
            missed = f"{calls.missed} of {calls.samples} over the period"
            lines.append(f"every {every}, {words}: median {median}, p99 {p99}, {missed}{kind}")
    lines += [f"target {time_text(found.target_s)}: {met} on {found.name}{kind}", f"report: {run}/report.html"]
    return "\n".join(lines)
