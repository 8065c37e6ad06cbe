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
