"""CATCH: its encoder against products of normal distributions, its context on toy tasks, and each part on and off."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from small_space import small_space
from torch.distributions import Normal, kl_divergence

from cosearch.strategies.base import Evaluation
from cosearch.strategies.proposal.catch import BETA, LATENT, Catch, CatchOptions, Networks, ToyTasks, meta_trained
from cosearch.testing.conformance import seeded

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
