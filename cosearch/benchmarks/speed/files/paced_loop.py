"""Decisions of a bundle's agent once a period, in three ways in turns: ``paced_loop.py BUNDLE PERIOD_S CALLS TURNS``, JSON.

``plain``: the loop that anybody writes, a session with its default options and a sleep. ``asleep``: the runner's session and a
sleep. ``warmed``: the runner as it comes, woken early and warmed up. ``back_to_back``: the runner without a pause.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy
import onnxruntime

sys.path.insert(0, sys.argv[1])
from run_agent import Agent, every  # of the bundle

period_s, calls, turns = float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
agent, seen = Agent(sys.argv[1]), numpy.load(Path(sys.argv[1], "self_test", "observations.npy"))
runner_session = agent.session
plain_session = onnxruntime.InferenceSession(str(Path(sys.argv[1], agent.contract["model"])), providers=["CPUExecutionProvider"])
took_s: dict[str, list[float]] = {name: [] for name in ("plain", "asleep", "warmed", "back_to_back")}
late_s: dict[str, list[float]] = {name: [] for name in took_s}


def timed(name: str, moments: Iterator[float]) -> None:
    """Decide at some moments, each yielded as the seconds by which it is late."""
    for number in range(calls):
        late = next(moments)
        begin = time.perf_counter()
        agent(seen[number % len(seen)])
        took_s[name].append(time.perf_counter() - begin)
        late_s[name].append(late + took_s[name][-1])


for _ in range(turns):
    agent.session = plain_session
    timed("plain", every(period_s))
    agent.session = runner_session
    timed("asleep", every(period_s))
    timed("warmed", every(period_s, agent.warm_up))
    timed("back_to_back", iter(float, 1.0))
print(
    json.dumps(
        {
            name: {
                "p50_s": float(numpy.percentile(values, 50)),
                "p99_s": float(numpy.percentile(values, 99)),
                "answered_p99_s": float(numpy.percentile(late_s[name], 99)),
                "missed": sum(late > period_s for late in late_s[name]),
                "calls": len(values),
            }
            for name, values in took_s.items()
        }
    )
)
