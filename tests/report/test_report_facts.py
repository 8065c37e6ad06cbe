"""The words of a report: units, the verdict, the promise, and what is said where nothing is known."""

from __future__ import annotations

import io

import pytest
from report_fake_run import change, make_run
from rich.console import Console

from cosearch.report.certainty import certainty
from cosearch.report.data import read_run
from cosearch.report.facts import caveats, facts, progress, tiles, verdict
from cosearch.report.format import (
    count_text,
    duration_text,
    energy_text,
    plain_text,
    score_text,
    share_text,
    significant,
    time_text,
    time_unit,
)
from cosearch.report.page import render_summary


@pytest.fixture
def path(tmp_path):
    return make_run(tmp_path / "run")


def tile(path, label):
    return next(item for item in tiles(read_run(path)) if item.label == label)


@pytest.mark.parametrize(
    "time_s, text",
    [
        (2.184e-3, "2.18 ms"),
        (1e-3, "1.00 ms"),
        (9.99e-4, "999 µs"),
        (8.4e-6, "8.40 µs"),
        (0.25, "250 ms"),
        (2.0, "2000 ms"),
        (0.0, "0 µs"),
        (None, "not measured"),
    ],
)
def test_latencies_print_as_ms_or_us(time_s, text):
    assert time_text(time_s) == text


@pytest.mark.parametrize(
    "function, value, text",
    [
        (energy_text, 0.0125, "12.5 mJ"),
        (energy_text, 3.2e-7, "0.320 µJ"),
        (energy_text, 2.0, "2.00 J"),
        (energy_text, None, "not measured"),
        (duration_text, 42.4, "42 s"),
        (duration_text, 572, "9 min 32 s"),
        (duration_text, 11_100, "3 h 05 min"),
        (duration_text, None, "not measured"),
        (duration_text, 59.7, "1 min 00 s"),
        (count_text, 950, "950"),
        (count_text, 213_000, "213 k"),
        (count_text, 12_340_000, "12.3 M"),
        (count_text, 999_900, "1.00 M"),
        (count_text, 0, "0"),
        (count_text, None, "not measured"),
        (share_text, 0.9404, "94 %"),
        (share_text, 0.068, "6.8 %"),
        (share_text, 1.2, "120 %"),
        (share_text, None, "not measured"),
        (score_text, 14.24, "14.2"),
        (score_text, 1234.5, "1234"),
        (score_text, -0.5, "-0.50"),
        (significant, 4.1e-7, "4.10e-07"),
        (significant, 0.05, "0.050"),
        (plain_text, None, "none"),
        (plain_text, [1, True], "1, yes"),
        (plain_text, {}, "empty"),
    ],
)
def test_other_quantities(function, value, text):
    assert function(value) == text


def test_one_axis_has_one_unit():
    assert time_unit([2e-4, 3e-3]) == (1e3, "ms") and time_unit([2e-4, 9e-4]) == (1e6, "µs")


def test_the_verdict_says_share_provenance_and_promise(path):
    text = verdict(read_run(path))
    assert text.startswith("The agent reaches 94 % of its teacher's score")  # 14.2 / 15.1 = 0.940
    assert "estimated table" in text and "2.18 ms on jetson" in text and "4.00 ms holds, as far as" in text


def test_a_measured_table_needs_no_reservation(path):
    change(path, "summary.json", table_provenance="measured")
    assert verdict(read_run(path)).endswith("the promise of 4.00 ms holds.")


def test_a_missed_target_is_broken_and_by_how_much(path):
    change(path, "summary.json", latency_predicted_s=5e-3, target_met=False)
    assert verdict(read_run(path)).endswith("the promise of 4.00 ms is broken.")
    missed = tile(path, "Latency, predicted")
    assert missed.mood == "bad" and missed.detail == "target 4.00 ms: broken, 25 % over"


def test_a_measurement_on_the_target_can_break_the_promise(path):
    assert facts(read_run(path)).holds is True
    change(path, "agent.json", latency__measured__p50_s=4.5e-3, latency__measured__device="jetson")
    assert facts(read_run(path)).holds is False and "measured there at 4.50 ms" in verdict(read_run(path))
    assert not any("does not test the prediction" in sentence for sentence in caveats(read_run(path)))
    change(path, "agent.json", latency__measured__device="this machine")  # slow, but elsewhere: says nothing about the target
    assert facts(read_run(path)).holds is True and any(
        "does not test the prediction" in sentence for sentence in caveats(read_run(path))
    )


@pytest.mark.parametrize("label", ["Score", "Of the teacher's score", "Parameters", "Multiply-accumulates", "Environment steps"])
def test_what_no_file_knows_is_not_measured_and_never_zero(path, label):
    assert tile(path, label).figure != "not measured"
    (path / "summary.json").unlink()
    assert tile(path, label).figure == "not measured" and tile(path, label).word == ""


def test_one_episode_has_no_interval(path):
    assert tile(path, "Score").detail == "95 %: 13.1 to 15.3; 400 episodes"
    assert tile(path, "Of the teacher's score").detail == "teacher 15.1; 95 %: 87 to 101 %"
    change(path, "summary.json", score_ci95=None, episodes=1)
    assert tile(path, "Score").detail == "no interval (1 episode)"
    assert tile(path, "Of the teacher's score").detail == "teacher 15.1"
    assert certainty(read_run(path))[0] == ("Score", "measured", "1 episode, 1 seed of training: no interval (1 episode).")


def test_an_unmeasured_latency(path):
    change(path, "summary.json", latency_measured_s=None)
    change(path, "agent.json", latency__measured=None)
    assert tile(path, "Latency, measured here").figure == "not measured"
    assert ("Latency, measured", "not measured", "The exported agent was not timed.") in certainty(read_run(path))


def test_energy_is_unknown_until_the_table_knows_it(path):
    assert ("Energy", "not measured", "The table holds no energy.") in certainty(read_run(path))
    change(path, "architecture.json", predicted__energy_j=0.012)
    assert ("Energy", "estimated", "12.0 mJ for one decision, predicted.") in certainty(read_run(path))


@pytest.mark.parametrize(
    "teacher, sentence", [(0.0, "scores 14.2 where its teacher scores 0.00"), (-3.0, "where its teacher scores -3.00")]
)
def test_no_share_of_a_score_that_is_not_positive(path, teacher, sentence):
    change(path, "summary.json", teacher_score_mean=teacher)
    assert sentence in verdict(read_run(path)) and tile(path, "Of the teacher's score").figure == "not measured"
    assert any("not positive" in text for text in caveats(read_run(path)))


def test_without_a_teacher(path):
    change(path, "summary.json", teacher_score_mean=None)
    change(path, "run.json", teacher=None)
    assert verdict(read_run(path)).startswith("The agent, which had no teacher, scores 14.2 and is predicted")
    assert any("no yardstick" in text for text in caveats(read_run(path)))


@pytest.mark.parametrize(
    "distinct, feasible, warns", [(17, 29, True), (1372, 2504, False), (None, 29, True), (None, None, False)]
)
def test_few_networks_under_the_target_are_a_caveat(path, distinct, feasible, warns):
    change(path, "run.json", distinct_networks=distinct, feasible_architectures=feasible)
    told = [text for text in caveats(read_run(path)) if text.startswith("There was little to find")]
    assert len(told) == warns and all("29 under the target" in text for text in told)


def test_one_seed_no_control_and_contradictions_are_caveats(path):
    def has(words):
        return any(words in text for text in caveats(read_run(path)))

    assert has("One seed") and not has("No control (strategy random or largest)") and not has("the contrary")
    change(path, "summary.json", control=None, target_met=False)
    assert has("No control (strategy random or largest)") and has("the contrary")
    (path / "summary.json").unlink()
    assert not has("One seed") and not has("No control (strategy random or largest)")


def test_the_provenance_is_the_tables_until_the_summary_says_it(path):
    change(path, "run.json", table__provenance="derived")
    assert facts(read_run(path)).provenance == "estimated"
    (path / "summary.json").unlink()
    assert facts(read_run(path)).provenance == "derived"


def test_an_unfinished_run_says_how_far_it_is(path):
    for name in ("summary.json", "agent.json", "architecture.json"):
        (path / name).unlink()
    run = read_run(path)
    assert progress(run) == "unfinished: retrain, step 598 k" and verdict(run) == f"This run is not judged yet ({progress(run)})."
    assert tile(path, "Wall time").detail == "so far" and tile(path, "Score").figure == "not measured"
    (path / "metrics.jsonl").unlink()
    assert progress(read_run(path)) == "started, nothing recorded yet"


@pytest.mark.parametrize("width", [40, 100])
def test_the_terminal_summary_fits_and_agrees_with_the_page(path, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(render_summary(path))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "2.18 ms" in text and "94 %" in text and "estimated" in text
    (path / "summary.json").unlink()
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(render_summary(path))
    assert "summary.json is not there yet" in console.file.getvalue()


def test_the_terminal_summary_prints_brackets_as_they_are(path):
    change(path, "run.json", name="[red]odd[/red]")
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(render_summary(path))
    assert "[red]odd[/red]" in console.file.getvalue()


def test_this_machine_is_the_target_when_the_device_is_this(path):
    assert facts(read_run(path)).on_target is False
    change(path, "run.json", device__name="this")
    change(path, "summary.json", latency_predicted_for="this")
    change(path, "agent.json", latency__predicted_for="this")
    assert facts(read_run(path)).on_target is True
    change(path, "agent.json", latency__measured=None)
    assert facts(read_run(path)).on_target is False


def test_the_interval_of_a_prediction_is_told(path):
    change(path, "architecture.json", predicted__interval_s=[1e-3, 4e-3])
    told = "Expected between 1.00 ms and 4.00 ms"
    assert certainty(read_run(path))[1][2].endswith(f"{told} (limits of the device's specification, which may be assumed).")
    change(path, "summary.json", table_provenance="measured")
    assert certainty(read_run(path))[1][2].endswith(f"{told}.")


def test_a_board_that_was_deployed_to_is_the_target_and_this_machine_is_not(path):
    change(path, "summary.json", latency_measured_on="my-board", target_checked_by="measurement on my-board", target_met=False)
    change(path, "agent.json", latency__measured__device="my-board", latency__measured__p50_s=5e-3)
    run = read_run(path)
    assert facts(run).on_target and facts(run).holds is False and "measured there at 5.00 ms" in verdict(run)
    assert tile(path, "Latency, measured on my-board").figure == "5.00 ms"
    for checked_by, device in (
        ("measurement on this machine", "this machine"),
        ("measurement on my-board, synthetic", "my-board"),
    ):
        change(path, "summary.json", latency_measured_on=device, target_checked_by=checked_by)
        change(path, "agent.json", latency__measured__device=device)
        assert not facts(read_run(path)).on_target


@pytest.mark.parametrize("runtime, holds", [("roofline", True), ("torch", True), ("onnxruntime", True), ("tvm", False)])
def test_a_board_is_the_target_whatever_tool_its_table_is_from(path, runtime, holds):
    change(path, "run.json", device__runtime=runtime)
    change(path, "summary.json", latency_measured_on="my-board", target_checked_by="measurement on my-board")
    change(path, "agent.json", latency__measured__device="my-board")
    assert facts(read_run(path)).on_target is holds


@pytest.mark.parametrize(
    "device, checked_by, word",
    [
        ("this machine", "measurement on this machine", "measured"),
        ("my-board", "measurement on my-board, synthetic", "synthetic"),
    ],
)
@pytest.mark.parametrize("measured_s, predicted_holds", [(1e-4, True), (1e-4, False), (9e-3, True)])
def test_what_was_timed_elsewhere_decides_no_promise(path, device, checked_by, word, measured_s, predicted_holds):
    known = facts(read_run(path))
    target_s = known.predicted_s * (1.1 if predicted_holds else 0.9)
    check = {"metric": "latency_s", "statistic": "median", "at": "back-to-back", "predicted": known.predicted_s}
    check |= {"target": target_s, "measured": measured_s, "met": measured_s <= target_s}
    change(path, "run.json", targets=[{"metric": "latency_s", "value": target_s, "margin": 0.0}])
    met = {"target_met": measured_s <= target_s, "latency_target_s": target_s, "latency_measured_s": measured_s}
    change(path, "summary.json", latency_measured_on=device, target_checked_by=checked_by, targets=[check], **met)
    change(path, "agent.json", latency__measured__device=device, latency__measured__p50_s=measured_s)
    run = read_run(path)
    said = verdict(run)
    assert "measured there" not in said and said.count("holds") == predicted_holds and said.count("is broken") != predicted_holds
    label = "Latency, measured " + ("here" if device == "this machine" else "on my-board")
    assert tile(path, label).word == word and tile(path, "Latency, once every 20.0 ms").word == word
    assert [row[1] for row in certainty(run) if row[0] == "Latency, measured"] == [word]
    assert any("does not test the prediction" in text and ("emulated" in text) == (word == "synthetic") for text in caveats(run))
    assert any("say the contrary" in text for text in caveats(run)) == ((measured_s <= target_s) != predicted_holds)
    change(path, "summary.json", target_checked_by="measurement on my-board", latency_measured_on="my-board")
    change(path, "agent.json", latency__measured__device="my-board")
    assert "measured there" in verdict(read_run(path))


def test_the_latency_at_a_control_period_stands_beside_the_one_back_to_back(path):
    shown = tile(path, "Latency, once every 20.0 ms")
    assert shown.figure == "1.55 ms" and shown.detail == "99 of 100 within 2.60 ms; 0 of 125 missed" and shown.mood == ""
    change(path, "agent.json", latency__paced__missed=3)
    assert tile(path, "Latency, once every 20.0 ms").mood == "bad"
    change(path, "agent.json", latency__paced=None)
    assert tile(path, "Latency at a control period").figure == "not measured"


def test_episodes_that_a_resume_gave_up_are_told(path):
    assert not any("began anew" in told for told in caveats(read_run(path)))
    change(path, "run.json", fresh_episodes=[{"stage": "search", "step": 4096, "environments": [0, 3]}])
    (told,) = (told for told in caveats(read_run(path)) if "began anew" in told)
    assert "(search, step 4,096: 2)" in told and "resumed, or a candidate trained on after a pause" in told
