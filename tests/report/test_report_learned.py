"""The caveat on shared weights that had not learned: by hand on made lines."""

import json

import pytest
from report_fake_run import change, make_run

from cosearch.report.data import read_run
from cosearch.report.facts import caveats
from cosearch.report.learned import divergence_left


def lines(values, **more):
    return [{"stage": "search", "step": 64 * index, "distill_actor": value, **more} for index, value in enumerate(values, 1)]


def test_the_share_is_of_the_first_update_over_the_last_tenth():
    values = [0.8, *[0.5] * 17, 0.3, 0.1]
    assert divergence_left(lines(values)) == pytest.approx(0.2 / 0.8)
    assert divergence_left([*lines(values), {"stage": "retrain", "step": 64, "distill_actor": 9.0}]) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "given",
    [
        lines([0.8] * 9),
        lines([0.8] * 20, candidate="a/b"),
        [{"stage": "search", "step": 64 * index, "loss_policy": 0.1} for index in range(20)],
        lines([0.0] * 20),
        [],
    ],
    ids=["few updates", "candidates", "no teacher", "nothing to begin with", "no search"],
)
def test_where_it_cannot_be_told_nothing_is_said(given):
    assert divergence_left(given) is None


@pytest.mark.parametrize("end, actor, warns", [(0.49, 30.0, False), (0.51, 30.0, True), (1.2, 30.0, True), (1.2, 0.0, False)])
def test_a_search_whose_weights_did_not_learn_says_so(tmp_path, end, actor, warns):
    path = make_run(tmp_path / "run")
    change(path, "run.json", config__distill={"actor": actor})
    log = path / "metrics.jsonl"
    kept = [text for text in log.read_text(encoding="utf-8").splitlines() if json.loads(text)["stage"] != "search"]
    search = [json.dumps({"wall_s": 1.0 * index, **line}) for index, line in enumerate(lines([1.0, *[end] * 10]), 1)]
    log.write_text("\n".join([*search, *kept]) + "\n", encoding="utf-8")
    told = [text for text in caveats(read_run(path)) if text.startswith("The shared weights had hardly learned")]
    assert len(told) == warns and all(f"{round(100 * end)} % of their divergence" in text for text in told)


@pytest.mark.parametrize(
    "temperature, actor, says", [(0.5, 30.0, True), (2.0, 30.0, True), (1.0, 30.0, False), (0.5, 0.0, False)]
)
def test_a_share_of_the_score_of_another_policy_than_was_learned_says_so(tmp_path, temperature, actor, says):
    path = make_run(tmp_path / "run")
    change(path, "run.json", config__distill={"actor": actor, "temperature": temperature})
    told = [text for text in caveats(read_run(path)) if "does not say that the agent knows more" in text]
    assert len(told) == says and all(f"at temperature {temperature}, and" in text for text in told)


def test_a_run_of_a_version_without_temperatures_says_nothing_of_them(tmp_path):
    path = make_run(tmp_path / "run")
    change(path, "run.json", config__distill={"actor": 30.0})
    assert not [text for text in caveats(read_run(path)) if "knows more" in text]
