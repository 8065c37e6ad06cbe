"""Hand-made networks beside the strategies of a comparison: which runs they add, and the figures that stand beside them."""

import pytest
from made_comparison import WORDS, made, plan

from cosearch.compare.page import write_comparison
from cosearch.planning.budget import run_steps
from latency_tables.errors import ConfigError, UnknownNameError


def test_hand_made_networks_are_controls_that_are_asked_for(tmp_path):
    told: list[str] = []
    runs = plan(tmp_path, ("a3cs",), [0], hand_made=["all"], tell=told.append)
    assert [run.strategy for run in runs] == ["random", "largest", "a3cs", "minatar-cnn"]
    # a Jetson takes 50 us to start a kernel and an IMPALA-CNN has 15, at any width: 750 us, where the target is 225 us
    assert [line.partition(": no architecture")[0] for line in told] == [
        f"{name} is no control on minatar:breakout" for name in ("impala-cnn", "impoola-cnn")
    ]
    for run in runs[3:]:
        assert run.config.strategy.name == "largest" and run.config.space.name == run.strategy
        assert run.config.control == str(tmp_path / "random-s0") and run_steps(run.config) == run_steps(runs[0].config)
    words = (*WORDS, "space.values.hidden=64")  # of the searched space
    some = plan(tmp_path, ("a3cs",), [0], words=words, hand_made=["impala-cnn"])
    assert [run.config.space.values for run in some] == [{"hidden": 64}] * 3 + [{}]
    with pytest.raises(UnknownNameError, match="impoola-cnn"):
        plan(tmp_path, hand_made=["impola-cnn"])
    with pytest.raises(ConfigError, match="nature-cnn is not made for the frames of minatar:breakout"):
        plan(tmp_path, hand_made=["nature-cnn"])


def test_the_figures_stand_beside_each_hand_made_network(tmp_path):
    scores = {"random": [1.0, 2.0, 3.0], "largest": [4.0, 4.0, 5.0], "a3cs": [4.0, 6.0, 2.5], "minatar-cnn": [5.0, 3.0, 2.0]}
    folder = made(tmp_path / "c", scores, hand_made=["minatar-cnn"])
    result = write_comparison(folder)[0]
    rows = {row["strategy"]: row for row in result.to_json()["strategies"]}
    assert rows["a3cs"]["improvement_hand_made"]["minatar-cnn"]["value"] == pytest.approx((2 + 3 + 1) / 9)
    assert rows["minatar-cnn"]["improvement_hand_made"] == {"minatar-cnn": None}
    assert "| time a run | better than minatar-cnn |" in (folder / "compare.md").read_text()
    assert "better than minatar-cnn" in (folder / "compare.html").read_text()
    without = write_comparison(made(tmp_path / "d", {name: scores[name] for name in ("random", "largest", "a3cs")}))[0]
    assert "improvement_hand_made" not in without.to_json()["strategies"][0]
