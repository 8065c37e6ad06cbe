"""Timing with a fake clock, estimators with known answers."""

import itertools

import numpy as np
import pytest
from scipy import stats

from latency_tables.board.timing import Visit, VisitPlan, is_clean, median_interval, paced, summarise, take_samples


class FakeMachine:
    """A clock that a call moves by ``cost_s``; CPU time leaves out what was stolen."""

    def __init__(self, costs_s, stolen_s=None):
        self.costs, self.stolen, self.now, self.cpu = iter(costs_s), stolen_s or itertools.repeat(0.0), 0.0, 0.0

    def call(self):
        cost, stolen = next(self.costs), next(self.stolen)
        self.now += cost + stolen
        self.cpu += cost

    def clock(self):
        return round(self.now * 1e9)

    def cpu_clock(self):
        return round(self.cpu * 1e9)


def test_short_calls_are_repeated_inside_a_sample():
    machine = FakeMachine(itertools.repeat(1e-6))
    samples, inner = take_samples(
        machine.call, VisitPlan(seconds=1e-3, min_sample_s=2e-5), clock=machine.clock, cpu_clock=machine.cpu_clock
    )
    assert inner == 20 and samples[0][0] == pytest.approx(1e-6) and len(samples) == 50


def test_visit_lasts_as_long_as_asked_and_has_enough_samples():
    machine = FakeMachine(itertools.repeat(0.01))
    samples, inner = take_samples(
        machine.call, VisitPlan(seconds=0.025, min_samples=8), clock=machine.clock, cpu_clock=machine.cpu_clock
    )
    assert inner == 1 and len(samples) == 8
    samples, _ = take_samples(
        machine.call, VisitPlan(seconds=1.0, max_seconds=0.05), clock=machine.clock, cpu_clock=machine.cpu_clock
    )
    assert len(samples) == 5


def test_preempted_samples_are_dropped_for_that_cause_only():
    stolen = itertools.cycle([0.0, 0.0, 5e-3])
    machine = FakeMachine(itertools.repeat(1e-3), stolen)
    samples, inner = take_samples(machine.call, VisitPlan(seconds=0.3), clock=machine.clock, cpu_clock=machine.cpu_clock)
    seen = summarise(samples, inner)
    assert seen.clean_share == pytest.approx(2 / 3, abs=0.02)
    assert seen.median_s == pytest.approx(1e-3) and seen.p90_s == pytest.approx(6e-3)
    several = summarise(samples, inner, threads=2)
    assert several.clean_share is None
    slow = summarise([(w * 3, c * 3) for w, c in samples if w < 2e-3], inner)
    assert slow.median_s == pytest.approx(3e-3), "a slow sample that did not wait is kept"


def test_is_clean_uses_one_microsecond_or_one_percent():
    assert is_clean(1e-5, 1e-5 - 0.9e-6) and not is_clean(1e-5, 1e-5 - 1.1e-6)
    assert is_clean(1e-2, 1e-2 - 0.9e-4) and not is_clean(1e-2, 1e-2 - 1.1e-4)


def test_median_interval_covers_at_least_its_level():
    """Oracle: the exact binomial coverage of the chosen order statistics."""
    for count in (12, 25, 60, 200):
        low, high = median_interval(np.arange(count, dtype=float))
        covered = stats.binom.cdf(high - 1, count, 0.5) - stats.binom.cdf(low - 1, count, 0.5)
        assert 0.93 < covered < 0.999, (count, covered)


def test_visit_round_trip():
    seen = summarise([(1.0, 1.0)] * 9, 1)
    assert Visit.from_dict(seen.to_dict()) == seen


def test_paced_counts_missed_deadlines():
    machine = FakeMachine(itertools.cycle([0.001, 0.001, 0.030]))

    def sleep(seconds):
        machine.now += seconds

    calls = paced(machine.call, period_s=0.02, seconds=1.8, clock=lambda: machine.now, sleep=sleep)
    assert calls.samples == 90 and calls.missed == 30
    assert calls.p50_s == pytest.approx(0.001) and calls.max_s == pytest.approx(0.030)
    fast = FakeMachine(itertools.repeat(0.001))
    assert (
        paced(
            fast.call, period_s=0.02, seconds=1, clock=lambda: fast.now, sleep=lambda s: setattr(fast, "now", fast.now + s)
        ).missed
        == 0
    )


def test_paced_calls_that_are_warmed_up_wake_early_and_wait_for_the_moment():
    looks, starts, slept = itertools.count(), [], []

    class Machine:
        now = 5.0

        def clock(self):
            next(looks)
            self.now += 1e-6
            return self.now

        def call(self):
            starts.append(self.now)
            self.now += 0.0005 if len(starts) % 2 else 0.002  # the first one and each that is not timed are slower

    machine = Machine()

    def sleep(seconds):
        slept.append(seconds)
        machine.now += seconds

    calls = paced(machine.call, period_s=0.02, seconds=0.2, lead_s=0.003, clock=machine.clock, sleep=sleep)
    assert calls.samples == 10 and len(starts) == 21 and calls.p50_s == pytest.approx(0.0005, abs=1e-5)
    due = [starts[0] + 0.0005 + 0.02 * i for i in range(1, 11)]
    assert starts[2::2] == pytest.approx(due, abs=3e-4)  # the timed ones begin at their moment
    assert starts[1::2] == pytest.approx([moment - 0.003 for moment in due], abs=3e-4)
    assert all(0.01 < seconds < 0.02 for seconds in slept) and calls.missed == 0
