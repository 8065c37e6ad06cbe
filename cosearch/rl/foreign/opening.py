"""An ONNX file as a network that teaches: by what its metadata say of it, else read anew for the task."""

from __future__ import annotations

from pathlib import Path

from cosearch.rl.foreign.network import ForeignNetwork
from cosearch.rl.foreign.onnx_file import load_model
from cosearch.rl.foreign.onnx_reader import policy_of_model
from cosearch.rl.foreign.remembering import RememberingNetwork
from cosearch.rl.foreign.understood import Said, TaskFacts, Understood
from latency_tables.errors import ShapeError


def open_network(path: Path, task: TaskFacts, known: Understood | None, said: Said) -> ForeignNetwork | RememberingNetwork:
    """The network of an ONNX file.

    Args:
        path: of the file.
        task: of the run.
        known: what its metadata say was understood of it; None: nothing, it is read for this task.
        said: what the user says of it.

    Raises:
        ConfigError: it cannot be loaded, or can be read in two ways and nobody said which.
        ShapeError: inputs or outputs of another task.
    """
    model = load_model(path)
    if known is None:
        policy = policy_of_model(path, model, task, said)
        return network_of(path, policy.content, policy.understood)
    if (known.frame_shape, known.num_actions) != (tuple(task.frame_shape), task.num_actions):
        raise ShapeError(
            f"{path} was read as a policy of observations {list(known.frame_shape)} and {known.num_actions} actions, the run's "
            f"environment has {list(task.frame_shape)} and {task.num_actions}: read it again, `cosearch compress POLICY --env "
            f"{task.env}`"
        )
    return network_of(path, model.SerializeToString(), known)


def network_of(path: Path, content: bytes, known: Understood) -> ForeignNetwork | RememberingNetwork:
    """The network of a graph and of what was understood of it.

    Args:
        path: for messages.
        content: the graph, a serialized ONNX model.
        known: what it takes and gives.

    Raises:
        ConfigError: the runtime refuses it.
    """
    return (RememberingNetwork if known.states else ForeignNetwork)(path, content, known)
