"""Candidates that start from weights of earlier ones, in whole runs: exactly those weights, recorded, and resumed equal."""

import json

import pytest
import torch
from pipeline_runs import TINY_PROPOSALS, assert_equal, results

from cosearch.cli.app import main
from cosearch.config.run import resolve
from cosearch.pipeline.search import proposal_search
from cosearch.planning.builtins import load_builtins
from cosearch.planning.options.unused import unused
from cosearch.planning.request import resolve_request
from cosearch.planning.space import make_space
from cosearch.planning.task import resolve_task
from cosearch.record.rundir import RunDir
from cosearch.space.derivation.derive import derive
from cosearch.space.morphism import preserves
from cosearch.strategies.base import Inheritance
from cosearch.strategies.proposal.morphism import MorphismSearch
from cosearch.training.algorithms import as_trained
from cosearch.training.candidates import candidate_job, candidate_streams, candidate_training, inherited_weights, train_candidate

WORDS = (
    *TINY_PROPOSALS,
    "env.name=minatar:breakout",
    "strategy.name=morphism",
    "strategy.candidates=3",
    "budget.search_steps=120",
    "budget.retrain_steps=0",
    "rl.minibatch=16",
)


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Search, and go on; with the first weights of each candidate and those that it ended with."""
    threads = torch.get_num_threads()
    begun, ended = {}, {}
    make, outcome = proposal_search.candidate_training, proposal_search.outcome_of

    def copied(network):
        return {key: value.clone() for key, value in network.state_dict().items()}

    def training_of(config, network, *rest):
        begun[len(begun)] = copied(network)
        return make(config, network, *rest)

    def outcome_of(training, network, run, streams=None):
        found = outcome(training, network, run, streams)
        ended[len(ended)] = copied(network)
        return found

    def run(name, *words):
        folder = tmp_path / "runs" / name
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(proposal_search, "candidate_training", training_of)
            patch.setattr(proposal_search, "outcome_of", outcome_of)
            begin = ("resume", f"runs/{name}") if folder.exists() else ("search", "--run", name, *WORDS, *words)
            return main([*begin, "--quiet"]), folder, begun, ended

    yield run
    torch.set_num_threads(threads)


def told(run):
    return json.loads((run / "architecture.json").read_text())["derived_by"]["candidates"]


def test_a_candidate_starts_from_the_weights_that_its_parent_ended_with(search):
    code, run, begun, ended = search("one")
    assert code == 0
    first, second, third = told(run)
    assert "inherited_from" not in first and second["inherited_from"] == [0] and third["inherited_from"] in ([0], [1])
    stem = "blocks.0.conv.weight"
    assert torch.equal(begun[1][stem], ended[0][stem]) and not torch.equal(ended[0][stem], begun[0][stem])
    assert torch.equal(begun[2][stem], ended[third["inherited_from"][0]][stem])


@pytest.mark.slow
def test_one_interrupted_between_two_candidates_ends_as_the_uninterrupted_one(search, monkeypatch):
    _, whole, _, _ = search("whole")
    tell, count = MorphismSearch.tell, [0]

    def stopping(self, result):
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt
        return tell(self, result)

    with monkeypatch.context() as patch:
        patch.setattr(MorphismSearch, "tell", stopping)
        code, broken, _, _ = search("broken")
    assert code == 130 and not (broken / "architecture.json").exists()
    code, broken, _, _ = search("broken")
    assert code == 0 and told(broken) == told(whole)
    assert_equal(results(broken), results(whole))


def test_blocks_of_several_networks_come_together_and_a_morphism_keeps_the_function():
    from small_space import small_space

    space = small_space("conv_k3", "conv_k5", "skip")
    networks = [space.architecture(choices) for choices in ([0, 2], [1, 1], [0, 0])]
    trained = [derive(one, torch.Generator().manual_seed(seed)) for seed, one in enumerate(networks[:2])]
    child = derive(networks[2], torch.Generator().manual_seed(7))
    mixed = Inheritance(0, ((0, 0), (0, 1), (1, 2), (1, 3)))
    inherited_weights(child, mixed, lambda index: (networks[index], trained[index].state_dict()))
    weights = child.state_dict()
    assert torch.equal(weights["blocks.1.conv.weight"], trained[0].state_dict()["blocks.1.conv.weight"])
    assert torch.equal(weights["blocks.2.conv.weight"], trained[1].state_dict()["blocks.2.conv.weight"][:, :, 1:-1, 1:-1])
    assert torch.equal(weights["blocks.3.outputs.weight"], trained[1].state_dict()["blocks.3.outputs.weight"])
    assert mixed.evaluations == (0, 1)
    deeper = Inheritance(0, ((0, 0), (0, 1), None, (0, 2)))
    inherited_weights(child, deeper, lambda index: (networks[index], trained[index].state_dict()))
    frames = torch.randint(0, 256, (4, 12, 12, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    assert preserves(networks[0], networks[2]) and torch.allclose(child.raw(frames), trained[0].raw(frames), atol=1e-5)


EXPLORING = (
    *(word for word in WORDS if not word.startswith(("rl.minibatch", "rl.epochs", "strategy.name"))),
    *("rl.algorithm=dqn", "dqn.epsilon_fraction=1", "dqn.epsilon_end=0", "dqn.epsilon_inherited=0.2"),
    *("budget.search_steps=192", "dqn.minibatch=16", "dqn.micro_batch=16", "dqn.learning_starts=16", "dqn.replay=1000"),
)
SHARED = ("strategy.name=evolution", "strategy.candidate_init=shared")


@pytest.mark.parametrize(
    "words, fresh",
    [
        pytest.param(("strategy.name=morphism",), 1, marks=pytest.mark.slow),
        (SHARED, 1),
        pytest.param((*SHARED, "strategy.workers=2"), 2, marks=pytest.mark.slow),
    ],
    ids=["morphism", "shared", "two workers"],
)
def test_candidates_whose_weights_have_learned_explore_as_such(words, fresh, tmp_path, monkeypatch):
    """Exploration falls from 1 where nothing has learned yet, else from ``dqn.epsilon_inherited``, to 0 at a training's end."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    assert main(["search", "--run", "one", *EXPLORING, *words, "--quiet"]) == 0
    torch.set_num_threads(threads)
    lines = [line for line in RunDir.open("runs/one").read_metrics() if line["stage"] == "search"]
    seen = [line["epsilon"] for line in lines]  # two rollouts of each candidate
    assert sorted(seen[::2], reverse=True) == pytest.approx([0.5] * fresh + [0.1] * (3 - fresh)) and not any(seen[1::2])


def test_a_worker_and_soft_actor_critic_are_told_that_the_weights_have_learned():
    load_builtins()
    config = resolve(overrides=[*EXPLORING, "strategy.name=evolution", "dqn.epsilon_end=0.1", "dqn.epsilon_fraction=0.5"])
    lines = []
    choices = [0] * len(make_space(config).points)
    for inherited in (False, True):
        train_candidate(candidate_job(config, 0, choices, 128, None, inherited=inherited), lines.append)
    assert [line["epsilon"] for line in lines[::4]] == pytest.approx([0.55, 0.15])  # at half of the fall
    config = resolve(overrides=["env.name=gym:Pendulum-v1", "rl.algorithm=sac", "distill.teacher=none", "threads=1"])
    streams, space = candidate_streams(0, 0), make_space(config)
    network = as_trained(derive(space.architecture([0] * len(space.points)), streams.torch("weights")), config, streams)
    training = candidate_training(config, network, streams, None, 4096, True)
    training.close()
    assert training.rounds.inherited and training.rounds.learner.options.critics_alone == config.sac.learning_starts


@pytest.mark.parametrize(
    "words, without",
    [
        ((), None),
        (("budget.retrain_init=scratch", "budget.retrain_steps=64"), "with budget.retrain_init=scratch"),
        (("budget.retrain_steps=0",), "with budget.retrain_steps=0"),
        (("budget.retrain_steps=0", "strategy.name=evolution"), "with budget.retrain_steps=0"),
        (("budget.retrain_steps=0", *SHARED), None),
        (("budget.retrain_steps=0", "strategy.name=morphism"), None),
        (
            ("budget.retrain_init=scratch", "strategy.name=morphism", "strategy.values.inherit=false"),
            "with budget.retrain_init=scr",
        ),
        (("budget.retrain_steps=0", "strategy.name=fnas", "strategy.values.pool=false"), "with budget.retrain_steps=0"),
        (("budget.retrain_steps=0", "strategy.name=fnas"), None),
        (("budget.retrain_steps=0", *SHARED, "strategy.candidates=1"), "with budget.retrain_steps=0"),
        (("budget.retrain_steps=0", *SHARED, "strategy.workers=4", "strategy.candidates=4"), "with budget.retrain_steps=0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_the_exploration_of_inherited_weights_is_an_option_wherever_weights_are_inherited(words, without):
    said = ("rl.algorithm=dqn", "dqn.epsilon_inherited=0.2", "env.name=minatar:breakout", "distill.teacher=none", *words)
    found = unused(resolve_request(resolve_task(overrides=said))).get("dqn.epsilon_inherited")
    assert found is None if without is None else without in found
