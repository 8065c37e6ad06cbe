"""What goes wrong inside a run: one clear message, exit code 1, the last checkpoint whole; once it is mended the run goes on."""

import pytest
from pipeline_faults import GAME
from pipeline_runs import TINY, Moment, assert_equal, checkpointed, command, results

OF_A_CHILD = (*TINY, "--env", f"gym:{GAME}", "env.num_envs=2", "rl.rollout_steps=16")
CASES = {
    "nan_loss": (TINY, "retrain", ("a loss is not finite", "'loss_value': nan", "try a smaller rl.lr")),
    "env_raises": (TINY, "search", ("procgen:starpilot failed: RuntimeError: the engine died",)),
    "wrong_shape": (TINY, "search", ("starpilot returned frames as uint8 (4, 63, 64, 3), expected uint8 (4, 64, 64, 3)",)),
    "wrong_dtype": (TINY, "retrain", ("procgen:starpilot returned frames as float32",)),
    "nan_reward": (TINY, "search", ("procgen:starpilot returned a reward that is not finite",)),
    "killed_games": (OF_A_CHILD, "search", (f"gym:{GAME} failed: ", "Error")),
}


REPEATED = (
    "env_raises",
    "killed_games",
    "wrong_shape",
    "wrong_dtype",
    "nan_reward",
)  # in the slow suite: the others take the same way


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """By words: results of the run in which nothing failed, and its events; made once."""
    made = {}

    def make(words):
        if words not in made:
            folder = tmp_path_factory.mktemp("straight")
            done = command("search", "--run", "one", *words, folder=folder)
            assert done.code == 0, done.err
            made[words] = results(folder / "runs" / "one"), done.events
        return made[words]

    return make


@pytest.mark.parametrize("fault", [pytest.param(name, marks=[pytest.mark.slow] if name in REPEATED else []) for name in CASES])
def test_a_failure_is_one_message_and_the_run_goes_on_from_its_checkpoint(fault, straight, tmp_path):
    words, stage, parts = CASES[fault]
    expected, events = straight(words)
    done = command("search", "--run", "one", *words, folder=tmp_path, moment=Moment(stage, 2 * events[stage] // 3, fault))
    assert done.code == 1 and done.out == "", done.err
    assert "Traceback" not in done.err and done.err.count("error:") == 1
    for part in parts:
        assert part in done.err, done.err
    assert checkpointed(tmp_path / "runs" / "one")["stage"] == stage
    done = command("resume", "runs/one", folder=tmp_path)
    assert done.code == 0, done.err
    assert_equal(results(tmp_path / "runs" / "one"), expected)


def test_a_fault_that_stays_is_the_same_message_again(tmp_path):
    done = command("search", "--run", "one", *TINY, folder=tmp_path, moment=Moment("search", 40, "nan_loss"))
    assert done.code == 1, done.err
    before = checkpointed(tmp_path / "runs" / "one")
    again = command("resume", "runs/one", folder=tmp_path, moment=Moment("search", 1, "nan_loss"))
    assert again.code == 1 and "a loss is not finite" in again.err and again.err.count("error:") == 1
    after = checkpointed(tmp_path / "runs" / "one")
    assert after["ordinal"] == before["ordinal"] and after["stage_state"]["step"] == before["stage_state"]["step"]
