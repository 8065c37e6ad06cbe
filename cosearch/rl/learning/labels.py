"""The labels of a teacher with a memory: made in the order of time, a few environments at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from cosearch.rl.memory import Recurrent, cleared
from cosearch.rl.policy import Policy
from cosearch.rl.rollout import Rollout
from latency_tables.errors import ShapeError


def label_in_time(
    teacher: Recurrent, rollout: Rollout, memory: Tensor | None, chunk: int, temperature: float = 1.0, *, values: bool = True
) -> Tensor:
    """Fill ``rollout.teacher_policy`` and ``teacher_value``, see :class:`Rollout`.

    Args:
        teacher: with a memory.
        rollout: the experience.
        memory: ``[envs, memory_size]``, the teacher's own, before the rollout; None: all its episodes begin.
        chunk: frames of one forward pass.
        temperature: of the labels, above 0; 1: the teacher's own.
        values: whether the teacher gives any.

    Returns:
        ``[envs, memory_size]``, after the rollout.

    Raises:
        ShapeError: the student has another number of actions, or the steps of the rollout are in no order.
    """
    if rollout.segments is None:
        raise ShapeError("a teacher with a memory labels steps in their order, this rollout has none")
    (steps, envs), begins = rollout.value.shape, rollout.segments.begins
    memory = torch.zeros(envs, teacher.memory_size) if memory is None else memory
    outputs, worth, after = [], [], []
    with torch.inference_mode():
        for part in torch.arange(envs).split(max(1, chunk // steps)):
            found, value, kept = teacher.unroll(rollout.frames[:, part].flatten(0, 1), memory[part], begins[:-1, part])
            outputs.append(found.view(steps, len(part), -1))
            worth.append(value.float().view(steps, len(part)))
            after.append(kept)
    labels = torch.cat(outputs, 1).clone()
    if labels.is_floating_point():
        check_actions(rollout, labels.shape[-1])
        labels = tempered(rollout.policy, labels, temperature)
    rollout.teacher_policy = labels  # else the teacher's actions, of one that tells no more
    if values:
        rollout.teacher_value = torch.cat(worth, 1).clone()
    return cleared(torch.cat(after), begins[-1].numpy())


def tempered(policy: Policy, outputs: Tensor, temperature: float) -> Tensor:
    """What a student learns of a teacher's policy outputs.

    Args:
        policy: what the outputs mean.
        outputs: ``[..., outputs]`` of the network.
        temperature: above 0; 1: the teacher's own policy.
    """
    parameters = policy.read(outputs.float())
    return parameters if temperature == 1.0 else policy.tempered(parameters, temperature)


def check_actions(rollout: Rollout, actions: int) -> None:
    """Raise where the student took an action that the teacher does not have.

    Args:
        rollout: the student's.
        actions: of the teacher.

    Raises:
        ShapeError: it did.
    """
    if rollout.policy.name == "categorical" and rollout.actions.max() >= actions:
        raise ShapeError(f"the teacher has {actions} actions, the student took action {int(rollout.actions.max())}")
