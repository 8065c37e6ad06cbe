"""The clip of the agent playing: colours, frames, size limit, determinism, on and off."""

import io
import json
from itertools import pairwise

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image
from pipeline_runs import TINY, command

import cosearch.deploy.clip as clip
from cosearch.cli.app import main
from cosearch.config.run import config_from_dict
from cosearch.deploy.clip import MAX_BYTES, PLANES, SIDE, animate, coloured, play
from cosearch.planning.builtins import load_builtins
from cosearch.space.parts import can_be_shown
from latency_tables.errors import RequestError


def pictures(content):
    """Frames of a GIF as colours ``[frames, height, width, 3]``."""
    image = Image.open(io.BytesIO(content))
    frames = []
    for number in range(image.n_frames):
        image.seek(number)
        frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)


def uniform(frames):
    return torch.zeros(len(frames), 15), torch.zeros(len(frames))


def test_a_moving_square_is_shown_frame_by_frame_in_its_colours():
    colours = np.zeros((12, 10, 10, 3), np.uint8)
    for i in range(12):
        colours[i, i % 10, 2] = (255, 0, 0)
    shown = pictures(animate(colours))
    factor = -(-SIDE // 10)
    assert shown.shape == (12, 10 * factor, 10 * factor, 3)
    small = shown[:, factor // 2 :: factor, factor // 2 :: factor].astype(int)
    assert np.abs(small - colours).max() <= 8  # a palette of few colours
    assert all((a != b).any() for a, b in pairwise(shown))


def test_a_clip_that_would_be_too_large_is_cut_at_its_end():
    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), np.uint8)
    content = animate(noise)
    kept = len(pictures(content))
    assert len(content) <= MAX_BYTES < len(clip._gif(noise)) and 5 < kept < 60
    np.testing.assert_array_equal(pictures(content)[0], pictures(clip._gif(noise[:kept]))[0])


def test_colours_of_pictures_planes_grey_and_stacks():
    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(coloured(picture), picture)
    planes = np.zeros((10, 10, 4), np.uint8)
    planes[1, 1, 0] = planes[2, 2, 3] = planes[3, 3, 0] = planes[3, 3, 2] = 255
    shown = coloured(planes)
    assert tuple(shown[1, 1]) == PLANES[0] and tuple(shown[2, 2]) == PLANES[3] and tuple(shown[3, 3]) == PLANES[2]
    assert not shown[5, 5].any() and len(set(PLANES)) == len(PLANES)
    stack = np.zeros((84, 84, 4), np.uint8)
    stack[..., 3] = 7
    assert (coloured(stack) == 7).all() and (coloured(stack[..., 3:]) == 7).all()


def test_vectors_are_no_pictures(monkeypatch):
    assert can_be_shown((10, 10, 4)) and can_be_shown((64, 64, 3))
    assert not any(can_be_shown(shape) for shape in ((4,), (1, 1, 4), (4, 1, 1)))
    load_builtins()
    monkeypatch.setattr(clip, "can_be_shown", lambda *given: False)
    with pytest.raises(RequestError, match="only images can be shown"):
        play(uniform, config_from_dict({"env": {"name": "procgen:starpilot"}}), 3, 0, greedy=False)


def test_the_recording_is_the_game_and_follows_the_seed():
    load_builtins()
    config = config_from_dict({"env": {"name": "procgen:starpilot"}})
    one, same, other = (play(uniform, config, 12, seed, greedy=False) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert one.shape == (12, 64, 64, 3) and (one != other).any() and all((a != b).any() for a, b in pairwise(one))
    assert animate(one) == animate(same)


class Wall(gymnasium.Env):
    """A white column of a picture of floats that goes where the action says, beside a vector."""

    observation_space = gymnasium.spaces.Dict(
        {"state": gymnasium.spaces.Box(0, 1, (2,), np.float32), "view": gymnasium.spaces.Box(0, 1, (40, 40, 3), np.float32)}
    )
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen(0), {}

    def seen(self, column):
        view = np.zeros((40, 40, 3), np.float32)
        view[:, column] = 1.0
        return {"state": np.zeros(2, np.float32), "view": view}

    def step(self, action):
        return self.seen(int(action)), 0.0, False, False, {}


@pytest.mark.parametrize("greedy, columns", [(True, {2}), (False, {0, 1, 2})])
def test_the_clip_is_played_by_the_rule_and_shows_the_picture_among_the_parts(monkeypatch, greedy, columns):
    import own_tasks

    load_builtins()
    monkeypatch.setattr(own_tasks, "wall", Wall, raising=False)

    def nearly_even(frames):
        return torch.tensor([[0.0, 0.0, 0.1]]).expand(len(frames), -1), torch.zeros(len(frames))

    shown = play(nearly_even, config_from_dict({"env": {"name": "own_tasks:wall"}}), 60, 0, greedy=greedy)
    assert shown.shape == (60, 40, 40, 3) and {int(frame[0, :, 0].argmax()) for frame in shown[1:]} == columns


def test_the_recorded_rule_decides_how_a_clip_is_played(tmp_path, monkeypatch):
    import cosearch.deploy.evaluation as evaluation

    class Run:
        path = tmp_path

        def read(self, kind):
            return None

    asked = []

    def played(*given, greedy):
        asked.append(greedy)
        return np.zeros((1, 8, 8, 3), np.uint8)

    monkeypatch.setattr(evaluation, "play", played)
    monkeypatch.setattr(evaluation, "_agent_of", lambda path: (Run(), tmp_path / "agent.onnx"))
    for name in ("OnnxAgent", "check_inputs", "environment_now", "Inputs"):
        monkeypatch.setattr(evaluation, name, lambda *given, **named: None)
    for algorithm, rule, wanted in (("ppo", "argmax", True), ("ppo", "sample", False), ("dqn", "argmax", False)):
        config = config_from_dict({"env": {"name": "minatar:breakout"}, "rl": {"algorithm": algorithm}})
        monkeypatch.setattr(evaluation, "config_of", lambda run, config=config: config)
        (tmp_path / "agent.json").write_text(json.dumps({"acting": {"rule": rule, "policy": "categorical"}}))
        evaluation.write_clip(tmp_path, frames=1)
        assert asked.pop() is wanted


@pytest.mark.slow
def test_a_run_has_a_clip_in_its_report_unless_it_is_switched_off(tmp_path, monkeypatch, capsys):
    for name, frames in (("on", 10), ("off", 0)):
        words = (*TINY, "budget.search_steps=32", "budget.retrain_steps=0", f"budget.clip_frames={frames}")
        done = command("search", "--run", name, *words, folder=tmp_path)
        assert done.code == 0, done.err
        assert (tmp_path / "runs" / name / "clip.gif").exists() == bool(frames)
        page = (tmp_path / "runs" / name / "report.html").read_text(encoding="utf-8")
        assert ("data:image/gif;base64," in page) == bool(frames)
    content = (tmp_path / "runs" / "on" / "clip.gif").read_bytes()
    assert len(pictures(content)) == 10
    monkeypatch.chdir(tmp_path)
    assert main(["video", "runs/on", "--frames", "10", "--out", "same.gif"]) == 0
    assert (tmp_path / "same.gif").read_bytes() == content
    assert main(["video", "runs/off", "--frames", "5", "--seed", "3"]) == 0
    assert len(pictures((tmp_path / "runs" / "off" / "clip.gif").read_bytes())) == 5
    assert main(["video", "runs/on", "--out", "same.mp4"]) == 2 and ".gif" in capsys.readouterr().err
