"""The metrics log: declared keys, finite numbers, and cutting back to a checkpoint."""

import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosearch.record.metrics import METRICS, STAGES, append_metrics, checked_metrics, read_metrics, truncate_metrics
from cosearch.rl.learning.losses import critic_distillation
from cosearch.rl.rollout import RECENT_EPISODES, Episodes
from latency_tables.errors import NonFiniteError, RunFolderError, UnknownNameError

BASE = {"stage": "search", "step": 4, "wall_s": 0.5}


def write(path, lines, end="\n"):
    path.write_text("".join(json.dumps({"stage": s, "step": n, "wall_s": 0}) + "\n" for s, n in lines)[: None if end else -1])


def logged(path):
    return [(line["stage"], line["step"]) for line in read_metrics(path)]


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_is_declared_in_full(name):
    metric = METRICS[name]
    assert metric.unit and metric.meaning and "\n" not in metric.meaning and metric.kind in ("number", "count", "text", "rows")
    assert (metric.unit == "s") == name.endswith("_s") or name == "steps_per_s"
    assert (metric.unit == "J") == name.endswith("_j")


def test_a_line_comes_back_as_it_was_given(tmp_path):
    path = tmp_path / "metrics.jsonl"
    line = {**BASE, "score_train": 1 / 3, "energy_expected_j": None, "candidate": "ü", "arch_probabilities": [[0.5, 0.5], [1.0]]}
    append_metrics(path, line)
    append_metrics(path, {**BASE, "step": 5})
    assert read_metrics(path) == [line, {**BASE, "step": 5}]
    assert path.read_bytes().count(b"\n") == 2


def test_scalars_of_torch_and_numpy_become_plain_numbers():
    line = checked_metrics(
        {
            "stage": "search",
            "step": np.int64(3),
            "wall_s": np.float32(0.5),
            "entropy": torch.tensor(2.0),
            "episodes": torch.tensor(7),
            "arch_probabilities": torch.tensor([[0.25, 0.75]]),
        }
    )
    assert line == {
        "stage": "search",
        "step": 3,
        "wall_s": 0.5,
        "entropy": 2.0,
        "episodes": 7,
        "arch_probabilities": [[0.25, 0.75]],
    }
    assert {type(value) for value in line.values()} == {str, int, float, list}


def test_an_undeclared_key_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown metric 'los_policy'\. Did you mean 'loss_policy'\?"):
        append_metrics(tmp_path / "m", {**BASE, "los_policy": 1.0})
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("key", ["stage", "step", "wall_s"])
def test_a_missing_key_is_refused(key):
    with pytest.raises(ValueError, match=f"{key} missing in"):
        checked_metrics({name: value for name, value in BASE.items() if name != key})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), torch.tensor(float("nan")), np.float64("inf")])
@pytest.mark.parametrize("key", ["loss_policy", "wall_s"])
def test_only_finite_numbers_are_logged(key, value):
    with pytest.raises(NonFiniteError, match=f"metric {key} is -?(nan|inf)"):
        checked_metrics({**BASE, key: value})


def test_a_number_that_is_not_finite_is_found_inside_the_rows():
    with pytest.raises(NonFiniteError, match=r"arch_probabilities\[1\]\[0\] is nan"):
        checked_metrics({**BASE, "arch_probabilities": [[1.0], [float("nan")]]})


@pytest.mark.parametrize(
    "key, value",
    [
        ("entropy", "high"),
        ("entropy", True),
        ("step", 1.0),
        ("step", -1),
        ("step", None),
        ("candidate", 3),
        ("candidate", None),
        ("arch_probabilities", [0.5]),
        ("arch_probabilities", 0.5),
        ("episodes", None),
    ],
)
def test_a_value_of_another_kind_is_refused(key, value):
    with pytest.raises(TypeError, match=f"metric {key}"):
        checked_metrics({**BASE, key: value})


def test_an_unknown_stage_is_refused(tmp_path):
    for use in (lambda: checked_metrics({**BASE, "stage": "serch"}), lambda: truncate_metrics(tmp_path / "m", 0, "serch")):
        with pytest.raises(UnknownNameError, match=r"unknown stage 'serch'\. Did you mean 'search'\?"):
            use()


@pytest.mark.parametrize(
    "damage", ['{"stage": "search"', "[]", '{"step": 3}', '{"stage": "search", "step": "3"}', "", '{"stage": "x", "step": 3}']
)
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    write(path, [("search", 1)])
    path.write_text(path.read_text() + damage + "\n" + path.read_text())
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl:2 is not a line of metrics"):
        read_metrics(path)


def test_an_unfinished_last_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [("search", 1), ("search", 2)], end="")
    assert logged(path) == [("search", 1)]
    assert read_metrics(tmp_path / "none") == []


T, S, R = "teacher", "search", "retrain"


@pytest.mark.parametrize(
    "before, step, stage, after",
    [
        ([(S, 1), (S, 2), (S, 3)], 2, S, [(S, 1), (S, 2)]),
        ([(S, 1), (S, 2), (S, 3)], 3, S, [(S, 1), (S, 2), (S, 3)]),
        ([(S, 1), (S, 2), (S, 3)], 9, S, [(S, 1), (S, 2), (S, 3)]),
        ([(S, 2), (S, 3)], 0, S, []),
        ([(T, 7), (S, 2)], 1, S, [(T, 7)]),
        ([(T, 7)], 0, S, [(T, 7)]),
        ([(S, 1), (S, 2), (R, 1), (R, 2)], 1, R, [(S, 1), (S, 2), (R, 1)]),
        ([(S, 1), (S, 2), (R, 1), (R, 2)], 2, S, [(S, 1), (S, 2)]),  # the newer checkpoint was damaged
        ([(S, 1), (S, 2), (R, 1), (R, 2)], 1, S, [(S, 1)]),
        ([(S, 1), (S, 1), (S, 2)], 1, S, [(S, 1), (S, 1)]),  # several lines of one step stay together
        ([], 5, S, []),
    ],
)
@pytest.mark.parametrize("torn", [b"", b'{"stage": "sea'])
def test_the_log_is_cut_back_to_the_checkpoint(tmp_path, before, step, stage, after, torn):
    path = tmp_path / "metrics.jsonl"
    write(path, before)
    path.write_bytes(path.read_bytes() + torn)
    cut = truncate_metrics(path, step, stage)
    assert cut == len(before) - len(after) + bool(torn)
    assert logged(path) == after
    assert path.read_bytes().count(b"\n") == len(after) and not path.read_bytes().rstrip(b"\n").endswith(b"sea")
    append_metrics(path, {"stage": stage, "step": step + 1, "wall_s": 0})
    assert logged(path) == [*after, (stage, step + 1)]


def test_nothing_is_cut_where_there_is_no_log(tmp_path):
    assert truncate_metrics(tmp_path / "none", 3, "search") == 0
    assert not (tmp_path / "none").exists()


# no limit on time: how long a synchronised write takes is the disk's affair
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_killed_and_resumed_log_equals_the_uninterrupted_one(tmp_path_factory, data):
    """Log every step, save every k-th, die anywhere, resume: the log must equal the one of a run that was never killed."""
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    length, every = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    plan = [(stage, step) for stage in STAGES for step in range(1, length + 1)]
    position, saved, kills = 0, 0, data.draw(st.lists(st.integers(0, 8), max_size=3))
    for survives in [*kills, len(plan)]:
        if saved:
            truncate_metrics(path, plan[saved - 1][1], plan[saved - 1][0])
        elif path.exists():
            truncate_metrics(path, 0, plan[0][0])
        for position in range(saved, min(saved + survives, len(plan))):
            append_metrics(path, {"stage": plan[position][0], "step": plan[position][1], "wall_s": 0})
            if (position + 1) % every == 0:
                saved = position + 1
    assert logged(path) == plan


def test_what_the_log_says_of_the_training_score_is_what_is_counted():
    episodes = Episodes(1)
    for reward in range(RECENT_EPISODES + 50):
        episodes.count(np.array([float(reward)]), np.array([True]))
    assert episodes.score == 50 + (RECENT_EPISODES - 1) / 2  # the mean of the last ones alone
    assert f"last {RECENT_EPISODES} training episodes" in METRICS["score_train"].meaning and Episodes(1).score is None


def test_what_the_log_says_of_the_critics_distillation_is_what_is_computed():
    assert float(critic_distillation(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0]))) == (4.0 + 0.0) / 2 / 2
    assert METRICS["distill_critic"].meaning.startswith("half of the mean squared error")
