"""One search for several devices: the candidates in each agent's record have the latencies of its own device."""

import pytest
from pipeline_runs import TINY_PROPOSALS, Silent

from cosearch.config.run import resolve
from cosearch.pipeline.search.one_shot_search import one_shot_search
from cosearch.pipeline.search.proposal_search import proposal_search
from cosearch.pipeline.session import open_session
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.rundir import RunDir
from latency_tables.devices import find_table

pytest.importorskip("minatar", reason="MinAtar is not installed")
WORDS = (
    *(word for word in TINY_PROPOSALS if not word.startswith(("objective", "rl.minibatch"))),
    *("env.name=minatar:breakout", "rl.minibatch=16", "objective.latency_ratio=0.37"),
    'family.devices=["jetson", "raspberry-pi-4"]',
)


@pytest.mark.parametrize(
    "search, words",
    [
        (proposal_search, ("strategy.name=random", "strategy.candidates=4")),
        (one_shot_search, ("strategy.name=one-shot", "strategy.values.proposals=8")),
    ],
)
def test_the_candidates_of_each_agent_have_the_latencies_of_its_device(search, words, tmp_path):
    load_builtins()
    plan = make_plan(resolve(overrides=[*WORDS, *words]))
    run = RunDir.create(tmp_path, "one", to_json(plan.record("a test")))
    opened = open_session(run, plan, Silent())
    found = search(plan, opened.resources, run, opened.log, opened.checkpoints)
    opened.log.close()
    seen = []
    for name, one in zip(plan.agents, found, strict=True):
        candidates = one.derived_by.candidates
        predicted = [find_table(name).predict(plan.space.architecture(each.choices).ops()).latency_s for each in candidates]
        assert [each.latency_s for each in candidates] == pytest.approx(predicted, rel=1e-12)
        seen.append([each.latency_s for each in candidates])
    assert len(seen) == 2 and seen[0] != pytest.approx(seen[1], rel=0.1)
