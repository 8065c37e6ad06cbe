"""CATCH: its encoder against products of normal distributions, its context on toy tasks, and each part on and off."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from small_space import small_space
from torch.distributions import Normal, kl_divergence

from cosearch.strategies.base import Evaluation
from cosearch.strategies.earlier_tasks import EarlierTask, KnownTask, points_of, read_tasks, write_tasks
from cosearch.strategies.proposal.catch import BETA, LATENT, Catch, CatchOptions, Networks, ToyTasks, _advantages, meta_trained
from cosearch.strategies.surrogate import one_hot
from cosearch.testing.conformance import seeded
from latency_tables.errors import ConfigError

SPACE = small_space("conv_k3", "conv_k5", "mbconv_k3_e1", "skip", cells=4)
FEATURES = 16


@pytest.fixture(scope="module")
def trained():
    networks = Networks(SPACE, seeded(0))
    networks.load_state_dict(meta_trained(SPACE, 150))
    return networks


def test_the_posterior_is_the_product_of_the_prior_and_of_one_normal_distribution_a_result():
    networks, (context, scores) = Networks(SPACE, seeded(1)), (torch.rand(2, 5, FEATURES), torch.randn(2, 5))
    mean, variance = (part.detach() for part in networks.posterior(context, scores))
    credited = context * scores[..., None]
    encoded = networks.encoder(torch.cat([context, credited, scores[..., None]], -1)).detach()
    encoded[..., :LATENT] += (credited @ networks.told).detach()
    grid = torch.linspace(-6.0, 6.0, 4001)
    for task, coordinate in ((0, 0), (1, 3)):
        log_density = Normal(0.0, 1.0).log_prob(grid)
        for one in encoded[task]:
            log_density = log_density + Normal(one[coordinate], (-0.5 * one[LATENT + coordinate]).exp()).log_prob(grid)
        density = (log_density - log_density.max()).exp()
        density = density / density.sum()
        center = float((density * grid).sum())
        assert float(mean[task, coordinate]) == pytest.approx(center, abs=1e-4)
        assert float(variance[task, coordinate]) == pytest.approx(float((density * (grid - center) ** 2).sum()), abs=1e-4)
    nothing = networks.posterior(torch.zeros(1, 0, FEATURES), torch.zeros(1, 0))
    assert torch.equal(nothing[0], torch.zeros(1, LATENT)) and torch.equal(nothing[1], torch.ones(1, LATENT))


def test_the_loss_is_the_squared_error_and_the_divergence_from_the_prior():
    networks = Networks(SPACE, seeded(1))
    known, asked = ((torch.rand(3, n, FEATURES), torch.randn(3, n)) for n in (4, 6))
    noise = torch.randn(3, LATENT)
    mean, variance = networks.posterior(*known)
    z = mean + variance.sqrt() * noise
    error = []
    for task in range(3):
        for network, wanted in zip(asked[0][task], asked[1][task]):
            alone = networks.evaluator(torch.cat([network, z[task]]))[0]
            error.append(alone + (network @ networks.worth) @ z[task] - wanted)
    divergence = kl_divergence(Normal(mean, variance.sqrt()), Normal(0.0, 1.0)).sum(1).mean()
    assert float(networks.loss(known, asked, noise).detach()) == pytest.approx(
        float((torch.stack(error).square().mean() + BETA * divergence).detach()), rel=1e-5
    )


def contexts(tasks, repeats, count, seed):
    """Means of q for several tasks ``[tasks, repeats, latent]``, each from other networks of its own."""
    toys = ToyTasks(SPACE, seeded(seed))
    weights = toys.weights(tasks)
    networks = toys.networks(tasks * repeats, count)
    return (networks, toys.scores(networks, weights.repeat_interleave(repeats, 0))), toys, weights


def same_task_first(latents):
    """Share of contexts whose nearest other context is of the same task."""
    tasks, repeats, _ = latents.shape
    flat, own = latents.flatten(0, 1), np.repeat(np.arange(tasks), repeats)
    gaps = torch.cdist(flat, flat).fill_diagonal_(float("inf"))
    return float((own[gaps.argmin(1).numpy()] == own).mean())


def test_the_context_separates_tasks(trained):
    (networks, scores), _, _ = contexts(8, 4, 24, seed=7)
    with torch.no_grad():
        latents = trained.posterior(networks, scores)[0].view(8, 4, LATENT)
        blind = trained.posterior(networks, scores[:, torch.randperm(24, generator=seeded(1))])[0].view(8, 4, LATENT)
    assert same_task_first(latents) > 0.75 > 0.4 > same_task_first(blind)  # by chance 0.1; scores of other networks tell nothing


def test_the_meta_trained_evaluator_ranks_networks_of_a_new_task_by_its_context(trained):
    (networks, scores), toys, weights = contexts(10, 1, 24, seed=8)
    asked = toys.networks(10, 40)
    truth, fresh = toys.scores(asked, weights), Networks(SPACE, seeded(3))
    with torch.no_grad():
        told = trained.predict(asked, trained.posterior(networks, scores)[0])
        blind = trained.predict(asked, torch.zeros(10, LATENT))
        untrained = fresh.predict(asked, fresh.posterior(networks, scores)[0])
    ranks = [np.mean([spearmanr(one, true).statistic for one, true in zip(each, truth)]) for each in (told, blind, untrained)]
    assert ranks[0] > 0.5 and max(ranks[1:]) < 0.3


def earlier(seed, count=200, name="earlier"):
    """A task whose scores are sums over the choices, of which some networks are known; and its truth."""
    worth = np.random.default_rng(seed).normal(size=(4, 4))
    choices = tuple(dict.fromkeys(tuple(one.choices) for one in (SPACE.sample(seeded(seed + i)) for i in range(count))))
    return EarlierTask(name, choices, tuple(10.0 + 3.0 * truth(worth, one) for one in choices)), worth


def truth(worth, choices):
    return float(sum(row[c] for row, c in zip(worth, choices)))


@pytest.mark.slow  # two meta-trainings
def test_earlier_tasks_teach_what_the_next_one_has_in_common_with_them():
    """The evaluator without any context ranks the networks of a task like the earlier one; after toys alone it cannot."""
    task, worth = earlier(5)
    asked = [SPACE.sample(seeded(1000 + i)).choices for i in range(60)]
    ranks = []
    for tasks in ((), (task,)):
        networks = Networks(SPACE, seeded(0))
        networks.load_state_dict(meta_trained(SPACE, 150, tasks))
        with torch.no_grad():
            told = networks.predict(one_hot(SPACE, asked)[None], torch.zeros(1, LATENT))[0]
        ranks.append(spearmanr(told, [truth(worth, one) for one in asked]).statistic)
    assert ranks[1] > 0.7 > 0.4 > abs(ranks[0])


def test_a_known_task_by_hand():
    task = KnownTask(SPACE, EarlierTask("one", ((0, 0, 0, 0), (1, 1, 1, 1), (3, 2, 1, 0)), (1.0, 5.0, 3.0)))
    assert task.score((1, 1, 1, 1)) == pytest.approx(2.0 / (8.0 / 3.0) ** 0.5) and np.isnan(task.score((0, 0, 0, 1)))
    networks, scores = task.draw(50, seeded(0))
    for network, score in zip(networks, scores):
        assert task.score(tuple(network.view(4, 4).argmax(1).tolist())) == pytest.approx(float(score))
    assert _advantages(torch.tensor([1.0, float("nan"), 4.0])).tolist() == [-1.5, 0.0, 1.5]
    assert _advantages(torch.tensor([float("nan")])).tolist() == [0.0]


def test_the_file_of_earlier_tasks_is_checked_and_belongs_to_the_search(tmp_path):
    path, (task, _) = tmp_path / "tasks.json", earlier(5, count=9)
    write_tasks(path, SPACE, [task])
    assert read_tasks(path, SPACE).tasks == (task,)
    with pytest.raises(ConfigError, match="of this search: they are of other choices"):
        read_tasks(path, small_space("conv_k3", "skip", cells=4))
    begun = Catch(SPACE, CatchOptions(tasks=str(path), meta_steps=2), seeded(0))
    begun.ask()
    write_tasks(path, SPACE, [task, task])
    with pytest.raises(ConfigError, match=r"tasks=.*tasks\.json was [0-9a-f]{12} .*is [0-9a-f]{12} now: give the file back"):
        Catch(SPACE, CatchOptions(tasks=str(path), meta_steps=2), seeded(0)).restore(begun.state())
    for row, text in (
        ({"task": "one", "choices": [[0, 0, 0, 0]], "scores": [1.0]}, "expected two networks or more"),
        ({"task": "one", "choices": [[0, 0, 0, 0], [0, 0, 0, 4]], "scores": [1.0, 2.0]}, "is no network of the space"),
        ({"task": "one", "choices": [[0, 0, 0, 0], [0, 0, 0, 1]], "scores": [1.0, "a"]}, "'a' is no score"),
        ({"task": "one"}, "expected its name, a list of choices"),
    ):
        path.write_text(json.dumps({"points": points_of(SPACE), "tasks": [row]}))
        with pytest.raises(ConfigError, match=text):
            read_tasks(path, SPACE)


def test_of_earlier_tasks_only_networks_within_the_targets_count(tmp_path):
    path, (task, _) = tmp_path / "tasks.json", earlier(5, count=40)
    write_tasks(path, SPACE, [task, EarlierTask("far", ((0, 0, 0, 0), (0, 1, 0, 0)), (1.0, 2.0))])

    def made(is_feasible):
        return Catch(SPACE, CatchOptions(tasks=str(path), meta_steps=1), seeded(0), is_feasible)

    (kept,) = made(lambda architecture: architecture.choices[0] == 1)._within(read_tasks(path, SPACE).tasks)
    wanted = [(one, score) for one, score in zip(task.choices, task.scores) if one[0] == 1]
    assert list(zip(kept.choices, kept.scores)) == wanted and 2 <= len(wanted) < len(task.choices)
    with pytest.raises(ConfigError, match="no earlier task of which two networks meet the targets"):
        made(lambda architecture: architecture.choices == (2, 2, 2, 2))


def test_earlier_tasks_change_what_is_proposed(tmp_path):
    write_tasks(tmp_path / "tasks.json", SPACE, [earlier(5, count=40)[0]])
    assert run(12, meta_steps=5) != run(12, meta_steps=5, tasks=str(tmp_path / "tasks.json"))


def run(asks, **options):
    worth = np.random.default_rng(0).normal(size=(4, 4))
    strategy = Catch(SPACE, CatchOptions(**options), seeded(0))
    for _ in range(asks):
        architecture = strategy.ask()
        strategy.tell(Evaluation(architecture, float(sum(row[c] for row, c in zip(worth, architecture.choices))), 1e-3))
    return [result.choices for result in strategy.results.all]


@pytest.mark.parametrize("options", [{"meta_steps": 0}, {"context": False}, {"evaluator": False}])
def test_each_part_changes_what_is_proposed(options):
    assert run(12) != run(12, **options)


def test_failed_candidates_teach_nothing_and_the_first_proposals_need_no_result():
    strategy = Catch(SPACE, CatchOptions(), seeded(0))
    asked = [strategy.ask() for _ in range(3)]
    before = [weight.clone() for weight in strategy.networks.parameters()]
    strategy.tell(Evaluation(asked[1], None, 1e-3, failed=True))
    assert all(torch.equal(one, other) for one, other in zip(before, strategy.networks.parameters()))
    strategy.tell(Evaluation(asked[0], None, 1e-3))
    assert len(strategy.pending) == 1 and strategy.best() == 1
