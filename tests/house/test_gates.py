"""The gates: one command, which a fresh machine and each commit run; the tests of a room run alone."""

import ast
import re
from pathlib import Path

import pytest
from test_layers import imports

ROOT = Path(__file__).resolve().parents[2]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def strangers(path, source):
    """Test files of other rooms that a test file imports: pytest finds those only where their room is collected, too."""
    if not re.search(r"(from|import)\s+test_|import_module|__import__", source):  # parsing all would take seconds
        return []
    names = {name.split(".")[0] for _, name in imports(ast.parse(source))}
    return [name for name in names if name.startswith("test_") and not (path.parent / f"{name}.py").is_file()]


def test_a_rooms_tests_need_no_other_rooms():
    assert len(TESTS) > 250
    found = {path.relative_to(ROOT / "tests").as_posix(): strangers(path, path.read_text(encoding="utf-8")) for path in TESTS}
    assert {path: names for path, names in found.items() if names} == {}


def test_an_import_from_another_room_would_be_seen():
    planted = "from test_layers import imports\nfrom test_space_mlp import SPACE\nfrom small_space import space"
    assert strangers(Path(__file__), planted) == ["test_space_mlp"]


def test_a_fresh_machine_a_commit_and_a_contributor_run_the_same_gates():
    gates = (ROOT / ".ci" / "check").read_text(encoding="utf-8").splitlines()
    assert [line.removesuffix(" || failed=1") for line in gates if line.endswith("|| failed=1")] == [
        "ruff check .",
        "ruff format --check .",
        "mypy",
    ]
    assert "\n.ci/check\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "entry: .ci/check\n" in (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert "\n.ci/check " in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["accel_models", "cosearch", "latency_tables"])
def test_each_package_says_that_it_is_typed(package):
    assert (ROOT / package / "py.typed").is_file()
