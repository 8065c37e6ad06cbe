"""The verb ``compress``: a policy of any origin, made smaller for a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosearch.cli.commands import Json, Overrides, Quiet, app, command_line, emit, finish_run, make_progress, resume_hint
from cosearch.record.json_record import to_json

if TYPE_CHECKING:
    from cosearch.pipeline.compress import Compression
    from cosearch.rl.foreign.understood import Understood


@app.command(
    epilog="`cosearch compress policy.zip --env gym:CartPole-v1 --probe` | "
    "`cosearch compress policy.onnx --env gym:Pendulum-v1 --device raspberry-pi-4 --normaliser stats.npz --run small`"
)
def compress(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="ONNX file, zip of stable-baselines3, or safetensors.")],
    overrides: Overrides = None,
    *,
    env: Annotated[str, typer.Option(help="Task that it plays, e.g. gym:CartPole-v1.")],
    device: Annotated[str, typer.Option(help="Target device; 'this': this machine, measured first.")] = "this",
    probe: Annotated[bool, typer.Option("--probe", help="Print what was understood of the file; do nothing else.")] = False,
    latency_target_ms: Annotated[
        float | None, typer.Option(help="Upper bound in ms; default: a third of the policy's own latency.")
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Search also where the policy fits the target already.")] = False,
    outputs: Annotated[
        str | None,
        typer.Option(help="What its output is: logits, probabilities, action-values, action or mean; of several: MEANING:NAME."),
    ] = None,
    acting: Annotated[str | None, typer.Option(help="How it plays: sampled or greedy; default: see --probe.")] = None,
    action_scale: Annotated[
        str | None,
        typer.Option(help="Action vectors: environment (as they are), unit (-1 to 1 for the bounds) or tanh (then unit)."),
    ] = None,
    normaliser: Annotated[
        Path | None, typer.Option(help="Statistics of its observations: mean and var in safetensors, npz or JSON.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="Of the images it takes: channels_last or channels_first.")] = None,
    pixels: Annotated[int | None, typer.Option(help="Largest pixel that it takes, 255 or 1, where its input is float.")] = None,
    module: Annotated[str | None, typer.Option(help="Class of a state_dict: PACKAGE.MODULE:CLASS.")] = None,
    preset: Annotated[str, typer.Option(help="smoke, quick, judged, standard or paper.")] = "quick",
    seed: Annotated[int | None, typer.Option(help="The one seed of the run.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with configuration values.")] = None,
    run: Annotated[str | None, typer.Option(help="Name of the run folder.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the run folders.")] = Path("runs"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a policy that you have smaller for a device: it teaches an agent of at most a third of its latency."""
    from cosearch.cli.lists import device_options
    from cosearch.compute import compute_device
    from cosearch.pipeline.compress import plan_compression, suited, taught_by, understand
    from cosearch.pipeline.local_table import with_own_tables
    from cosearch.pipeline.run import default_name, free_name, start_run
    from cosearch.planning.task import resolve_task
    from cosearch.record.rundir import RunDir
    from cosearch.report.format import time_text
    from cosearch.rl.foreign.understood import Said
    from latency_tables.errors import RequestError

    said = Said(
        outputs=outputs,
        layout=layout,
        pixels=pixels,
        action_scale=action_scale,
        acting=acting,
        normaliser=normaliser,
        module=module,
    )
    options = {
        **device_options(device),
        "env.name": env,
        "seed": seed,
        "objective.latency_target_s": None if latency_target_ms is None else latency_target_ms / 1e3,
    }
    resolved = resolve_task(preset=preset, file=config, overrides=overrides or (), options=options)
    if resolved.family.wanted:
        raise RequestError("compress makes one agent: give one device and one target")
    if not probe:
        compute_device(resolved.compute)
        RunDir.check_new(runs, run)
    read = understand(policy, resolved, said)
    if probe:
        emit({"policy": str(policy), **to_json(read.understood)}, as_json, probe_text(policy, read.understood))
        return
    progress = make_progress(quiet)
    try:
        progress.note(f"{policy}: {read.understood.origin}, {read.understood.meaning}, {read.understood.acting}")
        taught = taught_by(with_own_tables(suited(resolved, read), runs, progress, dry_run=False), read, runs)
        found = plan_compression(taught, read, seconds=resolved.budget.measure_s, anyway=anyway)
        if found.plan is None:
            emit(_fits(policy, found), as_json, _fits_text(policy, device, found))
            return
        if found.timed.latency_s is not None:
            progress.note(f"the policy takes {time_text(found.timed.latency_s)} on {device} ({found.timed.source})")
        if found.note:
            progress.note(found.note)
        name = run or free_name(runs, default_name(found.plan))
        resume_hint.set((f"`cosearch resume {runs / name}`", runs / name))
        finished = start_run(found.plan, runs, name, command_line.get(), progress)
    finally:
        progress.close()
    finish_run(finished, as_json)


def probe_text(path: Path, known: Understood) -> str:
    """What was understood of a file, for people.

    Args:
        path: of the file.
        known: what was understood.
    """
    from cosearch.rl.foreign.understood import tensor_text

    batch = {"free": "free", "one": "fixed to 1: observations one by one", "none": "none: observations one by one"}[known.batch]
    scale = "as the environment's"
    if known.action_factor:
        pairs = zip(known.action_factor, known.action_offset, strict=True)
        scale = ", ".join(f"{factor:.4g} x {'+' if offset >= 0 else '-'} {abs(offset):.4g}" for factor, offset in pairs)
    normaliser = "none beside the file"
    if known.normaliser is not None:
        clip = "" if known.normaliser.clip is None else f", clipped to {known.normaliser.clip:g}"
        normaliser = f"{known.normaliser.source}, {len(known.normaliser.mean)} features{clip}"
    rows = {
        "file": f"{path}: {known.origin}",
        "task": f"{known.env}: observations {list(known.frame_shape)}, {known.num_actions} actions, {known.policy}",
        "inputs": "; ".join(tensor_text(entry) for entry in known.inputs),
        "observations": known.observation + (f", {known.layout}, pixels to {known.pixels}" if known.layout else ""),
        "batch": batch,
        "normaliser": normaliser,
        "outputs": "; ".join(tensor_text(entry) for entry in known.outputs),
        "policy": f"{known.chosen}: {known.meaning}" + (f", spread in {known.spread}" if known.spread else ""),
        "memory": "; ".join(f"{state.taken} -> {state.given}" for state in known.states) or "none",
        "value": known.value or "none: the critic is not learned from",
        "plays": known.acting,
        "teaches by": "its distribution" if known.teaches_by == "distribution" else "its actions",
    }
    if known.policy == "gaussian":
        rows["action scale"] = ("the tanh, then " if known.squashed else "") + scale
    lines = [f"{name + ':':14}{text}" for name, text in rows.items()]
    return "\n".join([*lines, *(f"concluded:    {note}" for note in known.notes)])


def _fits(path: Path, found: Compression) -> dict[str, object]:
    return {
        "policy": str(path),
        "fits_already": True,
        "policy_latency_s": found.timed.latency_s,
        "policy_latency_from": found.timed.source,
        "policy_latency_measured_s": found.timed.measured_s,
        "latency_target_s": found.target_s,
    }


def _fits_text(path: Path, device: str, found: Compression) -> str:
    from cosearch.report.format import time_text

    return (
        f"{path} fits already: {time_text(found.timed.latency_s)} on {device} ({found.timed.source}), the target is "
        f"{time_text(found.target_s)}. Nothing was searched; --anyway looks for a faster agent all the same"
    )
