"""All readers of files, by the name of their corpus: what the fuzzer, its corpus and the house's test go through."""

from __future__ import annotations

import tempfile
from pathlib import Path

import fuzz_bench
import fuzz_bundles
import fuzz_policies
import fuzz_runs
import fuzz_tables
from fuzz_rule import Reader

MAKERS = {**fuzz_tables.MAKERS, **fuzz_runs.MAKERS, **fuzz_bench.MAKERS, **fuzz_bundles.MAKERS, **fuzz_policies.MAKERS}
CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


def made(name: str, folder: Path | str) -> Reader:
    """One reader, with its files in a new folder below ``folder``."""
    return MAKERS[name](Path(tempfile.mkdtemp(prefix="reader-", dir=folder)))


def kept(name: str) -> list[Path]:
    """The files of a reader's corpus in the repository: each of them was a fault once."""
    return sorted((CORPUS / name).glob("*"))
