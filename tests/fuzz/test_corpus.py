"""Every reader of files on its corpus: what once was a fault, and a few changes of valid files, is read or refused in few words.

``python tests/fuzz/campaign.py`` looks for further faults; ``docs/evidence/fuzzing.md`` says what it has done.
"""

import ast
import random
import sys
from pathlib import Path

import fuzz_readers
import pytest
from fuzz_mutations import mutated
from fuzz_rule import outcome
from mutations import damaged

ROOT = Path(__file__).parents[2]
ROOMS = ("cosearch", "latency_tables", "accel_models")
CHANGED = {"page.txt": 0, "compare.json": 5, "architecture.json": 5}  # so many changes of each seed; 12 of those that are quick
READING = {
    *("json.load", "json.loads", "tomllib.load", "tomllib.loads", "csv.reader", "csv.DictReader", "gzip.open", "np.load"),
    *("torch.load", "onnx.load", "onnx.load_model_from_string", "ort.InferenceSession", "onnxruntime.InferenceSession"),
    *("read_json", "read_toml", "read_csv", "parse_json", "parse_word", "parse_line"),
}
UNREAD = {  # what parses and is not fuzzed, with the reason
    "cosearch/benchmarks": "scripts of the evidence: each reads what it wrote itself; no verb calls them",
    "cosearch/config/run.py:config_to_dict": "JSON that pydantic has just made of a checked configuration",
    "cosearch/training/candidates.py:unpacked": "bytes of our own worker process, through a pipe",
    "cosearch/deploy/player.py:__init__": "the file whose SHA-256 is recorded, and no other",
    "cosearch/deploy/artifacts": "the graph that this process has just exported",
    "cosearch/rl/foreign/modules.py": "a graph that torch has just exported",
    "cosearch/rl/foreign/understood.py:stored": "a graph that the reader has just checked",
    "cosearch/deploy/export.py": "the graph that this process has just exported",
    "cosearch/pipeline/rehearsal.py": "the graph that this process has just exported",
    "cosearch/teachers/from_sb3.py": "a graph that torch has just exported; the policy's own file is a pickle, see SECURITY.md",
    "latency_tables/board/compilers.py": "models that this process has made",
    "latency_tables/board/core.py:serve": "requests of our own process; a board has the standard library alone",
    "latency_tables/board/runners.py:__init__": "models that this process has made, or a bundle's, which graph.load has read",
    "latency_tables/onnx_models": "models that this process has made",
}


def quickly_changed(name, seed):
    """A few versions of a content, by its format and by bytes."""
    for number in range(CHANGED.get(name, 12)):
        yield mutated(name, seed, number, lambda data, number=number: next(damaged(data, number, 1)))


@pytest.mark.parametrize("name", fuzz_readers.MAKERS)
def test_a_reader_takes_its_corpus(name, tmp_path):
    reader = fuzz_readers.made(name, tmp_path)
    assert [outcome(reader, seed) for seed in reader.seeds] == ["read"] * len(reader.seeds)
    for path in fuzz_readers.kept(name):
        outcome(reader, path.read_bytes())
    for seed in reader.seeds:
        for content in quickly_changed(name, seed):
            outcome(reader, content)


def test_every_file_of_the_corpus_is_of_a_reader_and_small():
    assert {path.name for path in fuzz_readers.CORPUS.iterdir()} <= set(fuzz_readers.MAKERS)
    assert [path for path in fuzz_readers.CORPUS.rglob("*") if path.is_file() and path.stat().st_size > 20_000] == []


def parsers() -> dict[tuple[str, int], str]:
    """The functions of the product that parse something: file and first line, and ``file:name``."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef) and any(
                    _parses(call) for call in ast.walk(node) if isinstance(call, ast.Call)
                ):
                    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                    found[str(path), first] = f"{path.relative_to(ROOT).as_posix()}:{node.name}"
    return found


def _parses(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    copies = name == "json.loads" and isinstance(call.args[0], ast.Call) and ast.unparse(call.args[0].func) == "json.dumps"
    return name in READING and not copies


def test_every_function_that_parses_is_passed_by_a_reader_or_has_a_reason(tmp_path):
    entered = set()

    def note(frame, event, argument):
        if event == "call":
            entered.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    readers = [fuzz_readers.made(name, tmp_path) for name in fuzz_readers.MAKERS if name != "page.txt"]
    sys.setprofile(note)
    try:
        for reader in readers:
            for seed in reader.seeds[:3]:
                outcome(reader, seed)
    finally:
        sys.setprofile(None)
    found = parsers()
    assert {reason for reason in UNREAD if not any(name.startswith(reason) for name in found.values())} == set()
    left = {name for place, name in found.items() if place not in entered}
    reasons = {name: [reason for reason in UNREAD if name.startswith(reason)] for name in left}
    assert {name for name, given in reasons.items() if not given} == set()


def test_a_change_knows_its_format():
    draw = random.Random(0)
    seeds = {
        "a.json": b'{"a": [1, "x"]}',
        "a.jsonl": b'{"a": 1}\n{"b": 2}\n',
        "a.csv": b"a,b\n1,2\n",
        "a.toml": b"a = 1\nb = 2\n",
    }
    for name, seed in seeds.items():
        versions = {mutated(name, seed, draw.randrange(10**6), lambda data: b"bytes") for _ in range(60)}
        assert b"bytes" in versions and len(versions) > 20, name
