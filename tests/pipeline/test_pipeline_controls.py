"""The finished runs that may stand beside a result."""

import old_run
import pytest

from cosearch.config.run import resolve
from cosearch.planning.control import CONTROLS, control_of
from cosearch.record.rundir import RunDir
from latency_tables.errors import ConfigError

CANDIDATE = {"choices": [8, 8, 1, 8, 1], "score": 4.5, "latency_s": 2e-4, "env_steps": 256}


def finished(folder, strategy):
    run = RunDir.create(folder, "one", old_run.content("run.json"))
    run.write_json("summary.json", old_run.content("summary.json", strategy=strategy))
    derived_by = {"method": "best training score among the candidates", "candidates": [CANDIDATE]}
    run.write_json("architecture.json", old_run.content("architecture.json", derived_by=derived_by))
    return resolve(overrides=[f"control={run.path}"])


@pytest.mark.parametrize("strategy", CONTROLS)
def test_a_run_of_either_control_may_be_shown(strategy, tmp_path):
    control = control_of(finished(tmp_path, strategy))
    assert control.strategy == strategy and control.score_mean == old_run.content("summary.json")["score_mean"]
    assert [(item.choices, item.score) for item in control.candidates] == [((8, 8, 1, 8, 1), 4.5)]


def test_a_search_is_no_control(tmp_path):
    with pytest.raises(ConfigError, match="a run of 'evolution', expected a run made with --strategy random or largest"):
        control_of(finished(tmp_path, "evolution"))
    assert CONTROLS == ("random", "largest") and control_of(resolve()) is None
