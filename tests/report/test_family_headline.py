"""The headline of a family says how its agents' latencies are known."""

from dataclasses import replace

import pytest

from cosearch.record.results.family import AgentResult, Family, FamilyAgent, FamilyDevice
from cosearch.report.family import headline
from tests.support.fuzz_runs import example


def agent(name, measured):
    result = replace(example(AgentResult), target_met=True)
    return replace(
        example(FamilyAgent), name=name, device="d", latency_measured_s={"d": 1e-4} if measured else {"e": 1e-4}, result=result
    )


@pytest.mark.parametrize(
    "measured, said",
    [
        ((True, True), "2 agents from one search: all within their latency targets"),
        ((False, False), "2 agents from one search: all within their latency targets (predicted)"),
        ((True, False), "2 agents from one search: all within their latency targets (1 measured, the others predicted)"),
    ],
)
def test_what_was_not_measured_on_its_device_says_so(measured, said):
    made = tuple(agent(str(i), each) for i, each in enumerate(measured))
    assert headline(replace(example(Family), devices=(example(FamilyDevice),), agents=made)) == said


def test_an_agent_whose_target_nobody_can_tell_is_not_counted_as_within():
    made = [agent(str(i), False) for i in range(3)]
    made[2] = replace(made[2], result=replace(made[2].result, target_met=None))
    said = headline(replace(example(Family), devices=(example(FamilyDevice),), agents=tuple(made)))
    assert said == "3 agents from one search: 2 of 3 within their latency targets (predicted); of 1 it is not known"
