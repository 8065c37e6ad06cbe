"""Commands that a failing disk or a kill disturbs: what each one is, what must be equal at its end, and one trial of it.

A trial runs in a fork of a server that has everything imported (``disturbed_child``), in a folder with ``work``, where the
command is at home, and ``tmp`` for temporary files.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import multiprocessing.forkserver
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from branching import Branches
from faulty_disk import ERRORS, Disk, Fault
from pipeline_runs import ROOT, results, without_clocks
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from cosearch.record.rundir import RunDir
from latency_tables.opspec import OpSpec
from latency_tables.table import load_table
from latency_tables.worklists import make_worklist

PATIENCE_S = 120.0
SPACE = {"stem_channels": 8, "stage_channels": [8, 8], "stage_repeats": [1, 1], "stage_strides": [2, 1], "hidden": 16}
TINY = (
    f"space.values={json.dumps(SPACE)}",
    "threads=1",
    "env.num_envs=2",
    "rl.rollout_steps=4",
    "rl.minibatch=8",
    "rl.epochs=1",
    "budget.eval_episodes=2",
    "budget.parity_frames=4",
    "budget.measure_s=0.02",
    "budget.checkpoint_interval_s=0",
    "objective.latency_ratio=0.9",
    "distill.teacher=none",
)
SEARCH = ("search", "--run", "one", "--env", "minatar:breakout", *TINY)
GRADIENT = ("strategy.paths_per_rollout=2", "strategy.warmup_fraction=0.1")
STEM = OpSpec("stem", 3, 16, 16, 8, 4, 2, 1)
CELLS = (OpSpec("conv", 8, 8, 8, 8, 3, 1, 1), OpSpec("mbconv", 8, 8, 8, 8, 3, 1, 1, expansion=3))
HEAD = OpSpec("head", 8, 8, 8, 4, hidden=16, activation="none")
NETWORKS = [[STEM, *cells, HEAD] for cells in ((CELLS[0],), (CELLS[1],), CELLS, (CELLS[1], CELLS[1]), (CELLS[0],) * 2)]


@dataclass(frozen=True)
class Job:
    """A command, and what must be equal at its end.

    Attributes:
        words: of the command.
        outcome: of the folder ``work``: everything that no clock measured, by name.
        program: ``cosearch`` or ``latency_tables``.
        again: the words that go on with it, from what is in ``work``; None: the same.
        start: the job whose undisturbed folder it begins with; empty: an empty one.
        lean: see ``disturbed_child.prepare``.
    """

    words: tuple[str, ...]
    outcome: Callable[[Path], dict[str, Any]]
    program: str = "cosearch"
    again: Callable[[Path], tuple[str, ...]] | None = None
    start: str = ""
    lean: bool = True

    def next_words(self, work: Path) -> tuple[str, ...]:
        """What a user types next, as the message of the disturbed command says."""
        return self.words if self.again is None else self.again(work)


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (negative: the signal), its errors, the stages of its events."""

    code: int
    err: str
    stages: tuple[str, ...] = ()

    def fault(self, most_messages: int = 1) -> str:
        """What is wrong with the manner of its end; empty where nothing is."""
        if self.code not in (0, 1, 2):
            return f"exit code {self.code}"
        if "Traceback" in self.err or "Exception ignored" in self.err:
            return "a traceback"
        messages = sum(line.startswith("error: ") for line in self.err.splitlines())
        return f"{messages} messages" if (messages == 0) == bool(self.code) or messages > most_messages else ""


def started(
    job: Job, words: tuple[str, ...], folder: Path, turns: Sequence[int] = (), every: int = 1, alone: bool = False
) -> Any:
    """Begin a command; a ``multiprocessing`` process.

    Args:
        job: of the command.
        words: of it, or those that go on with it.
        folder: of the trial.
        turns: which faults branch off at each call, see ``fault_of``; none: it is not disturbed.
        every: only at each so many-th call.
        alone: in one process.
    """
    (folder / "tmp").mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["disturbed_child"])
    with pytest.MonkeyPatch.context() as patch:  # the server looks for modules in the environment's path alone
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]))
        multiprocessing.forkserver.ensure_running()
    process = context.Process(target=_child, args=(job.program, words, str(folder), job.lean, alone, tuple(turns), every))
    process.start()
    return process


def _child(program: str, words: Sequence[str], folder: str, lean: bool, alone: bool, turns: Sequence[int], every: int) -> None:
    """The life of a trial's process: one command in ``FOLDER/work``."""
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(target, number)
        os.close(target)
    from disturbed_child import prepare

    here = Path(folder)
    prepare(here, lean=lean, alone=alone or bool(turns))
    os.chdir("work")
    if turns:
        branches = Branches(here, lambda number, kind: [] if number % every else [fault_of(number, kind, turn) for turn in turns])
        Disk([here / "work", here / "tmp"], here / "calls", None, branches.at).install()
    sys.argv = [program, *words]
    if program == "latency_tables":
        from latency_tables.commands import main as measure

        measure()
    else:
        from cosearch.cli.app import main

        sys.exit(main(list(words)))


def ended(process: Any, folder: Path, patience_s: float = PATIENCE_S) -> Ended:
    """Wait for the end of a command; one that takes longer is killed."""
    process.join(patience_s)
    if process.exitcode is None:
        process.kill()
        process.join()
    code = process.exitcode
    process.close()

    def text(name: str) -> str:
        return (folder / name).read_text(errors="replace") if (folder / name).exists() else ""

    return Ended(code, text("stderr"), tuple(text("events").split()))


def command(job: Job, words: tuple[str, ...], folder: Path, *, alone: bool = False) -> Ended:
    """Run a command to its end."""
    return ended(started(job, words, folder, alone=alone), folder)


def fault_of(number: int, kind: str, turn: int) -> Fault:
    """What happens to a call in a turn: over eight turns each error once alone and once lasting."""
    error = ERRORS[(number + turn) % len(ERRORS)]
    if kind in ("remove", "rmdir") and error == errno.EMFILE:  # no removal can give that
        error = errno.EROFS
    return Fault(number, error, lasting=(number // len(ERRORS) + turn + turn // len(ERRORS)) % 2 == 1)


def begun(job: Job, folder: Path, straight: Path) -> Path:
    """The folder of a trial, as the job finds it.

    Args:
        job: what is tried.
        folder: removed first.
        straight: holds the undisturbed folder of each job, by name.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if job.start:
        shutil.copytree(straight / job.start / "work", folder / "work")
    else:
        (folder / "work").mkdir()
    if job.program == "latency_tables":
        (folder / "work" / "list.json").write_text(json.dumps(make_worklist("toy", [], NETWORKS).to_dict()))
    return folder


def different(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of what two outcomes do not share."""
    return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))


def names(folder: Path) -> list[str]:
    """All files and folders that are not hidden; without the numbers in the names of checkpoints and event files."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        empty_lock = path.suffix == ".lock" and not path.stat().st_size
        if empty_lock or any(part.startswith(".") for part in name.parts):  # what a dead disk kept from being removed
            continue
        if path.name.startswith("events.out"):
            name = name.with_name("events")
        elif path.parent.name == "checkpoints" and path.suffix == ".pt":
            name = name.with_name("checkpoint")
        found.append(str(name))
    return sorted(set(found))


def outline(value: Any) -> Any:
    """A value with each fraction replaced by a word, for what a clock measured."""
    if isinstance(value, dict):
        return {key: outline(item) for key, item in value.items()}
    if isinstance(value, list):
        return [outline(item) for item in value]
    return "a fraction" if isinstance(value, float) else value


def run_outcome(run: Path) -> dict[str, Any]:
    """Of a finished run: all that ``pipeline_runs.results`` has, its files, its record, its bundle and its event file."""
    events = [
        (value.tag, event.step)
        for path in run.glob("events.out*")
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    record = RunDir.open(run).record
    bundle = [
        path for path in sorted((run / "agent").rglob("*")) if path.suffix in (".npy", ".py")
    ]  # the file and its contract hold what was measured
    page = (run / "report.html").read_text()
    return {
        **results(run),
        "files": names(run),
        "record": {key: value for key, value in record.items() if key not in ("created_utc", "command")},
        "bundle": {path.name: path.read_bytes() for path in bundle},
        "events": events,
        "page": page.rstrip().endswith("</html>"),
    }


def search_outcome(work: Path) -> dict[str, Any]:
    """Of the run ``one``, and that nothing else lies beside it."""
    beside = [str(path.relative_to(work)) for path in (*work.glob("[!.]*"), *(work / "runs").glob("[!.]*"))]
    return {**run_outcome(work / "runs" / "one"), "beside": sorted(beside)}


def resumed(work: Path) -> tuple[str, ...]:
    """A run that had begun is resumed."""
    return ("resume", "runs/one")


def searched(*words: str, env: str = "minatar:breakout", steps: int = 16, tiny: tuple[str, ...] = TINY, lean: bool = True) -> Job:
    """The job of one search."""
    begin = ("search", "--run", "one", "--env", env, *tiny, f"budget.search_steps={steps}", "budget.retrain_steps=16", *words)
    return Job(begin, search_outcome, again=lambda work: resumed(work) if (work / "runs" / "one").exists() else begin, lean=lean)


def deployed_outcome(work: Path) -> dict[str, Any]:
    """Of a run that was deployed here: its files, the agent, and the outline of what was measured."""
    run = work / "runs" / "one"
    found = {name: outline(json.loads((run / name).read_text())) for name in ("deployments.json", "summary.json", "agent.json")}
    for each in found["deployments.json"]["deployments"]:
        for clocked in ("created_utc", "self_test", "conditions", "target_met"):
            each.pop(clocked, None)
    agent = found["agent.json"].pop("latency")
    found["agent.json"]["latency"] = sorted(agent)
    found["summary.json"].pop("target_met")
    return {"files": names(work), "onnx": (run / "agent.onnx").read_bytes(), **_without_counts(found)}


def _without_counts(value: Any) -> Any:
    """Numbers of samples follow the clock."""
    if isinstance(value, dict):
        return {key: _without_counts(item) for key, item in value.items() if key not in ("samples", "missed", "blocks", "calls")}
    return [_without_counts(item) for item in value] if isinstance(value, list) else value


def table_outcome(work: Path) -> dict[str, Any]:
    """Of a measured table: its rows, and how often each was visited; on a busy machine its networks may be too noisy."""
    table = load_table(work / "t.jsonl")
    return {
        "files": names(work),
        "rows": {key: row.details["rounds"] for key, row in table.rows.items()},
        "visits": table.header["protocol"]["visits"],
        "device": table.header["device"],
    }


def teacher_outcome(work: Path) -> dict[str, Any]:
    """Of a trained teacher: both files, and the log of its training."""
    (run,) = (work / "runs").glob("teacher-*")
    return {
        "files": names(work),
        "record": json.loads((work / "teacher.json").read_text()),
        "weights": (work / "teacher.safetensors").read_bytes(),
        "log": [without_clocks(line) for line in RunDir.open(run, teacher=True).read_metrics()],
    }


def comparison_outcome(work: Path) -> dict[str, Any]:
    """Of a comparison: each of its runs, its figures and its files."""
    folder = work / "runs" / "small"
    figures = without_clocks(json.loads((folder / "compare-results.json").read_text()))
    found: dict[str, Any] = {"files": names(work), "figures": figures}
    for path in sorted(folder.glob("[!.]*/run.json")):
        run = run_outcome(path.parent)
        (run["summary"]["control"] or {}).pop("path", None)
        run["record"]["config"].pop("control", None)
        found |= {f"{path.parent.name}/{name}": value for name, value in run.items()}
    return found


def bench_outcome(work: Path) -> dict[str, Any]:
    """Of an extended benchmark: its lines."""
    lines = [json.loads(line) for line in (work / "bench" / "minatar-breakout.jsonl").read_text().splitlines()]
    return {"files": names(work), "lines": [{**line, "cpu_s": 0} for line in lines]}


def files_outcome(work: Path) -> dict[str, Any]:
    """All files."""
    return {name: (work / name).read_bytes() for name in names(work) if (work / name).is_file()}


TEACHER = (
    "teacher",
    "--env",
    "gym:CartPole-v1",
    "--steps",
    "128",
    "--seed",
    "3",
    "--threads",
    "1",
    "--episodes",
    "2",
    "--out",
    "teacher.json",
    "env.num_envs=2",
    "rl.rollout_steps=8",
    "rl.epochs=1",
    "rl.minibatch=16",
)
TABLE = ("measure", "--device", "toy", "--out", "t.jsonl", "--worklist", "list.json", "--rounds", "2", "--max-rounds", "2")
SHORT = ("budget.search_steps=8", "budget.retrain_steps=8", "budget.clip_frames=0")
COMPARE = ("compare", "--seeds", "1", "--env", "minatar:breakout", "--name", "small", *TINY[:1], *TINY[2:])
JOBS = {
    "search": searched(*GRADIENT, lean=False),
    "table": Job((*TABLE, "--budget", "0", "--energy-seconds", "0"), table_outcome, program="latency_tables"),
    "teacher": Job(TEACHER, teacher_outcome),
    "compare": Job(
        (*COMPARE, "--strategies", "random", "strategy.candidates=1", *SHORT),
        comparison_outcome,
    ),
    "export": Job(("export", "runs/one"), search_outcome, start="search"),
    "report": Job(("report", "runs/one"), search_outcome, start="search"),
    "deploy": Job(("deploy", "runs/one", "--seconds", "0.3"), deployed_outcome, start="search"),
    "bench extend": Job(("bench", "extend", "--out", "bench", "--task", "minatar:breakout"), bench_outcome),
    "sample": Job(("sample", "--space", "chain", "--n", "2", "--env", "minatar:breakout", "--out", "samples"), files_outcome),
    "fit": Job(("fit", "--device", "jetson", "--out", "t.jsonl"), lambda work: {"files": names(work)}, program="latency_tables"),
}
