"""The accelerator of a co-search: its present design, the searches that change it, and what every candidate block costs on it.

Fu et al., DAC 2021 (A3C-S):
  min_{theta,alpha} L_task + lambda L_cost(hw(phi*), net(alpha))   s.t.  phi* = argmin_phi L_cost(hw(phi), net(alpha))
phi* is found for the current single-path network by ``accel_models.search_design``; in between the design is frozen, and the
expected cost  E = stem + head + sum_l sum_o p_lo cost_lo  is linear in the path weights, as with a table.
Differs from the paper in:
1. A searched design replaces the present one only if the network that it is made for gets no worse and keeps its targets, so
   the targets stay reachable from one search of the accelerator to the next.
2. Every candidate fits every design: buffers hold at least one kernel of each, so no candidate has an unknown cost.
3. In a pipeline each node of the space lies in one chunk, that of the network the design was made for.
4. phi* comes from the relaxation and discrete polish of ``accel_models.searching``; the paper samples every knob by hard
   Gumbel-softmax.
5. The cost is a penalty above a target, none below it; the paper adds lambda L_cost everywhere.
6. phi* is found every ``every_steps`` steps for the most likely network within the targets; the paper takes the sampled path.
7. By default the accelerator is one chunk that is valued by the latency of one frame; the paper's is a pipeline of chunks that is
   valued by its throughput (``accel.chunks`` above 1 and ``accel.objective=interval``).
8. The network on chip is no knob, and neither is the loop order: each layer takes the best of three. The paper searches both.
9. Each chunk that is searched is a systolic array with a dataflow; the paper's are tile engines with unrolled loops.
10. Layers go to the chunks in contiguous runs, the first to the first chunk; the paper assigns each layer to any chunk.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from accel_models.design import AccelDesign
from accel_models.evaluation import BlockCost, NetworkResult, block_costs
from accel_models.searching.search import search_design
from cosearch.config.accel import AccelConfig
from cosearch.cost.accel_table import PROVENANCE, AccelTable, device_of, layers_of, limits_exceeded, network_on
from cosearch.space.derivation.derive import discretise, within
from cosearch.space.space import Architecture, SearchSpace
from latency_tables.errors import DesignError, InfeasibleCandidateError, RequestError
from latency_tables.opspec import OpSpec
from latency_tables.table import Prediction

METRICS = ("latency_s", "energy_j")
REFERENCES = 1_000_000  # searches for reference agents are numbered from here, apart from those of the run


@dataclass(frozen=True)
class Place:
    """A design, and the chunk of each node of the space: stem, body, head."""

    design: AccelDesign
    chunk_of: tuple[int, ...]


class SavedAccelerator(TypedDict):
    """What a checkpoint holds of an accelerator: plain values."""

    design: dict[str, object]
    chunk_of: list[int]
    searches: int
    next_step: int
    made_for: list[int] | None


class Accelerator:
    """The design that architectures are costed on now; it answers as a device's table does.

    Args:
        space: the search space.
        base: the platform; its own chunks are kept where ``options.fixed``.
        options: how the design is searched.
        seed_of: (number of a search) -> its seed.
    """

    provenance = PROVENANCE
    path = None
    certificate = None

    def __init__(self, space: SearchSpace, base: AccelDesign, options: AccelConfig, seed_of: Callable[[int], int]) -> None:
        self.space, self.base, self.options, self.seed_of = space, base, options, seed_of
        self.objective, self.device = options.objective, device_of(base)
        self.bounds: dict[str, float] = {}
        self.searches, self.next_step = 0, options.every_steps
        self.made_for: tuple[int, ...] | None = None
        self.design, self.chunk_of = base, (0,) * len(space.nodes)
        self._blocks = [[spec for spec in node.specs if spec is not None] for node in space.nodes]
        self._own: AccelDesign | None = None  # the platform's own design, where it holds every candidate
        self._start = self.state()
        self._costs: tuple[Place, list[list[BlockCost | None]]] | None = None

    @property
    def table_id(self) -> str:
        """SHA-256 of the platform's design."""
        return AccelTable(self.base).table_id

    @property
    def table(self) -> AccelTable:
        """The present design in the role of a table, for any network."""
        return AccelTable(self.design, self.objective)

    def begin(self, bounds: dict[str, float]) -> None:
        """Find the first design: that searched for the smallest network, or the platform's own where that one keeps more bounds.

        Nothing is searched where the design is fixed.

        Args:
            bounds: upper bound of each metric with a target, seconds or joules.

        Raises:
            DesignError: a fixed design exceeds its platform or does not hold a block; or no design is found and the platform's
                own is of no use.
        """
        self.bounds = dict(bounds)
        less = [[-macs for macs in row] for row in self.space.macs()]
        smallest = discretise(self.space, less, joint=[factor.scaled(-1.0) for factor in self.space.joint_macs()])
        if self.options.fixed:
            self.table.check_limits()
            self._check_room(self.base)
            self._place(smallest, [self._placed(smallest, self.design)])
            return
        self._own = self.base if self._usable(self.base) else None
        found = (self._searched(smallest.ops(), self.options.evaluations), self._own)
        places = [self._placed(smallest, design) for design in found if design is not None]
        if not places:
            raise DesignError(
                f"no design within the limits of {self.base.platform.name} holds the smallest network of space "
                f"{self.space.name!r} in {self.options.evaluations} evaluations; raise accel.evaluations, lower "
                "accel.chunks, or name a larger platform"
            )
        results = [self._result(smallest, place) for place in places]
        kept = [sum(within(getattr(result, metric), bound) for metric, bound in bounds.items()) for result in results]
        self._place(smallest, [places[kept.index(max(kept))]])

    def optimise(self, architecture: Architecture, evaluations: int) -> bool:
        """Search a design for one network, and take the best of it, the present and the platform's own design.

        A fixed design stays as it is; only its cuts are chosen anew for the network.

        Args:
            architecture: the network; it keeps the targets that it meets now.
            evaluations: of the design search.

        Returns:
            Whether the design changed.
        """
        before = self.design
        places = [Place(self.design, self.chunk_of), self._placed(architecture, self.design)]
        if not self.options.fixed:
            design = self._searched(architecture.ops(), evaluations)
            places += [self._placed(architecture, each) for each in (design, self._own) if each is not None]
        self._place(architecture, places)
        return self.design != before

    def reference(self, ops: Sequence[OpSpec], number: int) -> Prediction:
        """What a fixed agent costs on the better of a design searched for it and the platform's own (or on the fixed one).

        Args:
            ops: its blocks.
            number: of the agent; gives the search its seed.

        Raises:
            DesignError: it does not fit the fixed design, or no design is found.
        """
        if self.options.fixed:
            return self.predict(ops)
        searched = self._searched(ops, self.options.final_evaluations, REFERENCES + number)
        designs = [each for each in (searched, self.base) if each is not None and not limits_exceeded(each)]
        known = []
        for design in designs:
            try:
                known.append(AccelTable(design, self.objective).predict(ops))
            except DesignError:
                continue  # the platform's own buffers may be too small for it
        if not known:
            raise DesignError(
                f"no design within the limits of {self.base.platform.name} holds the reference agent of "
                f"{len(ops)} blocks; name a larger platform"
            )
        return min(known, key=lambda prediction: prediction.latency_s)

    def due(self, step: int) -> bool:
        """Whether the accelerator is to be searched again at this step of the search; asked once a step."""
        if self.options.fixed or step < self.next_step:
            return False
        self.next_step = (step // self.options.every_steps + 1) * self.options.every_steps
        return True

    def chunks_of(self, ops: Sequence[OpSpec]) -> list[int]:
        """Chunk of each block: as placed for the network that the design was made for, the best cuts for any other."""
        return self._chunks_as_placed(ops) or self.table.chunks_of(ops)

    def predict(self, ops: Sequence[OpSpec]) -> Prediction:
        """What a network, the list of its blocks, costs on the present design: one frame alone.

        Raises:
            DesignError: a block does not fit the design's buffers.
        """
        return self.table.predict(ops, self._chunks_as_placed(ops))

    def network(self, ops: Sequence[OpSpec]) -> NetworkResult:
        """The network on the present design layer by layer, cut between blocks.

        Raises:
            InfeasibleCandidateError: a layer does not fit the buffers.
        """
        return network_on(self.design, ops, self.chunks_of(ops))

    def record(self, ops: Sequence[OpSpec]) -> dict[str, object]:
        """Plain JSON of design, limits and the network on it, for results and reports."""
        platform = self.design.platform
        return {
            "design": self.design.to_dict(),
            "objective": self.objective,
            "network": self.network(ops).to_dict(),
            "limits": {
                "dsp": platform.dsp_limit,
                "bram18": platform.bram18_limit,
                "elements": platform.pe_limit,
                "sram_bytes": platform.sram_limit_bytes,
            },
        }

    def costs(self, metric: str) -> list[list[float]]:
        """Cost of each candidate of each node of the space, stem to head; 0 for identities and zeros.

        Args:
            metric: ``latency_s`` or ``energy_j``.

        Raises:
            RequestError: the energy on a platform without energy constants.
        """
        place = Place(self.design, self.chunk_of)
        if self._costs is None or self._costs[0] != place:
            self._costs = (place, self._costed(place))
        return [[0.0 if cost is None else _cost_of(cost, metric, self.device.name) for cost in row] for row in self._costs[1]]

    def keep_as_start(self) -> None:
        """Remember the present design as the one that :meth:`start_over` goes back to; until then it is the platform's own."""
        self._start = self.state()

    def start_over(self) -> None:
        """Back to the first design, for the next independent candidate; the count of searches goes on."""
        self.return_to(self._start)

    def return_to(self, state: SavedAccelerator) -> None:
        """Back to the design of a :meth:`state`; the count of searches goes on, so that no seed is used twice."""
        searches = self.searches
        self.restore(state)
        self.searches = searches

    def state(self) -> SavedAccelerator:
        """Everything that changes, as plain values."""
        design = json.loads(json.dumps(self.design.to_dict()))  # lists for tuples
        return {
            "design": design,
            "chunk_of": list(self.chunk_of),
            "searches": self.searches,
            "next_step": self.next_step,
            "made_for": None if self.made_for is None else list(self.made_for),
        }

    def restore(self, state: SavedAccelerator) -> None:
        """Go back to a :meth:`state`, the count of searches included."""
        self.design, self.chunk_of = AccelDesign.from_dict(state["design"]), tuple(state["chunk_of"])
        self.searches, self.next_step = state["searches"], state["next_step"]
        self.made_for = None if state["made_for"] is None else tuple(state["made_for"])

    def _chunks_as_placed(self, ops: Sequence[OpSpec]) -> list[int] | None:
        """Chunk of each block of the network that the design was made for; None for any other network."""
        if self.made_for is None:
            return None
        made = self.space.architecture(self.made_for)
        return _present(made, self.chunk_of) if made.ops() == list(ops) else None

    def _check_room(self, design: AccelDesign) -> None:
        """Raise unless every chunk holds every candidate."""
        flat = [block for blocks in self._blocks for block in blocks]
        for chunk in range(len(design.chunks)):
            try:
                block_costs(flat, design, chunk_of=[chunk] * len(flat))
            except InfeasibleCandidateError as error:
                raise DesignError(
                    f"chunk {chunk} of design {design.name!r} does not hold every candidate of space {self.space.name!r}: {error}"
                ) from error

    def _usable(self, design: AccelDesign) -> bool:
        try:
            self._check_room(design)
        except DesignError:
            return False
        return not limits_exceeded(design)

    def _costed(self, place: Place) -> list[list[BlockCost | None]]:
        flat = [block for blocks in self._blocks for block in blocks]
        chunks = [chunk for blocks, chunk in zip(self._blocks, place.chunk_of) for _ in blocks]
        known = iter(block_costs(flat, place.design, chunk_of=chunks))
        return [[None if spec is None else next(known) for spec in node.specs] for node in self.space.nodes]

    def _searched(self, ops: Sequence[OpSpec], evaluations: int, number: int | None = None) -> AccelDesign | None:
        """A design with room for every candidate, or None."""
        if number is None:
            number, self.searches = self.searches, self.searches + 1
        layers = layers_of(ops)
        try:
            design = search_design(
                layers,
                self.base,
                self.seed_of(number),
                chunks=min(self.options.chunks, len(layers)),
                objective=self.objective,
                evaluations=evaluations,
            ).design
        except InfeasibleCandidateError:
            return None
        busy = [layer for blocks in self._blocks for layer in layers_of(blocks) if layer.macs]
        least = {
            "weight_buffer_bytes": max(layer.R * layer.S for layer in busy) * self.base.weight_bits // 8,
            "output_buffer_bytes": self.base.partial_bits // 8,
            "input_buffer_bytes": max(layer.window_rows * layer.window_cols for layer in busy) * self.base.activation_bits // 8,
        }
        chunks = tuple(replace(c, **{name: max(size, getattr(c, name)) for name, size in least.items()}) for c in design.chunks)
        roomy = replace(design, chunks=chunks)
        return None if limits_exceeded(roomy) else roomy

    def _placed(self, architecture: Architecture, design: AccelDesign) -> Place:
        """The best cuts of a network on a design; an absent block lies where the one before it does."""
        costs = block_costs(architecture.ops(), design, self.objective)
        at = {placed.node: cost.chunk for placed, cost in zip(architecture.placed(), costs)}
        return Place(design, tuple(itertools.accumulate(range(len(self.chunk_of)), lambda a, n: at.get(n, a), initial=0))[1:])

    def _result(self, architecture: Architecture, place: Place) -> NetworkResult:
        return network_on(place.design, architecture.ops(), _present(architecture, place.chunk_of))

    def _place(self, architecture: Architecture, places: Sequence[Place]) -> None:
        """Take the best place for a network: the first one, or a better one that breaks no bound which that one keeps."""
        results = [self._result(architecture, place) for place in places]

        def allowed(index: int) -> bool:
            pairs = [(getattr(results[index], m), max(bound, getattr(results[0], m))) for m, bound in self.bounds.items()]
            return all(value <= most for value, most in pairs)

        goal = "interval_s" if self.objective == "interval" else "latency_s"
        best = min((i for i in range(len(places)) if allowed(i)), key=lambda i: getattr(results[i], goal))
        self.design, self.chunk_of = places[best].design, places[best].chunk_of
        self.made_for = architecture.choices


def _present(architecture: Architecture, chunk_of: Sequence[int]) -> list[int]:
    """Chunk of each block of a network, from those of all nodes."""
    return [chunk_of[placed.node] for placed in architecture.placed()]


def _cost_of(cost: BlockCost, metric: str, device: str) -> float:
    value = cost.latency_s if metric == "latency_s" else cost.energy_j
    if value is None:
        raise unknown_energy(device)
    return value


def unknown_energy(device: str) -> RequestError:
    """The error for an energy on a platform without energy constants."""
    return RequestError(
        f"the energy on {device} is not known: no constants with a source for this "
        "platform. Search without an energy target, or on a platform that has them, e.g. edge-npu"
    )
