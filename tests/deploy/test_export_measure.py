"""Measuring exported agents: the statistics on prepared visits, then the real thing on tiny networks."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from cosearch.deploy import measure as module
from cosearch.deploy.export import to_onnx
from cosearch.deploy.measure import ROUNDS, measure_agent, measure_side_by_side
from cosearch.space.network import AgentNetwork
from latency_tables.board.timing import Visit
from latency_tables.errors import MeasurementError, RequestError
from latency_tables.opspec import OpSpec


def model(channels, side=16):
    ops = [
        OpSpec("stem", 3, side, side, channels, 3, 1, 1),
        OpSpec("conv", channels, side, side, channels, 3, 1, 1),
        OpSpec("head", channels, side, side, 3, hidden=4),
    ]
    return to_onnx(AgentNetwork(ops, torch.Generator().manual_seed(0)), (side, side, 3))


SMALL, LARGE = model(4), model(64, 32)


class PreparedCore:
    """Answers like the measuring core, with visits whose figures are known; counts what it is asked."""

    def __init__(self, target, *, answer_timeout_s):
        self.asked, self.closed, self.round, self.timeout = [], False, 0, answer_timeout_s
        PreparedCore.last = self

    def one(self, verb, payload=b"", **values):
        self.asked.append((verb, values))
        p50_s = {"a": 0.004, "b": 0.006}.get(values.get("ids", ["?"])[0], 0.0)
        paced = {"period_s": 0.02, "p50_s": p50_s, "p90_s": p50_s, "p99_s": p50_s, "max_s": p50_s, "samples": 75, "missed": 0}
        return {
            "hello": {"runtime_version": "9", "fingerprint": {"cpu": "x"}, "settings": {}, "state": {"load": 1.0}},
            "load": {"id": values.get("id"), "graph": {"Conv": 1}},
            "paced": {"paced": paced},
            "state": {"state": {"load": 2.0}},
        }[verb]

    def ask(self, verb, payload=b"", **values):
        self.asked.append((verb, values))
        self.round += 1
        slow = [1.0, 1.1, 8.0, 1.2, 1.3][self.round - 1]  # the third round meets a slow moment of the machine
        for name in values["ids"]:
            base = {"a": 0.001, "b": 0.002}[name] * slow * (1 + 0.1 * self.round * (name == "b"))
            yield {
                "id": name,
                "visit": Visit(
                    median_s=base,
                    low_s=base,
                    high_s=base,
                    min_s=base / 2,
                    p10_s=base,
                    p90_s=base * 2,
                    p99_s=base * 3,
                    samples=10,
                    inner=1,
                    clean_share=self.round / 10,
                ).to_dict(),
            }

    def close(self):
        self.closed = True


def test_figures_are_medians_over_rounds_and_ratios_are_taken_within_a_round(monkeypatch):
    monkeypatch.setattr(module, "Connection", PreparedCore)
    found = measure_side_by_side({"a": b"A", "b": b"B"}, threads=1, seconds=3.0, device="board")
    timed = found.agents["a"].measured
    assert timed.p50_s == pytest.approx(0.0012) and timed.p90_s == pytest.approx(0.0024)
    assert timed.p99_s == pytest.approx(0.0036) and timed.worst_p99_s == pytest.approx(0.024)
    assert timed.min_s == pytest.approx(0.0005) and timed.samples == 50 and timed.clean_share == pytest.approx(0.3)
    assert (timed.device, timed.runtime, timed.runtime_version, timed.threads) == ("board", "onnxruntime", "9", 1)
    assert {name: asdict(ratio) for name, ratio in found.ratios.items()} == {
        "b": pytest.approx({"p50": 2.6, "low": 2.2, "high": 3.0, "paced_p50": 1.5})
    }
    assert found.conditions["after"] == {"load": 2.0} and found.conditions["graphs"] == {"a": {"Conv": 1}, "b": {"Conv": 1}}


def test_rounds_are_interleaved_in_changing_order_with_explicit_threads(monkeypatch):
    monkeypatch.setattr(module, "Connection", PreparedCore)
    measure_side_by_side({"a": b"A", "b": b"B"}, threads=2, seconds=3.0)
    core = PreparedCore.last
    orders = [values["ids"] for verb, values in core.asked if verb == "visit"]
    assert len(orders) == ROUNDS and set(map(tuple, orders)) == {("a", "b"), ("b", "a")}
    assert dict(core.asked)["hello"] == {"threads": 2, "runtime": "onnxruntime", "nice": -10, "pin": True}
    plans = [values["plan"] for verb, values in core.asked if verb == "visit"]
    assert sum(plan["seconds"] for plan in plans) == pytest.approx(1.5)  # half of the time for each model, half paced
    assert [values for verb, values in core.asked if verb == "paced"] == [
        {"ids": [name], "period_s": 0.02, "seconds": 1.5} for name in ("a", "b")
    ]
    assert core.closed and core.timeout > 3.0


def test_several_threads_cannot_tell_which_samples_are_clean():
    found = measure_side_by_side({"only": SMALL}, threads=2, seconds=0.05).agents["only"].measured
    assert found.clean_share is None and found.threads == 2


def test_a_real_measurement_orders_what_differs_a_hundredfold(tmp_path):
    (tmp_path / "agent.onnx").write_bytes(SMALL)
    found = measure_side_by_side({"agent": tmp_path / "agent.onnx", "large": LARGE, "same": SMALL}, threads=1, seconds=0.3)
    assert found.ratios["large"].p50 > 3 and 0.4 < found.ratios["same"].p50 < 2.5
    assert set(found.agents) == {"agent", "large", "same"}
    for agent in found.agents.values():
        timed = agent.measured
        order = [getattr(timed, name) for name in ("min_s", "p50_s", "p90_s", "p99_s", "worst_p99_s")]
        assert order[0] > 0 and order == sorted(order)
        assert 0 <= timed.clean_share <= 1 and timed.samples >= 8 * ROUNDS and timed.rounds == ROUNDS
        assert agent.paced.period_s == 0.02 and 0 <= agent.paced.missed <= agent.paced.samples and agent.paced.samples >= 5
    assert found.agents["large"].paced.p50_s > found.agents["agent"].paced.p50_s


def test_one_agent_alone(tmp_path):
    (tmp_path / "agent.onnx").write_bytes(SMALL)
    found = measure_agent(tmp_path / "agent.onnx", threads=1, seconds=0.1, device="desk")
    assert set(found.agents) == {"agent"} and found.agents["agent"].measured.device == "desk" and found.ratios == {}
    assert np.isfinite(found.agents["agent"].paced.p99_s) and found.conditions["graphs"]["agent"]


@pytest.mark.parametrize(
    "threads, seconds, models", [(0, 1.0, {"a": b""}), (1, 0.0, {"a": b""}), (1, float("nan"), {"a": b""}), (1, 1.0, {})]
)
def test_impossible_requests_are_refused(threads, seconds, models):
    with pytest.raises(RequestError, match="at least one model, at least 1 thread"):
        measure_side_by_side(models, threads=threads, seconds=seconds)


def test_a_missing_or_damaged_file_is_one_clear_error_and_the_core_ends(tmp_path, monkeypatch):
    with pytest.raises(RequestError, match=r"agent cannot be read: .*none\.onnx: No such file"):
        measure_agent(tmp_path / "none.onnx", threads=1, seconds=0.1)
    cores = []
    real = module.Connection
    monkeypatch.setattr(module, "Connection", lambda *args, **more: cores.append(real(*args, **more)) or cores[-1])
    with pytest.raises(MeasurementError, match="agent broken cannot be measured"):
        measure_side_by_side({"good": SMALL, "broken": SMALL[:200]}, threads=1, seconds=0.1)
    assert cores[0]._process.poll() is not None
