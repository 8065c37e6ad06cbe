"""What the forked server of ``disturbed`` imports once, and what its children leave out so that a trial takes a second or two.

No network is computed here before a fork: threads of libraries would not survive it.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from pathlib import Path

import pipeline_child
import seaborn  # noqa: F401  MinAtar imports it: half a second

import cosearch.compare.page as comparison_page
import cosearch.report.page as report_page
import cosearch.teachers.listing  # noqa: F401
from cosearch.bench import settings
from cosearch.deploy import deployment  # noqa: F401
from cosearch.pipeline.agent import finish
from cosearch.rl.envs import EnvOptions, make_env
from latency_tables.board.timing import VisitPlan

NETWORKS, BENCH_STEPS, BENCH_EPISODES = 2, 64, 4
VISIT_S = 0.004  # of one timing of a table's model
BENCH = {"env.num_envs": 4, "rl.rollout_steps": 8, "rl.minibatch": 16}
make_env("minatar:breakout", EnvOptions(1, 0)).close()


def prepare(folder: Path, *, lean: bool) -> None:
    """Count the stages from now on, in the file ``events`` of the folder, and draw no pictures: they take long and write nothing.

    Args:
        folder: of the trial; temporary files go into its ``tmp``.
        lean: without the measurement at a run's end, too.
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
    if lean:
        finish._measure = lambda *args: None  # as where this machine cannot run the agent
