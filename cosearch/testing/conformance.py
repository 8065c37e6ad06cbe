"""What every registered operation, space and environment must hold; for strategies see ``strategy_conformance``.

A package that registers its own can call these in its tests. Each check raises ``AssertionError`` with what was expected
and what was got. Networks are compared with the ``OpSpec`` by counting in forward hooks, never by the spec's own formulas.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from cosearch.rl.envs import EnvFamily, EnvOptions, VectorEnv, make_env
from cosearch.space.derivation.derive import derive
from cosearch.space.operations import CandidateOp, build_block
from cosearch.space.parts import MASK, Part, pack, unpack
from cosearch.space.space import Architecture, SearchSpace, SpaceEntry, architecture_from_dict
from cosearch.space.supernet import Path, SuperNet
from latency_tables.kinds.vectors import VECTOR_KINDS
from latency_tables.opspec import OpSpec

OPERATION_SHAPES = (  # in_channels, height, width, out_channels, stride
    (4, 8, 8, 4, 1),
    (4, 8, 8, 6, 1),
    (4, 8, 8, 6, 2),
    (3, 7, 5, 6, 2),
    (4, 9, 11, 4, 1),
    (5, 1, 1, 5, 1),
    (2, 2, 3, 7, 2),
)
VECTOR_SHAPES = ((4, 1, 1, 4, 1), (5, 1, 1, 3, 1), (1, 1, 1, 1, 1), (1, 1, 1, 7, 1))


def require(holds: bool, text: str) -> None:
    """Raise ``AssertionError`` with ``text`` unless ``holds``; unlike ``assert`` it stays under ``python -O``."""
    if not holds:
        raise AssertionError(text)


def seeded(seed: int) -> torch.Generator:
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)


def count_macs(block: nn.Module, *examples: Tensor) -> int:
    """Multiply-accumulates of one call, counted by hooks on every convolution, linear layer and cell from its real outputs.

    Args:
        block: any module.
        *examples: its inputs, ``[batch, ...]``.
    """
    total = 0

    def hook(module: nn.Conv2d | nn.Linear, _: object, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    def cell_hook(module: nn.GRU | nn.LSTM, _: object, found: tuple[Tensor, object]) -> None:
        nonlocal total
        total += found[0].shape[:2].numel() * sum(w.numel() for w in module.parameters() if w.dim() == 2)

    handles = [m.register_forward_hook(hook) for m in block.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles += [m.register_forward_hook(cell_hook) for m in block.modules() if isinstance(m, nn.GRU | nn.LSTM)]
    try:
        with torch.no_grad():
            block(*examples)
    finally:
        for handle in handles:
            handle.remove()
    return total


def example_input(spec: OpSpec, batch: int, seed: int = 0) -> Tensor:
    """A random input of a block: uint8 images for a stem, float vectors for a block that reads them, else float features."""
    if spec.kind == "stem":
        shape = (batch, spec.in_height, spec.in_width, spec.in_channels)
        return torch.randint(0, 256, shape, generator=seeded(seed)).to(torch.uint8)
    if spec.kind in VECTOR_KINDS:
        return torch.randn(batch, spec.in_channels, generator=seeded(seed))
    return torch.randn(batch, spec.in_channels, spec.in_height, spec.in_width, generator=seeded(seed))


def example_inputs(spec: OpSpec, batch: int) -> list[Tensor]:
    """What a block reads: one :func:`example_input`, several for a sum or a merge; and the memory of one that remembers."""
    if spec.memory:
        return [example_input(spec, batch), torch.randn(batch, spec.memory, generator=seeded(1))]
    share = replace(spec, kind="conv", groups=1, in_channels=spec.in_channels // spec.inputs) if spec.kind == "merge" else spec
    return [example_input(share, batch, seed) for seed in range(spec.inputs)]


def check_block(spec: OpSpec) -> None:
    """The torch module of a block has the spec's output shape, parameters and multiply-accumulates, and the seed's weights.

    Raises:
        AssertionError: it has not.
    """
    before = torch.get_rng_state()
    block = build_block(spec, seeded(1))
    require(torch.equal(before, torch.get_rng_state()), f"{spec.key}: building it moved torch's global generator")
    with torch.no_grad():
        out = block(*example_inputs(spec, 2))
    if spec.memory:
        out, after = out
        require(tuple(after.shape) == (2, spec.memory), f"{spec.key}: keeps {tuple(after.shape)}, the spec says {spec.memory}")
    is_flat = spec.kind in ("head", *VECTOR_KINDS)
    wanted = (2, spec.out_channels) if is_flat else (2, spec.out_channels, spec.out_height, spec.out_width)
    require(tuple(out.shape) == wanted, f"{spec.key}: output {tuple(out.shape)}, the spec says {wanted}")
    params = sum(p.numel() for p in block.parameters())
    require(params == spec.params, f"{spec.key}: {params} parameters, the spec says {spec.params}")
    macs = count_macs(block, *example_inputs(spec, 1))
    require(macs == spec.macs, f"{spec.key}: {macs} multiply-accumulates, the spec says {spec.macs}")
    again, other = build_block(spec, seeded(1)).state_dict(), build_block(spec, seeded(2)).state_dict()
    mine = block.state_dict()
    require(all(torch.equal(mine[k], again[k]) for k in mine), f"{spec.key}: the seed does not fix its weights")
    require(not mine or any(not torch.equal(mine[k], other[k]) for k in mine), f"{spec.key}: another seed gives the same weights")


def check_operation(entry: CandidateOp) -> None:
    """A candidate operation gives blocks of the right shape for odd and even sizes, or the identity where shapes allow it.

    Raises:
        AssertionError: it does not.
    """
    for c, h, w, asked, stride in VECTOR_SHAPES if entry.takes == "vectors" else OPERATION_SHAPES:
        out = c if entry.keeps_channels else asked
        spec = entry.make_spec(c, h, w, out, stride)
        where = f"{entry.name} on {c}x{h}x{w} -> {out}, stride {stride}"
        if spec is None:
            require(entry.zero or (c == out and stride == 1), f"{where}: an identity cannot change the shape")
            continue
        wanted = (out, (h - 1) // stride + 1, (w - 1) // stride + 1)
        made = (spec.out_channels, spec.out_height, spec.out_width)
        require(made == wanted, f"{where}: makes {made}, its neighbours expect {wanted}")
        require((spec.in_channels, spec.in_height, spec.in_width) == (c, h, w), f"{where}: takes another input: {spec.key}")
        check_block(spec)


def check_space(
    entry: SpaceEntry,
    config: dict[str, object],
    frame_shape: tuple[int, ...],
    num_actions: int,
    samples: int = 5,
    policy: str = "categorical",
    parts: tuple[Part, ...] = (),
) -> SearchSpace:
    """A kind of space builds again from its own record, and its networks are its architectures.

    Args:
        entry: the registry record.
        config: values for it, as plain JSON.
        frame_shape: ``(height, width, channels)``, or ``(features,)`` for a space that takes vectors.
        num_actions: discrete actions, or length of an action vector.
        samples: random architectures that are built.
        policy: ``categorical``, ``multi_categorical`` or ``gaussian``.
        parts: of an observation, for a space that takes parts.

    Returns:
        The space.

    Raises:
        AssertionError: something does not hold.
    """
    space = entry.build(config, frame_shape, num_actions, policy, parts)
    require(space.name == entry.name, f"space {entry.name} makes spaces named {space.name!r}")
    rebuilt = entry.build(json.loads(json.dumps(space.config)), frame_shape, num_actions, policy, parts)
    require(rebuilt == space, f"{entry.name}: its own config makes another space")
    require(len({point.name for point in space.points}) == len(space.points), f"{entry.name}: two points share a name")
    supernet, frames, known = SuperNet(space, seeded(0)), example_frames(space, 2), set(space.all_ops())
    supernet.ends.see(example_frames(space, 9, seed=1) * (1 if parts else 3))  # trained ends, which the derived network inherits
    if policy == "gaussian":
        with torch.no_grad():
            supernet.ends.log_std.normal_(generator=seeded(2))
    for n in range(samples):
        architecture = space.sample(seeded(n))
        require(set(architecture.ops()) <= known, f"{entry.name}: {architecture.choices} uses blocks that all_ops() lacks")
        again = architecture_from_dict(json.loads(json.dumps(architecture.to_dict())))
        require(again == architecture, f"{entry.name}: JSON changes {architecture.choices} into {again.choices}")
        check_derived(supernet, architecture, frames)
    return space


def example_frames(space: SearchSpace, count: int, seed: int = 0) -> Tensor:
    """Random observations of a space: ``[count, *frame_shape]``; an action mask forbids some, never all.

    Args:
        space: the search space.
        count: how many.
        seed: of the values.
    """
    if not space.parts:
        return example_input(space.stem, count, seed=seed)
    stream, values = np.random.default_rng(seed), dict[str, np.ndarray]()
    for part in space.parts:
        shape = (count, *part.shape)
        if part.kind == "vector":
            values[part.name] = stream.normal(2.0, 3.0, shape).astype(np.float32)
        else:
            values[part.name] = stream.integers(0, 256 if part.kind == "image" else 2, shape, np.uint8)
        if part.kind == "mask":
            values[part.name][:, 0] = 1
    return torch.from_numpy(pack(space.parts, values))


def check_derived(supernet: SuperNet, architecture: Architecture, frames: Tensor) -> None:
    """The derived network's output is the supernet's along the same path; with gradients for other candidates too.

    Exactly, or up to rounding where blocks of several widths share weights: there the sums are made in another order.

    Args:
        supernet: shared weights.
        architecture: of its space.
        frames: ``[batch, height, width, channels]``, uint8, or ``[batch, features]``, float32.

    Raises:
        AssertionError: it is not, or the network's blocks are not the architecture's.
    """
    network = derive(architecture, seeded(9), supernet)
    require(list(network.ops) == architecture.ops(), "the network's list of operations is not the architecture's")
    envs, begins = len(frames), torch.zeros(1, len(frames), dtype=torch.bool)
    remembered = torch.zeros(envs, supernet.memory_size)

    def run(path: Path) -> tuple[Tensor, Tensor]:
        return supernet.unroll(frames, remembered, begins, path)[:2] if supernet.memory_size else supernet(frames, path)

    with torch.no_grad():
        mine = network.unroll(frames, torch.zeros(envs, network.memory_size))[:2] if network.memory_size else network(frames)
        theirs = run(Path(tuple((c,) for c in architecture.choices)))
    sizes = [len(point.candidates) for point in architecture.space.points]
    active = tuple((c, (c + 1) % size) if size > 1 else (c,) for c, size in zip(architecture.choices, sizes))
    weights = tuple(torch.rand(len(indices), generator=seeded(5), requires_grad=True) for indices in active)
    with torch.enable_grad():
        gated = [output.detach() for output in run(Path(active, weights))]
    for kind, same in (("shared", theirs), ("gated", gated)):
        for a, b in zip(mine, same, strict=True):
            near = torch.allclose(a, b, rtol=1e-4, atol=1e-5) if architecture.space.shares_widths else torch.equal(a, b)
            require(near, f"{architecture.choices}: derived and {kind} differ by {float((a - b).abs().max())}")
    outputs = architecture.space.num_actions * (2 if architecture.space.policy == "gaussian" else 1)
    require(
        mine[0].shape == (len(frames), outputs) and mine[1].shape == (len(frames),),
        f"{architecture.choices}: outputs {tuple(mine[0].shape)} and {tuple(mine[1].shape)}",
    )


def random_actions(env: VectorEnv, stream: np.random.Generator, steps: int) -> np.ndarray:
    """Actions for ``steps`` steps: ``[time, envs]`` integers, or ``[time, envs, size]`` vectors, some outside their box.

    Where an action mask forbids some :func:`play` takes others.

    Args:
        env: the vector environment.
        stream: where they are drawn from.
        steps: how many.
    """
    sizes: tuple[int, ...] = getattr(env, "action_sizes", ())
    if sizes:
        return np.stack([stream.integers(0, size, (steps, env.num_envs)) for size in sizes], -1)
    if env.action_box is None:
        return stream.integers(0, env.num_actions, (steps, env.num_envs))
    return stream.normal(0.0, 2.0, (steps, env.num_envs, env.num_actions)).astype(np.float32)


def play(env: VectorEnv, actions: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """The steps that ``actions`` ``[time, envs, ...]`` give: frames, reward, terminated, truncated of each."""
    steps: list[tuple[np.ndarray, ...]] = []
    for row in actions:
        env.send(_allowed(env, row))
        step = env.receive()
        steps.append((step.frames.copy(), step.reward.copy(), step.terminated.copy(), step.truncated.copy()))
    return steps


def _allowed(env: VectorEnv, row: np.ndarray) -> np.ndarray:
    """The actions, each forbidden one exchanged for the next that is allowed."""
    parts = getattr(env, "parts", ())
    mask = unpack(parts, env.observe()).get(MASK) if parts else None
    if mask is None:
        return row
    sizes: tuple[int, ...] = getattr(env, "action_sizes", ()) or (env.num_actions,)
    columns, begin = [], 0
    for size, chosen in zip(sizes, row.reshape(env.num_envs, len(sizes)).T, strict=True):
        order = (chosen[:, None] + np.arange(size)) % size
        allowed = np.take_along_axis(mask[:, begin : begin + size] > 0, order, 1)
        columns.append(order[np.arange(env.num_envs), allowed.argmax(1)])
        begin += size
    return np.stack(columns, 1).reshape(row.shape)


def same_steps(a: Sequence[tuple[np.ndarray, ...]], b: Sequence[tuple[np.ndarray, ...]]) -> bool:
    """Whether two results of :func:`play` are equal bit for bit."""
    return len(a) == len(b) and all(np.array_equal(x, y) for one, two in zip(a, b) for x, y in zip(one, two))


def check_environment(family: EnvFamily, game: str, *, steps: int = 60, num_envs: int = 3) -> None:
    """A seed fixes a game, and a saved state goes on exactly as the original did, in an environment of another seed too.

    Args:
        family: the registry record.
        game: one of its games.
        steps: steps before and after the save.
        num_envs: environments.

    Raises:
        AssertionError: something does not hold.
    """
    name = f"{family.name}:{game}"
    env, twin, other = (make_env(name, EnvOptions(num_envs, seed)) for seed in (5, 5, 6))
    try:
        stream = np.random.default_rng(0)
        before, after = (random_actions(env, stream, steps) for _ in range(2))
        first = env.observe()
        require(first.shape == (num_envs, *env.frame_shape), f"{name}: frames {first.shape}")
        require(same_steps(play(env, before), play(twin, before)), f"{name}: the same seed gives another game")
        if not env.exact_resume:
            return
        state, frames = copy.deepcopy(env.state()), env.observe().copy()
        wanted = play(env, after)
        for target in (env, other):
            target.restore(state)
            require(np.array_equal(target.observe(), frames), f"{name}: other frames after restore")
            require(same_steps(play(target, after), wanted), f"{name}: a restored state goes on in another way")
    finally:
        for each in (env, twin, other):
            each.close()
