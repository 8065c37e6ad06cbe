"""Commands in processes of their own for the tests of pipeline and command line, and what their run folders must share.

A server that has imported everything is forked for each command, so that a command costs its work and not its imports. A
child can be told to kill or interrupt itself, or to fill a disk, at an exact moment: the n-th event of a stage. Events are
rollouts, minibatches, every synchronisation and rename of a file, the evaluation and the measurement.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_faults import FAULTS

from cosearch.record.rundir import RunDir

ROOT = Path(__file__).resolve().parents[2]

SPACE = {"stem_channels": 8, "stage_channels": [8, 16], "stage_repeats": [1, 2], "stage_strides": [2, 2], "hidden": 32}
TARGET_S = 0.00026  # for the shipped jetson: between the fastest, 0.0002, and the mean of all, 0.000305
TINY = (
    f"space.values={json.dumps(SPACE)}",
    "threads=1",
    "env.num_envs=4",
    "strategy.paths_per_rollout=2",
    "strategy.warmup_fraction=0.1",
    "strategy.lr=0.3",
    "rl.rollout_steps=8",
    "rl.minibatch=8",
    "rl.epochs=2",
    "budget.search_steps=128",
    "budget.retrain_steps=96",
    "budget.eval_episodes=4",
    "budget.parity_frames=8",
    "budget.measure_s=0.05",
    "budget.clip_frames=8",
    "budget.checkpoint_interval_s=0",
    f"objective.latency_target_s={TARGET_S}",
    "distill.teacher=none",
)
TINY_PROPOSALS = tuple(word for word in TINY if not word.startswith("strategy."))  # which use none of these options
PATIENCE_S = 280
CLOCKS = {"wall_s", "steps_per_s", "latency_measured_s", "measured_ratio"}  # what may differ between two equal runs


@dataclass(frozen=True)
class Moment:
    """When a child does what: at the ``count``-th event of ``stage``, as its process counts them.

    Attributes:
        stage: search, retrain, finish or teacher.
        count: from 1.
        act: ``kill``, ``interrupt``, ``fill`` (the disk that ``place`` lies on), or one of ``pipeline_faults.FAULTS``.
        place: folder of the disk.
    """

    stage: str
    count: int
    act: str = "kill"
    place: str = ""


@dataclass(frozen=True)
class Done:
    """How a command ended: exit code (negative: the signal), both outputs, events by stage."""

    code: int
    out: str
    err: str
    events: dict[str, int]

    @property
    def json(self) -> Any:
        """The standard output, read as JSON."""
        return json.loads(self.out)


def command(*words: str, folder: Path, moment: Moment | None = None, environment: dict[str, str] | None = None) -> Done:
    """Run ``cosearch WORDS`` in ``folder`` and wait for its end.

    Args:
        words: of the command line.
        folder: working folder; the outputs are kept in it.
        moment: what is to happen when.
        environment: added to the process's own.
    """
    process = started(*words, folder=folder, moment=moment, environment=environment)
    process.join(PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"{words} took more than {PATIENCE_S} s:\n{(folder / 'stderr').read_text()}")
    code = process.exitcode
    process.close()
    events = (folder / "events").read_text().split()
    return Done(
        code,
        (folder / "stdout").read_text(),
        (folder / "stderr").read_text(),
        {stage: events.count(stage) for stage in dict.fromkeys(events)},
    )


def started(*words: str, folder: Path, moment: Moment | None = None, environment: dict[str, str] | None = None) -> Any:
    """The same, without waiting: a ``multiprocessing`` process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline_child"])
    with pytest.MonkeyPatch.context() as patch:  # the server looks for modules in the environment's path alone
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]))
        multiprocessing.forkserver.ensure_running()
    process = context.Process(target=_child, args=(words, str(folder), moment, environment or {}))
    process.start()
    return process


def _child(words: Sequence[str], folder: str, moment: Moment | None, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(target, number)
        os.close(target)
    from pipeline_child import arm

    arm(moment)
    from cosearch.cli.app import main

    code = main(list(words))
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def act(moment: Moment) -> None:
    """Do what the moment says, in the calling process."""
    if moment.act in FAULTS:
        FAULTS[moment.act]()
    elif moment.act == "fill":
        fill(Path(moment.place))
    else:
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "interrupt": signal.SIGINT}[moment.act])


def fill(place: Path) -> None:
    """Leave no free byte on the disk of ``place``; removing its file ``filler`` frees them."""
    with open(place / "filler", "ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def results(run: Path) -> dict[str, Any]:
    """Everything of a finished run that must be equal in an equal run: files, weights, figures, log."""
    folder = RunDir.open(run)
    checkpoint = folder.load_checkpoint()
    weights = {name: tensor.numpy().tobytes() for name, tensor in checkpoint["stage_outputs"]["weights"].items()}
    agent = folder.read_json("agent.json")
    agent.pop("latency")
    return {
        "stage": checkpoint["stage"],
        "architecture": folder.read_json("architecture.json"),
        "weights": weights,
        "streams": [value.numpy().tobytes() for value in checkpoint["streams"]["torch"].values()],
        "onnx": (run / "agent.onnx").read_bytes(),
        "agent": agent,
        "evaluation": folder.read_json("evaluation.json"),
        "summary": without_clocks(folder.read_json("summary.json")),
        "log": [without_clocks(line) for line in folder.read_metrics()],
    }


def without_clocks(value: Any) -> Any:
    """The same without what a clock measured."""
    if isinstance(value, dict):
        return {key: without_clocks(item) for key, item in value.items() if key not in CLOCKS}
    return [without_clocks(item) for item in value] if isinstance(value, list) else value


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Both :func:`results` are equal; names what is not."""
    different = [key for key in expected if found[key] != expected[key]]
    lines = [pair for pair in zip(found["log"], expected["log"]) if pair[0] != pair[1]][:1]
    assert not different, f"these differ: {different}; first other line of the log: {lines}"


def steps(run: Path) -> list[tuple[str, int]]:
    """Stage and step of each line of the log."""
    return [(line["stage"], line["step"]) for line in RunDir.open(run).read_metrics()]


def checkpointed(run: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a run."""
    return RunDir.open(run).load_checkpoint()


def changed(tensors: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights differ anywhere."""
    return tensors.keys() != others.keys() or any(not torch.equal(tensors[name], others[name]) for name in tensors)


class Silent:
    """Progress that shows nothing."""

    def stage(self, name: str, total_steps: int, done_steps: int) -> None:
        """Nothing."""

    def update(self, metrics: dict[str, Any]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
