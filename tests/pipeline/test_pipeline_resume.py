"""Invariant 6 and 9: a run that was killed and resumed equals the uninterrupted one, and a seed gives one result.

Compared are the files of architecture and agent, the final weights and random streams, every figure of the summary that no
clock measured, and the log. The kills come at drawn moments: inside rollouts, updates, writes, evaluation and measurement.
"""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from pipeline_runs import CLOCKS, TINY, TINY_PROPOSALS, Moment, assert_equal, command, results, steps
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cosearch.record.rundir import RunDir
from cosearch.rl.teacher import find_teacher

LONG = (*TINY, "budget.search_steps=256", "budget.retrain_steps=160")  # eight and five updates, each with a checkpoint
RANDOM = ("--strategy", "random", "strategy.candidates=3", "budget.search_steps=120", "rl.minibatch=16")
MINATAR = ("--env", "minatar:breakout")
VECTORS = (*(word for word in TINY if not word.startswith(("space.", "objective.", "budget.clip"))), "--env", "gym:Pendulum-v1")
MEMORY = (
    *(word for word in VECTORS[:-1]),
    "gym:cosearch.testing.tmaze:TMaze-v0",
    'space.values={"stem_width":8,"stage_widths":[8],"stage_repeats":[1],"memory":["gru_w16","lstm_w16","stack_k2"]}',
    "objective.latency_ratio=4",
)
IMAGES = '"image":{"stem_channels":8,"stage_channels":[8],"stage_repeats":[1],"stage_strides":[2]}'
LAYERS = '"stem_width":8,"stage_widths":[8],"stage_repeats":[1]'
DICTIONARY = (*VECTORS[:-1], "own_tasks:dictionary", f'space.values={{{IMAGES},"vector":{{{LAYERS}}},"hidden":16}}')
MASKED = (*VECTORS[:-1], "own_tasks:masked", f"space.values={{{LAYERS}}}")
CASES = {
    "reinforce-procgen": (LONG, ("search",) * 4 + ("retrain",) * 3 + ("finish",) * 3),
    "a2d-minatar": ((*TINY, *MINATAR, "--strategy", "a2d"), ("search", "search", "retrain", "finish")),
    "reinforce-pendulum": (VECTORS, ("search", "retrain", "finish")),  # vectors in and out, running statistics
    "reinforce-memory": (MEMORY, ("search", "search", "retrain", "finish")),
    "reinforce-dictionary": ((*DICTIONARY, "objective.latency_ratio=4"), ("search", "retrain", "finish")),
    "reinforce-masked": ((*MASKED, "objective.latency_ratio=4"), ("search", "retrain", "finish")),
    "random-minatar": ((*TINY_PROPOSALS, *MINATAR, *RANDOM), ("search", "search", "search", "retrain")),
    "random-procgen": ((*TINY_PROPOSALS, *RANDOM), ("search", "search", "finish")),
}
ALIKE = (  # slow: the others take the same ways
    "reinforce-procgen",
    "reinforce-memory",
    "random-procgen",
    "random-minatar",
    "a2d-minatar",
    "reinforce-dictionary",
    "reinforce-masked",
)


def moments(stages, events, seed):
    """One moment for each stage named, drawn so that it surely comes, and not always at once: k kills share a stage's events."""
    rng = np.random.default_rng(seed)
    share = {stage: events[stage] - 1 if stage == "finish" else events[stage] // stages.count(stage) for stage in set(stages)}
    return [Moment(stage, int(rng.integers(1 + share[stage] // 3, share[stage] + 1))) for stage in stages]


def killed_and_resumed(folder, words, kills):
    """Run to the end through all kills; the folder of the run."""
    begin = ("search", "--run", "one", *words)
    for moment in kills:
        done = command(*begin, folder=folder, moment=moment)
        assert done.code == -signal.SIGKILL, f"{moment} never came: {done.err}"
        begin = ("resume", "runs/one")
    done = command(*begin, folder=folder)
    assert done.code == 0, done.err
    return folder / "runs" / "one"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """By case: the folder of a run that nothing disturbed, and how its command ended; made once."""
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            done = command("search", "--run", "one", *CASES[name][0], folder=folder)
            assert done.code == 0, done.err
            made[name] = folder / "runs" / "one", done
        return made[name]

    return make


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in CASES])
def test_kills_at_drawn_moments_change_nothing(name, uninterrupted, tmp_path):
    words, stages = CASES[name]
    straight, done = uninterrupted(name)
    kills = moments(stages, done.events, seed=20)
    assert {moment.stage for moment in kills} == set(stages)
    run = killed_and_resumed(tmp_path, words, kills)
    assert_equal(results(run), results(straight))
    assert not list(run.glob(".*.partial")) and not list((run / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_the_log_has_no_gap_and_no_doubled_step(uninterrupted, tmp_path):
    _, done = uninterrupted("reinforce-procgen")
    # with few checkpoints most kills leave logged steps behind that are not in one
    run = killed_and_resumed(
        tmp_path,
        (*LONG, "budget.checkpoint_interval_s=1000"),
        [Moment("search", done.events["search"] // 2), Moment("retrain", done.events["retrain"] // 2)],
    )
    expected = [("search", step) for step in range(32, 257, 32)] + [("retrain", step) for step in range(32, 161, 32)]
    assert steps(run) == expected
    reader = EventAccumulator(str(run))
    reader.Reload()
    for stage in ("search", "retrain"):
        assert [event.step for event in reader.Scalars(f"{stage}/entropy")] == [step for name, step in expected if name == stage]
    walls = [line["wall_s"] for line in RunDir.open(run).read_metrics()]
    assert walls == sorted(walls) and walls[0] > 0


def test_the_same_seed_gives_the_same_run_however_often_it_is_saved(uninterrupted, tmp_path):
    straight, _ = uninterrupted("reinforce-procgen")
    done = command("search", "--run", "again", *LONG, "budget.checkpoint_interval_s=1000", folder=tmp_path)
    assert done.code == 0, done.err
    assert_equal(results(tmp_path / "runs" / "again"), results(straight))


@pytest.mark.slow
def test_another_seed_gives_another_run(uninterrupted, tmp_path):
    straight, _ = uninterrupted("reinforce-procgen")
    done = command("search", "--run", "other", *LONG, "--seed", "1", folder=tmp_path)
    assert done.code == 0, done.err
    found, expected = results(tmp_path / "runs" / "other"), results(straight)
    assert found["summary"]["seed"] == 1 and expected["summary"]["seed"] == 0
    for key in ("weights", "onnx", "log", "evaluation", "streams"):
        assert found[key] != expected[key], f"{key} does not follow the seed"


def test_every_figure_that_is_not_compared_is_a_clock(uninterrupted):
    straight, _ = uninterrupted("reinforce-procgen")
    left_out = {key for key in RunDir.open(straight).read_json("summary.json") if key in CLOCKS}
    assert left_out == {"wall_s", "latency_measured_s"}
    assert len(results(straight)["weights"]) > 4 and len(results(straight)["log"]) == 13


@pytest.mark.slow
def test_a_kill_before_the_first_checkpoint_starts_over(uninterrupted, tmp_path):
    straight, _ = uninterrupted("reinforce-procgen")
    run = killed_and_resumed(tmp_path, LONG, [Moment("search", 1), Moment("search", 2)])
    assert_equal(results(run), results(straight))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_kill_while_the_folder_is_made_leaves_a_run_or_none(count, tmp_path):
    done = command("search", "--run", "one", *LONG, folder=tmp_path, moment=Moment("plan", count))
    assert done.code == -signal.SIGKILL
    run = tmp_path / "runs" / "one"
    assert not run.exists() or (run / "run.json").is_file()
    words = ("resume", "runs/one") if run.exists() else ("search", "--run", "one", *LONG)
    again = command(*words, folder=tmp_path, moment=Moment("search", 3))
    assert again.code == -signal.SIGKILL, again.err  # it got to its work


def test_a_finished_run_says_so_and_is_left_alone(uninterrupted):
    straight, _ = uninterrupted("reinforce-procgen")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in straight.rglob("*")}
    done = command("resume", "runs/one", "--json", folder=straight.parents[1])
    assert done.code == 0 and "is finished" in done.err and "cosearch report runs/one" in done.err
    assert done.json["run"] == "runs/one" and done.json["score_mean"] == results(straight)["summary"]["score_mean"]
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in straight.rglob("*")} == before


@pytest.mark.slow  # two whole runs with a teacher
def test_a_run_with_a_teacher_resumes_exactly(tmp_path):
    if find_teacher("auto", "procgen:starpilot") is None:
        pytest.skip("no teacher is shipped for procgen:starpilot")
    words = (*TINY, "distill.teacher=auto", "budget.search_steps=64", "budget.retrain_steps=64")
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    done = command("search", "--run", "one", *words, folder=tmp_path / "straight")
    assert done.code == 0, done.err
    straight = results(tmp_path / "straight" / "runs" / "one")
    assert all(line["distill_actor"] > 0 and 0 <= line["teacher_agreement"] <= 1 for line in straight["log"])
    kills = [Moment("search", done.events["search"] - 9), Moment("retrain", done.events["retrain"] - 9)]
    assert_equal(results(killed_and_resumed(tmp_path / "killed", words, kills)), straight)


@pytest.mark.slow
def test_ten_kills_from_outside_at_random_times(uninterrupted, tmp_path):
    """``pytest -m slow tests/pipeline/test_pipeline_resume.py``: the real command, killed by another process."""
    straight, _ = uninterrupted("reinforce-procgen")
    rng = np.random.default_rng(3)
    words = ["search", "--run", "one", *LONG]
    order = ("search", "retrain", "finish")
    for kill in range(10):
        awaited = [f"{stage}: step" for stage in order[kill * 3 // 10 :]]
        with (tmp_path / "log").open("w+") as log:
            process = subprocess.Popen([sys.executable, "-m", "cosearch", *words], cwd=tmp_path, stdout=log, stderr=log)
            while not any(text in (tmp_path / "log").read_text() for text in awaited):
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.02)
            time.sleep(rng.uniform(0.0, 0.4))
            process.kill()
            assert process.wait() == -signal.SIGKILL
        words = ["resume", "runs/one"]
    done = subprocess.run([sys.executable, "-m", "cosearch", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_equal(results(tmp_path / "runs" / "one"), results(straight))
