"""``clip.gif``: the exported agent playing held-out levels, as a small animated image; ``report.html`` shows it.

The same run and seed give the same bytes. Three channels are shown as colours and one as grey; the planes of a small symbolic
frame (MinAtar) get one colour each, later planes over earlier ones; of larger frames with other channel counts, which are
stacks of past frames, the newest is shown.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from cosearch.config.run import Config
from cosearch.rl.memory import Carried
from cosearch.rl.policy import act, policy_of
from cosearch.rl.rollout import Forward
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.space.parts import can_be_shown, unpack
from latency_tables.errors import RequestError

FRAMES_PER_S = 15
MAX_BYTES = 400_000  # of one clip: later frames are left out until it fits
SIDE = 128  # pixels, at least: smaller frames are enlarged by a whole factor
COLOURS = 64  # of the clip's palette
SYMBOLIC_SIDE = 32  # frames below this many pixels are planes of symbols
PLANES = (
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (188, 189, 34),
    (23, 190, 207),
    (174, 199, 232),
    (255, 187, 120),
    (152, 223, 138),
)


def play(agent: Forward, config: Config, frames: int, seed: int, *, greedy: bool) -> np.ndarray:
    """What the agent sees while it plays one environment of held-out levels; of several parts the first image.

    Args:
        agent: frames -> logits, values.
        config: of the run.
        frames: how many.
        seed: of levels and actions.
        greedy: the most likely actions, else they are sampled.

    Returns:
        Colours ``[frames, height, width, 3]``, uint8.

    Raises:
        RequestError: the observations are not images.
        EnvironmentFailedError: the environment failed.
    """
    streams = Streams(seed)
    generator = torch.Generator().manual_seed(streams.derive("eval", 5))
    env = make_task(config.env, 1, streams.derive("eval", 4), test=True)
    shown = []
    try:
        if not can_be_shown(env.frame_shape, env.parts):
            shape = f"the parts {', '.join(part.name for part in env.parts)}" if env.parts else f"shape {env.frame_shape}"
            raise RequestError(f"{config.env.name} has observations of {shape}: only images can be shown")
        image = next((part.name for part in env.parts if part.kind == "image"), None)
        player = Carried(agent, 1)
        for _ in range(frames):
            seen = env.observe()
            shown.append(coloured((seen if image is None else unpack(env.parts, seen)[image])[0]))
            env.send(act(player, seen, policy_of(env), generator, greedy=greedy))
            step = env.receive()
            player.forget(step.terminated | step.truncated)
    finally:
        env.close()
    return np.stack(shown)


def coloured(frame: np.ndarray) -> np.ndarray:
    """One frame in colours.

    Args:
        frame: ``[height, width, channels]``, uint8.

    Returns:
        ``[height, width, 3]``, uint8.
    """
    height, width, channels = frame.shape
    if channels == 3 and min(height, width) >= SYMBOLIC_SIDE:
        return frame.copy()
    if channels > 1 and min(height, width) < SYMBOLIC_SIDE:
        shown = np.zeros((height, width, 3), dtype=np.uint8)
        for plane in range(channels):
            shown[frame[..., plane] > 0] = PLANES[plane % len(PLANES)]
        return shown
    return np.repeat(frame[..., -1:], 3, axis=-1)


def animate(colours: np.ndarray) -> bytes:
    """An endless GIF of frames, shortened at its end where it would be larger than :data:`MAX_BYTES`.

    Args:
        colours: ``[frames, height, width, 3]``, uint8; at least one frame.
    """
    while True:
        content = _gif(colours)
        if len(content) <= MAX_BYTES or len(colours) == 1:
            return content
        colours = colours[: max(1, int(0.95 * len(colours) * MAX_BYTES / len(content)))]


def _gif(colours: np.ndarray) -> bytes:
    count, height, width, _ = colours.shape
    factor = max(1, -(-SIDE // max(height, width)))
    sample = colours[:: max(1, count // 32)].reshape(-1, width, 3)
    palette = Image.fromarray(sample).quantize(COLOURS, Image.Quantize.MEDIANCUT)  # one for all frames: no flicker
    pictures = [
        Image.fromarray(frame)
        .quantize(palette=palette, dither=Image.Dither.NONE)
        .resize((width * factor, height * factor), Image.Resampling.NEAREST)
        for frame in colours
    ]
    stream = io.BytesIO()
    pictures[0].save(stream, "GIF", save_all=True, append_images=pictures[1:], duration=1000 // FRAMES_PER_S, loop=0)
    return stream.getvalue()
