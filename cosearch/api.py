"""The public functions behind ``import cosearch``: each does what the command of its name does, and returns a record.

Nothing heavy is imported before a function is called. Faults of a request raise the errors of :mod:`latency_tables.errors`,
whose messages name what was expected, what was got and what to do next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cosearch.results import MeasuredTable, OperationCost, Prediction, Run, load_run

if TYPE_CHECKING:
    from cosearch.deploy.player import Agent


def search(
    env: str | None = None,
    device: str | None = None,
    *,
    run: str | None = None,
    runs: str | Path = "runs",
    preset: str = "quick",
    seed: int | None = None,
    strategy: str | None = None,
    latency_target_s: float | None = None,
    table: str | Path | None = None,
    quiet: bool = False,
    **values: object,
) -> Run:
    """Search an agent for a task and a device, train, export, measure and report it: ``python -m cosearch search``.

    Takes minutes with the default preset and shows its progress on stderr. An interrupted run is continued by
    ``python -m cosearch resume FOLDER``. Import nothing of torch before the first call where you can: settings that keep idle
    threads asleep only work before that. With ``strategy.workers`` or ``env.step_limit_s`` a script calls it under
    ``if __name__ == "__main__":``, since each of its processes imports the script.

    Args:
        env: task such as ``procgen:starpilot`` or ``gym:CartPole-v1``; None: the configuration's default.
        device: name of a device or accelerator; ``this`` measures the machine first; None: the configuration's default.
        run: name of the run folder; None: made from task, device, strategy and seed.
        runs: folder of the run folders.
        preset: ``smoke``, ``quick``, ``standard`` or ``paper``.
        seed: the one seed of the run.
        strategy: search method.
        latency_target_s: upper bound, seconds; None: a share of the reference agent's latency on the same device.
        table: file of a latency table or an accelerator design to use instead of the device's own.
        quiet: show no progress.
        **values: sections of the configuration as mappings, ``budget={"search_steps": 8192}``, or single values such as
            ``threads=1``, also with dots: ``**{"env.num_envs": 8}``; ``python -m cosearch search --dry-run`` prints all of them.

    Returns:
        The finished run.

    Raises:
        RequestError: a wrong value, an unknown name, an infeasible target, a run folder that exists, a script that its
            processes run again; nothing was trained.
        RunFailedError: the run failed; its last checkpoint is kept.
    """
    _prepare_process()
    from cosearch.cli.progress import TerminalProgress
    from cosearch.fleet.processes import check_main_guard
    from cosearch.pipeline.local_table import with_own_tables
    from cosearch.pipeline.run import default_name, free_name, start_run
    from cosearch.planning.plan import make_plan
    from cosearch.planning.task import resolve_task
    from cosearch.record.rundir import RunDir
    from latency_tables.errors import RequestError

    check_main_guard()
    options = {
        "device": device,
        "env.name": env,
        "strategy.name": strategy,
        "seed": seed,
        "table": None if table is None else str(table),
        "objective.latency_target_s": latency_target_s,
    }
    config = resolve_task(preset=preset, overrides=_words(values), options=options)
    if config.family.wanted:
        raise RequestError(
            "cosearch.search makes one agent, got lists in the section family: call it once for each device and target, or use "
            "`cosearch search --device A,B`, which searches once for all"
        )
    RunDir.check_new(Path(runs), run)
    progress = TerminalProgress(quiet)
    try:
        plan = make_plan(with_own_tables(config, Path(runs), progress, dry_run=False))
        name = run or free_name(Path(runs), default_name(plan))
        finished = start_run(plan, Path(runs), name, "cosearch.search(...)", progress)
    finally:
        progress.close()
    return load_run(finished.path)


def load_agent(run: Run | str | Path, *, seed: int = 0, threads: int = 1) -> Agent:
    """The exported agent of a run, ready to play. Needs numpy and onnxruntime, not torch.

    Args:
        run: a finished run, its folder, or the path of its ``agent.onnx``; ``agent.json`` must lie beside that.
        seed: of the sampled actions.
        threads: CPU threads; latencies are predicted and measured for one.

    Raises:
        RunFolderError: there is no exported agent, or its description cannot be read or is of another file.
        MissingExtraError: onnxruntime is not installed.
    """
    from cosearch.deploy.player import Agent

    folder = run.folder if isinstance(run, Run) else Path(run)
    return Agent(folder.parent if folder.suffix == ".onnx" else folder, seed=seed, threads=threads)


def predict(architecture: Run | str | Path, device: str | None = None, *, table: str | Path | None = None) -> Prediction:
    """What a network would cost on a device, by operation: ``python -m cosearch predict``.

    Args:
        architecture: architecture file (``architecture.json`` of a run, or one of ``cosearch sample``), or a run.
        device: name of a device, or of an accelerator with its own design.
        table: file of a latency table or an accelerator design, instead of a device.

    Raises:
        RequestError: neither or both of ``device`` and ``table``, an unknown device, or a file that is no architecture.
        MissingOpError: the table lacks one of the network's operations.
    """
    _prepare_process()
    from cosearch.deploy.sampling import predict_architecture
    from cosearch.planning.builtins import load_builtins
    from cosearch.planning.device.hardware import table_to_predict
    from latency_tables.errors import RequestError

    if (device is None) == (table is None):
        raise RequestError(f"give either a device or a table, got device={device!r} and table={table!r}")
    load_builtins()
    path = architecture.architecture if isinstance(architecture, Run) else Path(architecture)
    found = predict_architecture(path, table_to_predict(device or "", str(table or "")))
    interval = found["interval"]
    return Prediction(
        found["latency_s"],
        found["energy_j"],
        found["overhead_s"],
        None if interval is None else (interval[0], interval[1]),
        found["provenance"],
        found["device"],
        found["runtime"],
        found["dtype"],
        found["threads"],
        found["macs"],
        found["params"],
        tuple(OperationCost(**row) for row in found["operations"]),
    )


def measure(
    out: str | Path,
    env: str = "procgen:starpilot",
    *,
    space: Mapping[str, object] | None = None,
    device: str = "this",
    host: str | None = None,
    dtype: str = "float32",
    threads: int = 1,
    networks: int = 60,
    rounds: int = 9,
    budget_s: float = 240.0,
    again: bool = False,
) -> MeasuredTable:
    """Measure the latency table of a machine for one search space: the Python form of ``python -m latency_tables measure``.

    Writes the table, and beside it the work list that it was measured from. An interrupted measurement goes on when the same
    call is made again.

    Args:
        out: the table file, ``.jsonl``.
        env: task that gives the shape of the observations and the number of actions.
        space: section ``space`` of the configuration, e.g. ``{"values": {"stage_channels": [8, 16, 16]}}``; None: the default.
        device: name of the device in the table.
        host: measure on ``user@board`` by SSH instead of here.
        dtype: ``float32``, or ``int8``.
        threads: CPU threads of the runtime.
        networks: whole networks to measure, at most the size of the space: half fit the table, half certify it.
        rounds: visits of each model, at least.
        budget_s: seconds after which no new round starts.
        again: replace an existing table.

    Raises:
        RequestError: a wrong value, or a table that is there already.
        MeasurementError: the measurement failed or is too noisy to be written.
    """
    _prepare_process()
    from cosearch.deploy.sampling import write_worklist
    from cosearch.planning.space import make_space
    from cosearch.planning.task import resolve_task
    from cosearch.space.network import reference_agents
    from latency_tables.errors import RequestError
    from latency_tables.measuring.job import MeasureRequest, run
    from latency_tables.measuring.remote import Location
    from latency_tables.measuring.settings import Settings
    from latency_tables.table import Table
    from latency_tables.text.writing import make_folder

    path = Path(out)
    if path.exists() and not again:
        raise RequestError(f"{path} is there already; give again=True to replace it, or another file")
    chosen = make_space(resolve_task(overrides=_words({"space": space or {}}), options={"env.name": env}))
    references = reference_agents(chosen.frame_shape, chosen.num_actions, chosen.parts)
    worklist = path.with_suffix(".worklist.json")
    make_folder(path.parent)
    write_worklist(chosen, worklist, min(networks, chosen.size), further=[op for ops in references.values() for op in ops])
    settings = Settings(threads=threads, min_rounds=rounds, max_rounds=max(rounds, 40), budget_s=budget_s)
    request = MeasureRequest(
        path, device, worklists=(str(worklist),), dtype=dtype, again=again, location=Location(host=host), settings=settings
    )
    table = Table(run(request, command="cosearch.measure(...)"), path=path)
    proof = None if table.certificate is None else table.certificate.accuracy
    mape, tau = (None, None) if proof is None else (proof.mape, proof.kendall_tau)
    return MeasuredTable(path, table.device.name, len(table.rows), table.overhead_s, mape, tau)


def _prepare_process() -> None:
    from cosearch.cli.environment import prepare_process

    prepare_process()


def _words(values: Mapping[str, object], prefix: str = "") -> list[str]:
    """Configuration values as the command line takes them: ``section.key=JSON``."""
    words = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            words += _words(value, f"{prefix}{key}.")
        else:
            words.append(f"{prefix}{key}={_json(f'{prefix}{key}', value)}")
    return words


def _json(key: str, value: object) -> str:
    """A value as JSON; paths are texts, and numpy's numbers are numbers."""
    import numpy as np

    from latency_tables.errors import ConfigError
    from latency_tables.text.reading import shown

    def plain(inner: object) -> object:
        if isinstance(inner, Path):
            return str(inner)
        if isinstance(inner, np.generic):
            return inner.item()
        raise TypeError

    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{key}: expected a number, a text, a path, True, False, None, or a list or mapping of these, got {shown(value)}"
        ) from error
