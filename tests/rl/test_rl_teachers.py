"""Teachers: held-out levels beside the training, MinAtar's network and settings, the facts in the list."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from cosearch.cli.app import main
from cosearch.config.agent import RlConfig
from cosearch.config.run import resolve
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.planning.task import resolve_task
from cosearch.rl.env_families.minatar import MINATAR_GAMES
from cosearch.rl.envs import ENVIRONMENTS, EnvOptions
from cosearch.rl.heldout import HeldOut
from cosearch.rl.learning.learner import ALGORITHMS
from cosearch.rl.teacher import TEACHERS, list_teachers, save_teacher
from cosearch.space.network import AgentNetwork, fixed_agents, minatar_cnn, reference_agents
from cosearch.teachers.listing import teacher_rows
from cosearch.teachers.train import TeacherRequest, plan_teacher, teacher_config, train_teacher
from cosearch.testing.toys import EPISODE_STEPS, NUM_ACTIONS, SIDE, TOYS, SignalEnv
from latency_tables.devices import list_devices
from latency_tables.errors import ConfigError
from latency_tables.table import load_table

UNREAD = {  # key of each section that no teacher's training reads
    "distill.teacher": "minatar-breakout",
    "distill.actor": "1",
    "strategy.name": "darts",
    "budget.search_steps": "7",
    "objective.latency_target_s": "1",
    "space.name": "macro",
    "space.values": '{"hidden": [0]}',
    "accel.fixed": "true",
    "family.devices": '["jetson"]',
    "dqn.lr": "0.1",
    "sac.lr": "0.1",
    "device": "jetson",
    "table": "x.jsonl",
    "control": "runs/x",
    "env.metric": "length",
    "env.solved_at": "3",
}


@pytest.fixture(autouse=True)
def builtins():
    load_builtins()


def perfect(frames):
    """Presses the lit action with certainty."""
    lit = frames[:, :: SIDE // NUM_ACTIONS, 0, 0].float().argmax(1)
    return 1e4 * torch.nn.functional.one_hot(lit, NUM_ACTIONS).float(), torch.zeros(len(frames))


def blind(frames):
    """Presses anything."""
    return torch.zeros(len(frames), NUM_ACTIONS), torch.zeros(len(frames))


def held_out(seed=1, **options):
    return HeldOut(SignalEnv("signal", EnvOptions(4, 3, test=True, **options)), torch.Generator().manual_seed(seed))


def test_the_held_out_score_is_the_mean_return_of_finished_episodes():
    player = held_out()
    assert player.score is None
    player.play(perfect, 40)
    cut_first = [EPISODE_STEPS - i for i in range(4)]  # the first episodes of the toy begin late, one step more each
    whole = [EPISODE_STEPS] * (sum((40 - first) // EPISODE_STEPS for first in cut_first))
    assert player.score == pytest.approx(np.mean(cut_first + whole))
    other = held_out()
    other.play(blind, 800)
    assert other.score == pytest.approx(EPISODE_STEPS / NUM_ACTIONS, abs=0.4)  # 100 episodes: three standard errors


def test_held_out_play_goes_on_from_its_state():
    whole, first = held_out(), held_out()
    whole.play(blind, 30)
    first.play(blind, 13)
    state, generator = first.state(), first.generator.get_state()
    first.play(blind, 5)
    second = held_out(seed=9)
    second.restore(state)
    second.generator.set_state(generator)
    second.play(blind, 17)
    assert second.score == whole.score and second.score != first.score


def test_minatars_network_has_the_published_size():
    ops = minatar_cnn((10, 10, 4), 3)
    by_hand = (4 * 9 * 16 + 16) + (16 * 8 * 8 * 128 + 128) + (128 * 4 + 4)
    network = AgentNetwork(ops, torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in network.parameters()) == sum(op.params for op in ops) == by_hand
    assert "minatar-cnn" in fixed_agents((10, 10, 4), 3) and "minatar-cnn" not in fixed_agents((64, 64, 3), 15)
    assert "minatar-cnn" not in reference_agents((10, 10, 4), 3)  # devices need no rows for it


def test_published_values_then_the_familys_then_the_users():
    def config(env, *values):
        return teacher_config(TeacherRequest(env, "", 1000, 5, 1, 4, 200 if "procgen" in env else None, 0, values))

    procgen, minatar = config("procgen:starpilot"), config("minatar:breakout")
    assert (procgen.rl.rollout_steps, procgen.rl.minibatch, procgen.rl.gamma, procgen.rl.lr) == (128, 256, 0.999, 5e-4)
    assert (procgen.rl.epochs, procgen.rl.lr_hold_fraction, minatar.rl.epochs, minatar.rl.lr_hold_fraction) == (1, 0.25, 4, 0.5)
    assert (minatar.rl.rollout_steps, minatar.rl.minibatch, minatar.rl.gamma) == (128, 1024, 0.99)
    assert procgen.seed == 5 and procgen.env.train_levels == 200 and procgen.threads == 1
    other = config("minatar:breakout", "rl.gamma=0.9", "rl.lr_end_fraction=1")
    assert other.rl.gamma == 0.9 and other.rl.lr_end_fraction == 1.0 and other.rl.minibatch == 1024
    with pytest.raises(ConfigError, match=r"rl\.gama"):
        config("minatar:breakout", "rl.gama=0.9")


def test_the_guide_says_the_values_of_the_families_that_have_their_own():
    guide = " ".join((Path(__file__).parents[2] / "docs" / "guide" / "teachers.md").read_text(encoding="utf-8").split())
    said = guide.partition("**Your own.**")[2].partition("KEY=VALUE")[0]
    found = {}
    for env in ("gym:CartPole-v1", "gym:Hopper-v5", "quantum:bell"):
        made = teacher_config(TeacherRequest(env, "", 1000, 5, 1, 4, None, 0, ()))
        rl, lr = made.rl, f"{made.rl.lr:.0e}".replace("e-0", "e-")
        assert made.env.num_envs == (32 if env.startswith("quantum") else 16) and rl.reward_gamma == 0.99  # the rest as published
        found[env] = (made.env.num_envs, rl.rollout_steps, rl.epochs, rl.minibatch, lr, rl.gamma)
    words = "{} environments x {} steps, {} epochs, minibatches of {}, Adam {}, gamma {}"
    assert f"on `gym:` tasks {words.format(*found['gym:CartPole-v1'])}" in said
    assert "(MuJoCo's: minibatches of {3}, Adam {4}, gamma {5}, no clip of the value)".format(*found["gym:Hopper-v5"]) in said
    assert f"on `quantum:` tasks {words.format(*found['quantum:bell'])}" in said


def plan(path, *words):
    fixed = ("env.name=minatar:breakout", "objective.latency_ratio=0.9", f"distill.teacher={path}")
    return make_plan(resolve(overrides=[*fixed, *words]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("game", MINATAR_GAMES)
def test_minatar_has_a_target_of_its_own_that_can_be_met(game):
    pytest.importorskip("minatar", reason="MinAtar is not installed")

    def target(*words):
        return (
            make_plan(resolve_task(overrides=[f"env.name=minatar:{game}", "distill.teacher=none", *words])).constraints[0].value
        )

    assert target() == pytest.approx(target("objective.latency_ratio=0.5") * 0.4 / 0.5)  # and no error: a network meets it


@pytest.mark.parametrize("device", sorted({device.name for device in list_devices() if device.provenance == "estimated"}))
def test_that_target_can_be_met_on_every_board_with_an_estimated_table(device):
    pytest.importorskip("minatar", reason="MinAtar is not installed")
    for game in ("breakout", "seaquest"):  # of the fewest planes and of the most
        make_plan(resolve_task(overrides=[f"env.name=minatar:{game}", f"device={device}", "distill.teacher=none"]))


def test_a_run_takes_the_teachers_discount_unless_it_has_its_own(tmp_path):
    pytest.importorskip("minatar", reason="MinAtar is not installed")
    path = tmp_path / "mine.json"
    network = AgentNetwork(minatar_cnn((10, 10, 4), 3), torch.Generator().manual_seed(0))
    save_teacher(path, network, env="minatar:breakout", description="toy", gamma=0.99, reward_std=1.0, provenance={})
    assert plan(path).config.rl.gamma == 0.99 != RlConfig().gamma
    assert plan(path, "rl.gamma=0.95", "distill.critic=0").config.rl.gamma == 0.95
    with pytest.raises(ConfigError, match=r"Set rl\.gamma=0\.99, or distill\.critic=0"):
        plan(path, "rl.gamma=0.95")


def test_every_shipped_teacher_is_listed_with_size_score_and_latencies():
    rows = {row["name"]: row for row in teacher_rows()}
    devices = list_devices()
    assert set(rows) == {path.stem for path in TEACHERS.glob("*.json")} and "starpilot" in rows
    for record in list_teachers():
        row = rows[record.name]
        network = AgentNetwork(record.ops, torch.Generator().manual_seed(0))
        assert row["params"] == sum(p.numel() for p in network.parameters())
        assert row["bytes"] == record.path.with_suffix(".safetensors").stat().st_size >= 2 * row["params"]
        low, high = row["score_ci95"]
        assert low <= row["score_mean"] <= high and row["episodes"] >= 100 and row["steps"] > 0
        assert len(row["latency"]) == len(devices)
    for row in rows.values():
        json.dumps(row, allow_nan=False)
        assert all(entry["provenance"] in ("measured", "derived", "estimated", "synthetic") for entry in row["latency"])
        assert all(entry["latency_s"] is None or entry["latency_s"] > 0 for entry in row["latency"])


def test_a_listed_latency_is_the_tables():
    record = next(record for record in list_teachers() if record.name == "starpilot")
    row = next(row for row in teacher_rows() if row["name"] == "starpilot")
    estimated = next(device for device in list_devices() if device.name == "jetson")
    entry = next(entry for entry in row["latency"] if entry["device"] == "jetson")
    table = load_table(estimated.path)
    assert entry["latency_s"] == pytest.approx(
        table.overhead_s + sum(table.predict([op]).latency_s - table.overhead_s for op in record.ops)
    )


def test_teachers_are_shown_with_scores_and_with_latencies_by_device(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("rich._console", None)  # an earlier test's console keeps the width it began with
    rows = teacher_rows()
    assert main(["list", "teachers"]) == 0
    scores, latencies = capsys.readouterr().out.split("predicted latency")
    devices = {line.split()[1]: line for line in latencies.splitlines() if " ms " in line and "roofline" in line}
    for row in rows:
        low, high = row["score_ci95"]
        (line,) = [line for line in scores.splitlines() if f" {row['name']} " in line]
        assert f"{row['score_mean']:.2f} [{low:.2f}, {high:.2f}]" in line and f"{row['steps']:,}" in line
        assert row["name"] in latencies
        for item in row["latency"]:
            if item["runtime"] == "roofline":
                shown = devices[item["device"]]
                assert f" {item['latency_s'] * 1e3:.3g} ms " in shown and item["provenance"] in shown
    assert sum("x86-server" in line for line in latencies.splitlines()) == 2  # measured with two runtimes


def test_a_table_without_rows_gives_null(monkeypatch, tmp_path):
    import cosearch.teachers.listing as facts

    network = AgentNetwork(minatar_cnn((10, 10, 11), 3), torch.Generator().manual_seed(0))
    record = save_teacher(
        tmp_path / "odd.json", network, env="minatar:breakout", description="toy", gamma=0.9, reward_std=1.0, provenance={}
    )
    monkeypatch.setattr(facts, "list_teachers", lambda: [record])
    latencies = facts.teacher_rows()[0]["latency"]
    measured = [entry for entry in latencies if entry["device"] == "x86-server" and entry["dtype"] == "float32"]
    assert measured and all(entry["latency_s"] is None for entry in measured)
    assert any(entry["latency_s"] for entry in latencies)  # an estimate answers for every operation


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_teacher_is_labelled_with_the_algorithm_that_trained_it(algorithm, tmp_path, monkeypatch):
    monkeypatch.setattr(ENVIRONMENTS, "_entries", {**ENVIRONMENTS._entries, "toy": TOYS})
    words = (f"rl.algorithm={algorithm}", "env.num_envs=4", "rl.rollout_steps=8", "rl.minibatch=32")
    request = TeacherRequest("toy:signal", "", 32, 0, 1, 2, values=words)
    threads = torch.get_num_threads()
    train_teacher(request, tmp_path / "mine.json", tmp_path / "runs", "a test", Quiet())
    torch.set_num_threads(threads)
    record = json.loads((tmp_path / "mine.json").read_text())
    labels = {"ppo": "PPO", "a2c": "A2C"}
    assert [label for label in labels.values() if label in record["description"]] == [labels[algorithm]]
    assert record["provenance"]["algorithm"] == algorithm


def test_an_algorithm_without_a_policy_trains_no_teacher():
    with pytest.raises(ConfigError, match=r"set rl\.algorithm to ppo or a2c"):
        teacher_config(TeacherRequest("minatar:breakout", "", 32, 0, 1, 2, values=("rl.algorithm=dqn",)))


IGNORED = {  # word of a teacher: what its message says
    "seed=5": r"seed is set by --seed.*give --seed",
    "threads=4": r"threads is set by --threads",
    "env.name=minatar:asterix": r"env\.name is set by --env",
    "env.train_levels=7": r"env\.train_levels is set by --train-levels",
    'env={"train_levels": 7}': r"env\.train_levels is set by --train-levels",
    **{f"{key}={value}": rf"{re.escape(key)} has no effect here: leave it out" for key, value in UNREAD.items()},
}


@pytest.mark.parametrize("word", IGNORED)
def test_a_word_without_effect_is_refused_and_the_option_named(word):
    with pytest.raises(ConfigError, match=IGNORED[word]):
        teacher_config(TeacherRequest("minatar:breakout", "", 32, 0, 1, 2, values=("rl.gamma=0.9", word)))


def test_all_words_without_effect_are_named_at_once():
    words = ("seed=5", "distill.teacher=minatar-breakout", "env.metric=length")
    with pytest.raises(ConfigError) as caught:
        teacher_config(TeacherRequest("minatar:breakout", "", 32, 0, 1, 2, values=words))
    assert [line.split()[0] for line in str(caught.value).splitlines()] == ["distill.teacher", "env.metric", "seed"]


def test_levels_are_refused_where_the_task_has_none_and_recorded_where_it_has(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("--env", "toy:signal", "--network", "minatar-cnn", "--steps", "32", "--episodes", "2", "--out", "t.json", "--quiet")
    values = ("env.num_envs=4", "rl.rollout_steps=8", "rl.minibatch=16")
    load_builtins()
    monkeypatch.setattr(ENVIRONMENTS, "_entries", {**ENVIRONMENTS._entries, "toy": TOYS})
    assert main(["teacher", *words, "--train-levels", "7", *values]) == 2
    said = capsys.readouterr().err
    assert "--train-levels 7 has no effect with toy:signal, which has no levels: leave it out" in said
    assert not list(tmp_path.iterdir())  # refused before anything was made
    assert main(["teacher", *words, *values]) == 0
    assert json.loads((tmp_path / "t.json").read_text())["provenance"]["train_levels"] is None
    (record,) = tmp_path.glob("runs/*/run.json")
    content = json.loads(record.read_text())
    assert content["request"]["train_levels"] is None
    record.write_text(json.dumps({**content, "request": {**content["request"], "train_levels": 100_000}}))  # earlier versions
    assert main(["teacher", *words, *values]) == 0
    for levels in (None, 200):
        plan = plan_teacher(TeacherRequest("procgen:ninja", "", 32, 0, 1, 2, levels))
        assert plan.request.train_levels == plan.config.env.train_levels == (levels or 100_000)


def test_shipped_teachers_name_levels_where_their_task_has_some():
    for record in list_teachers():
        assert (record.provenance["train_levels"] is not None) == record.env.startswith("procgen"), record.name


def test_words_that_a_training_reads_are_taken():
    words = ("env.num_envs=8", "env.episode_steps=100", "env.step_limit_s=2", "env.kwargs.gravity=9.8", "compute=cpu", "rl.lr=1")
    request = TeacherRequest("gym:CartPole-v1", "", 32, 0, 1, 2, values=(*words, 'env.wrappers=["flatten"]'))
    config = teacher_config(request)
    assert (config.env.num_envs, config.env.episode_steps, config.env.step_limit_s) == (8, 100, 2.0)
    assert (config.env.kwargs, config.env.wrappers, config.compute, config.rl.lr) == ({"gravity": 9.8}, ("flatten",), "cpu", 1.0)


def test_words_beside_a_file_that_is_only_read_are_refused(capsys):
    assert main(["teacher", "--env", "minatar:breakout", "--from-sb3", "x.zip", "--out", "t.onnx", "rl.lr=0.1"]) == 2
    assert "leave rl.lr=0.1 out" in capsys.readouterr().err
    numbers = ("--steps", "--seed", "--seeds", "--jobs", "--threads", "--episodes", "--train-levels", "--test-envs")
    for option in (*numbers, "--network", "--runs"):
        given = [option, "1"]
        assert main(["teacher", "--env", "minatar:breakout", "--from-sb3", "x.zip", "--out", "t.onnx", *given]) == 2
        assert f"--from-sb3 trains nothing: leave {option} out" in capsys.readouterr().err
    assert main(["teacher", "--env", "minatar:breakout", "--allow-pickle", "--out", "t.json"]) == 2
    assert "--allow-pickle has no effect without --from-sb3" in capsys.readouterr().err


class Quiet:
    """Shows nothing."""

    def stage(self, name, total_steps, done_steps):
        self.shown = name

    def update(self, metrics):
        self.shown = metrics

    def note(self, text):
        self.shown = text


@pytest.mark.parametrize(
    "env, words, text",
    [
        (
            "minatar:breakout",
            ("rl.algorithm=a2c", "rl.epochs=9"),
            "rl.epochs=9 has no effect with rl.algorithm=a2c; leave it out",
        ),
        (
            "minatar:breakout",
            ("rl.algorithm=a2c", "rl.value_clip=false", "rl.clip=0.01"),
            "rl.clip=0.01 has no effect with rl.algorithm=a2c and rl.value_clip=false",
        ),
        (
            "minatar:breakout",
            ("rl.value_weight=0", "rl.value_clip=false"),
            "rl.value_clip=false has no effect with rl.value_weight=0",
        ),
        ("minatar:breakout", ("env.kwargs.difficulty=9",), r"env.kwargs=.* has no effect with minatar"),
        ("minatar:breakout", ('env.wrappers=["flatten"]',), r"env.wrappers=.* has no effect with minatar:breakout"),
        (
            "gym:CartPole-v1",
            ("env.layout=channels_first",),
            r"env.layout=channels_first has no effect .*observations are vectors",
        ),
        ("minatar:breakout", ("rl.minibatch=1",), r"a single frame.* set rl.minibatch=2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_word_that_changes_nothing_in_a_teachers_training_is_refused(env, words, text):
    with pytest.raises(ConfigError, match=text):
        plan_teacher(TeacherRequest(env, "", 32, 0, 1, 2, values=words))


def test_words_that_change_a_teachers_training_are_accepted():
    words = ("rl.algorithm=a2c", "rl.clip=0.01", "rl.value_weight=0.1", "env.kwargs.g=9.8")
    assert plan_teacher(TeacherRequest("gym:Pendulum-v1", "", 32, 0, 1, 2, values=words)).config.rl.clip == 0.01
