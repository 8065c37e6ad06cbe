"""What sharpened teachers score: the page beside the kept result, what is played again and what is not, refusals."""

import json

import pytest

from cosearch.benchmarks.documents import DOCS, between
from cosearch.benchmarks.learning import temperature
from cosearch.rl.teacher import list_teachers
from latency_tables.errors import RequestError, UnknownNameError

pytest.importorskip("minatar", reason="MinAtar is not installed")
NAME = "minatar-breakout"


def test_the_page_says_what_was_kept():
    page = (DOCS / "evidence" / "distillation.md").read_text(encoding="utf-8")
    assert between(page, "temperature", temperature.markdown(json.loads(temperature.OUT.read_text(encoding="utf-8")))) == page


def test_each_result_is_kept_as_it_comes_and_not_made_again(tmp_path, monkeypatch):
    out, played = tmp_path / "kept.json", []

    def play(record, value, episodes):
        played.append((record.name, value, episodes))
        if len(played) == 2:
            raise KeyboardInterrupt
        return {"mean": 10 / value, "ci95": [1.0, 2.0], "episodes": episodes}

    monkeypatch.setattr(temperature, "play", play)
    with pytest.raises(KeyboardInterrupt):
        temperature.main([NAME], [1.0, 0.5], 64, out)
    temperature.main([NAME], [1.0, 0.5], 64, out)
    assert played == [(NAME, 1.0, 64), (NAME, 0.5, 64), (NAME, 0.5, 64)]
    kept = json.loads(out.read_text())
    assert temperature.markdown(kept).splitlines() == [
        "| teacher | as it is | temperature 0.5 |",
        "| --- | --- | --- |",
        f"| {NAME} | 10.00 [1.00, 2.00] | 20.00 [1.00, 2.00] |",
    ]
    with pytest.raises(RequestError, match="episodes 64 there, 128 asked for"):
        temperature.main([NAME], [1.0], 128, out)
    with pytest.raises(UnknownNameError, match="no-teacher"):
        temperature.main(["no-teacher"], [1.0], 64, out)
    with pytest.raises(temperature.typer.BadParameter, match="above 0, got 0"):
        temperature.main([NAME], [0.0], 64, out)


def test_a_sharpened_teacher_plays_another_game_than_a_blurred_one():
    record = next(record for record in list_teachers() if record.name == NAME)
    sharp, blurred = (temperature.play(record, value, 64)["mean"] for value in (0.5, 50.0))
    assert sharp > 10.0 > 2.0 > blurred  # near its own score of 22, and near that of random actions
