"""Classes are composed, not extended: none of ours inherits from a concrete class of ours.

Allowed bases of our own are protocols, exceptions, and classes that only name what their children must do. Foreign bases
(``torch.nn.Module``, ``Enum``, ``NamedTuple``) are the business of their library.
"""

import ast

import pytest
from test_layers import FILES, module_name, nodes, tree_of


class Sources:
    """Classes and imports of a set of modules."""

    def __init__(self, trees: dict[str, ast.Module]) -> None:
        self.classes = {
            f"{module}.{node.name}": (module, node)
            for module, tree in trees.items()
            for node in nodes(tree)
            if isinstance(node, ast.ClassDef)
        }
        self.imported = {module: dict(self._names(tree)) for module, tree in trees.items()}

    @staticmethod
    def _names(tree: ast.Module):
        for node in nodes(tree):
            if isinstance(node, ast.ImportFrom):
                yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((alias.asname or alias.name, alias.name) for alias in node.names)

    def full_name(self, module: str, base: ast.expr) -> str:
        """The class that a base names, by its full name: through imports, and through rooms that re-export it."""
        text = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
        name = text if f"{module}.{text}" not in self.classes else f"{module}.{text}"
        head, _, rest = name.partition(".")
        name = f"{self.imported[module].get(head, head)}{'.' if rest else ''}{rest}"
        owner, _, own = name.rpartition(".")
        while name not in self.classes and own in self.imported.get(owner, {}):
            name = self.imported[owner][own]
            owner, _, own = name.rpartition(".")
        return name

    def bases(self, name: str) -> list[str]:
        module, node = self.classes[name]
        return [self.full_name(module, base) for base in node.bases]

    def is_exception(self, name: str) -> bool:
        if name not in self.classes:
            return name.endswith(("Exception", "Error", "Warning"))
        return any(self.is_exception(base) for base in self.bases(name))

    def is_abstract(self, name: str) -> bool:
        """A protocol, or a class whose methods are all abstract and that stores nothing."""
        if any(base in ("typing.Protocol", "Protocol") for base in self.bases(name)):
            return True
        body = [node for node in self.classes[name][1].body if not (isinstance(node, ast.Expr) and docstring(node))]
        methods = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        marked = [m for m in methods if any(ast.unparse(d).endswith("abstractmethod") for d in m.decorator_list)]
        return bool(methods) and len(marked) == len(methods) == len(body)

    def faults(self) -> dict[str, str]:
        """Class -> its concrete base of our own."""
        return {
            name: base
            for name in self.classes
            for base in self.bases(name)
            if base in self.classes and not self.is_exception(base) and not self.is_abstract(base)
        }


def docstring(node: ast.Expr) -> bool:
    return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def test_no_class_inherits_from_a_concrete_class_of_ours():
    faults = Sources({module_name(path): tree_of(path) for path in FILES}).faults()
    said = [f"{name} inherits from {base}" for name, base in faults.items()]
    assert not said, "hold the other object in a field and call it, or share a function: " + "; ".join(said)


@pytest.mark.parametrize(
    "source,wrong",
    [
        ("class A:\n    def f(self): return 1\nclass B(A): pass", {"x.m.B": "x.m.A"}),
        ("class A(list):\n    pass\nclass B(A): pass", {"x.m.B": "x.m.A"}),
        ("from x.other import Base as Root\nclass B(Root[int]): pass", {"x.m.B": "x.other.Base"}),
        ("from x.room import Base\nclass B(Base): pass", {"x.m.B": "x.other.Base"}),
        ("import x.other as o\nclass B(o.Base): pass", {"x.m.B": "x.other.Base"}),
        ("import x.other\nclass B(x.other.Base): pass", {"x.m.B": "x.other.Base"}),
        ("class A:\n    @abstractmethod\n    def f(self): ...\n    def g(self): return 1\nclass B(A): pass", {"x.m.B": "x.m.A"}),
        ("class A(Protocol):\n    def f(self): ...\nclass B(A): pass", {}),
        ("class A(ABC):\n    '''Text.'''\n    @abc.abstractmethod\n    def f(self): ...\nclass B(A): pass", {}),
        ("class Wrong(ValueError): pass\nclass Worse(Wrong): pass", {}),
        ("from torch import nn\nclass A(nn.Module): pass", {}),
    ],
)
def test_planted_bases(source, wrong):
    others = {"x.other": "class Base:\n    size = 1", "x.room": "from x.other import Base"}
    assert Sources({name: ast.parse(text) for name, text in {**others, "x.m": source}.items()}).faults() == wrong
