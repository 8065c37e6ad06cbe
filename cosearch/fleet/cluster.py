"""Where pieces of work are done, as a user says it: here, on a Ray cluster of this machine, or on one that runs elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cosearch.fleet.processes import Processes
from cosearch.fleet.ray_engine import RayEngine, ray_module
from cosearch.fleet.work import Engine
from latency_tables.errors import RequestError


@dataclass(frozen=True)
class Cluster:
    """Where pieces of work are done.

    Attributes:
        address: of a Ray cluster, or ``local``; empty: in processes of this machine, without Ray.
        other_torch: nodes may have another version of torch than this machine.
    """

    address: str = ""
    other_torch: bool = False

    def check(self) -> Cluster:
        """The same, once it is known that it can be asked for.

        Raises:
            MissingExtraError: Ray is needed and not installed.
            RequestError: ``other_torch`` without a cluster.
        """
        if self.address:
            ray_module(self.address)
        elif self.other_torch:
            raise RequestError("--other-torch is about the machines of a cluster: give --cluster ADDRESS, or leave it out")
        return self

    def engine(self, most: int | None, files: Path | None = None) -> Engine:
        """An engine there.

        Args:
            most: pieces at once; None: one here, as many as there is room for on a cluster.
            files: folder that processes on other machines find as their current one; None: none.

        Raises:
            MissingExtraError: Ray is needed and not installed.
            RequestError: there is no such cluster.
        """
        if not self.address:
            return Processes(most or 1)
        return RayEngine(self.address, most=most, files=files, other_torch=self.other_torch)


HERE = Cluster()
