"""The readers of policies' files, by what a file's name ends in: one entry a kind of file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cosearch.registry import Registry
from cosearch.rl.foreign.modules import read_state_dict
from cosearch.rl.foreign.onnx_reader import read_onnx
from cosearch.rl.foreign.sb3 import read_sb3
from cosearch.rl.foreign.understood import LAYOUTS, Policy, Said, TaskFacts
from latency_tables.errors import ConfigError, RequestError


@dataclass(frozen=True)
class PolicyReader:
    """One kind of file.

    Attributes:
        name, description: for lists.
        endings: of the names of such files.
        read: (file, task, what the user says) -> the policy.
    """

    name: str
    description: str
    endings: tuple[str, ...]
    read: Callable[[Path, TaskFacts, Said], Policy]


POLICY_READERS: Registry[PolicyReader] = Registry("policy reader", entry_point_group="cosearch.policy_readers")
for entry in (
    PolicyReader("onnx", "an ONNX file, from any package that exports one", (".onnx",), read_onnx),
    PolicyReader("stable-baselines3", "what model.save of PPO, A2C, DQN, SAC or TD3 wrote", (".zip",), read_sb3),
    PolicyReader("state_dict", "a torch state_dict in safetensors, with --module", (".safetensors",), read_state_dict),
):
    POLICY_READERS.register(entry)


def read_policy(path: Path, task: TaskFacts, said: Said) -> Policy:
    """Read a policy of any origin.

    Args:
        path: of its file.
        task: that it plays.
        said: what the user says of it.

    Raises:
        RequestError: no such file, or no reader for it.
        ConfigError: it cannot be read as what it is, or can be read in two ways, or no file plays such a task.
        ShapeError: it plays another task.
    """
    if not path.is_file():
        raise RequestError(f"{path}: no such file; expected a policy: {known_endings()}")
    instead = (
        f"Train a teacher instead, `cosearch teacher --env {task.env} --out FILE.json`, and name it: `cosearch search --env "
        f"{task.env} distill.teacher=FILE.json`"
    )
    if len(task.frame_shape) == 2:  # bytes of several parts
        raise ConfigError(
            f"{path}: a policy's file teaches tasks of one image of bytes or one vector, {task.env} has observations of parts (a "
            f"dictionary, an action mask, or an image of floats). {instead}"
        )
    if task.action_sizes:
        raise ConfigError(
            f"{path}: a policy's file teaches tasks of one discrete action or a vector of floats, {task.env} has actions of "
            f"{len(task.action_sizes)} discrete factors (MultiDiscrete {list(task.action_sizes)}). {instead}"
        )
    if said.layout is not None and said.layout not in LAYOUTS:
        raise ConfigError(f"--layout must be {' or '.join(LAYOUTS)}, got {said.layout!r}")
    if said.layout is not None and len(task.frame_shape) == 1:
        raise ConfigError(f"--layout has no effect: the observations of {task.env} are vectors; leave it out")
    reader = next((one for one in POLICY_READERS.entries() if path.name.lower().endswith(one.endings)), None)
    if reader is None:
        hint = ""
        if path.suffix.lower() in (".pt", ".pth", ".pkl", ".ckpt"):
            hint = (
                ". Pickled weights can run any code when they are loaded: safetensors.torch.save_file(model.state_dict(), "
                "'policy.safetensors') writes them without, or export the policy as ONNX"
            )
        raise RequestError(f"{path}: expected a policy as {known_endings()}, got {path.suffix or 'a name without ending'}{hint}")
    if reader.name != "state_dict" and said.module is not None:
        raise ConfigError(f"--module has no effect: {path.name} says itself what it is; leave it out")
    return reader.read(path, task, said)


def known_endings() -> str:
    """Which files are read, in words."""
    return "; ".join(f"{', '.join(one.endings)} ({one.description})" for one in POLICY_READERS.entries())
