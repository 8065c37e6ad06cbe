"""The table of the default run: its seeds, its controls and how sure each difference is, also of results saved before."""

import json
from pathlib import Path

import numpy as np

from cosearch.benchmarks import default_run
from cosearch.benchmarks.default_run import markdown


def returns(*means):
    return [np.array([mean - 1.0, mean + 1.0]) for mean in means]


def test_the_difference_from_each_control_is_said_with_its_seeds():
    saved = json.loads((Path(default_run.__file__).parent / "default_run.json").read_text())
    *_, last = markdown(saved).splitlines()
    assert last == (
        "Difference of the means, reinforce minus random: +0.71 [+0.22, +1.22], resampled: episodes within the seeds; "
        "by Welch over 3 and 3 seeds [-1.49, +2.92]."
    )
    saved["strategies"]["largest"] = saved["strategies"]["random"]
    saved |= {"resampled": default_run.RESAMPLED, "difference_largest": {"mean": 1.0, "ci95": None}}
    *_, random, largest = markdown(saved).splitlines()
    assert "minus random" in random and "minus largest: +1.00, no interval (1 seed), resampled: seeds, and episodes" in largest


def test_the_interval_of_seeds_is_wider_than_that_of_their_episodes():
    """Seeds 10 apart whose episodes differ by 2: resampled seeds reach from the lowest seed to the highest."""
    found = default_run.statistics(returns(0.0, 10.0, 20.0))
    low, high = found["mean_ci95"]
    assert found["mean"] == 10.0 and low < 3.0 and high > 17.0
    assert found["mean_ci95_student"][0] < low  # for three seeds the bootstrap is too narrow
    gap = default_run.difference(returns(0.0, 10.0, 20.0), returns(1.0, 11.0, 21.0))
    assert gap["mean"] == -1.0 and gap["ci95"][0] < -10.0 < 9.0 < gap["ci95"][1] and gap["ci95_welch"][0] < -20.0
