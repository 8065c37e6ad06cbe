"""The shape of the code, held on its syntax trees: floors, cycles, sizes, imports, handlers, prints, stubs.

Imports point down only, also inside functions: lower floors know nothing of upper ones. Every check is tried on a
planted fault below, so that none of them can pass by looking at nothing.
"""

import ast
import functools
import graphlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("latency_tables", "accel_models", "cosearch")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ALL_FILES = FILES + sorted(path for folder in ("tests", "examples") for path in (ROOT / folder).rglob("*.py"))
MAX_LINES, MAX_LENGTH = 400, 130
FLOORS = {  # the longest prefix counts; ``cosearch`` itself stands for the modules that lie directly in it
    "latency_tables": 0,
    "accel_models": 1,
    "cosearch": 2,
    "cosearch.config": 2,
    "cosearch.record": 2,
    "cosearch.fleet": 2,
    "cosearch.space": 3,
    "cosearch.rl": 4,
    "cosearch.cost": 4,
    "cosearch.strategies": 5,
    "cosearch.planning": 6,
    "cosearch.training": 6,
    "cosearch.teachers": 6,
    "cosearch.deploy": 6,
    "cosearch.report": 6,
    "cosearch.pipeline": 7,
    "cosearch.compare": 7,
    "cosearch.bench": 7,
    "cosearch.overview": 7,
    "cosearch.cli": 8,
    "cosearch.testing": 8,  # toys and conformance checks: they may look at everything
    "cosearch.benchmarks": 8,
    "cosearch.api": 8,  # the public functions: beside the command line, on the same pipeline
    "cosearch.results": 8,
    "cosearch.__main__": 8,
    "cosearch.__init__": 9,  # the roof: the public names, each imported at its first use; see test_the_roof_...
}
STRANGERS = {  # importer: what it must not know although it lies below or beside it
    "cosearch.rl": ("cosearch.cost",),
    "cosearch.cost": ("cosearch.rl", "cosearch.space.network", "cosearch.space.supernet"),
    "cosearch.strategies": ("cosearch.rl",),
}
ONLY = {
    "accel_models": (
        "accel_models",
        "latency_tables.opspec",
        "latency_tables.errors",
        "latency_tables.text.writing",
        "latency_tables.text.reading",
        "latency_tables.text.spans",
        "latency_tables.text.terminal",
    )
}
BESIDE_THE_BOARD = ("opspec", "schema", "table")  # what a host without torch reads and writes tables with
BOARD = ("latency_tables", "latency_tables.errors", "latency_tables.board")  # all that is copied to a board
WITH_THE_RUNTIME = {"numpy"}  # each measured runtime brings it
ROOF = ROOT / "cosearch" / "__init__.py"
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "stuff"}


def module_name(path: Path) -> str:
    if path == ROOF:
        return "cosearch.__init__"
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All of a tree; walked once for all checks."""
    return tuple(ast.walk(tree))


def called(node: ast.AST) -> str:
    """The last name of the function that a call calls; empty for anything else."""
    function = node.func if isinstance(node, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def below(name: str, prefix: str) -> bool:
    return f"{name}.".startswith(f"{prefix}.")


@functools.cache
def floor(name: str) -> int | None:
    """Floor of a module; None for a foreign one."""
    return max(((len(prefix), level) for prefix, level in FLOORS.items() if below(name, prefix)), default=(0, None))[1]


@functools.cache
def imports(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and name of each module, and of each thing that may be one, that is imported anywhere in the tree."""
    found = []
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            found += [(node.lineno, text.rstrip(".")) for text in texts]
    return found


@functools.cache
def public_names() -> set[str]:
    """``cosearch`` itself and the names that it offers; whoever imports one of them stands on the roof."""
    homes = next(node for node in ast.walk(tree_of(ROOF)) if isinstance(node, ast.Assign) and node.targets[0].id == "_HOMES")
    return {"cosearch", *(f"cosearch.{key}" for key in ast.literal_eval(homes.value))}


def import_faults(module: str, tree: ast.AST) -> list[str]:
    faults = [f"{node.lineno}: relative import" for node in nodes(tree) if isinstance(node, ast.ImportFrom) and node.level]
    here = floor(module)
    for line, name in imports(tree):
        there = floor("cosearch.__init__") if name in public_names() else floor(name)
        if there is None:
            continue
        if there > here:
            faults.append(f"{line}: {module} (floor {here}) imports {name} (floor {there})")
        strangers = [stranger for owner, those in STRANGERS.items() if below(module, owner) for stranger in those]
        if any(below(name, stranger) for stranger in strangers):
            faults.append(f"{line}: {module} must not know {name}")
        allowed = [only for owner, those in ONLY.items() if below(module, owner) for only in those]
        if allowed and not any(below(name, only) for only in allowed):
            faults.append(f"{line}: {module} may import {', '.join(allowed)}; not {name}")
    return faults


def cycle(trees: dict[str, ast.AST]) -> list[str]:
    """One cycle of explicit imports among the modules; empty when there is none."""
    graph = {}
    for module, tree in trees.items():
        hits = (name if name in trees else name.rpartition(".")[0] for _, name in imports(tree))
        graph[module] = {hit for hit in hits if hit in trees}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def handler_faults(tree: ast.AST) -> list[str]:
    """Bare handlers, and broad ones that neither raise nor look at the error they caught."""
    faults = []
    for node in nodes(tree):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is not None and re.search(r"\b(Base)?Exception\b", ast.unparse(node.type))
            inside = [part for statement in node.body for part in ast.walk(statement)]
            used = any(isinstance(part, ast.Name) and part.id == node.name for part in inside)
            if node.type is None:
                faults.append(f"{node.lineno}: bare except")
            elif broad and not used and not any(isinstance(part, ast.Raise) for part in inside):
                faults.append(f"{node.lineno}: {ast.unparse(node.type)} is caught and forgotten")
        elif isinstance(node, ast.Call) and called(node) == "suppress" and re.search(r"\((Base)?Exception\)", ast.unparse(node)):
            faults.append(f"{node.lineno}: every exception is suppressed")
    return faults


def talk_faults(tree: ast.AST) -> list[str]:
    """Calls of print and of debuggers."""
    calls = [(node.lineno, ast.unparse(node.func)) for node in nodes(tree) if isinstance(node, ast.Call)]
    return [f"{line}: {name}()" for line, name in calls if name in ("print", "breakpoint", "pdb.set_trace", "sys.stdout.write")]


def stub_faults(tree: ast.AST) -> list[str]:
    """Functions without a body, outside protocols, abstract methods and overloads."""
    faults, excused = [], set()
    for node in nodes(tree):
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases):
            excused |= set(node.body)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node not in excused:
            if any(re.search(r"abstractmethod|overload", ast.unparse(decorator)) for decorator in node.decorator_list):
                continue
            body = [part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
            raises = len(body) == 1 and isinstance(body[0], ast.Raise) and "NotImplementedError" in ast.unparse(body[0])
            if raises or all(isinstance(part, ast.Pass) for part in body):
                faults.append(f"{node.lineno}: {node.name} does nothing")
    return faults


def text_faults(text: str) -> list[str]:
    lines = text.splitlines()
    faults = [f"{len(lines)} lines, at most {MAX_LINES}"] if len(lines) > MAX_LINES else []
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LENGTH:
            faults.append(f"{number}: {len(line)} characters, at most {MAX_LENGTH}")
        if re.search(r"#.*\b(TO" r"DO|FIX" r"ME|XX" r"X)\b", line):
            faults.append(f"{number}: unfinished work is an issue, not a comment")
    return faults


def needed_at_import(modules: dict[str, ast.Module], start: str) -> set[str]:
    """Packages outside the standard library that importing ``start`` loads, directly or by way of ``modules``."""
    waiting, seen, foreign = [start], set(), set()
    while waiting:
        tree = modules[waiting.pop()]
        for node in tree.body:
            for _, name in imports(node) if isinstance(node, (ast.Import, ast.ImportFrom)) else []:
                module = name if name in modules else name.rpartition(".")[0]
                if module not in modules:
                    foreign.add(name.split(".")[0])
                elif module not in seen:
                    seen.add(module)
                    waiting.append(module)
    return foreign - sys.stdlib_module_names


def speaks(path: Path) -> bool:
    """Whether a module is part of a command line: ``__main__``, ``cli``, ``commands``, and the programs that a bundle brings."""
    return (
        path.stem == "__main__"
        or path.parent.name == "files"
        or any(re.fullmatch(r"(cli|commands?)(_\w+)?", part) for part in path.with_suffix("").parts)
    )


def report(faults: dict[Path, list[str]]) -> None:
    """One test looks at all files: one for each would take longer to begin than to run."""
    assert len(faults) > 100
    lines = [f"{path.relative_to(ROOT)}:{fault}" for path, found in faults.items() for fault in found]
    assert not lines, "\n".join(lines)


def test_imports_are_absolute_and_point_down():
    report({path: import_faults(module_name(path), tree_of(path)) for path in FILES})


def test_no_module_imports_itself_by_way_of_others():
    assert cycle({module_name(path): tree_of(path) for path in FILES}) == []


def test_the_roof_imports_nothing_until_a_name_is_used():
    tree = tree_of(ROOF)
    lazily = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typed = {name for node in lazily for _, name in imports(node)}
    at_once = {name for node in tree.body if node not in lazily for _, name in imports(node)}
    assert {name.split(".")[0] for name in at_once} <= {"__future__", "importlib", "typing"}
    assert {f"cosearch.{name.rpartition('.')[2]}" for name in typed} == public_names() - {"cosearch"}


ON_A_BOARD = [f"board.{path.stem}" for path in sorted((ROOT / "latency_tables" / "board").glob("[a-z]*.py"))]


@pytest.mark.parametrize("name", [*ON_A_BOARD, *BESIDE_THE_BOARD])
def test_what_measures_and_what_reads_tables_needs_only_the_standard_library_and_numpy(name):
    modules = {module_name(path): tree_of(path) for path in FILES}
    assert needed_at_import(modules, f"latency_tables.{name}") <= WITH_THE_RUNTIME


@pytest.mark.parametrize("name", ["errors", *ON_A_BOARD])
def test_the_board_room_imports_nothing_that_is_not_copied_with_it(name):
    path = ROOT / "latency_tables" / f"{name.replace('.', '/')}.py"
    ours = {found for _, found in imports(tree_of(path)) if floor(found) is not None}
    assert all(any(below(found, room) for room in BOARD[1:]) for found in ours), ours


def test_no_error_is_swallowed_and_nothing_is_a_stub():
    report({path: handler_faults(tree_of(path)) + stub_faults(tree_of(path)) for path in FILES})


def test_libraries_do_not_print():
    report({path: talk_faults(tree_of(path)) for path in FILES if not speaks(path.relative_to(ROOT))})


def test_files_and_lines_are_short_and_have_names_that_say_something():
    report({path: text_faults(path.read_text(encoding="utf-8")) for path in ALL_FILES})
    assert not [path for path in ALL_FILES if path.stem in VAGUE_NAMES]


def test_the_walk_sees_the_packages():
    seen = {module_name(path) for path in FILES}
    assert {"latency_tables.errors", "cosearch.record.rundir", "cosearch.space"} <= seen
    assert {floor(module) for module in seen} == set(range(10))
    assert (floor("cosearch.registry"), floor("cosearch.rl.learning.losses")) == (2, 4)
    assert floor("torch.nn") is floor("cosearchx") is None


@pytest.mark.parametrize(
    "module, code",
    [
        ("latency_tables.table", "def f():\n    from cosearch.space import ops"),
        ("latency_tables.table", "import accel_models.layers"),
        ("cosearch.registry", "from cosearch import space"),
        ("cosearch.registry", "if TYPE_CHECKING:\n    import cosearch.cli"),
        ("cosearch.registry", "importlib.import_module('cosearch.pipeline.search.stage')"),
        ("cosearch.registry", "importlib.import_module(f'cosearch.pipeline.{name}')"),
        ("cosearch.pipeline.run", "import cosearch"),
        ("cosearch.cli.commands", "from cosearch import search"),
        ("cosearch.report.page", "from cosearch.results import Run"),
        ("cosearch.rl.learning.losses", "from cosearch.cost.objective import Objective"),
        ("cosearch.cost.objective", "from cosearch.rl.learning import losses"),
        ("cosearch.cost.table_cost", "from cosearch.space.network import build"),
        ("cosearch.strategies.gradient.darts", "import cosearch.rl.learning.losses"),
        ("accel_models.layers", "from latency_tables.table import Table"),
        ("cosearch.space.space", "from . import operations"),
        ("cosearch.space.space", "from ..registry import Registry"),
    ],
)
def test_a_planted_import_is_found(module, code):
    assert len(import_faults(module, ast.parse(code))) == 1
    assert import_faults("cosearch.cli.app", ast.parse("import cosearch.rl, torch")) == []  # downwards is no fault


def test_a_planted_cycle_is_found():
    codes = {"a": "import b", "b": "def f():\n    from c import x", "c": "from a import y", "d": "import a"}
    assert set(cycle({name: ast.parse(code) for name, code in codes.items()})) == {"a", "b", "c"}
    assert cycle({name: ast.parse(code) for name, code in codes.items() if name != "b"}) == []


@pytest.mark.parametrize(
    "check, code, faults",
    [
        (handler_faults, "try: f()\nexcept: raise", 1),
        (handler_faults, "try: f()\nexcept Exception: pass", 1),
        (handler_faults, "try: f()\nexcept (ValueError, Exception): x = 0", 1),
        (handler_faults, "with contextlib.suppress(Exception): f()", 1),
        (
            handler_faults,
            "try: f()\nexcept Exception as error: raise X from error\nexcept BaseException as error: tell(error)",
            0,
        ),
        (handler_faults, "try: f()\nexcept ValueError: x = 0", 0),
        (talk_faults, "def f():\n    print(1)\nbreakpoint()", 2),
        (talk_faults, "console.print(1)", 0),
        (
            stub_faults,
            "def f(): pass\ndef g():\n    'text'\nclass A:\n    def h(self): ...\ndef k(): raise NotImplementedError('x')",
            4,
        ),
        (
            stub_faults,
            "class A(Protocol):\n    def f(self): ...\nclass B:\n    @abstractmethod\n    def f(self): ...\ndef g(): return 1",
            0,
        ),
    ],
)
def test_a_planted_fault_is_found(check, code, faults):
    assert len(check(ast.parse(code))) == faults


def test_planted_long_texts_are_found():
    assert text_faults("x\n" * MAX_LINES) == [] and len(text_faults("x\n" * (MAX_LINES + 1))) == 1
    assert text_faults("x" * 130) == [] and len(text_faults("x" * 131)) == 1
    assert len(text_faults("x = 1  # TO" + "DO: later")) == 1


def test_a_planted_heavy_import_is_found_behind_others():
    codes = {"a": "import json, b\ndef f():\n    import numpy", "b": "from c import x", "c": "import torch.nn, b"}
    modules = {name: ast.parse(code) for name, code in codes.items()}
    assert needed_at_import(modules, "a") == {"torch"}
