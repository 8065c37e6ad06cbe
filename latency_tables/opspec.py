"""``OpSpec``: the one vocabulary of operations, shared by network, tables and accelerator models.

An operation is a *fused block*, cut where a runtime's fusion ends (convolution + bias + activation, a whole
inverted residual, ...), because blocks add up to a network and single primitives do not. A network is the list of its
blocks. Identity (the ``skip`` of a cell that keeps its shape) is absent from that list: it costs nothing anywhere.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields

from latency_tables.errors import ShapeError
from latency_tables.kinds.cells import CELL_KINDS, JOINS, cell_faults, cell_layers
from latency_tables.kinds.joins import JOIN_KINDS, join_faults, join_layers
from latency_tables.kinds.layer import Layer as Layer
from latency_tables.kinds.memories import MEMORY_KINDS, kept_numbers, memory_faults, memory_layers
from latency_tables.kinds.reversible import REVERSIBLE_KINDS, reversible_faults, reversible_layers
from latency_tables.kinds.vectors import VECTOR_KINDS, vector_faults, vector_layers

KINDS = {
    "stem": "uint8 NHWC frames scaled to float, averaged over squares of pixels, convolution, activation",
    "conv": "convolution, bias, activation",
    "mbconv": "inverted residual: 1x1 expand, kxk depthwise, 1x1 project, sum where the shape is kept, activation",
    "maxpool": "max pooling",
    "residual": "IMPALA residual block: x + conv(relu(conv(relu(x))))",
    "head": "optional ReLU, flatten or mean over the map, linear, ReLU (both only with a hidden layer), linear to outputs",
    **CELL_KINDS,
    **VECTOR_KINDS,
    **REVERSIBLE_KINDS,
    **JOIN_KINDS,
}
DTYPE_BYTES = {"float32": 4, "float16": 2, "int8": 1}
MAX_SIZE = 10**9
KEY = re.compile("([a-z]+)-NxNxN-oN-kNsNpN-gNeNhN-([a-z]+)-([a-z0-9]+)-bN".replace("N", r"(\d{1,10})"))
ACTIVATIONS = ("none", "relu", "tanh")


@dataclass(frozen=True)
class OpSpec:
    """One fused block with its shapes. Frozen and hashable; :attr:`key` names its row in a table.

    Attributes:
        kind: one of :data:`KINDS`.
        in_channels, in_height, in_width: input shape (of the frames for ``stem``).
        out_channels: output channels; for ``head`` the number of outputs (actions + 1).
        kernel, stride, padding: window, square and symmetric; kernel of a ``head``: 1, or the longer side of its map, whose
            mean it then reads.
        groups: convolution groups of ``conv``; number of inputs of ``add``, ``merge`` and ``join``, of parts of ``revmlp`` and
            ``revconv``; of a ``stem`` the side of the squares of pixels that are averaged into one first, the rest at the edge
            dropped; of a ``stack`` the steps whose features are read, the present one included.
        expansion: widening factor of ``mbconv``.
        hidden: width of the hidden linear layer of ``mlp``, ``revmlp`` and ``head``, 0 in a head: none; of the state of a
            ``gru`` or ``lstm``.
        activation: ``relu``, ``none``, or ``tanh`` (``act`` and kinds on vectors); for ``head`` the one *before* flattening.
        dtype: ``float32``, ``float16`` or ``int8``.
        batch: frames per inference. No size is above :data:`MAX_SIZE`.
    """

    kind: str
    in_channels: int
    in_height: int
    in_width: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    expansion: int = 1
    hidden: int = 0
    activation: str = "relu"
    dtype: str = "float32"
    batch: int = 1

    def __post_init__(self) -> None:
        faults = []
        if self.kind not in KINDS:
            faults.append(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.dtype not in DTYPE_BYTES:
            faults.append(f"dtype must be one of {', '.join(DTYPE_BYTES)}, got {self.dtype!r}")
        if self.activation not in ACTIVATIONS:
            faults.append(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        for name in ("in_channels", "in_height", "in_width", "out_channels", "kernel", "stride", "groups", "expansion", "batch"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_SIZE:
                faults.append(f"{name} must be an integer of at least 1 and at most {MAX_SIZE}, got {value!r}")
        for name in ("padding", "hidden"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= MAX_SIZE:
                faults.append(f"{name} must be an integer of at least 0 and at most {MAX_SIZE}, got {value!r}")
        if not faults and self.kind in ("maxpool", "residual") and self.in_channels != self.out_channels:
            faults.append(f"{self.kind} keeps the channels, got {self.in_channels} -> {self.out_channels}")
        if not faults and self.kind == "conv" and (self.in_channels % self.groups or self.out_channels % self.groups):
            faults.append(
                f"groups must divide the channels, got {self.groups} of {self.in_channels} -> {self.out_channels} channels"
            )
        if not faults and self.kind != "head" and min(self.out_height, self.out_width) < 1:
            faults.append(
                f"kernel {self.kernel} does not fit the input {self.in_height}x{self.in_width} padded by {self.padding}"
            )
        if not faults and self.kind == "head" and self.kernel not in (1, max(self.in_height, self.in_width)):
            faults.append(f"the kernel of a head is 1 or the longer side of its map, which it pools, got {self.kernel}")
        if not faults:
            faults = cell_faults(self) + vector_faults(self) + reversible_faults(self) + memory_faults(self) + join_faults(self)
        if faults:
            raise ShapeError(f"not a valid operation: {'; '.join(faults)}")

    @property
    def key(self) -> str:
        """Stable text name, unique for each block; :meth:`from_key` reads it back."""
        return (
            f"{self.kind}-{self.in_channels}x{self.in_height}x{self.in_width}-o{self.out_channels}"
            f"-k{self.kernel}s{self.stride}p{self.padding}-g{self.groups}e{self.expansion}h{self.hidden}"
            f"-{self.activation}-{self.dtype}-b{self.batch}"
        )

    @classmethod
    def from_key(cls, key: str) -> OpSpec:
        """The operation that :attr:`key` names.

        Raises:
            ShapeError: the text is not a key.
        """
        parts = KEY.fullmatch(key)
        if not parts:
            raise ShapeError(f"not the key of an operation: {key!r:.200}")
        kind, *numbers, activation, dtype, batch = parts.groups()
        c, h, w, o, k, s, p, g, e, n = map(int, numbers)
        return cls(kind, c, h, w, o, k, s, p, g, e, n, activation, dtype, int(batch))

    @property
    def window(self) -> int:
        """Side of the input that one output reads: the kernel, spread where it is dilated."""
        return 2 * self.kernel - 1 if self.kind == "dilconv" else self.kernel

    @property
    def inputs(self) -> int:
        """Number of blocks whose outputs it reads."""
        return self.groups if self.kind in (*JOINS, *JOIN_KINDS) else 1

    @property
    def out_height(self) -> int:
        """Output height; 1 for a head."""
        return self._out(self.in_height)

    @property
    def out_width(self) -> int:
        """Output width; 1 for a head."""
        return self._out(self.in_width)

    def _out(self, side: int) -> int:
        if self.kind == "head":
            return 1
        return (side // (self.groups if self.kind == "stem" else 1) + 2 * self.padding - self.window) // self.stride + 1

    @property
    def sums_input(self) -> bool:
        """Whether an ``mbconv`` or ``mlp`` adds its input to its output (same shape)."""
        return self.kind in ("mbconv", "mlp") and self.stride == 1 and self.in_channels == self.out_channels

    @property
    def adds(self) -> bool:
        """Whether each number of the output is the sum of two maps: what the block read, or a part of it, and what it made."""
        return self.sums_input or self.kind in ("residual", *MEMORY_KINDS, *REVERSIBLE_KINDS)

    @property
    def pools(self) -> bool:
        """Whether a ``head`` reads the mean over its map."""
        return self.kind == "head" and self.kernel > 1

    @property
    def features(self) -> int:
        """Inputs of a head's first linear layer."""
        return self.in_channels * (1 if self.pools else self.in_height * self.in_width)

    @property
    def reads_vector(self) -> bool:
        """Whether the input is a vector: 1 x 1."""
        return self.in_height == self.in_width == 1

    @property
    def memory(self) -> int:
        """How many numbers it keeps from one observation to the next; 0 for most kinds."""
        return kept_numbers(self)

    def layers(self) -> tuple[Layer, ...]:
        """The primitives of this block in order of execution, one kernel each, activations fused."""
        c, h, w, o = self.in_channels, self.in_height, self.in_width, self.out_channels
        k, s, p, y, x = self.kernel, self.stride, self.padding, self.out_height, self.out_width
        if self.kind == "stem":
            g = self.groups
            pool = (Layer("pool", "pool", c, c, h, w, g, g, g, 0, h // g, w // g),) if g > 1 else ()
            scale = Layer("scale", "cast", c, c, h, w, 1, 1, 1, 0, h, w)
            return (scale, *pool, Layer("conv", "conv", c, o, h // g, w // g, k, k, s, p, y, x))
        if self.kind == "conv":
            if self.groups == c == o:
                return (Layer("conv", "dw", c, o, h, w, k, k, s, p, y, x),)
            return (Layer("conv", "conv", c // self.groups, o, h, w, k, k, s, p, y, x),)
        if self.kind == "maxpool":
            return (Layer("pool", "pool", c, o, h, w, k, k, s, p, y, x),)
        if self.kind == "residual":
            conv = ("conv", c, c, h, w, k, k, 1, p, h, w)
            return (Layer("relu", "relu", c, c, h, w, 1, 1, 1, 0, h, w), Layer("conv1", *conv), Layer("conv2", *conv))
        if self.kind == "mbconv":
            m = c * self.expansion
            expand = (Layer("expand", "conv", c, m, h, w, 1, 1, 1, 0, h, w),) if self.expansion > 1 else ()
            return (
                *expand,
                Layer("depthwise", "dw", m, m, h, w, k, k, s, p, y, x),
                Layer("project", "conv", m, o, y, x, 1, 1, 1, 0, y, x),
            )
        if self.kind in CELL_KINDS:
            return cell_layers(self)
        if self.kind in JOIN_KINDS:
            return join_layers(self)
        if self.kind in REVERSIBLE_KINDS:
            return reversible_layers(self)
        if self.kind in MEMORY_KINDS:
            return memory_layers(self)
        if self.kind in VECTOR_KINDS:
            return vector_layers(self)
        relu = (Layer("relu", "relu", c, c, h, w, 1, 1, 1, 0, h, w),) if self.activation == "relu" else ()
        pool = (Layer("pool", "pool", c, c, h, w, h, w, 1, 0, 1, 1),) if self.pools else ()
        hidden = (Layer("hidden", "fc", self.features, self.hidden, 1, 1, 1, 1, 1, 0, 1, 1),) if self.hidden else ()
        return (*relu, *pool, *hidden, Layer("outputs", "fc", self.hidden or self.features, o, 1, 1, 1, 1, 1, 0, 1, 1))

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of one inference (whole batch)."""
        return self.batch * sum(layer.macs for layer in self.layers())

    @property
    def params(self) -> int:
        """Weights and biases."""
        return sum(layer.params for layer in self.layers())

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written by all kernels: activations of the batch, and weights once."""
        size = DTYPE_BYTES[self.dtype]
        activations = self.batch * sum(layer.elements_in + layer.elements_out for layer in self.layers())
        return size * (activations + self.params)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> OpSpec:
        """The operation that :meth:`to_dict` wrote.

        Raises:
            ShapeError: a field is missing, unknown or out of range.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or not set(values) <= names:
            raise ShapeError(f"not an operation: expected an object with the fields {', '.join(sorted(names))}, got {values!r}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ShapeError(f"not an operation: {error}") from error


@dataclass(frozen=True)
class Device:
    """What a table was made for: the runtime, its dtype and threads are part of the identity, not only the board.

    Attributes:
        name: short name, the folder of its tables.
        description: what it is, in words.
        runtime: ``onnxruntime``, ``torch``, ``tvm`` or ``roofline`` (an estimate).
        dtype: see :class:`OpSpec`.
        threads: CPU threads that the runtime may use.
    """

    name: str
    description: str
    runtime: str
    dtype: str = "float32"
    threads: int = 1

    @property
    def identity(self) -> str:
        """Runtime, dtype and threads as in the name of a table's file: ``onnxruntime-int8-1t``."""
        return f"{self.runtime}-{self.dtype}-{self.threads}t"

    @property
    def table_name(self) -> str:
        """What names its table: the device alone where that is enough, ``x86-server/onnxruntime-int8-1t`` otherwise."""
        measured = self.runtime in ("onnxruntime", "torch", "tvm")  # an estimate or a model of an accelerator has one form
        plain = (self.runtime, self.dtype, self.threads) == ("onnxruntime", "float32", 1)
        return f"{self.name}/{self.identity}" if measured and not plain else self.name
