"""The simulation of a fleet against closed forms: a queue, a fleet without chance, one that fails, one beyond its limit."""

import math

import numpy as np
import pytest

simpy = pytest.importorskip("simpy", reason="the simulation of a fleet needs SimPy: pip install 'cosearch[bench]'")
from cosearch.benchmarks.workers.fleet_model import Costs, Fleet, FleetSimulation, Station, Work  # noqa: E402

FREE = Costs(job_s=0.0, message_s=0.0, save_s=0.0, store_bytes_s=1e30, object_bytes_s=1e30, restart_s=0.0)


def work(run_s, lines=0.0):
    return Work([run_s], [1e6], [2e6], lines)


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_the_mean_wait_of_random_arrivals_is_that_of_an_m_d_1_queue(load):
    """Pollaczek and Khinchine: the mean wait is load / (2 (1 - load)) of a service."""
    env, random, service, count = simpy.Environment(), np.random.default_rng(0), 2.0, 40_000
    station = Station(env)

    def arrivals():
        for gap in random.exponential(service / load, count):
            yield env.timeout(gap)
            station.serve(service)

    env.process(arrivals())
    env.run()
    assert station.waited_s / count == pytest.approx(service * load / (2 * (1 - load)), rel=0.06)


def test_two_servers_serve_two_at_once():
    station = Station(simpy.Environment(), 2)
    assert [station.serve(3.0) for _ in range(4)] == [3.0, 3.0, 6.0, 6.0]
    assert station.busy_s == 12.0 and station.waited_s == 6.0


def test_a_fleet_of_one_without_chance_takes_the_sum_of_its_parts():
    costs = Costs(job_s=0.5, message_s=0.1, save_s=0.25, store_bytes_s=1e6, object_bytes_s=1e6, restart_s=9.0)
    outcome = FleetSimulation(Fleet(1, 30.0, 0.0), work(100.0, lines=10), costs, runs=3).run()
    # the driver is still busy with the lines of the last span (a tenth of the run, 0.1 s) when its checkpoint is written
    each = 0.5 + 100.0 + 4 * (0.25 + 1.0) + 2.0 + 0.5
    assert outcome.makespan_s == pytest.approx(3 * each) and outcome.efficiency == pytest.approx(100.0 / each)
    assert outcome.lost == 0.0
    assert outcome.busy["store"] == pytest.approx(5.0 / each) and outcome.busy["driver"] == pytest.approx(2.0 / each)
    assert outcome.limits["store"] == pytest.approx((100.0 + 2.0 + 5.0 + 2.0) / 5.0)


@pytest.mark.parametrize("failures_an_hour, restart_s", [(60.0, 0.0), (120.0, 20.0)])
def test_failures_cost_what_the_exponential_law_says(failures_an_hour, restart_s):
    """A span of s seconds, begun anew after each failure of rate r, takes (1 / r + restart) (exp(r s) - 1) on average."""
    rate, span = failures_an_hour / 3600.0, 30.0
    costs = Costs(0.0, 0.0, 0.0, 1e30, 1e30, restart_s)
    outcome = FleetSimulation(Fleet(10, span, failures_an_hour), work(300.0), costs, seed=3).run(60_000.0, warm_up_s=1_000.0)
    mean = (1.0 / rate + restart_s) * (math.exp(rate * span) - 1.0)
    assert outcome.efficiency == pytest.approx(span / mean, rel=0.02)
    failures = math.exp(rate * span) - 1.0  # of a span
    lost = (math.exp(rate * span) - 1.0) / rate - span  # of a span: the time without restarts, less the one that counts
    assert outcome.lost == pytest.approx(lost / span, rel=0.05) and failures > 0.5


@pytest.mark.parametrize("workers", [20, 200])
def test_beyond_its_limit_a_fleet_is_as_fast_as_its_slowest_part(workers):
    costs = Costs(0.0, 0.0, save_s=1.0, store_bytes_s=1e30, object_bytes_s=1e30, restart_s=0.0)
    simulation = FleetSimulation(Fleet(workers, 30.0, 0.0), work(300.0), costs)
    outcome = simulation.run(6000.0, warm_up_s=2400.0)  # the first runs begin in their middle: their last spans are short
    limit = 31.0  # a span and its checkpoint over the checkpoint
    assert outcome.limits["store"] == pytest.approx(limit)
    expected = 30.0 / 31.0 if workers < limit else 30.0 / workers  # one checkpoint a second lets one span count
    assert outcome.efficiency == pytest.approx(expected, rel=0.03)
    assert (outcome.busy["store"] > 0.99) == (workers > limit)
    own = FleetSimulation(Fleet(workers, 30.0, 0.0, stores=workers), work(300.0), costs).run(3000.0, warm_up_s=600.0)
    assert own.efficiency == pytest.approx(30.0 / 31.0, rel=0.01)
