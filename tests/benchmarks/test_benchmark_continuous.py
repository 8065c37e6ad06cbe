"""The comparison on MuJoCo goes on where it was stopped, reads curves at equal steps, its page has the rows that were kept."""

import json

import pytest
import typer

from cosearch.benchmarks.documents import DOCS
from cosearch.benchmarks.learning import continuous
from cosearch.benchmarks.peers.continuous_control import WAYS, Watch, blocks, config_of
from cosearch.planning.builtins import load_builtins

load_builtins()


def row(method, seed, scores, task="Hopper-v5", cpu_s=10.0):
    steps = 100 * len(scores)
    ways = WAYS[continuous.algorithm_of(method)]
    curve = [[100 * (place + 1), *(score if way else score + 100 for way in ways)] for place, score in enumerate(scores)]
    return {"task": task, "method": method, "seed": seed, "steps": steps, "curve": curve, "steps_done": steps, "cpu_s": cpu_s}


def test_a_curve_is_read_at_the_last_evaluation_before():
    curve = [[1024, 1.0, 5.0], [2048, 2.0, 6.0], [3072, 3.0, 7.0]]
    assert [continuous.at(curve, steps) for steps in (1000, 2000, 2900, 9000)] == [1.0, 2.0, 2.0, 3.0]
    assert continuous.at(curve, 2000, way=1) == 6.0


def test_tables_have_the_mean_over_seeds_beside_the_peer_and_the_median_speed():
    rows = [row("ppo", 0, [1] * 10), row("ppo", 1, [3] * 10, cpu_s=5.0), row("sb3-ppo", 0, [7] * 9 + [9], cpu_s=4.0)]
    text = continuous.markdown(rows)
    drawn, likely = text.split("\n\n")[:2]
    assert "| Hopper-v5, drawn actions, steps | PPO | PPO of stable-baselines3 |" in drawn
    assert "| 1,000 | 102 [101, 103] | 109, no interval (1 seed) |" in drawn
    assert "| Hopper-v5, most likely actions, steps | PPO | PPO of stable-baselines3 |" in likely
    assert "| 1,000 | 2 [1, 3] | 9, no interval (1 seed) |" in likely and "| seeds | 2 | 1 |" in likely
    assert "| PPO | 150 |" in text and "| PPO of stable-baselines3 | 250 |" in text


def test_it_goes_on_with_what_is_there(monkeypatch, tmp_path):
    asked = []

    def measure(method, task, seed, steps):
        asked.append((method, task, seed, steps))
        return row(method, seed, [1.0] * (steps // 100), task)

    monkeypatch.setattr(continuous, "measure", measure)
    monkeypatch.setattr(continuous, "DOCS", tmp_path)
    given = {
        "tasks": ["Hopper-v5"],
        "methods": ["ppo", "sac"],
        "ppo_steps": 1000,
        "sac_steps": 500,
        "out": tmp_path / "rows.json",
    }
    continuous.main(seeds=1, **given)
    continuous.main(seeds=2, **given)
    assert asked == [(m, "Hopper-v5", seed, s) for seed in (0, 1) for m, s in (("ppo", 1000), ("sac", 500))]
    assert len(json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))["rows"]) == 4
    with pytest.raises(typer.BadParameter, match="expected some of HalfCheetah-v5, Hopper-v5, Walker2d-v5, got Ant-v5"):
        continuous.main(seeds=1, **{**given, "tasks": ["Ant-v5"]})


def test_a_training_is_looked_at_at_equal_distances_and_at_its_end():
    watch = Watch(100, (True, False), lambda likely: 5.0 if likely else 4.0)
    for step in (0, 60, 120, 180, 240, 390):
        watch.look(step)
    watch.look(399, last=True)
    assert watch.curve.points == [(step, 5.0, 4.0) for step in (120, 240, 390, 399)] and watch.curve.steps == 399
    assert watch.curve.cpu_s >= 0.0


def test_both_packages_have_one_network_and_one_set_of_values():
    assert [op.out_channels for op in blocks("ppo", 11, 3)] == [64, 64, 4]
    assert [op.out_channels for op in blocks("sac", 11, 3)] == [256, 256, 4]
    ppo, sac = config_of("ppo", "Hopper-v5", 1), config_of("sac", "Hopper-v5", 1)
    assert ppo.env.num_envs * ppo.rl.rollout_steps == 2048 and not ppo.rl.value_clip
    # the defaults of stable-baselines3's SAC, as its signature has them
    assert (sac.sac.lr, sac.sac.replay, sac.sac.learning_starts, sac.sac.minibatch) == (3e-4, 1_000_000, 100, 256)
    assert (sac.sac.tau, sac.sac.gamma, sac.sac.updates_per_step, sac.env.num_envs) == (0.005, 0.99, 1.0, 1)


def test_the_page_has_the_rows_that_were_kept():
    rows = json.loads((continuous.HERE / "continuous.json").read_text(encoding="utf-8"))["rows"]
    page = (DOCS / "evidence" / "continuous.md").read_text(encoding="utf-8")
    assert f"begin -->\n{continuous.markdown(rows)}\n<!-- continuous: end" in page
