"""A search method is one file: found, listed and documented by itself, and named by no other room."""

import importlib.util
import re
import sys
from pathlib import Path

import cosearch.strategies.proposal
from cosearch.bench.searches import runnable
from cosearch.planning.builtins import load_builtins
from cosearch.strategies.base import STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
KNOWN = {  # who may name a method's own file: a benchmark of these methods, and the one gradient strategy that a table can run
    "cosearch/bench/searches.py": {"gradient.score_function"},
    "cosearch/benchmarks/searches/meta_training.py": {"proposal.catch", "proposal.random_search"},
    "cosearch/benchmarks/speed/search_step.py": {"gradient.one_level", "gradient.score_function"},
}


def made():
    """The module that makes the pages."""
    spec = importlib.util.spec_from_file_location("made", ROOT / "docs" / "made.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_new_file_is_found_listed_and_documented_by_itself(tmp_path, monkeypatch):
    example = re.search(r"```python\n# my_cosearch/strategy\.py\n(.*?)```", CONTRIBUTING, re.DOTALL)[1]
    text = example.replace("import StrategyInfo,", "import STRATEGIES, StrategyInfo,") + "\nSTRATEGIES.register(HILL_CLIMBING)\n"
    (tmp_path / "hill_climbing.py").write_text(f'"""Hill climbing: folklore."""\n{text}', encoding="utf-8")
    load_builtins()
    monkeypatch.setattr(STRATEGIES, "_entries", dict(STRATEGIES._entries))
    monkeypatch.setattr(cosearch.strategies.proposal, "__path__", [*cosearch.strategies.proposal.__path__, str(tmp_path)])
    assert "hill-climbing" not in STRATEGIES.names()
    load_builtins()
    assert "hill-climbing" in STRATEGIES.names() and "hill-climbing" in runnable()
    page = made().method_pages()["hill-climbing"]
    del sys.modules["cosearch.strategies.proposal.hill_climbing"]
    assert "a neighbour of the best so far" in page and "automodule:: cosearch.strategies.proposal.hill_climbing" in page


def test_no_room_names_the_file_of_a_method():
    found = {}
    for path in (ROOT / "cosearch").rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith("cosearch/strategies/"):
            named = re.findall(r"cosearch\.strategies\.((?:gradient|proposal|one_shot)\.\w+)", path.read_text(encoding="utf-8"))
            found |= {name: set(named)} if named else {}
    assert found == KNOWN


def test_the_pages_have_each_methods_header_its_rows_and_its_claim():
    load_builtins()
    pages = made().method_pages()
    assert set(pages) == set(STRATEGIES.names())
    for name, page in pages.items():
        assert page.startswith(f"# {name}\n") and STRATEGIES.get(name).paper in page
    boards = {page: (ROOT / "docs" / "evidence" / page).read_text(encoding="utf-8") for page in ("bench.md", "bench-searches.md")}
    rows = [line for board in boards.values() for line in board.splitlines() if line.startswith("| catch |")]
    assert len(rows) >= 4 and all(row in pages["catch"] for row in rows) and "| random |" not in pages["catch"]
    assert "| random |" in pages["random"] and "| random, on the table |" not in pages["random"]
    assert boards["bench-searches.md"].count("| reinforce |") == sum(
        row in pages["reinforce"] for row in boards["bench-searches.md"].splitlines() if row.startswith("| reinforce |")
    )
    assert "a regression needs far fewer trainings" in pages["predictor"] and "](../evidence/" in pages["reinforce"]
    assert len([name for name, page in pages.items() if "## Its claim, here" in page]) >= 20
    headers = [header for page in pages.values() for header in re.findall(r"automodule:: (\S+)", page)]
    assert sorted(headers) == sorted({STRATEGIES.get(name).make.__module__ for name in pages})
