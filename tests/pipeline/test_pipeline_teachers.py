"""Everything that a run knows of its teacher reaches a candidate's worker process, whatever kind of teacher it is."""

import pickle

import pytest
import torch

from cosearch.config.run import resolve
from cosearch.deploy.export import to_onnx
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.rl.teacher import save_teacher
from cosearch.space.derivation.derive import derive
from cosearch.space.network import AgentNetwork, minatar_cnn
from cosearch.training import candidates
from cosearch.training.algorithms import as_trained
from cosearch.training.candidates import candidate_job, candidate_streams, candidate_training, train_candidate, unpacked

pytest.importorskip("minatar", reason="MinAtar is not installed")
SHAPE, ACTIONS, STEPS = (10, 10, 4), 3, 32
WORDS = ("strategy.name=random", "strategy.candidates=2", "strategy.workers=2", "env.num_envs=4", "rl.rollout_steps=8")
LEARNING = ("budget.search_steps=64", "rl.minibatch=16", "rl.bf16=false", "objective.latency_ratio=0.9", "threads=1")
KINDS = {
    "none": ("distill.teacher=none",),
    "a file": ("distill.teacher={native}",),
    "an ONNX file whose values are known": ("distill.teacher={onnx}", "distill.gamma=0.9", "distill.reward_std=2"),
    "an ONNX file whose actions alone are learned": ("distill.teacher={onnx}", "distill.critic=0"),
}


class Seen(Exception):
    """Ends a worker's job once its teacher has been seen."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One network as a teacher file and as an ONNX file."""
    load_builtins()
    folder = tmp_path_factory.mktemp("teachers")
    network = AgentNetwork(minatar_cnn(SHAPE, ACTIONS), torch.Generator().manual_seed(1)).eval()
    about = {"env": "minatar:breakout", "description": "toy", "gamma": 0.9, "reward_std": 2.0, "provenance": {"steps": 1}}
    native = save_teacher(folder / "native.json", network, **about).path
    (folder / "mine.onnx").write_bytes(to_onnx(network, SHAPE))
    return {"native": native, "onnx": folder / "mine.onnx"}


def planned(kind, files):
    words = [word.format(**files) for word in KINDS[kind]]
    return make_plan(resolve(overrides=["env.name=minatar:breakout", *WORDS, *LEARNING, *words]))


def sent(plan, choices):
    """The job as it arrives in the process."""
    return pickle.loads(pickle.dumps(candidate_job(plan.config, 1, list(choices), STEPS, None)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_the_record_reaches_the_worker(kind, files, monkeypatch):
    plan, arrived = planned(kind, files), []

    def see(config, network, streams, teacher, *rest):
        arrived.append(teacher)
        raise Seen

    monkeypatch.setattr(candidates, "candidate_training", see)
    with pytest.raises(Seen):
        train_candidate(sent(plan, [0] * len(plan.space.points)), print)
    assert (None if arrived[0] is None else arrived[0].record) == plan.teacher
    assert (plan.teacher is None) == (kind == "none")
    if plan.teacher is not None:
        known = kind != "an ONNX file whose actions alone are learned"
        assert (plan.teacher.gamma, plan.teacher.reward_std) == ((0.9, 2.0) if known else (None, None))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
def test_a_worker_learns_what_the_run_itself_would(kind, files):
    plan = planned(kind, files)
    architecture = plan.space.sample(torch.Generator().manual_seed(0))
    outcome = train_candidate(sent(plan, architecture.choices), lambda line: None)
    streams = candidate_streams(plan.config.seed, 1)
    network = as_trained(derive(architecture, streams.torch("weights")), plan.config, streams)
    begun = {key: value.clone() for key, value in network.state_dict().items()}
    training = candidate_training(plan.config, network, streams, plan.load_teacher(torch.device("cpu")), STEPS)
    training.run(lambda line: None)
    training.close()
    here, there = network.state_dict(), unpacked(outcome["weights"])
    assert all(torch.equal(here[key], there[key]) for key in here) and here.keys() == there.keys()
    assert any(not torch.equal(here[key], begun[key]) for key in here)
