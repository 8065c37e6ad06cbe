"""Task-aware start: Fisher distances against a closed form and on tasks of known order; a search that begins from a store."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from pipeline_runs import Silent
from torch import nn

from cosearch.cli.app import main
from cosearch.config.env import EnvConfig
from cosearch.pipeline.opening import WHERE_RECORDED, opened
from cosearch.pipeline.run import STAGES, work_on
from cosearch.pipeline.search.task_start import begin_from_store, distance, fisher, task_distance
from cosearch.pipeline.session import open_session
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.planning.store import sources
from cosearch.planning.task import resolve_task
from cosearch.record.json_record import to_json
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from cosearch.rl.policy import Categorical
from cosearch.space.network import AgentNetwork, mlp
from cosearch.space.supernet import SuperNet
from cosearch.testing.conformance import seeded
from latency_tables.errors import ConfigError

load_builtins()
SMALL = (
    *("env.name=quantum:bell", "env.num_envs=4", "rl.rollout_steps=8", "rl.minibatch=16", "rl.micro_batch=16", "rl.epochs=1"),
    *("strategy.paths_per_rollout=1", "budget.search_steps=128", "space.values.stage_repeats=[1]", "space.values.stem_width=16"),
    *("space.values.stage_widths=[16]", "distill.teacher=none", "threads=1", "objective.latency_ratio=2"),
)


class LinearPolicy(nn.Module):
    """Logits that are linear in the state, without a bias."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, -1.0], [0.2, 0.3], [-0.7, 0.1]]))

    def forward(self, frames):
        return frames @ self.weight.T, frames.sum(1)


def test_the_fisher_information_of_a_linear_policy_by_hand():
    """d log pi(a|s) / dW = (one-hot(a) - pi(s)) s^T."""
    network, states, actions = LinearPolicy(), np.array([[1.0, 2.0], [-0.5, 0.4]]), np.array([2, 0])
    total = np.zeros((3, 2))
    for state, action in zip(states, actions):
        logits = network.weight.detach().numpy() @ state
        pi = np.exp(logits) / np.exp(logits).sum()
        total += np.outer(np.eye(3)[action] - pi, state) ** 2
    found = fisher(network, torch.tensor(states, dtype=torch.float32), torch.tensor(actions), Categorical())
    assert found.numpy() == pytest.approx(total.ravel() / total.sum(), rel=1e-5)


def test_distances_by_hand():
    one, other = torch.tensor([0.25, 0.75]), torch.tensor([1.0, 0.0])
    assert distance(one, one) == 0.0
    assert distance(one, other) == pytest.approx(math.sqrt((0.5 - 1) ** 2 + 0.75) / math.sqrt(2))
    assert distance(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == pytest.approx(1.0)  # the largest there is


def test_a_task_is_at_no_distance_from_itself_and_farther_from_a_harder_one():
    network = AgentNetwork(mlp((6,), 12, (16,)), seeded(1)).eval()
    clean = EnvConfig(name="quantum:bell")
    noisy = [EnvConfig(name="quantum:bell", kwargs={"noise": noise}) for noise in (0.02, 0.1, 0.4)]
    assert task_distance(network, clean, clean, seed=3) == 0.0
    near, farther, farthest = (task_distance(network, clean, task, seed=3) for task in noisy)
    assert 0.0 < near < farther < farthest <= 1.0


def searched(runs, name, *words, task=SMALL):
    """A run whose search is done."""
    plan = make_plan(resolve_task(overrides=[*task, *words]))
    run = RunDir.create(runs, name, to_json(plan.record("a test")))
    session = open_session(run, plan, Silent())
    work_on(session, {"search": STAGES["search"]})
    return run, plan


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    searched(folder, "clean")
    searched(folder, "noisy", "env.kwargs.noise=0.5", "seed=1")
    searched(folder, "wide", "space.values.stem_width=32")  # another space: it cannot be begun from
    return folder


def test_the_nearest_run_is_begun_from_and_recorded(store, tmp_path):
    run, plan = searched(tmp_path, "mine", "env.kwargs.noise=0.45", f"strategy.store={store}", "seed=2")
    record = run.read(RunRecord).begun_from
    assert record.name == "noisy" and {each.name for each in record.runs} == {"clean", "noisy"}
    by_name = {each.name: each for each in record.runs}
    assert 0.0 <= by_name["noisy"].distance < by_name["clean"].distance and len(record.digest) == 64
    assert [source.path.name for source in sources(store, plan.record("").space, store / "clean")] == [
        "noisy"
    ]  # a run in its own store
    supernet = SuperNet(plan.space, seeded(0))
    assert "noisy" in begin_from_store(plan, run, supernet)
    kept = torch.load(store / "noisy" / "supernet.pt", weights_only=True)
    assert all(torch.equal(value, kept[key]) for key, value in supernet.state_dict().items())
    _, same = searched(tmp_path, "again", "env.kwargs.noise=0.45", f"strategy.store={store}", "seed=2")
    anew, _ = searched(tmp_path, "anew", "env.kwargs.noise=0.45", "seed=2")
    assert anew.read(RunRecord).begun_from is None
    mine, again, other = (torch.load(tmp_path / name / "supernet.pt", weights_only=True) for name in ("mine", "again", "anew"))
    assert all(torch.equal(mine[key], again[key]) for key in mine) and any(not torch.equal(mine[key], other[key]) for key in mine)
    assert same.config == plan.config


GAME = (
    *(word for word in SMALL if not word.startswith(("env.name", "space.", "objective"))),
    *("space.name=macro", "objective.latency_ratio=1"),
)


def test_a_source_with_other_actions_gives_the_weights_that_fit_and_the_last_layer_begins_anew(tmp_path):
    pytest.importorskip("minatar", reason="MinAtar is not installed")
    earlier, _ = searched(tmp_path / "store", "breakout", task=("env.name=minatar:breakout", *GAME))
    plan = make_plan(resolve_task(overrides=["env.name=minatar:asterix", *GAME, f"strategy.store={tmp_path / 'store'}"]))
    run = RunDir.create(tmp_path, "asterix", to_json(plan.record("a test")))
    (source,) = sources(tmp_path / "store", plan.record("").space, run.path)
    assert not source.same_actions
    supernet = SuperNet(plan.space, seeded(3))
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    said = begin_from_store(plan, run, supernet)
    record = run.read(RunRecord).begun_from
    assert record.name == "breakout" and 0.0 < record.runs[0].distance <= 1.0 and "Fisher distance" in said
    kept = torch.load(earlier.path / "supernet.pt", weights_only=True)
    other = {name for name, value in before.items() if value.shape != kept[name].shape}
    assert 0 < len(other) < len(before) and all(name.startswith("head") for name in other)
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, before[name] if name in other else kept[name])


def test_weights_that_changed_and_a_store_without_any_are_refused(store, tmp_path):
    copied = tmp_path / "store"
    shutil.copytree(store, copied)
    run, plan = searched(tmp_path, "mine", f"strategy.store={copied}", "seed=2")
    before = run.read(RunRecord).begun_from
    shutil.rmtree(copied / "noisy")
    assert before.name == "clean" and "clean" in begin_from_store(plan, run, SuperNet(plan.space, seeded(0)))
    assert run.read(RunRecord).begun_from == before  # kept, though another would be compared now
    shutil.copy(store / "noisy" / "supernet.pt", copied / "clean" / "supernet.pt")
    with pytest.raises(ConfigError, match="not there now: give them back, or start a new run"):
        begin_from_store(plan, run, SuperNet(plan.space, seeded(0)))
    shutil.rmtree(copied / "clean")
    with pytest.raises(ConfigError, match="wide has another space, other observations or kind of actions"):
        begin_from_store(plan, run, SuperNet(plan.space, seeded(0)))
    assert json.loads((run.path / "run.json").read_text())["begun_from"]["name"] == "clean"
    with pytest.raises(ConfigError, match=r"strategy\.store.* has no effect with strategy .random"):
        make_plan(
            resolve_task(overrides=[*(w for w in SMALL if "paths" not in w), "strategy.name=random", f"strategy.store={store}"])
        )


def test_a_request_whose_store_cannot_be_begun_from_is_refused_before_it_has_a_folder(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(store / "wide", tmp_path / "other" / "wide")
    shutil.copytree(store / "clean", tmp_path / "damaged" / "clean")
    (tmp_path / "damaged" / "clean" / "supernet.pt").write_bytes(b"no weights")
    said = {"none": "there is no such folder", "other": "wide has another space", "damaged": "cannot be read as shared weights"}
    for name, words in said.items():
        for more in ([], ["--dry-run"]):
            assert main(["search", "--run", "a", "--quiet", *more, *SMALL, f"strategy.store={name}"]) == 2
            assert words in capsys.readouterr().err and not (tmp_path / "runs").exists()
    assert main(["search", "--dry-run", *SMALL, f"strategy.store={store}"]) == 0


def test_a_run_that_has_begun_is_opened_without_its_store(store, tmp_path):
    words = [*SMALL, f"strategy.store={tmp_path / 'gone'}"]
    with pytest.raises(ConfigError, match="there is no such folder"):
        make_plan(resolve_task(overrides=words))
    plan = make_plan(resolve_task(overrides=words), begun=True)
    run = RunDir.create(tmp_path, "mine", to_json(plan.record("a test")))
    assert opened(run, WHERE_RECORDED, Silent(), "export").config == plan.config
