"""The registry: collisions, suggestions, order, and entries of other packages."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cosearch.registry import Registry
from latency_tables.errors import RequestError, UnknownNameError

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Device:
    name: str
    description: str


@dataclass
class Mutable:
    name: str = "mutable"
    description: str = "a record that can change"


@pytest.fixture
def devices():
    registry = Registry("device")
    for name in ("rock5", "jetson", "Pi4", "XAVIER"):
        registry.register(Device(name, f"the board {name}"))
    return registry


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """Make an installed package with one module and one entry point; returns a function (code, target)."""

    def make(code, target="plugin_boards:ENTRY", group="cosearch.boards"):
        (tmp_path / "plugin_boards.py").write_text(code)
        info = tmp_path / "plugin_boards-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-boards\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\nany = {target}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "plugin_boards", raising=False)

    yield make
    sys.modules.pop("plugin_boards", None)


CODE = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Board:
    name: str
    description: str
ENTRY = Board("tpu", "a board of another package")
SEVERAL = [ENTRY, Board("npu", "one more")]
"""


def test_entries_come_back_in_alphabetical_order(devices):
    assert devices.names() == ("Pi4", "XAVIER", "jetson", "rock5")
    assert [entry.name for entry in devices.entries()] == ["Pi4", "XAVIER", "jetson", "rock5"]
    assert devices.get("jetson") == Device("jetson", "the board jetson")


@pytest.mark.parametrize("asked, meant", [("jetsn", "jetson"), ("pi4", "Pi4"), ("ROCK5", "rock5"), ("xavier", "XAVIER")])
def test_an_unknown_name_suggests_the_nearest(devices, asked, meant):
    with pytest.raises(UnknownNameError) as caught:
        devices.get(asked)
    assert str(caught.value) == f"unknown device {asked!r}. Did you mean {meant!r}? `cosearch list devices` shows all"
    assert caught.value.exit_code == 2


def test_nothing_is_suggested_when_nothing_is_near(devices):
    with pytest.raises(UnknownNameError) as caught:
        devices.get("qqq")
    assert str(caught.value) == "unknown device 'qqq'. `cosearch list devices` shows all"


@pytest.mark.parametrize(
    "kind, plural, expected", [("strategy", None, "strategies"), ("device", None, "devices"), ("environment", "envs", "envs")]
)
def test_the_hint_has_the_plural(kind, plural, expected):
    with pytest.raises(UnknownNameError, match=f"`cosearch list {expected}` shows all"):
        Registry(kind, plural=plural).get("x")


def test_a_collision_is_refused_and_keeps_the_first(devices):
    with pytest.raises(RequestError, match="two devices are named 'jetson'"):
        devices.register(Device("jetson", "another"))
    assert devices.get("jetson").description == "the board jetson"


@pytest.mark.parametrize("entry", [Mutable(), Device, "jetson", {"name": "jetson"}])
def test_only_instances_of_frozen_dataclasses_are_taken(entry):
    with pytest.raises(TypeError, match="frozen dataclass"):
        Registry("device").register(entry)


@pytest.mark.parametrize("name", ["", "two words", "tab\t", None, 3])
def test_a_name_is_one_word(name):
    with pytest.raises(ValueError, match="a word without blanks"):
        Registry("device").register(Device(name, "text"))


@pytest.mark.parametrize("description", ["", "  ", "two\nlines", None])
def test_a_description_is_one_line(description):
    with pytest.raises(ValueError, match="a description of one line"):
        Registry("device").register(Device("x", description))


def test_another_package_adds_an_entry(other_package):
    other_package(CODE)
    registry = Registry("board", "cosearch.boards")
    registry.register(Device("own", "ours"))
    assert "plugin_boards" not in sys.modules  # not before the first use
    assert registry.names() == ("own", "tpu")
    assert registry.get("tpu").description == "a board of another package"


def test_another_package_adds_several_entries(other_package):
    other_package(CODE, "plugin_boards:SEVERAL")
    assert Registry("board", "cosearch.boards").names() == ("npu", "tpu")


@pytest.mark.parametrize("group", [None, "cosearch.others"])
def test_entry_points_of_other_groups_are_left_alone(other_package, group):
    other_package(CODE)
    assert Registry("board", group).names() == ()


@pytest.mark.parametrize(
    "code, reason", [("raise OSError('no driver')", "OSError: no driver"), ("", "AttributeError"), ("ENTRY = 3", "TypeError")]
)
def test_a_broken_package_is_named_each_time(other_package, code, reason):
    other_package(code)
    registry = Registry("board", "cosearch.boards")
    registry.register(Device("own", "ours"))
    for _ in range(2):  # the second use must not find a registry that only looks complete
        with pytest.raises(RequestError, match=f"'any' of plugin-boards .*{reason}.*pip uninstall plugin-boards"):
            registry.names()


def test_a_collision_with_another_package_names_the_package(other_package):
    other_package(CODE)
    registry = Registry("board", "cosearch.boards")
    registry.register(Device("tpu", "ours"))
    with pytest.raises(RequestError, match=r"plugin-boards.*two boards are named 'tpu'"):
        registry.get("tpu")


def test_importing_the_ground_floor_loads_no_heavy_library():
    code = "import sys, cosearch.registry; print([m for m in ('torch', 'numpy', 'gymnasium', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_list_that_a_message_names_exists():
    from cosearch.cli.listing import listing
    from cosearch.planning.builtins import load_builtins
    from cosearch.rl.envs import ENVIRONMENTS
    from cosearch.space.operations import OPERATIONS
    from cosearch.space.space import SPACES
    from cosearch.strategies.base import STRATEGIES

    load_builtins()
    for registry in (STRATEGIES, OPERATIONS, SPACES, ENVIRONMENTS):
        names = {str(row["name"]).partition(":")[0] for row in listing(registry.plural)}
        assert set(registry.names()) <= names
