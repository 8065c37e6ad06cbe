"""A small space with branches for tests: one cell of two nodes, five edges, two copies that share their choices."""

from cosearch.space.cells.graph import Group, Node
from cosearch.space.space import ChoicePoint, SearchSpace
from latency_tables.opspec import OpSpec

NAMES = ("none", "skip", "conv3", "conv5")


def graph_space(copies=2, keep=2):
    """``copies`` cells on 6 x 5 x 3 frames with two actions.

    In each cell node A is edge a(input); node B keeps ``keep`` of the edges b0(input), b1(A), b2(A); the output is A + B.
    """
    c, h, w = 4, 6, 5
    block = {name: OpSpec("conv", c, h, w, c, kernel=k, padding=k // 2) for name, k in (("conv3", 3), ("conv5", 5))}
    specs = (None, None, block["conv3"], block["conv5"])
    points = (ChoicePoint("a", NAMES[1:]), *(ChoicePoint(f"b{i}", NAMES, zero=0) for i in range(3)))
    body, last = [], 0
    for copy in range(copies):
        start = len(body)
        a, edges = start + 1, [start + 2, start + 3, start + 4]
        body += [Node(f"{copy}.a", (last,), specs[1:], (0,)), Node(f"{copy}.b0", (last,), specs, (1,))]
        body += [Node(f"{copy}.b{i}", (a,), specs, (i + 1,)) for i in (1, 2)]
        joined = OpSpec("add", c, h, w, c, groups=keep, activation="none") if keep > 1 else None
        body.append(Node(f"{copy}.sum", tuple(edges), (joined,)))
        body.append(Node(f"{copy}.out", (a, start + 5), (OpSpec("add", c, h, w, c, groups=2, activation="none"),)))
        last = len(body)
    stem = OpSpec("stem", 3, h, w, c, kernel=3, padding=1)
    head = OpSpec("head", c, h, w, 3, hidden=8)
    return SearchSpace("graph", {}, (h, w, 3), 2, stem, points, head, tuple(body), (Group((1, 2, 3), keep),))
