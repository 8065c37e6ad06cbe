"""Proposal strategies in whole runs: exact budgets, worker processes that change nothing, shared weights, candidates named."""

import json

import numpy as np
import pytest
import torch
from pipeline_runs import TINY_PROPOSALS, Moment, assert_equal, command, results
from small_space import small_space

from cosearch.config.run import resolve
from cosearch.planning.budget import candidate_shares, run_steps
from cosearch.planning.builtins import load_builtins
from cosearch.planning.space import make_space
from cosearch.record.rundir import RunDir
from cosearch.space.derivation.derive import derive
from cosearch.space.supernet import SuperNet
from cosearch.strategies.base import STRATEGIES, StrategyInfo
from cosearch.training.candidates import WeightBank, candidate_job, candidate_streams, packed, train_candidate, unpacked
from latency_tables.errors import ConfigError

WORDS = (
    *TINY_PROPOSALS,
    "env.name=minatar:breakout",
    "strategy.candidates=3",
    "budget.search_steps=120",
    "budget.retrain_steps=0",
    "rl.minibatch=16",
)
IN_ORDER = "strategy.order=[-1,-1,0,-1,1,-1,2,3]"
EVOLUTION = (*WORDS, "strategy.name=evolution", "strategy.candidates=4", "strategy.values.population=2")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Results of finished runs by the words that differ; each is made once."""
    made = {}

    def run(*words):
        if words not in made:
            folder = tmp_path_factory.mktemp("run")
            done = command("search", "--run", "one", *words, folder=folder)
            assert done.code == 0, done.err
            made[words] = folder / "runs" / "one"
        return made[words]

    return run


def strategy(name: str) -> StrategyInfo:
    load_builtins()
    return STRATEGIES.get(name)


@pytest.mark.parametrize(
    "steps, candidates, shares",
    [(128, 4, [32] * 4), (120, 3, [64, 32, 32]), (300, 4, [96, 96, 64, 64]), (1, 1, [32]), (320, 3, [128, 96, 96])],
)
def test_the_budget_is_shared_out_in_whole_rollouts_without_a_remainder(steps, candidates, shares):
    config = resolve(
        overrides=[
            "env.num_envs=4",
            "rl.rollout_steps=8",
            f"budget.search_steps={steps}",
            f"strategy.candidates={candidates}",
            "budget.retrain_steps=33",
        ]
    )
    assert candidate_shares(config, strategy("random")) == shares
    assert sum(shares) == -(-steps // 32) * 32 and run_steps(config) == sum(shares) + 64
    assert candidate_shares(config, strategy("largest")) == [sum(shares)]


def test_fewer_rollouts_than_candidates_are_refused_with_what_would_fit():
    config = resolve(preset="smoke", overrides=["strategy.candidates=3"])
    text = "gives 2 rollouts of 4096 .* 3 candidates: set strategy.candidates=2, budget.search_steps=12288"
    with pytest.raises(ConfigError, match=text):
        candidate_shares(config, strategy("random"))
    assert len(candidate_shares(resolve(preset="smoke"), strategy("random"))) == 2  # the preset itself fits


@pytest.mark.slow
def test_proposals_and_gradients_take_the_same_steps(finished):
    gradient = [word for word in WORDS if not word.startswith("strategy.candidates")]
    summaries = [
        RunDir.open(finished(*words)).read_json("summary.json")
        for words in ((*WORDS, "strategy.name=random"), EVOLUTION, (*gradient, "strategy.name=reinforce"))
    ]
    assert {summary["env_steps"] for summary in summaries} == {128}
    told = RunDir.open(finished(*WORDS, "strategy.name=random")).read_json("architecture.json")["derived_by"]["candidates"]
    assert [candidate["env_steps"] for candidate in told] == [64, 32, 32]


@pytest.mark.slow
def test_worker_processes_change_nothing_in_a_random_search(finished):
    here = results(finished(*WORDS, "strategy.name=random"))
    beside = results(finished(*WORDS, "strategy.name=random", "strategy.workers=2", "strategy.order=[-1,-1,0,-1,1,2]"))
    for found in (here, beside):
        found.pop("streams")
    assert_equal(beside, here)


@pytest.mark.slow
def test_a_search_with_workers_that_is_killed_goes_on_to_the_same_result(finished, tmp_path):
    words = (*EVOLUTION, "strategy.workers=2", "strategy.order=[-1,-1,1,-1,0,-1,3,2]")
    straight = finished(*words)
    begin = ("search", "--run", "one", *words)
    for count in (6, 4):  # in the first and in the second generation: each save is a synchronisation and a rename, or more
        done = command(*begin, folder=tmp_path, moment=Moment("search", count))
        assert done.code == -9, done.err
        begin = ("resume", "runs/one")
    done = command(*begin, folder=tmp_path)
    assert done.code == 0, done.err
    assert_equal(results(tmp_path / "runs" / "one"), results(straight))


def candidates(run):
    return RunDir.open(run).read_json("architecture.json")["derived_by"]["candidates"]


@pytest.mark.slow
def test_asking_for_two_at_once_changes_what_evolution_breeds(finished):
    one, two = candidates(finished(*EVOLUTION)), candidates(finished(*EVOLUTION, "strategy.workers=2", IN_ORDER))
    assert one[:2] == two[:2] and len(one) == len(two) == 4


@pytest.mark.slow
def test_shared_weights_change_the_training_of_all_but_the_first_candidate(finished):
    own, shared = candidates(finished(*EVOLUTION)), candidates(finished(*EVOLUTION, "strategy.candidate_init=shared"))
    assert own[0]["choices"] == shared[0]["choices"] and own[1]["choices"] == shared[1]["choices"]
    logs = [
        [line["grad_norm"] for line in RunDir.open(finished(*EVOLUTION, *more)).read_metrics()]
        for more in ((), ("strategy.candidate_init=shared",))
    ]
    assert logs[0][1] != logs[1][1]


def test_the_bank_hands_out_what_it_was_given_along_the_path_and_keeps_the_rest():
    space = small_space("conv_k3", "mbconv_k3_e1", "skip", cells=3)
    bank = WeightBank(SuperNet(space, torch.Generator().manual_seed(0)))
    before = {key: value.clone() for key, value in bank.supernet.state_dict().items()}
    path = space.architecture([1, 2, 0])
    trained = derive(path, torch.Generator().manual_seed(5))
    bank.keep(path, trained.state_dict())
    handed = bank.weights(path)
    assert handed.keys() == trained.state_dict().keys()
    assert all(torch.equal(handed[key], value) for key, value in trained.state_dict().items())
    changed = {
        key.rsplit(".", 1)[0].split(".")[1]
        for key, value in bank.supernet.state_dict().items()
        if not torch.equal(value, before[key]) and key.split(".")[0] not in ("stem", "head")
    }
    untouched = space.architecture([0, 1, 1])
    frames = torch.randint(0, 256, (2, 12, 12, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    other = derive(untouched, torch.Generator().manual_seed(0), bank.supernet)
    assert len(changed) == 2 and other(frames)[0].shape == (2, 4)
    for name, tensor in bank.supernet.state_dict().items():  # a path of other candidates shares stem and head alone
        if any(torch.equal(tensor, value) and tensor.numel() > 1 for value in trained.state_dict().values()):
            assert not torch.equal(tensor, before[name]) or float(tensor.abs().sum()) == 0.0


def test_a_worker_trains_with_one_thread_from_the_weights_that_it_is_given():
    config = resolve(overrides=[*WORDS, "threads=2"])
    load_builtins()
    space = make_space(config)
    weights = derive(space.architecture([0, 1, 2]), torch.Generator().manual_seed(4)).state_dict()
    before, lines = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        own, given = (
            train_candidate(candidate_job(config, 0, [0, 1, 2], 32, start), lines.append) for start in (None, packed(weights))
        )
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert own["env_steps"] == given["env_steps"] == 32 and [line["step"] for line in lines] == [32, 32]
    moved = {key: float((tensor - weights[key]).abs().max()) for key, tensor in unpacked(given["weights"]).items()}
    assert 0.0 < max(moved.values()) < 0.05  # a few small steps away from where it began
    assert any(float((tensor - weights[key]).abs().max()) > 0.05 for key, tensor in unpacked(own["weights"]).items())


def test_each_candidate_has_streams_of_its_own():
    draws = {
        torch.rand(1, generator=candidate_streams(seed, index).torch("actions")).item() for seed in range(3) for index in range(5)
    }
    assert len(draws) == 15
    assert np.array_equal(candidate_streams(1, 2).numpy("env").random(3), candidate_streams(1, 2).numpy("env").random(3))


@pytest.mark.parametrize(
    "words, text",
    [
        (
            ("--strategy", "reinforce", "strategy.workers=2"),
            "strategy.workers=2 has no effect with strategy 'reinforce'.*evolution",
        ),
        (("--strategy", "a3cs", "strategy.candidate_init=shared"), "strategy.candidate_init=shared has no effect.*nsga2"),
        (("--strategy", "random", "strategy.candidate_init=shared"), "no effect with strategy 'random'"),
        (("--strategy", "evolution", "strategy.lr=0.5"), "strategy.lr=0.5 has no effect with strategy 'evolution'.*a3cs"),
        (("--strategy", "random", "strategy.warmup_fraction=0.5"), "warmup_fraction=0.5 has no effect with strategy 'random'"),
        (("--strategy", "evolution", "strategy.values.tournamnt=2"), "Did you mean 'strategy.values.tournament'"),
        (("--strategy", "a3cs", "strategy.values.population=2"), "Strategy 'a3cs' has no options of its own"),
    ],
)
def test_options_without_effect_are_refused(words, text, tmp_path):
    done = command("search", "--run", "one", *words, folder=tmp_path)
    assert done.code == 2 and not (tmp_path / "runs").exists()
    import re

    assert re.search(text, done.err.replace("\n", " ")), done.err


def test_the_values_of_a_preset_belong_to_the_strategy_that_it_names():
    assert resolve(preset="paper").strategy.update_path == "acting"
    other = resolve(preset="paper", options={"strategy.name": "random"})
    assert other.strategy.update_path == "fresh" and other.budget.search_steps == 20_000_000
    assert resolve(preset="smoke", options={"strategy.name": "random"}).strategy.candidates == 2


@pytest.mark.slow  # processes
def test_the_log_of_workers_is_in_order_of_the_candidates(finished):
    lines = RunDir.open(finished(*EVOLUTION, "strategy.workers=2", IN_ORDER)).read_metrics()
    assert [line["step"] for line in lines] == [32, 64, 96, 128]
    names = [
        "/".join(json.dumps(c) for c in candidate["choices"])
        for candidate in candidates(finished(*EVOLUTION, "strategy.workers=2", IN_ORDER))
    ]
    assert len(names) == 4 and len({line["candidate"] for line in lines}) == len(set(names))
