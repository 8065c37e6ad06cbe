"""The probability that a network keeps a bound, from the residuals of a certificate."""

import numpy as np
import pytest

from latency_tables.certificate import chance_within
from latency_tables.devices import find_table


def test_it_is_the_share_of_residuals_with_the_new_one_among_those_that_do_not():
    ratios = [0.9, 0.95, 1.0, 1.05]
    assert [chance_within(ratios, most) for most in (0.8, 0.95, 1.01, 2.0)] == [0.0, 0.4, 0.6, 0.8]
    assert chance_within([], 1.0) is None


@pytest.mark.parametrize("spread", [0.01, 0.05])
def test_networks_keep_their_bound_as_often_as_is_said(spread):
    """Of many new networks with bounds that are said to hold with some probability, that share does, and a little more."""
    rng = np.random.default_rng(7)
    said, kept = [], []
    for _ in range(4000):
        known = np.exp(rng.normal(0.01, spread, 30))
        most = np.exp(rng.normal(0.01, spread))
        said.append(chance_within(list(known), float(most)))
        kept.append(np.exp(rng.normal(0.01, spread)) <= most)
    said, kept = np.array(said), np.array(kept)
    for low, high in ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0)):
        here = (said >= low) & (said < high)
        assert kept[here].mean() == pytest.approx(said[here].mean(), abs=0.06)
    assert 0.0 <= kept.mean() - said.mean() < 1 / 31 + 0.03


@pytest.mark.parametrize("name", ["x86-server", "x86-server/onnxruntime-int8-1t"])
def test_on_shipped_tables_each_network_is_judged_by_the_others(name):
    """Left out one by one, the networks of the certificate keep a bound that is said to hold with 0.8 in at least 80 of 100."""
    certificate = find_table(name).certificate
    ratios = [measured / predicted for predicted, measured in certificate.residuals()]
    assert len(ratios) >= 20
    kept = []
    for i, own in enumerate(ratios):
        others = ratios[:i] + ratios[i + 1 :]
        bound = next(most for most in sorted(others) if chance_within(others, most) >= 0.8)
        kept.append(own <= bound)
    assert np.mean(kept) >= 0.8


def test_calls_at_a_period_are_of_that_period_alone():
    certificate = find_table("x86-server").certificate
    paced = certificate.residuals("p99", 0.02)
    assert len(paced) == len(certificate.predicted_s) and all(time > 1.5 * predicted for predicted, time in paced)
    assert certificate.residuals("median", 0.05) == () and certificate.residuals("p99") == ()
    assert certificate.residuals("median", 0.02) != paced
