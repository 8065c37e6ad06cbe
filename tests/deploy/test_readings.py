"""What a model measures of a run's targets: figures, intervals, visits until it is clear; and a real model on this machine."""

import onnx
import pytest
from bundle_run import network

from cosearch.deploy import readings as module
from cosearch.deploy.export import to_onnx
from cosearch.deploy.figures import Running
from cosearch.deploy.readings import BATCHES, SESSIONS, VISITS, Meter, Reading, Readings
from cosearch.record.run_record import TargetRecord
from latency_tables.board.timing import Paced, Visit
from latency_tables.errors import MeasurementError


def target(metric="latency_s", value=1.0, statistic="median", at="back-to-back"):
    return TargetRecord(metric=metric, value=value, margin=0.0, statistic=statistic, at=at)


def test_a_reading_is_under_only_with_its_whole_interval():
    reading = Reading((0.9, 1.0, 1.1))
    assert reading.value == 1.0 and reading.interval == (0.9, 1.1)
    assert [reading.verdict(bound) for bound in (0.8, 0.89, 0.9, 1.0, 1.09, 1.1, 2.0)] == (
        ["over", "over", "unclear", "unclear", "unclear", "under", "under"]
    )
    assert Reading((5.0,)).interval == (5.0, 5.0) and Reading((5.0,), exact=True).verdict(5.0) == "under"
    assert {Reading((5.0,)).verdict(bound) for bound in (0.1, 4.9, 5.0, 5.1, 99.0)} == {"unclear"}  # it may be noise


def test_each_target_has_its_own_figure():
    visits = [Visit(v, v, v, v, v, v, 3 * v, 9, 1, 1.0) for v in (1.0, 2.0, 4.0)]
    paced = [Paced(0.02, v, v, 5 * v, 9 * v, 50, 1) for v in (2.0, 3.0, 7.0)]
    found = Readings(1234, visits, paced, [0.5], 7e7)
    values = {
        ("latency_s", "median", "back-to-back"): 2.0,
        ("latency_s", "p99", "back-to-back"): 6.0,
        ("latency_s", "median", "period"): 3.0,
        ("latency_s", "p99", "period"): 15.0,
        ("energy_j", "median", "back-to-back"): 0.5,
        ("file_bytes", "median", "back-to-back"): 1234.0,
        ("memory_bytes", "median", "back-to-back"): 7e7,
    }
    for (metric, statistic, at), value in values.items():
        assert found.of(target(metric, 1.0, statistic, at)).value == value
    assert found.pace == Paced(0.02, 3.0, 3.0, 15.0, 63.0, 150, 3)
    assert Readings(1).of(target()) is None and Readings(1).of(target("memory_bytes")) is None and Readings(1).pace is None


NO_SENSOR = "no power sensor is readable"


class Core:
    """A device whose visits take these seconds, one after the other, and whose power sensor says these joules."""

    def __init__(self, seconds, energies_j=()):
        self.seconds, self.energies_j, self.asked = iter(seconds), iter(energies_j), []

    def one(self, verb, *payload, **fields):
        self.asked.append(verb)
        if verb == "visit":
            value = next(self.seconds)
            return {"visit": Visit(value, value, value, value, value, value, value, 9, 1, 1.0).to_dict()}
        if verb == "paced":
            return {"paced": Paced(fields["period_s"], 2.0, 2.0, 3.0, 4.0, 5, 0).to_dict()}
        return {
            "hello": {"runtime_version": "1", "fingerprint": {}, "settings": {}, "state": {}},
            "load": {"graph": {}},
            "state": {"state": {}},
            "memory": {"peak_bytes": 5e7},
            "energy": {"energy_j": next(self.energies_j, None) if verb == "energy" else None, "reason": NO_SENSOR},
        }[verb]

    def close(self):
        self.asked.append("close")


@pytest.mark.parametrize(
    "bound, batches",
    [(1.2, 1), (0.8, 1), (1.0, BATCHES)],
)
def test_it_visits_again_only_while_the_interval_holds_the_target(bound, batches, monkeypatch):
    core = Core([0.95, 1.0, 1.05] * 100)
    monkeypatch.setattr(module, "Connection", lambda *args, **more: core)
    found = Meter(Running("onnxruntime", "float32", 1, 1), seconds=1.0).read(b"model", [target(value=bound)])
    assert len(found.visits) == batches * VISITS == core.asked.count("visit") and core.asked[-1] == "close"
    assert "paced" not in core.asked and "memory" not in core.asked


@pytest.mark.parametrize("bound, batches, verdict", [(1.5, 1, "under"), (0.5, 1, "over"), (1.0, BATCHES, "unclear")])
def test_an_energy_is_decided_by_several_readings(bound, batches, verdict, monkeypatch):
    core = Core([], [0.8, 1.1, 1.0, 1.2, 0.9] * BATCHES)
    monkeypatch.setattr(module, "Connection", lambda *args, **more: core)
    found = Meter(Running("onnxruntime", "float32", 1, 1)).read(b"model", [target("energy_j", bound)])
    assert core.asked.count("energy") == len(found.energies_j) == 5 * batches
    assert found.of(target("energy_j", bound)).verdict(bound) == verdict


def test_only_what_targets_are_on_is_measured(monkeypatch):
    core = Core([])
    monkeypatch.setattr(module, "Connection", lambda *args, **more: core)
    meter = Meter(Running("onnxruntime", "float32", 1, 1))
    found = meter.read(b"model", [target(value=9.0, statistic="p99", at="period"), target("memory_bytes", 1e9)])
    assert core.asked.count("paced") == SESSIONS and found.visits == [] and found.memory_bytes == 5e7
    assert meter.read(b"four", [target("file_bytes", 3)]).of(target("file_bytes", 3)).verdict(3) == "over"
    with pytest.raises(MeasurementError, match="this machine cannot measure the energy of an inference: no power sensor"):
        meter.read(b"model", [target("energy_j")])


def test_a_real_model_on_this_machine():
    model = to_onnx(network("categorical"), (8, 8, 3))
    targets = [target(value=1.0), target("memory_bytes", 1e12), target("file_bytes", 10**9), target(value=1.0, at="period")]
    found = Meter(Running("onnxruntime", "float32", 1, 1), seconds=0.15).read(model, targets)
    assert 1e-6 < found.of(targets[0]).value < 0.1 and found.of(targets[3]).value > found.of(targets[0]).value
    assert 2e7 < found.memory_bytes < 2e9 and found.file_bytes == len(model)
    graph = found.conditions["graphs"]["agent"]
    convolutions = sum(node.op_type == "Conv" for node in onnx.load_model_from_string(model).graph.node)
    assert sum(count for name, count in graph.items() if "Conv" in name) == convolutions > 0
