"""What the forked server of ``disturbed`` imports once, and what its children leave out so that a trial takes a second or two.

No network is computed here before a fork: threads of libraries would not survive it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

import pipeline_child
import rich.progress
import seaborn  # noqa: F401  MinAtar imports it: half a second

import cosearch.compare.making as comparison_making
import cosearch.compare.page as comparison_page
import cosearch.report.page as report_page
import cosearch.teachers.listing  # noqa: F401
from cosearch.bench import settings
from cosearch.deploy import deployment, measure
from cosearch.deploy.onnx_agent import OnnxAgent
from cosearch.pipeline.agent import finish
from cosearch.rl.envs import EnvOptions, make_env
from latency_tables.board import core
from latency_tables.board.timing import VisitPlan
from latency_tables.errors import MeasurementError
from latency_tables.measuring import loop

NETWORKS, BENCH_STEPS, BENCH_EPISODES = 2, 64, 4
VISIT_S = 0.004  # of one timing of a table's model
BENCH = {"env.num_envs": 4, "rl.rollout_steps": 8, "rl.minibatch": 16}
make_env("minatar:breakout", EnvOptions(1, 0)).close()


def prepare(folder: Path, *, lean: bool, alone: bool) -> None:
    """Count the stages from now on, in the file ``events`` of the folder, and draw no pictures: they take long and write nothing.

    Args:
        folder: of the trial; temporary files go into its ``tmp``.
        lean: without the measurement at a run's end, too.
        alone: workers and measuring cores are in this process, too, and without threads.
    """
    pipeline_child.arm(None)
    os.environ["TMPDIR"], tempfile.tempdir = str(folder / "tmp"), None
    real = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: real("fork" if method == "spawn" else method)  # type: ignore[assignment]
    settings.TOTAL_STEPS, settings.EPISODES = BENCH_STEPS, BENCH_EPISODES
    settings.TRAINING.update(BENCH)
    VisitPlan.__init__.__defaults__ = (VISIT_S, *(VisitPlan.__init__.__defaults__ or ())[1:])
    networks = settings.architectures
    settings.architectures = lambda space: networks(space)[:NETWORKS]
    for name in ("score_plot", "latency_plot", "agreement_plot", "distillation_plot", "graph_plot", "pareto_plot"):
        setattr(report_page, name, lambda *args: None)
    for name in ("other_curves", "probability_plots"):
        setattr(report_page, name, lambda *args: [])
    report_page.predicted_measured_plot = lambda *args: None  # type: ignore[assignment]
    comparison_page.all_plots = lambda *args: {"scatter.png": b"a picture"}  # type: ignore[assignment]
    if alone:
        _in_one_process()
    if lean:
        finish._measure = lambda *args: None  # as where this machine cannot run the agent


class HereWorkers:
    """The jobs of ``cosearch.fleet.workers.Workers``, done in this process."""

    def __init__(self, function: Any, engine: Any, needs: Any) -> None:
        self._function = function

    def __enter__(self) -> HereWorkers:
        return self

    def __exit__(self, *words: object) -> None:
        pass

    def run(self, jobs: Any, *, name: Any, sent: Any, done: Any, **others: Any) -> None:
        """One after the other."""
        for index, job in enumerate(jobs):
            done(index, self._function(job, lambda message, index=index: sent(index, message)))


class HereCore:
    """A measuring core in this process."""

    def __init__(self, location: object, **options: object) -> None:
        self._handler = core.RequestHandler()

    def ask(self, verb: str, payload: bytes = b"", **values: Any) -> Any:
        """The answers, as they would come through a pipe."""
        for answer in self._handler.answer(verb, values, payload):
            if "error" in answer and "id" not in answer:
                raise MeasurementError(str(answer["error"]))
            if not answer.get("end"):
                yield json.loads(json.dumps(answer))

    def one(self, verb: str, payload: bytes = b"", **values: Any) -> Any:
        """The only answer."""
        (answer,) = self.ask(verb, payload, **values)
        return answer

    def close(self) -> None:
        """Nothing is open."""


def _in_one_process() -> None:
    OnnxAgent.__init__.__defaults__ = (1,)  # threads
    rich.progress.Progress.__init__.__kwdefaults__["auto_refresh"] = False  # which is a thread
    comparison_making.Workers = HereWorkers  # type: ignore[assignment,misc]
    for module in (deployment, measure, loop):
        module.Connection = HereCore  # type: ignore[attr-defined]
    core._be_nice = core._pin = lambda level: None  # type: ignore[assignment]
