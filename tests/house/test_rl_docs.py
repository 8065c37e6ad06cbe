"""The tables of the RL documentation: every metric in one line, and the speeds as the benchmark kept them."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import typer

from cosearch.benchmarks.documents import between
from cosearch.benchmarks.learning import equal_curves, learning_curves
from cosearch.benchmarks.peers.contestants import CONTESTANTS
from cosearch.benchmarks.peers.workloads import WORKLOADS
from cosearch.benchmarks.speed import throughput
from cosearch.record.metrics import METRICS
from cosearch.statistics import student_interval
from cosearch.teachers.listing import teacher_rows
from latency_tables.errors import RequestError

DOCS = Path(__file__).resolve().parents[2] / "docs"


def page(name):
    """The text of a page of the documentation."""
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def test_every_metric_is_documented_in_one_line_as_it_is_declared():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", page("guide/metrics"), re.MULTILINE)
    assert {name: (unit, meaning) for name, unit, meaning in rows} == {n: (m.unit, m.meaning) for n, m in METRICS.items()}
    assert len(rows) == len(METRICS)


def test_the_table_of_speeds_is_the_one_that_the_benchmark_kept():
    result = json.loads(throughput.SAVED.read_text(encoding="utf-8"))
    assert throughput.DOCUMENT == DOCS / "evidence" / "speed.md"
    assert between(page("evidence/speed"), "throughput", throughput.markdown(result)) == page("evidence/speed")
    assert {w["name"] for w in result["workloads"]} == set(WORKLOADS)
    for w in result["workloads"]:
        assert set(w["steps_per_s"]) == set(CONTESTANTS) and set(w["ratios"]) == set(CONTESTANTS[1:])
        assert w["bound_steps_per_s"] * w["flops_per_step"] == pytest.approx(max(w["matmul_flops"].values()))
        assert sum(w["time_shares"].values()) == pytest.approx(1.0)


KEPT = sorted(path.stem.removeprefix("equal_curves-") for path in equal_curves.HERE.glob("equal_curves-*.json"))


@pytest.mark.parametrize("workload", KEPT)
def test_the_learning_curves_are_the_ones_that_were_kept_and_overlap(workload):
    result = json.loads(equal_curves.saved(workload).read_text(encoding="utf-8"))
    assert result["workload"] == workload and f"begin -->\n{equal_curves.markdown(result)}\n<!-- equal curves: end" in page(
        "evidence/speed"
    )
    last = {name: [found[-1][1] for found in curves] for name, curves in result["curves"].items()}
    mean = sum(last["cosearch"]) / len(last["cosearch"])
    assert all(low <= mean <= high for low, high in map(student_interval, last.values()))


def test_equal_curves_train_the_chosen_workload_and_keep_each_seed(monkeypatch, tmp_path):
    asked = []

    def curve(name, workload, seed, steps):
        asked.append((name, workload, seed, steps))
        return [(steps * quarter // 4, float(seed)) for quarter in range(1, 5)]

    monkeypatch.setattr(equal_curves, "curve", curve)
    monkeypatch.setattr(equal_curves, "HERE", tmp_path)
    monkeypatch.setattr(equal_curves, "prepare_process", lambda: None)
    equal_curves.main("nature-procgen", steps=8192, seeds=2, rollout_steps=64, save=True)
    whole = WORKLOADS["nature-procgen"]
    assert {(name, seed) for name, _, seed, _ in asked} == {(name, seed) for name in CONTESTANTS for seed in range(2)}
    assert all((w.rollout_steps, w.minibatch, w.epochs) == (64, whole.minibatch, whole.epochs) for _, w, _, _ in asked)
    kept = json.loads(equal_curves.saved("nature-procgen").read_text(encoding="utf-8"))
    assert kept["rollout_steps"] == 64 and [found[-1] for found in kept["curves"]["cosearch"]] == [[8192, 0.0], [8192, 1.0]]
    equal_curves.main("small-minatar", steps=8192, seeds=1)
    assert asked[-1][1] == WORKLOADS["small-minatar"] and not equal_curves.saved("small-minatar").exists()
    with pytest.raises(typer.BadParameter, match="nature-procgen, small-minatar, got atari"):
        equal_curves.main("atari")


@pytest.mark.parametrize("name", ["learning_curves", "learning_curves_minatar"])
def test_the_curves_beside_published_ones_are_those_that_were_kept(name):
    result = json.loads((learning_curves.HERE / f"{name}.json").read_text(encoding="utf-8"))
    assert learning_curves.markdown(result).strip() in page("evidence/learning-curves")
    assert f"](../../cosearch/benchmarks/learning/{name}.png)" in page("evidence/learning-curves")


@pytest.mark.parametrize("label", ["published_settings", "minibatch_1024", "minibatch_512"])
def test_what_other_settings_missed_is_what_was_kept(label):
    result = json.loads((learning_curves.HERE / f"learning_curves_{label}.json").read_text(encoding="utf-8"))
    (row,) = [
        line
        for line in page("evidence/learning-curves").splitlines()
        if line.startswith("| ") and f"learning_curves_{label}.json" in line
    ]
    for part in result["games"].values():
        assert f"{sum(not point['not_below'] for point in part['rows'])} of {len(part['rows'])}" in row
        for kind in ("train", "test"):
            last = [point["ours_mean"] for point in part["rows"] if point["levels"] == kind][-1]
            assert f"{last:.1f}" in row
    passes, minibatch, rollout = (
        next(word.split("=")[1] for word in result["settings"] if word.startswith(f"rl.{key}="))
        for key in ("epochs", "minibatch", "rollout_steps")
    )
    assert row.startswith(f"| {passes} x {int(minibatch):,}, {rollout}, ")


def test_the_table_of_teachers_is_what_the_list_says():
    table = page("guide/teachers").split("<!-- teachers:begin -->")[1].split("<!-- teachers:end -->")[0].strip().splitlines()[2:]
    rows = teacher_rows()
    assert len(table) == len(rows)
    for line, row in zip(table, rows):
        latency = {entry["device"]: entry for entry in row["latency"]}["jetson"]
        low, high = row["score_ci95"]
        for cell in (
            row["name"],
            f"{row['score_mean']:.1f} [{low:.1f}, {high:.1f}], {row['episodes']}",
            f"{row['steps']:,}",
            f"{row['params']:,}, {row['bytes'] / 1000:,.0f} kB",
            f"{latency['latency_s'] * 1e3:.3g} ms, {latency['provenance']}",
        ):
            assert f"| {cell} |" in line


def test_the_interval_of_a_mean_is_students():
    low, high = student_interval([1.0, 2.0, 3.0])
    assert high - 2.0 == pytest.approx(4.303 / 3**0.5, rel=1e-3) and high - 2.0 == pytest.approx(2.0 - low)


def test_a_ratio_is_the_geometric_mean_of_the_rounds_with_its_t_interval():
    assert throughput.ratio([2.0, 8.0], [1.0, 1.0])["ratio"] == pytest.approx(4.0)
    even = throughput.ratio([3.0, 6.0, 1.5], [1.0, 2.0, 0.5])
    assert even["ratio"] == pytest.approx(3.0) and even["ci95"] == pytest.approx([3.0, 3.0])
    low, high = throughput.ratio([2.0, 8.0], [1.0, 1.0])["ci95"]
    assert low == pytest.approx(4.0 * 2**-12.706, rel=1e-3) and high == pytest.approx(4.0 * 2**12.706, rel=1e-3)
    assert throughput.ratio([2.0], [1.0])["ci95"] is None


def test_shortened_workloads_keep_their_minibatch():
    whole = WORKLOADS["impala-procgen"]
    short = throughput.shortened(whole, 64)
    assert (whole.minibatch, short.minibatch, short.minibatches, short.steps_per_update) == (2048, 2048, 2, 4096)
    with pytest.raises(RequestError, match="multiple"):
        throughput.shortened(whole, 33)


def test_work_of_a_step_counts_acting_and_each_epoch_three_times():
    # the IMPALA-CNN's 30.6 million multiply-adds, once to act and thrice in each of three epochs
    assert WORKLOADS["impala-procgen"].flops_per_step() == pytest.approx(2 * 30.6e6 * 10, rel=0.01)


def test_contestants_train_networks_of_the_same_size():
    pytest.importorskip("minatar", reason="MinAtar is not installed")
    from cosearch.benchmarks.peers.own_ppo import OwnPpo
    from cosearch.benchmarks.peers.plain_ppo import PlainPpo

    small = dataclasses.replace(WORKLOADS["small-minatar"], num_envs=4, rollout_steps=8, minibatches=2)
    own, plain = OwnPpo(small, 0, 1), PlainPpo(small, 0, 1)
    assert own.parameters() == plain.parameters() == 132_308
    own.advance()
    plain.advance()
    assert own.shares()["environment"] > 0 and sum(own.shares().values()) == pytest.approx(1.0) and plain.shares() is None
    own.close()
    plain.close()
