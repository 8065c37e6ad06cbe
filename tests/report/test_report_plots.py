"""Drawings: what they show equals what was recorded, and they bring nothing of their own into the page."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from report_fake_run import CHOICES, change, make_run

from cosearch.report.architecture import cells
from cosearch.report.data import read_run
from cosearch.report.drawings.pareto import (
    compared_agents,
    control_points,
    pareto_front,
    pareto_plot,
    predicted_measured_plot,
    proposal_points,
    supernet_points,
)
from cosearch.report.drawings.plots import (
    agreement_plot,
    distillation_plot,
    latency_plot,
    other_curves,
    score_plot,
    smooth,
    thin,
)
from cosearch.report.drawings.probabilities import probability_plots
from cosearch.report.drawings.svg import AGENT, figure, inline_svg, short


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(make_run(tmp_path_factory.mktemp("runs") / "run"))


def all_plots(run):
    found = [
        score_plot(run, "search"),
        score_plot(run, "retrain"),
        latency_plot(run),
        agreement_plot(run),
        distillation_plot(run, "search"),
        *probability_plots(run),
        pareto_plot(run),
        predicted_measured_plot(run),
    ]
    return [plot for plot in found if plot]


def test_a_drawing_follows_the_page_and_touches_nothing_else(run):
    plots = all_plots(run)
    assert len(plots) == 9
    for plot in plots:
        root = ElementTree.fromstring(plot.svg)
        assert root.tag == "svg" and root.get("role") == "img" and root.get("aria-label")
        assert not re.search(r"https?:|<style|<script|<metadata|<!--|@import|xmlns", plot.svg)
        colours = set(re.findall(r"#[0-9a-f]{6}\b", plot.svg))
        assert colours == set(), f"{plot.title}: colours that no colour scheme can change"
        assert "var(--agent)" in plot.svg


def test_ids_of_two_drawings_differ_and_references_resolve(run):
    seen: set[str] = set()
    for plot in all_plots(run):
        ids = re.findall(r'\bid="([^"]+)"', plot.svg)
        references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', plot.svg)
        assert not seen & set(ids)
        assert {a or b for a, b in references} <= set(ids)
        seen |= set(ids)


def test_text_of_a_run_is_neither_markup_nor_mathematics():
    with figure() as (drawing, (axes,)):
        axes.plot([0, 1], [0, 1], color=AGENT, label="$x$ <b>&")
        axes.legend()
        svg = inline_svg(drawing, "a", 'say "no" <i>')
    assert "$x$ &lt;b&gt;&amp;" in svg and "<b>" not in svg and "say &quot;no&quot; &lt;i&gt;" in svg


def test_the_same_run_draws_the_same(run):
    assert score_plot(run, "search") == score_plot(run, "search")


def test_thin_keeps_means_and_short_curves():
    x, y = thin(range(1000), np.arange(1000.0) ** 2, limit=100)
    assert len(x) == 100 and x.mean() == pytest.approx(499.5) and y.mean() == pytest.approx((np.arange(1000.0) ** 2).mean())
    assert y[0] == pytest.approx(sum(k * k for k in range(10)) / 10)
    assert thin([1, 2], [3, 4])[1].tolist() == [3, 4]


def test_smooth_keeps_constants_and_straight_lines_inside():
    line = np.arange(200.0)
    assert smooth(np.full(90, 3.0)) == pytest.approx(np.full(90, 3.0))
    assert smooth(line)[5:-5] == pytest.approx(line[5:-5])
    noisy = np.random.default_rng(0).normal(size=400)
    assert smooth(noisy).std() < 0.4 * noisy.std()


def test_teacher_control_and_target_appear_only_where_they_are_known(run, tmp_path):
    assert ">teacher<" in score_plot(run, "retrain").svg and ">random-search control<" in score_plot(run, "retrain").svg
    assert ">target<" in latency_plot(run).svg
    path = make_run(tmp_path / "bare")
    change(path, "summary.json", control=None, teacher_score_mean=None)
    change(path, "run.json", teacher=None)
    bare = read_run(path)
    for plot in (score_plot(bare, "retrain"), score_plot(bare, "search")):
        assert not re.search(">(teacher|random-search control)<", plot.svg)
    (path / "summary.json").unlink()
    change(path, "run.json", targets=[])
    assert ">target<" not in latency_plot(read_run(path)).svg


@pytest.mark.parametrize("score", ["score_train", "score_shared"])
def test_latencies_of_candidates_are_of_no_distribution(run, score, tmp_path):
    """Of a search that trains its candidates, and of one that scores them with shared weights."""
    assert ">most probable<" in latency_plot(run).svg and "probabilities" in latency_plot(run).caption
    path = make_run(tmp_path / "candidates")
    lines = [{"candidate": f"c{i}", "latency_argmax_s": 3e-3 + 1e-4 * i, score: float(i)} for i in range(4)]
    common = [{"stage": "search", "step": 100 * i, "wall_s": float(i)} for i in range(4)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(a | b) + "\n" for a, b in zip(common, lines, strict=True)))
    plot = latency_plot(read_run(path))
    assert ">candidate<" in plot.svg and ">most probable<" not in plot.svg and "probab" not in plot.caption
    assert plot.caption == "Predicted, not measured: of each candidate as it was trained or scored."


def test_a_control_of_the_largest_network_is_named_so(run, tmp_path):
    path = make_run(tmp_path / "one")
    control = json.loads((path / "summary.json").read_text())["control"]
    change(path, "summary.json", control={**control, "strategy": "largest"})
    read = read_run(path)
    for svg in (score_plot(read, "retrain").svg, pareto_plot(read).svg):
        assert ">largest-network control<" in svg and "random-search control" not in svg
    assert "largest-network control" in {row.name for row in compared_agents(read)}
    del control["strategy"]  # as records were written before there was a second control
    change(path, "summary.json", control=control)
    assert "random-search control" in {row.name for row in compared_agents(read_run(path))}


def test_nothing_recorded_draws_nothing(tmp_path):
    path = make_run(tmp_path / "run")
    for name in ("metrics.jsonl", "summary.json", "agent.json", "architecture.json"):
        (path / name).unlink()
    run = read_run(path)
    assert all_plots(run) == [] and other_curves(run) == [] and cells(run) == ([], None) and compared_agents(run) == []


def test_one_line_is_enough_to_draw(tmp_path):
    path = make_run(tmp_path / "run")
    first = (path / "metrics.jsonl").read_text().splitlines()[0]
    (path / "metrics.jsonl").write_text(first + "\n")
    assert {plot.title for plot in all_plots(read_run(path))} >= {"Score during the search", "Latency during the search"}


def test_sparklines_are_the_metrics_that_are_not_drawn_elsewhere(run):
    items = other_curves(run, frozenset({"entropy"}))
    keys = {item.key for item in items}
    assert "grad_norm" in keys and not keys & {"entropy", "stage", "step", "arch_probabilities", "energy_expected_j"}
    item = next(item for item in items if item.stage == "retrain" and item.key == "lr")
    assert item.last == run.curve("retrain", "lr")[1][-1] and "learning rate" in item.meaning


def test_the_pareto_front_is_that_of_brute_force():
    random = np.random.default_rng(1)
    for count in (0, 1, 2, 40):
        latency, score = random.integers(0, 12, count).tolist(), random.integers(0, 12, count).tolist()
        beaten = [
            any(
                (latency[j] <= latency[i] and score[j] >= score[i]) and (latency[j] < latency[i] or score[j] > score[i])
                for j in range(count)
            )
            for i in range(count)
        ]
        expected = {(latency[i], score[i]) for i in range(count) if not beaten[i]}
        front = pareto_front(latency, score)
        assert {(latency[i], score[i]) for i in front} == expected and len(front) == len(expected)
        assert [latency[i] for i in front] == sorted(latency[i] for i in front)


def test_points_of_the_trade(run, tmp_path):
    assert sorted(control_points(run)) == sorted([(2.6e-3, 7.1), (3.1e-3, 10.9), (3.7e-3, 8.8), (2.9e-3, 6.2)])
    assert len(supernet_points(run)) == 60
    path = make_run(tmp_path / "run")
    (path / "summary.json").unlink()
    assert control_points(read_run(path)) == []


def test_reference_agents_are_named_and_unknown_figures_stay_unknown(run):
    svg = pareto_plot(run).svg
    assert ">IMPALA-CNN<" in svg and ">Nature-CNN<" in svg and ">this agent<" in svg
    rows = {row.name: row for row in compared_agents(run)}
    assert list(rows) == ["this agent", "random-search control", "IMPALA-CNN", "Nature-CNN"]
    assert rows["IMPALA-CNN"].score is None and rows["IMPALA-CNN"].measured_s == 3.9e-3
    assert rows["random-search control"].measured_s is None and rows["this agent"].score == 14.2


def test_predicted_against_measured_is_compared_with_equality_on_the_device_itself_alone(tmp_path):
    path = make_run(tmp_path / "run")
    elsewhere = predicted_measured_plot(read_run(path))
    assert (
        ">equal<" not in elsewhere.svg and "another device" in elsewhere.caption and "measured on this machine" in elsewhere.svg
    )
    change(path, "run.json", device__name="this")
    change(path, "summary.json", latency_predicted_for="this")
    change(path, "agent.json", latency__predicted_for="this")
    there = predicted_measured_plot(read_run(path))
    assert ">equal<" in there.svg and "dotted line" in there.caption and "measured on it" in there.svg


def test_predicted_against_measured_needs_both(tmp_path):
    path = make_run(tmp_path / "run")
    summary = json.loads((path / "summary.json").read_text())
    alone = summary["reference_agents"][0] | {"name": "alone", "latency_measured_s": None, "measured_ratio": None}
    change(path, "summary.json", reference_agents=[alone])
    assert "alone" not in predicted_measured_plot(read_run(path)).svg
    change(path, "summary.json", latency_measured_s=None)
    change(path, "agent.json", latency__measured=None)
    assert predicted_measured_plot(read_run(path)) is None


def test_long_names_give_way_in_their_middle():
    assert short("stage1.cell1") == "stage1.cell1" and short("a" * 30 + "zz", 10) == "aaaaa…aazz"


def test_heat_maps_show_every_probability(run):
    final, growth = probability_plots(run)
    _, rows = run.probabilities()
    opacities = [round(float(value), 3) for value in re.findall(r"opacity: ([\d.]+)", final.svg)]
    strongest = [row[choice] for row, choice in zip(rows[-1], CHOICES, strict=True)]
    assert all(any(abs(opacity - p) < 2e-3 for opacity in opacities) for p in strongest)
    assert growth.svg.count("var(--agent)") >= 40 * len(CHOICES) and ">stage1.cell1<" in final.svg and ">conv_k3<" in final.svg


def test_a_search_by_proposals_has_no_supernet(run, tmp_path):
    path = make_run(tmp_path / "run")
    assert ">supernet, over time<" in pareto_plot(run).svg and "supernet" in score_plot(run, "search").caption
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    lines = [line | {"candidate": "c9"} if line["stage"] == "search" else line for line in lines]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    proposals = read_run(path)
    assert ">candidates, over time<" in pareto_plot(proposals).svg
    assert "upernet" not in score_plot(proposals, "search").caption + pareto_plot(proposals).caption


@pytest.mark.parametrize("by", ["episodes", "frames"])
def test_proposals_of_a_one_shot_search_stand_beside_the_agent_where_their_score_is_a_return(by, tmp_path):
    path = make_run(tmp_path / "run")
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    lines = [{key: line[key] for key in line if key != "latency_argmax_s"} for line in lines]
    scored = {"stage": "search", "step": 10**9, "wall_s": 1e6, "candidate": "c9", "latency_argmax_s": 3e-3, "score_shared": 7.5}
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, scored]))
    told = [{"choices": [0], "score": score, "latency_s": 3e-3, "env_steps": 8} for score in (7.5, None)]
    change(path, "architecture.json", derived_by={"method": "best", "scored_by": by, "candidates": told})
    run = read_run(path)
    assert proposal_points(run) == ([(3e-3, 7.5)] if by == "episodes" else []) and not run.has_candidates
    assert (">proposals, shared weights<" in pareto_plot(run).svg) is (by == "episodes")
    assert "supernet's score" in score_plot(run, "search").caption
