"""The shared weights that a search leaves, ``supernet.pt``: further architectures of the run begin from them.

Written whole at the search's end, by gradient and one-shot strategies and by proposal strategies whose candidates share weights
(``strategy.candidate_init=shared``). Other searches leave none, and further architectures begin anew.
"""

from __future__ import annotations

import io

import torch
from torch import Tensor

from cosearch.pipeline.search.derivation import contiguous
from cosearch.planning.plan import Plan
from cosearch.record.checkpoints import loaded
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.results.architecture import SHARED_WEIGHTS
from cosearch.record.rundir import RunDir
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.space.space import Architecture
from cosearch.space.supernet import SuperNet
from cosearch.training.algorithms import as_trained
from latency_tables.errors import RunFolderError


def keep_shared(run: RunDir, supernet: SuperNet) -> None:
    """Write the shared weights into the run folder.

    Args:
        run: the run folder.
        supernet: at the search's end.
    """
    buffer = io.BytesIO()
    torch.save(contiguous(supernet.state_dict()), buffer)
    write_bytes_atomic(run.path / SHARED_WEIGHTS, buffer.getvalue())


def shared_supernet(run: RunDir, plan: Plan) -> SuperNet | None:
    """The supernet of a run's search; None where it left no shared weights. No random stream of the run moves.

    Args:
        run: the run folder.
        plan: the resolved run.

    Raises:
        RunFolderError: the file is damaged, or is of another space.
    """
    path = run.path / SHARED_WEIGHTS
    if not path.is_file():
        return None
    supernet = as_trained(SuperNet(plan.space, torch.Generator().manual_seed(0)), plan.config, Streams(plan.config.seed))
    try:
        supernet.load_state_dict(loaded(path.read_bytes()))
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # the last but one: a value that is no tensor
        reason = " ".join(str(error).split())[:200]
        raise RunFolderError(
            f"{path} cannot be read as the shared weights of this run ({reason}); move it away: further architectures then begin "
            "from random weights"
        ) from error
    return supernet


def weights_of(architecture: Architecture, plan: Plan, supernet: SuperNet | None) -> dict[str, Tensor]:
    """What an architecture's network begins its retraining with.

    Args:
        architecture: any of the space.
        plan: the resolved run.
        supernet: whose path it copies; None: random weights, the same for the same run and architecture.
    """
    generator = torch.Generator().manual_seed(plan.config.seed & 0x7FFFFFFF)
    network = derive(architecture, generator, supernet)
    if supernet is None:
        network = as_trained(network, plan.config, Streams(plan.config.seed))
    return contiguous(network.state_dict())
