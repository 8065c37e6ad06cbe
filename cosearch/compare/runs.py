"""A comparison: its runs (``cosearch.compare.plan``) as ordinary run folders below one folder, made side by side, at equal steps.

``compare.json`` says which runs there are to be; the runs themselves are those of ``cosearch search`` and go on after a kill as
these do. Random search is always among them: it is shown beside every other run, so its runs come first.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cosearch.compare.plan import PlannedRun
from cosearch.compare.worker import difference, placeless
from cosearch.config.run import config_from_dict, config_to_dict
from cosearch.planning.identity import Inputs, check_inputs
from cosearch.planning.plan import make_plan
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir, only_writer
from latency_tables.errors import RunFolderError
from latency_tables.text.reading import OWN_DIGITS, read_json, shown
from latency_tables.text.writing import make_folder

RECORD = "compare.json"
WAIT_S = 5.0  # for another process on the same comparison; workers of a killed one need a moment to end


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


def begin(folder: Path, runs: Sequence[PlannedRun], command: str) -> dict[tuple[str, str], Inputs]:
    """Check the runs and write ``compare.json``, or check that a comparison that exists is the same; it may get more runs.

    Args:
        folder: of the comparison.
        runs: see :func:`planned_runs`.
        command: the command line, for the record.

    Returns:
        What the runs begin with, by task and strategy.

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
            if run.name in old and placeless(old[run.name]) != placeless(run.config):
                raise RunFolderError(
                    f"{folder} holds a comparison whose run {run.name} has other values "
                    f"({difference(old[run.name], run.config)}); choose another --name"
                )
        kept = [entry for entry in _entries(path) if entry["name"] not in {run.name for run in runs}]
        entries += kept
    else:
        _check_ours(folder)
    checked: dict[tuple[str, str], Inputs] = {}
    for run in runs:
        if (run.env, run.strategy) not in checked:
            alike = [folder / other.name for other in runs if (other.env, other.strategy) == (run.env, run.strategy)]
            begun = [made for made in alike if (made / RunRecord.FILE).is_file()]
            plan = make_plan(replace(run.config, control=""), begun=len(begun) == len(alike))  # raises what it would trip over
            checked[run.env, run.strategy] = now = Inputs.of(plan.record(""))
            for made in begun:
                check_inputs(made, RunDir.open(made).read(RunRecord), now)
    make_folder(folder)
    record = {"format": 1, "command": command, "runs": entries}
    write_bytes_atomic(path, json.dumps(record, indent=1).encode() + b"\n")
    return checked


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
