"""Docstrings are read: present, with the names of the signature, real exceptions, units and shapes.

Only the syntax trees are read, so nothing is imported. Each rule is tried on a planted fault below.
"""

import ast
import builtins
import functools
import inspect
import re
from pathlib import Path

import pytest

from latency_tables import errors

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for package in ("latency_tables", "accel_models", "cosearch") for path in (ROOT / package).rglob("*.py"))
UNITS = {"_s": "second", "_j": "joule", "_hz": "hertz", "_bytes": "byte"}
SECTIONS = ("Args", "Returns", "Yields", "Raises", "Attributes", "Example", "Examples")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def documented_methods() -> dict[str, set[str]]:
    """For each class of the project its methods with a docstring, and its bases by their last name."""
    found = {}
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                names = {part.name for part in node.body if isinstance(part, FUNCTIONS) and ast.get_docstring(part)}
                found[node.name] = names | {f"base {name}" for name in base_names(node)}
    return found


def base_names(node: ast.ClassDef) -> list[str]:
    """Last names of the bases, without subscripts."""
    return [re.split(r"\[", ast.unparse(base))[0].split(".")[-1] for base in node.bases]


def inherits_docs(node: ast.ClassDef, method: str, classes: dict[str, set[str]]) -> bool:
    """Whether a base within the project documents that method."""
    waiting, seen = base_names(node), {node.name}
    while waiting:
        name = waiting.pop()
        known = classes.get(name, set())
        if method in known:
            return True
        seen.add(name)
        waiting += [base.removeprefix("base ") for base in known if base.startswith("base ") and base[5:] not in seen]
    return False


def sections(docstring: str) -> dict[str, dict[str, str]]:
    """Each section's entries by name; several names before one colon share the text; names of Raises may have dots."""
    found, current, names = {}, None, []
    for line in inspect.cleandoc(docstring).splitlines():
        header = re.fullmatch(rf"({'|'.join(SECTIONS)}):", line)
        entry = re.match(r"    (\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*)(?: \([^)]*\))?:(?: |$)(.*)", line)
        if header:
            current, names = found.setdefault(header[1], {}), []
        elif line and not line.startswith(" "):
            current = None
        elif current is not None and entry:
            names = entry[1].split(", ")
            current.update(dict.fromkeys(names, entry[2]))
        elif current is not None and names:
            current.update({name: f"{current[name]} {line.strip()}" for name in names})
    return found


def parameters(node: ast.FunctionDef, method: bool) -> dict[str, ast.expr | None]:
    """Name and annotation of each parameter but ``self`` and ``cls``; starred ones keep their stars."""
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    static = any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
    found = {argument.arg: argument.annotation for argument in plain[1 if method and not static else 0 :]}
    if arguments.vararg:
        found[f"*{arguments.vararg.arg}"] = None
    found |= {argument.arg: argument.annotation for argument in arguments.kwonlyargs}
    if arguments.kwarg:
        found[f"**{arguments.kwarg.arg}"] = None
    return found


def fields(node: ast.ClassDef) -> dict[str, ast.expr | None]:
    """Parameters of a class's constructor: those of ``__init__``, or the annotated fields of a record."""
    for part in node.body:
        if isinstance(part, FUNCTIONS) and part.name == "__init__":
            return parameters(part, method=True)
    annotated = [part for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]
    return {part.target.id: part.annotation for part in annotated if not ast.unparse(part.annotation).startswith("ClassVar")}


def is_tensor(annotation: ast.expr | None) -> bool:
    """Whether a parameter is one tensor, or one tensor or ``None``."""
    text = "" if annotation is None else ast.unparse(annotation).strip("'\"")
    return {part.strip() for part in text.split("|")} - {"None"} in ({"Tensor"}, {"torch.Tensor"})


def doc_faults(what: str, docstring: str, names: dict[str, ast.expr | None], classes: dict[str, set[str]]) -> list[str]:
    """Faults of one docstring against the parameters it should speak of."""
    found = sections(docstring)
    arguments = found.get("Args")
    faults = []
    if arguments is not None and list(arguments) != list(names):
        faults.append(f"{what}: Args has {', '.join(arguments) or 'nothing'}; the signature has {', '.join(names) or 'nothing'}")
    faults += [
        f"{what}: Raises names {name}, which is no exception of the project or of Python"
        for name in found.get("Raises", {})
        if not is_exception(name, classes)
    ]
    for name, annotation in names.items():
        text = docstring if arguments is None else arguments.get(name, "")
        unit = next((word for suffix, word in UNITS.items() if name.endswith(suffix)), None)
        if unit and unit not in text.lower():
            faults.append(f"{what}: {name} needs its unit: {unit}")
        if is_tensor(annotation) and not re.search(r"\[[^\]]*\]", text):
            faults.append(f"{what}: {name} is a tensor and needs its shape in brackets")
    return faults


def is_exception(name: str, classes: dict[str, set[str]]) -> bool:
    """Whether a name of a Raises section is in the exception tree, derives from it, or is one of Python's."""
    bases = [base.removeprefix("base ") for base in classes.get(name, ()) if base.startswith("base ")]
    found = [getattr(errors, each, None) or getattr(builtins, each, None) for each in (name, *bases)]
    return any(isinstance(each, type) and issubclass(each, BaseException) for each in found)


def class_faults(node: ast.ClassDef, where: str, classes: dict[str, set[str]]) -> list[str]:
    """Faults of a public class and of its public methods."""
    what = f"{where}:{node.lineno} {node.name}"
    docstring = ast.get_docstring(node)
    faults = []
    if not docstring:
        faults.append(f"{what} has no docstring")
    elif "Args" in sections(docstring):
        faults += doc_faults(what, docstring, fields(node), classes)
    for part in node.body:
        if not isinstance(part, FUNCTIONS) or part.name.startswith("_") or skipped(part):
            continue
        if ast.get_docstring(part) or not inherits_docs(node, part.name, classes):
            faults += function_faults(part, f"{where}:{part.lineno} {node.name}.{part.name}", classes, method=True)
    return faults


def skipped(node: ast.FunctionDef) -> bool:
    """Setters and overloads: the docstring stands elsewhere."""
    return any(re.search(r"\.(setter|deleter)$|overload$", ast.unparse(decorator)) for decorator in node.decorator_list)


def function_faults(node: ast.FunctionDef, what: str, classes: dict[str, set[str]], method: bool = False) -> list[str]:
    """Faults of one public function."""
    docstring = ast.get_docstring(node)
    return doc_faults(what, docstring, parameters(node, method), classes) if docstring else [f"{what} has no docstring"]


def module_faults(tree: ast.Module, where: str, classes: dict[str, set[str]]) -> list[str]:
    """Faults of a module: its own docstring, its public functions and classes."""
    faults = [f"{where} has no docstring"] if tree.body and not ast.get_docstring(tree) else []
    for node in tree.body:
        if isinstance(node, FUNCTIONS) and not node.name.startswith("_") and not skipped(node):
            faults += function_faults(node, f"{where}:{node.lineno} {node.name}", classes)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            faults += class_faults(node, where, classes)
    return faults


def test_public_names_are_documented():
    assert len(FILES) > 400
    found = [module_faults(tree_of(path), path.relative_to(ROOT).as_posix(), documented_methods()) for path in FILES]
    faults = [fault for faults in found for fault in faults]
    assert not faults, "\n".join(faults)


def test_the_drawing_of_the_exception_tree_is_the_tree():
    drawn = re.findall(r"^([│ ]*)[├└]── (\w+) ", errors.__doc__, flags=re.MULTILINE)
    above, found = ["CosearchError"], {}
    for indent, name in drawn:
        depth = len(indent) // 4 + 1
        above[depth:] = [name]
        found[name] = above[depth - 1]
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    assert found == {name: value.__base__.__name__ for name, value in classes.items() if name != "CosearchError"}
    codes = dict(re.findall(r"── (\w+) .*: exit code (\d)", errors.__doc__))
    own = {name for name, value in classes.items() if "exit_code" in vars(value)} - {"CosearchError"} | {"RunFailedError"}
    assert codes == {name: str(classes[name].exit_code) for name in own}


HEAD = '"""Text."""\n'
ARGS = '    """Text.\n\n    Args:\n        {}\n    """\n'


@pytest.mark.parametrize(
    "code, fault",
    [
        ("x = 1", "m has no docstring"),
        (HEAD + "def f(): return 1", "m:2 f has no docstring"),
        (HEAD + "class A:\n    x = 1", "m:2 A has no docstring"),
        (HEAD + "class A:\n    'Text.'\n    def f(self): return 1", "m:4 A.f has no docstring"),
        (HEAD + "class A(nn.Module):\n    'Text.'\n    def forward(self, x): return 1", "m:4 A.forward has no docstring"),
        (HEAD + "def f(a, b):\n" + ARGS.format("a: one."), "m:2 f: Args has a; the signature has a, b"),
        (HEAD + "def f(a, b):\n" + ARGS.format("b: two.\n        a: one."), "Args has b, a; the signature has a, b"),
        (HEAD + "def f(a):\n" + ARGS.format("a: one.\n        b: two."), "Args has a, b; the signature has a"),
        (HEAD + "def f(*a, **b):\n" + ARGS.format("*a: one."), "the signature has *a, **b"),
        (
            HEAD + "class A:\n" + ARGS.format("a: one.") + "    def __init__(self, b): self.b = b",
            "A: Args has a; the signature has b",
        ),
        (HEAD + "@dataclass\nclass A:\n" + ARGS.format("a: one.") + "    b: int", "A: Args has a; the signature has b"),
        (HEAD + "def f():\n    '''Text.\n\n    Raises:\n        TabelError: text.\n    '''", "Raises names TabelError"),
        (HEAD + "def f():\n    '''Text.\n\n    Raises:\n        print: text.\n    '''", "Raises names print"),
        (HEAD + "def f(wait_s):\n    'Waits.'", "wait_s needs its unit: second"),
        (HEAD + "def f(a_s, b_j):\n" + ARGS.format("a_s: joule.\n        b_j: in joules."), "a_s needs its unit: second"),
        (HEAD + "def f(clock_hz):\n" + ARGS.format("clock_hz: fast."), "clock_hz needs its unit: hertz"),
        (HEAD + "def f(buffer_bytes):\n" + ARGS.format("buffer_bytes: large."), "buffer_bytes needs its unit: byte"),
        (HEAD + "def f(x: Tensor):\n" + ARGS.format("x: logits."), "x is a tensor and needs its shape"),
        (HEAD + "def f(x: torch.Tensor | None):\n    'Text.'", "x is a tensor and needs its shape"),
    ],
)
def test_a_planted_fault_is_found(code, fault):
    found = module_faults(ast.parse(code), "m", {})
    assert len(found) == 1 and fault in found[0]


@pytest.mark.parametrize(
    "code",
    [
        "",
        HEAD + "def _f(): return 1\nclass _A:\n    x = 1",
        HEAD + "class A(Base):\n    'Text.'\n    def f(self): return 1\n    def _g(self): return 1",
        HEAD
        + "def f(a, *, b_s):\n"
        + ARGS.format("a: one,\n            of two: lines.\n        b_s: time in\n            seconds."),
        HEAD + "def f(a, b):\n" + ARGS.format("a, b: two at once."),
        HEAD + "def f(x: Tensor, y: Tensor):\n    'Sum of ``x`` and ``y``, both ``[batch, 3]``.'",
        HEAD + "def f():\n    '''Text.\n\n    Raises:\n        Lost: a.\n        TableError: b.\n        OSError: c.\n    '''",
    ],
)
def test_what_is_right_is_let_pass(code):
    assert module_faults(ast.parse(code), "m", {"Base": {"base Root"}, "Root": {"f"}, "Lost": {"base TableError"}}) == []
