"""No assertion of any test holds whatever the code does: the kinds that a machine can see.

An expression compared with itself says nothing unless it is computed twice (a call: two runs of one seed); a magnitude, a count
or a square is never below 0. Everything else takes a reader.
"""

import ast
from pathlib import Path

import pytest
from test_layers import called

TESTS = sorted(Path(__file__).resolve().parents[1].rglob("*.py"))
NEVER_NEGATIVE = {"abs", "len", "norm", "square", "count", "numel", "var", "std", "sum_of_squares"}
KEEPS_SIGN = {"float", "int", "min", "max", "mean", "sum", "item", "amin", "amax", "all"}  # of something never negative
SAME = {"equal", "allclose", "isclose", "array_equal", "assert_array_equal", "assert_allclose", "assert_close", "approx"}
EQUALITIES = (ast.Eq, ast.Is, ast.LtE, ast.GtE)


def never_negative(node: ast.expr) -> bool:
    """Whether the expression is a magnitude, a count or a square, however it is reduced or converted."""
    if called(node) in NEVER_NEGATIVE:
        return True
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return isinstance(node.right, ast.Constant) and node.right.value == 2
    if isinstance(node, ast.Call) and called(node) in KEEPS_SIGN:
        inner = [*node.args, *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
        return any(never_negative(part) for part in inner)
    return False


def holds_always(left: ast.expr, operator: ast.cmpop, right: ast.expr) -> bool:
    if isinstance(operator, EQUALITIES) and ast.dump(left) == ast.dump(right):
        return not any(isinstance(node, ast.Call) for node in ast.walk(left))
    bound = ast.unparse(right)
    at_least = isinstance(operator, ast.GtE) and bound in ("0", "0.0")
    return never_negative(left) and (at_least or (isinstance(operator, ast.Gt) and bound in ("-1", "-1.0")))


def faults(source: str) -> list[str]:
    """Line and text of each comparison that cannot fail."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
                turned = isinstance(operator, ast.LtE) and holds_always(right, ast.GtE(), left)
                if holds_always(left, operator, right) or turned:
                    found.append(f"{node.lineno}: {ast.unparse(node)}")
        elif (called(node) in SAME and len(node.args) > 1 and holds_always(node.args[0], ast.Eq(), node.args[1])) or (
            isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant | ast.Tuple) and ast.unparse(node.test) != "False"
        ):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_no_assertion_holds_whatever_the_code_does():
    """What cannot fail is to compare with an expected value."""
    assert len(TESTS) > 250
    found = {path: faults(path.read_text(encoding="utf-8")) for path in TESTS}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "text",
    [
        "assert x == x",
        "assert a.b[0] <= a.b[0]",
        "assert 0 < x == x",
        "assert torch.equal(x, x)",
        "assert float(own.abs().min()) >= 0",
        "assert abs(x) >= 0.0",
        "assert 0 <= len(x) <= 3",
        "assert (x**2).sum() >= 0",
        "assert len(x) > -1",
        "assert True",
        "assert (x == 1, 'text')",
    ],
)
def test_what_cannot_fail_is_seen(text):
    assert len(faults(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "assert draw(1) == draw(1)",
        "assert x != x",
        "assert x == y",
        "assert float(own.abs().min()) > 0",
        "assert np.diff(x).min() >= 0",
        "assert 0 < len(x)",
        "assert False, 'not reached'",
        "assert (a and b)",
    ],
)
def test_what_can_fail_is_left_alone(text):
    assert faults(text) == []
