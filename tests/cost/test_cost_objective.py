"""The one-sided penalty: closed form, free of units, finite for a nanosecond, and it holds an expected cost at its target."""

from types import SimpleNamespace

import pytest
import torch

from cosearch.cost.constraint import Constraint
from cosearch.cost.objective import DualPenalty
from cosearch.space.derivation.derive import Limit
from latency_tables.errors import RequestError

LATENCY = SimpleNamespace(metric="latency_s")


def penalty(value=2e-3, *, multiplier=0.0, dual_lr=0.1, quadratic=3.0, margin=0.0):
    found = DualPenalty(Constraint(LATENCY, value, margin), dual_lr=dual_lr, quadratic=quadratic)
    found.multiplier = multiplier
    return found


@pytest.mark.parametrize(
    "expected, multiplier, quadratic, wanted",
    [
        (3e-3, 0.5, 3.0, 0.5 * 0.5 + 1.5 * 0.25),  # half over the target
        (3e-3, 0.0, 3.0, 1.5 * 0.25),
        (3e-3, 0.5, 0.0, 0.25),
        (2e-3, 0.5, 3.0, 0.0),
        (1e-3, 0.5, 3.0, 0.0),
        (0.0, 9.0, 9.0, 0.0),
    ],
)
def test_closed_form(expected, multiplier, quadratic, wanted):
    found = penalty(multiplier=multiplier, quadratic=quadratic).loss(torch.tensor(expected, dtype=torch.float64))
    assert float(found) == pytest.approx(wanted, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("expected", [1e-3, 2.5e-3, 7e-3])
def test_gradient_equals_central_differences_and_is_one_sided(expected):
    p, step = penalty(multiplier=0.7), 1e-9
    at = torch.tensor(expected, dtype=torch.float64, requires_grad=True)
    p.loss(at).backward()
    ends = [float(p.loss(torch.tensor(expected + sign * step, dtype=torch.float64))) for sign in (1, -1)]
    assert float(at.grad) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-12)
    assert (float(at.grad) == 0.0) == (expected < 2e-3)


def test_it_has_no_unit():
    for scale in (1e-6, 1.0, 1e6):
        found = penalty(2e-3 * scale, multiplier=0.4).loss(torch.tensor(3e-3 * scale, dtype=torch.float64))
        assert float(found) == pytest.approx(0.4 * 0.5 + 1.5 * 0.25, rel=1e-9)


@pytest.mark.parametrize("target", [1e-9, 1e-12])
def test_finite_for_times_far_below_a_millisecond(target):
    p = penalty(target, multiplier=1.0)
    at = torch.tensor(target * 3, requires_grad=True)  # float32
    loss = p.loss(at)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.0 * 2 + 1.5 * 4, rel=1e-5) and torch.isfinite(at.grad)
    p.update(target * 3)
    assert p.multiplier == pytest.approx(1.2)


def test_the_multiplier_rises_over_the_target_falls_under_it_and_stops_at_zero():
    p = penalty(dual_lr=0.1)
    p.update(4e-3)
    assert p.multiplier == pytest.approx(0.1)
    p.update(1e-3)
    assert p.multiplier == pytest.approx(0.05)
    for _ in range(10):
        p.update(1e-3)
    assert p.multiplier == 0.0
    p.update(2e-3)
    assert p.multiplier == 0.0
    frozen = penalty(dual_lr=0.0)
    frozen.update(9e-3)
    assert frozen.multiplier == 0.0


def test_margin_lowers_the_bound():
    assert Constraint(LATENCY, 2e-3, 0.25).bound == pytest.approx(1.5e-3)
    at = torch.tensor(1.8e-3, dtype=torch.float64)
    assert float(penalty().loss(at)) == 0.0 < float(penalty(margin=0.25).loss(at))


@pytest.mark.parametrize(
    "value, margin",
    [(0.0, 0.0), (-1e-3, 0.0), (float("nan"), 0.0), (float("inf"), 0.0), (1e-3, 1.0), (1e-3, -0.1), (1e-3, float("nan"))],
)
def test_a_target_that_means_nothing_is_refused(value, margin):
    with pytest.raises(RequestError, match="latency_s"):
        Constraint(LATENCY, value, margin)


def test_a_new_penalty_has_the_price_zero():
    assert DualPenalty(Constraint(LATENCY, 2e-3), dual_lr=0.1, quadratic=3.0).multiplier == 0.0


def test_a_constraint_is_a_row_of_the_discretisation_at_its_bound():
    cost = SimpleNamespace(
        metric="energy_j",
        base=0.5,
        candidate_costs=lambda: [[1.0, 2.0]],
        joint_costs=lambda: (),
        exact=lambda architecture: architecture,
    )
    found = Constraint(cost, 4.0, 0.25)
    assert found.metric == "energy_j" and found.limit == Limit([[1.0, 2.0]], 0.5, 3.0)
    assert found.met_by(3.0) and not found.met_by(3.1)


def test_messages_of_a_constraint_name_the_metric_and_the_value():
    with pytest.raises(RequestError, match=r"^a target must be above 0 and finite, got latency_s -1\.5$"):
        Constraint(LATENCY, -1.5)
    with pytest.raises(RequestError, match=r"^the margin of latency_s must be at least 0 and below 1, got 2$"):
        Constraint(LATENCY, 1.0, 2)
    assert Constraint(LATENCY, 1.0).margin == 0.0 == Constraint(LATENCY, 1.0, 0.0).margin


@pytest.mark.parametrize("quadratic", [0.0, 1.0])
def test_dual_ascent_brings_the_optimum_to_the_target(quadratic):
    # minimise -log(x) + penalty(x): without the penalty x grows for ever; the constrained optimum is x = target
    target, x = 2e-3, torch.tensor(1e-3, dtype=torch.float64, requires_grad=True)
    p = penalty(target, dual_lr=0.05, quadratic=quadratic)
    optimiser = torch.optim.SGD([x], lr=1e-8)
    seen = []
    for _ in range(800):
        optimiser.zero_grad()
        (-(x / target).log() + p.loss(x)).backward()
        optimiser.step()
        p.update(float(x.detach()))
        seen.append(float(x.detach()))
    assert sum(seen[-200:]) / 200 == pytest.approx(target, rel=0.02)
    assert 0.9 < p.multiplier < 3.0  # its price there is 1; above that x slides along the bound
