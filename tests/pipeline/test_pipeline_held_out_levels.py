"""UNAS on validation levels: which levels its halves play, that it goes on equally after a cut, and what is refused."""

import pytest
import torch
from pipeline_runs import TINY, Silent

from cosearch.config.run import resolve
from cosearch.pipeline.run import STAGES, work_on
from cosearch.pipeline.session import open_session
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.rundir import RunDir
from cosearch.rl import task
from latency_tables.errors import ConfigError

LEVELS = "strategy.values.held_out=levels"
WORDS = (
    *(word for word in TINY if not word.startswith(("objective.latency", "budget.retrain"))),
    *(
        "strategy.name=unas",
        "env.name=procgen:maze",
        "env.train_levels=10",
        "objective.latency_ratio=2",
        "budget.retrain_steps=0",
    ),
)


class Cut(Silent):
    """Interrupts after so many lines of the log."""

    def __init__(self, after):
        self.left = after

    def update(self, metrics):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def searched(folder, *words, cut_after=None):
    """Shared weights and architecture of a search, whose first try is cut after so many lines of its log where one is given."""
    plan = make_plan(resolve(overrides=(*WORDS, *words)))
    run = RunDir.create(folder, "one", to_json(plan.record("a test")))
    if cut_after is not None:
        cut = open_session(run, plan, Cut(cut_after))
        with pytest.raises(KeyboardInterrupt):
            work_on(cut, {"search": STAGES["search"]})
        cut.log.close()
    opened = open_session(run, plan, Silent())
    work_on(opened, {"search": STAGES["search"]})
    opened.log.close()
    return torch.load(run.path / "supernet.pt", weights_only=True), run.path.joinpath("architecture.json").read_text()


@pytest.mark.slow  # three searches on Procgen
def test_half_of_the_environments_play_validation_levels_and_a_cut_search_goes_on_equally(tmp_path, monkeypatch):
    asked, make = [], task.make_env

    def making(name, options):
        asked.append(options)
        return make(name, options)

    with monkeypatch.context() as patched:
        patched.setattr(task, "make_env", making)
        straight, found = searched(tmp_path / "straight", LEVELS)
    training, validation = (options for options in asked if options.num_envs == 2)
    assert (training.first_level, training.train_levels, validation.first_level, validation.train_levels) == (0, 8, 8, 2)
    assert training.seed != validation.seed and not any(options.test for options in asked)
    again, same = searched(tmp_path / "cut", LEVELS, cut_after=2)
    assert same == found and all(torch.equal(value, again[key]) for key, value in straight.items())
    frames, _ = searched(tmp_path / "frames")
    assert any(not torch.equal(value, frames[key]) for key, value in straight.items())


@pytest.mark.parametrize(
    "words, text",
    [
        (
            ("env.name=minatar:breakout", "env.train_levels=100000"),
            "needs a task with levels.*minatar:breakout has none: leave it out",
        ),
        (("env.train_levels=1",), "leaves no level for validation"),
        (("strategy.paths_per_rollout=4",), r"env\.num_envs \(4\) must be a multiple of twice strategy\.paths_per_rollout \(4\)"),
        (("strategy.values.held_out=sometimes",), r"strategy\.values\.held_out: Input should be 'frames' or 'levels'"),
    ],
)
def test_what_has_no_levels_to_hold_out_is_refused(words, text):
    with pytest.raises(ConfigError, match=text):
        make_plan(resolve(overrides=(*WORDS, LEVELS, *words)))
