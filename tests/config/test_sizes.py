"""Sizes out of reason are refused by the plan in one message, and those of any real run are not."""

import re
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_models.cli import main as accel_models
from cosearch.cli.app import main
from cosearch.config.presets import PRESETS
from cosearch.config.run import config_defaults, resolve
from cosearch.planning import size
from cosearch.planning.size import check_size
from cosearch.planning.task import resolve_task
from latency_tables import commands
from latency_tables.errors import ConfigError, RequestError
from latency_tables.text.spans import check_span, span_text

GB = 10**9
WHOLE = sorted(key for key, value in config_defaults().items() if type(value) is int)


@pytest.fixture
def eight_gigabytes(monkeypatch):
    monkeypatch.setattr(size, "memory_bytes", lambda: 8 * GB)


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["env.num_envs=1000000000"],
            "env.num_envs=1000000000 needs at least 13.3 TB",
        ),
        (["env.num_envs=10000", "rl.rollout_steps=1000"], "rl.rollout_steps=1000 needs at least 123 GB"),
        (["rl.rollout_steps=1000000000"], "of memory, this machine has 8 GB"),
        (["budget.parity_frames=1000000000"], "budget.parity_frames=1000000000 needs at least 12.3 TB"),
        (["budget.eval_episodes=10000000000"], "budget.eval_episodes=10000000000 needs at least 80 GB"),
        (
            ["budget.search_steps=1000000000000000"],
            "000 takes 32 years at 1,000,000 steps a second",
        ),
        (["budget.retrain_steps=1000000000000000"], "budget.retrain_steps=1000000000000000 takes 32 years"),
        (["budget.measure_s=1e12"], "budget.measure_s=1e+12 takes 31,688 years"),
        (["rl.algorithm=dqn", "dqn.replay=10000000"], "dqn.replay=10000000 needs at least 123 GB"),
    ],
    ids=str,
)
def test_what_the_machine_cannot_hold_or_end_is_refused(words, said, eight_gigabytes):
    with pytest.raises(ConfigError) as caught:
        check_size(resolve(overrides=words), (64, 64, 3))
    assert said in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_is_refused_on_a_laptop(preset, eight_gigabytes):
    for task in ("procgen:starpilot", "minatar:breakout", "gym:CartPole-v1"):
        check_size(resolve_task(preset=preset, overrides=[f"env.name={task}"]), (64, 64, 3))
    check_size(resolve(overrides=["rl.algorithm=dqn"]), (64, 64, 3))


def fault(key, value):
    """What is said against a value; nothing where it is taken."""
    try:
        check_size(resolve(options={key: value}), (64, 64, 3))
    except ConfigError as error:
        return str(error)
    return ""


@given(st.sampled_from(WHOLE), st.integers(9, 400))
@settings(deadline=None, max_examples=60)
def test_every_whole_number_has_a_largest_value_or_is_refused_by_its_size(key, power):
    """Whatever key: the check takes no time and gives no other error."""
    began = time.monotonic()
    said = fault(key, 10**power)
    assert said == "" or (key in said and len(said) < 1000)
    assert said or power < 20
    assert time.monotonic() - began < 5


def test_seeds_and_threads_out_of_reason_are_wrong_requests(tmp_path, capsys):
    file = tmp_path / "run.toml"
    file.write_text(f"seed = 1{'0' * 400}\n")
    for words in (["threads=1000000"], ["--config", str(file)], ["env.num_envs=1e300"]):
        assert main(["search", "--dry-run", *words]) == 2
        said = capsys.readouterr().err
        assert ("1 fault" in said or "more than 40 digits" in said) and len(said) < 500


def test_a_teacher_of_a_thousand_years_is_refused(tmp_path, capsys):
    words = ["teacher", "--env", "gym:CartPole-v1", "--steps", str(10**17), "--out", str(tmp_path / "t.json")]
    assert main([*words, "--runs", str(tmp_path)]) == 2
    assert f"steps={10**17} takes 3,169 years" in capsys.readouterr().err


@pytest.mark.parametrize("seconds, text", [(90, "1.5 min"), (86400 * 3, "3.0 days"), (300 * 365.25 * 86400, "300 years")])
def test_a_forecast_is_in_units_that_can_be_believed(seconds, text):
    assert span_text(seconds) == text


@given(st.integers(0, 10**400))
def test_any_count_has_a_time_or_is_refused(count):
    if count > 10 * 365.25 * 86400 * 1000:
        with pytest.raises(RequestError, match=r"^it takes .{1,20} years; ask for less$"):
            check_span("it", count, 1e-3)
    else:
        assert check_span("it", count, 1e-3) == pytest.approx(count / 1000)


@pytest.mark.parametrize(
    "words",
    [
        ["impala", "--evaluations", str(10**15)],
        ["impala", "--evaluations", "1" + "0" * 300],
        ["--benchmark", "--seeds", str(10**12)],
    ],
    ids=["years", "digits", "benchmark"],
)
def test_a_search_of_designs_that_takes_years_is_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        accel_models(["search", *words])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and " years; ask for less" in said and len(said) < 500


def test_a_measurement_says_how_long_it_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("latency_tables.measuring.job.run", lambda *args, **options: sys.exit(7))
    words = ["measure", "--worklist", "mlp", "--rounds", "1000000", "--max-rounds", "1000000", "--out", str(tmp_path / "t.jsonl")]
    monkeypatch.setattr("sys.argv", ["latency_tables", *words])
    with pytest.raises(SystemExit, match="7"):
        commands.main()
    spans = r"([\d.]+) days to ([\d.]+) days, and ([\d.]+) min of power readings where there is a sensor"
    found = re.fullmatch(rf"(\d+) models, expected time: {spans}", capsys.readouterr().err.strip())
    assert found and float(found[2]) * 86400 >= 0.05 * 10**6 and float(found[3]) > float(found[2])
    assert 4.0 < float(found[4]) * 60 <= 4.0 * int(found[1])  # 2 s under load and as long idle
