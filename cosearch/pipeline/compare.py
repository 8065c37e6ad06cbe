"""A comparison: strategies x seeds x tasks as ordinary run folders below one folder, made side by side, at equal steps.

``compare.json`` says which runs there are to be; the runs themselves are those of ``cosearch search`` and go on after a kill as
these do. Random search is always among them: it is every other run's control, so its runs come first.
"""
from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cosearch.config import Config, config_from_dict, config_to_dict
from cosearch.config_search import StrategyConfig
from cosearch.durable import write_bytes_atomic
from cosearch.pipeline.budget import run_steps
from cosearch.pipeline.builtins import load_builtins
from cosearch.pipeline.co_design import table_or_design
from cosearch.pipeline.plan import PROPOSALS_ONLY, make_plan, with_absolute_paths
from cosearch.pipeline.run import config_of, is_finished, resume_run, start_run
from cosearch.pipeline.task import resolve_task
from cosearch.pipeline.workers import Send, Workers
from cosearch.rundir import RunDir
from cosearch.strategies.base import STRATEGIES
from latency_tables.errors import ConfigError, CosearchError, RunFolderError, UnknownNameError
from latency_tables.table import Table

RECORD = "compare.json"
CONTROL = "random"
LINE_EVERY_S = 60.0
Tell = Callable[[str], None]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison.

    Attributes:
        name: of its folder.
        env, strategy, seed: what tells it from the others.
        config: its configuration.
    """

    name: str
    env: str
    strategy: str
    seed: int
    config: Config


def planned_runs(folder: Path, strategies: Sequence[str], seeds: Sequence[int], envs: Sequence[str], *, preset: str = "quick",
                 file: Path | None = None, words: Sequence[str] = (),
                 options: Mapping[str, Any] | None = None) -> list[PlannedRun]:
    """All runs of a comparison, random search first.

    Args:
        folder: of the comparison.
        strategies: names; random search is added where it is missing.
        seeds, envs: of the runs: every strategy has each of them.
        preset, file: see ``cosearch.config.resolve``.
        words: KEY=VALUE for all runs, or STRATEGY:KEY=VALUE for those of one. A key of the section ``strategy`` is given to the
            strategies that use it.
        options: see ``cosearch.config.resolve``.

    Returns:
        The runs; each uses one thread unless ``threads`` is set, and has the random-search run of its seed as its control.

    Raises:
        UnknownNameError: no such strategy, or a key that none of them uses.
        ConfigError: a fault of the configuration, or runs of unequal numbers of environment steps.
    """
    load_builtins()
    names = [CONTROL, *(name for name in dict.fromkeys(strategies) if name != CONTROL)]
    chosen = {name: _words_of(name, names, words) for name in names}
    _refuse_unused(words, chosen)
    runs = []
    for name in names:
        for env in dict.fromkeys(envs):
            for seed in dict.fromkeys(seeds):
                control = "" if name == CONTROL else str(folder / _run_name(env, CONTROL, seed, envs))
                asked = {**(options or {}), "strategy.name": name, "env.name": env, "seed": seed, "control": control}
                config = with_absolute_paths(resolve_task(preset=preset, file=file, overrides=chosen[name], options=asked))
                config = replace(config, threads=config.threads or 1)
                runs.append(PlannedRun(_run_name(env, name, seed, envs), env, name, seed, config))
    steps = {run.name: run_steps(run.config) for run in runs}
    if len(set(steps.values())) > 1:
        raise ConfigError("the runs of a comparison must have equal environment steps, got "
                          + ", ".join(f"{name}: {count:,}" for name, count in steps.items()))
    return _with_one_target(runs)


def _with_one_target(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The same; on an accelerator, where each seed searches the reference agent's design anew, all have the first's target."""
    targets: dict[str, float | None] = {}
    for run in runs:
        if run.env not in targets:
            config, targets[run.env] = run.config, None
            if config.objective.latency_target_s is None and not isinstance(table_or_design(config.device, config.table), Table):
                targets[run.env] = make_plan(config).targets[0].value
    return [run if targets[run.env] is None else
            replace(run, config=replace(run.config, objective=replace(run.config.objective, latency_target_s=targets[run.env])))
            for run in runs]


def _run_name(env: str, strategy: str, seed: int, envs: Sequence[str]) -> str:
    task = f"{env.replace(':', '-').replace('/', '-')}-" if len(set(envs)) > 1 else ""
    return f"{task}{strategy}-s{seed}"


def _words_of(name: str, names: Sequence[str], words: Sequence[str]) -> list[str]:
    """The words for one strategy, without those of others and those that it would ignore."""
    info, found = STRATEGIES.get(name), []
    for word in words:
        owner, _, rest = word.partition(":")
        if "=" not in owner and owner in names:
            found += [rest] if owner == name else []
            continue
        section, _, key = word.partition("=")[0].partition(".")
        if section != "strategy" or _uses(info, key):
            found.append(word)
    return found


def _uses(info: Any, key: str) -> bool:
    if not key.startswith("values."):
        return key not in info.ignores and not (info.kind == "gradient" and key in PROPOSALS_ONLY)
    try:
        info.options(StrategyConfig(name=info.name, values={key.removeprefix("values."): None}))
    except UnknownNameError:
        return False
    except ConfigError:  # its own, and null is no value for it
        return True
    return True


def _refuse_unused(words: Sequence[str], chosen: Mapping[str, Sequence[str]]) -> None:
    for word in words:
        owner, _, rest = word.partition(":")
        if not any(word in kept or (owner == name and rest in kept) for name, kept in chosen.items()):
            raise ConfigError(f"{word} has no effect with any of {', '.join(chosen)}; leave it out")


def begin(folder: Path, runs: Sequence[PlannedRun], command: str) -> None:
    """Check the runs and write ``compare.json``, or check that a comparison that exists is the same; it may get more runs.

    Args:
        folder: of the comparison.
        runs: see :func:`planned_runs`.
        command: the command line, for the record.

    Raises:
        RequestError: a run could not be made, see ``cosearch.pipeline.plan.make_plan``.
        RunFolderError: the comparison exists with other values.
    """
    record = {"format": 1, "command": command, "runs": [{"name": run.name, "env": run.env, "strategy": run.strategy,
                                                        "seed": run.seed, "config": config_to_dict(run.config)} for run in runs]}
    path = folder / RECORD
    if path.is_file():
        old = {run.name: run.config for run in read_comparison(folder)}
        for run in runs:
            if run.name in old and old[run.name] != run.config:
                raise RunFolderError(f"{folder} holds a comparison whose run {run.name} has other values "
                                     f"({_difference(old[run.name], run.config)}); choose another --name")
        kept = [entry for entry in json.loads(path.read_bytes())["runs"] if entry["name"] not in {run.name for run in runs}]
        record["runs"] += kept
    elif folder.exists() and any(folder.iterdir()):
        raise RunFolderError(f"{folder} exists already and holds no {RECORD}; choose another --name")
    checked = set()
    for run in runs:
        if (run.env, run.strategy) not in checked:
            checked.add((run.env, run.strategy))
            make_plan(replace(run.config, control=""))  # raises what the run would trip over
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, json.dumps(record, indent=1).encode() + b"\n")


def _difference(old: Config, new: Config, prefix: str = "") -> str:
    def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in values.items():
            found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
        return found

    before, after = flat(config_to_dict(old)), flat(config_to_dict(new))
    return ", ".join(f"{key} {before.get(key)} there, {after.get(key)} now" for key in sorted(before.keys() | after.keys())
                     if before.get(key) != after.get(key))


def read_comparison(folder: Path) -> list[PlannedRun]:
    """The runs that a comparison is to have.

    Raises:
        RunFolderError: the folder holds no comparison, or a damaged one.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise RunFolderError(f"{folder} holds no comparison ({RECORD} is missing); give the folder that `cosearch compare` made")
    try:
        return [PlannedRun(entry["name"], entry["env"], entry["strategy"], entry["seed"],
                           config_from_dict(entry["config"], str(path))) for entry in json.loads(path.read_bytes())["runs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error


def make_runs(folder: Path, runs: Sequence[PlannedRun], *, jobs: int, command: str, tell: Tell) -> dict[str, str]:
    """Make the runs that are missing and go on with those that were interrupted.

    Args:
        folder: of the comparison.
        runs: see :func:`planned_runs`.
        jobs: processes at once; each run is in one, and one process makes one run after the other.
        command: the command line, for the runs' records.
        tell: is told what happens, one line each.

    Returns:
        For each run that failed, why; the others are finished.

    Raises:
        RunFailedError: two processes in a row died over one run.
    """
    failed: dict[str, str] = {}
    with Workers(make_run, jobs) as workers:
        for part in ([run for run in runs if run.strategy == CONTROL], [run for run in runs if run.strategy != CONTROL]):
            todo = [run for run in part if not _finished(folder / run.name)]

            def done(index: int, reason: str | None, todo: Sequence[PlannedRun] = todo) -> None:
                tell(f"{todo[index].name}: " + ("finished" if reason is None else f"failed: {reason}"))
                if reason is not None:
                    failed[todo[index].name] = reason

            work = [{"folder": str(folder), "name": run.name, "config": config_to_dict(run.config), "command": command}
                    for run in todo]
            workers.run(work, name=lambda index, todo=todo: f"the run {todo[index].name}", done=done,
                        sent=lambda index, text, todo=todo: tell(f"{todo[index].name}: {text}"))
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
    load_builtins()
    folder, config, progress = Path(job["folder"]), config_from_dict(job["config"], job["name"]), TextProgress(send)
    path = folder / job["name"]
    try:
        if not path.exists():
            start_run(make_plan(config), folder, job["name"], job["command"], progress)
        elif config_of(RunDir.open(path)) != config:
            return f"{path} was made with other values; move it away"
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
