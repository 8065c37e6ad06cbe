"""What a search reads first is read when it is planned: a request that cannot work is refused before there is a run folder."""

import pytest

from cosearch.cli.app import main
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.planning.task import resolve_task
from cosearch.strategies.earlier_tasks import EarlierTask, write_tasks

TASK = (
    "env.name=quantum:bell",
    "space.values.stage_repeats=[2]",
    "space.values.stem_width=16",
    "threads=1",
    "distill.teacher=none",
)
STRATEGIES = {"catch": ("strategy.name=catch",), "one-shot": ("strategy.name=one-shot", "strategy.values.proposer=catch")}


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """A search that must be refused, also as a dry run, and leaves no folder; gives its message."""
    monkeypatch.chdir(tmp_path)
    load_builtins()

    def run(*words):
        for more in (["--dry-run"], []):
            assert main(["search", "--runs", "searches", "--quiet", "--device", "jetson", *more, *words]) == 2
            said = capsys.readouterr().err
            assert said.count("error:") == 1 and "Traceback" not in said and not (tmp_path / "searches").exists()
        return said

    return run


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_results_of_earlier_tasks_are_read(strategy, refused, tmp_path):
    words = (
        *TASK,
        *STRATEGIES[strategy],
        "distill.teacher=none",
        "objective.latency_ratio=1",
        "strategy.values.tasks=tasks.json",
    )
    assert "tasks.json: cannot be read as results of earlier tasks: No such file" in refused(*words)
    (tmp_path / "tasks.json").write_text("{}")
    assert "expected an object with points and a list of tasks" in refused(*words)
    space = make_plan(resolve_task(overrides=TASK, options={"device": "jetson"})).space
    slow = ((0, 0), (1, 0))  # two layers of 16 each, where one alone meets the target
    write_tasks(tmp_path / "tasks.json", space, [EarlierTask("slow", slow, (1.0, 2.0))])
    assert "has no earlier task of which two networks meet the targets" in refused(*words)
