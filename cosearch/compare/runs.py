"""A comparison: its runs (``cosearch.compare.plan``) as ordinary run folders below one folder, made side by side, at equal steps.

``compare.json`` says which runs there are to be; the runs themselves are those of ``cosearch search`` and go on after a kill as
these do. Random search is always among them: it is shown beside every other run, so its runs come first.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cosearch.compare.plan import PlannedRun
from cosearch.config.run import Config, config_from_dict, config_to_dict
from cosearch.fleet.processes import Processes
from cosearch.fleet.work import Send
from cosearch.fleet.workers import Workers
from cosearch.pipeline.run import is_finished, resume_run, start_run
from cosearch.planning.builtins import load_builtins
from cosearch.planning.control import RANDOM
from cosearch.planning.identity import Inputs, check_inputs
from cosearch.planning.plan import make_plan
from cosearch.planning.recorded import config_of
from cosearch.planning.request import resolve_request
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir, only_writer
from cosearch.report.data import flatten
from cosearch.training.threads import set_threads
from latency_tables.errors import CosearchError, RunFolderError
from latency_tables.reading import OWN_DIGITS, read_json, shown
from latency_tables.writing import make_folder

RECORD = "compare.json"
WAIT_S = 5.0  # for another process on the same comparison; workers of a killed one need a moment to end
LINE_EVERY_S = 60.0
Tell = Callable[[str], None]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only process that works on a comparison inside the ``with`` block.

    Its folder is made where it is missing, and is gone again afterwards where no comparison was begun in it.

    Raises:
        RunFolderError: another process works on it, or the folder holds something else.
        RunFailedError: the place takes no folder.
    """
    _check_ours(folder)
    new = not folder.exists()
    make_folder(folder)
    advice = "the same command goes on with it once that has ended, and shows the result; another --name begins another one"
    with only_writer(folder, f"another process works on the comparison {folder}: {advice}", WAIT_S):
        try:
            yield
        finally:
            if new and not (folder / RECORD).exists():
                shutil.rmtree(folder, ignore_errors=True)


def _check_ours(folder: Path) -> None:
    """Raise unless the folder may get a comparison; what a killed one left behind before its record is no fault."""
    if not (folder / RECORD).is_file() and folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise RunFolderError(f"{folder} exists already and holds no {RECORD}; choose another --name")


def begin(folder: Path, runs: Sequence[PlannedRun], command: str) -> None:
    """Check the runs and write ``compare.json``, or check that a comparison that exists is the same; it may get more runs.

    Args:
        folder: of the comparison.
        runs: see :func:`planned_runs`.
        command: the command line, for the record.

    Raises:
        RequestError: a run could not be made, see ``cosearch.planning.plan.make_plan``.
        RunFolderError: the comparison exists with other values.
        TableError: a run of it was made with another table.
        ConfigError: or with another teacher or environment.
    """
    entries: list[object] = [
        {
            "name": run.name,
            "env": run.env,
            "strategy": run.strategy,
            "seed": run.seed,
            "config": config_to_dict(run.config),
            "own": list(run.own),
        }
        for run in runs
    ]
    path = folder / RECORD
    if path.is_file():
        old = {run.name: run.config for run in read_comparison(folder)}
        for run in runs:
            if run.name in old and _placeless(old[run.name]) != _placeless(run.config):
                raise RunFolderError(
                    f"{folder} holds a comparison whose run {run.name} has other values "
                    f"({_difference(old[run.name], run.config)}); choose another --name"
                )
        kept = [entry for entry in _entries(path) if entry["name"] not in {run.name for run in runs}]
        entries += kept
    else:
        _check_ours(folder)
    checked = set()
    for run in runs:
        if (run.env, run.strategy) not in checked:
            checked.add((run.env, run.strategy))
            now = Inputs.of(make_plan(replace(run.config, control="")).record(""))  # raises what the run would trip over
            for made in (folder / other.name for other in runs if (other.env, other.strategy) == (run.env, run.strategy)):
                if (made / RunRecord.FILE).is_file():
                    check_inputs(made, RunDir.open(made).read(RunRecord), now)
    make_folder(folder)
    record = {"format": 1, "command": command, "runs": entries}
    write_bytes_atomic(path, json.dumps(record, indent=1).encode() + b"\n")


def _placeless(config: Config) -> Config:
    """The configuration with its control by name alone: a comparison may be moved as a whole."""
    return replace(config, control=Path(config.control).name)


def _difference(old: Config, new: Config) -> str:
    before, after = dict(flatten(config_to_dict(old))), dict(flatten(config_to_dict(new)))
    return ", ".join(
        f"{key} {before.get(key)} there, {after.get(key)} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )


def read_comparison(folder: Path) -> list[PlannedRun]:
    """The runs that a comparison is to have.

    Raises:
        RunFolderError: the folder holds no comparison, or a damaged one.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise RunFolderError(f"{folder} holds no comparison ({RECORD} is missing); give the folder that `cosearch compare` made")
    try:
        return [_planned(entry, str(path)) for entry in _entries(path)]
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} cannot be read: {type(error).__name__}: {str(error)[:200]}") from error


def _planned(entry: Mapping[str, object], where: str) -> PlannedRun:
    name, env, strategy, seed, own = (entry.get(key) for key in ("name", "env", "strategy", "seed", "own"))
    own = [] if own is None else own
    if not (isinstance(name, str) and isinstance(env, str) and isinstance(strategy, str) and type(seed) is int):
        raise TypeError("a run has a name, an env and a strategy, which are texts, and a seed, a whole number")
    if not name or Path(name).name != name or "\0" in name:
        raise ValueError(f"the name of a run must be that of its folder, got {shown(name)}")
    if not isinstance(own, list) or not all(isinstance(key, str) for key in own):
        raise TypeError(f"own must be a list of keys, got {shown(own)}")
    return PlannedRun(name, env, strategy, seed, config_from_dict(_section(entry), where), tuple(own))


def _section(entry: Mapping[str, object]) -> Mapping[str, object]:
    section = entry["config"]
    if not isinstance(section, dict):
        raise TypeError(f"config must be an object, got {shown(section)}")
    return section


def _entries(path: Path) -> list[dict[str, Any]]:
    """The runs of a comparison's record; what each of them holds is read where it is used."""
    content = read_json(path, "the record of a comparison", RunFolderError, digits=OWN_DIGITS)
    entries = content.get("runs") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "name" in entry for entry in entries):
        raise RunFolderError(f"{path} cannot be read: expected an object with a list of runs, each with a name")
    return entries


def make_runs(folder: Path, runs: Sequence[PlannedRun], *, jobs: int, command: str, tell: Tell) -> dict[str, str]:
    """Make the runs that are missing and go on with those that were interrupted.

    Args:
        folder: of the comparison.
        runs: see :func:`planned_runs`.
        jobs: processes at once; each run is in one, and one process makes one run after the other.
        command: the command line, for the runs' records.
        tell: is told what happens, one line each.

    Returns:
        For each run that failed, why; the others are finished. One whose process was lost three times is among them.
    """
    failed: dict[str, str] = {}
    with Workers(make_run, Processes(jobs)) as workers:
        for controls in (True, False):
            todo = [run for run in runs if (run.strategy == RANDOM) == controls and not _finished(folder / run.name)]
            failed |= _make(workers, folder, todo, command, tell)
    return failed


def _make(workers: Workers, folder: Path, todo: Sequence[PlannedRun], command: str, tell: Tell) -> dict[str, str]:
    """Make runs in worker processes; for each that failed, why."""
    failed: dict[str, str] = {}

    def done(index: int, reason: str | None) -> None:
        tell(f"{todo[index].name}: " + ("finished" if reason is None else f"failed: {reason}"))
        if reason is not None:
            failed[todo[index].name] = reason

    work = [{"folder": str(folder), "name": run.name, "config": config_to_dict(run.config), "command": command} for run in todo]
    workers.run(
        work,
        name=lambda index: f"the run {todo[index].name}",
        done=done,
        failed=lambda index, error: done(index, str(error)),
        lost=done,
        sent=lambda index, text: tell(f"{todo[index].name}: {text}"),
    )
    return failed


def _finished(path: Path) -> bool:
    return (path / "run.json").is_file() and is_finished(RunDir.open(path))


def make_run(job: dict[str, Any], send: Send) -> str | None:
    """One run in a worker process.

    Args:
        job: folder, name, configuration and command line.
        send: gets lines of text.

    Returns:
        None, or why the run failed.
    """
    set_threads(1)  # until the run sets its own
    load_builtins()
    folder, config, progress = Path(job["folder"]), config_from_dict(job["config"], job["name"]), TextProgress(send)
    path = folder / job["name"]
    try:
        if not path.exists():
            start_run(make_plan(config), folder, job["name"], job["command"], progress)
        elif _placeless(recorded := config_of(RunDir.open(path))) != _placeless(asked := resolve_request(config).config):
            return (
                f"{path} was made with other values ({_difference(recorded, asked)}); move it away, then the same command goes on"
            )
        else:
            resume_run(path, progress)
    except CosearchError as error:
        return str(error)
    return None


class TextProgress:
    """A run's progress in lines of text: its stages and notes, and where it is once a minute.

    Args:
        send: gets each line.
    """

    def __init__(self, send: Send) -> None:
        self._send, self._last = send, time.monotonic()

    def stage(self, name: str, total_steps: int, done_steps: int) -> None:
        """See ``Progress``."""
        self._send(f"{name}: step {done_steps:,} of {total_steps:,}")

    def update(self, metrics: dict[str, Any]) -> None:
        """See ``Progress``."""
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            score = "" if metrics.get("score_train") is None else f", score {metrics['score_train']:.2f}"
            self._send(f"{metrics['stage']}: step {metrics['step']:,}{score}, {metrics['steps_per_s']:,.0f} steps/s")

    def note(self, text: str) -> None:
        """See ``Progress``."""
        self._send(text)
