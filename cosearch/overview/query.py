"""SQL over run folders with DuckDB: the tables of ``cosearch.overview.tables`` in memory, and nothing else within its reach.

Only the tables whose name a statement holds are loaded. Before it runs, the database is shut off from files and the network, and
its settings are locked; it may read, not write. DuckDB, https://duckdb.org, brings the whole language.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from cosearch.overview.folders import FINISHED, Passed, Place, find_runs, state_of
from cosearch.overview.rows import gap_s, row_of
from cosearch.overview.tables import TABLES, Values, columns, rows_of
from cosearch.report.data import read_run
from latency_tables.errors import CosearchError, MissingExtraError, RequestError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class Answer:
    """What a statement gives.

    Attributes:
        columns: their names.
        rows: values as DuckDB gives them, decimal numbers as floats.
        passed: run folders that could not be read, which are not in the figures.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    passed: tuple[Passed, ...]


def query(sql: str, folders: Sequence[Path]) -> Answer:
    """Answer one SQL statement about all runs at and below some folders.

    Args:
        sql: one SELECT, over the tables of ``cosearch.overview.tables.TABLES``.
        folders: see ``cosearch.overview.folders.find_runs``.

    Raises:
        MissingExtraError: DuckDB is not installed.
        RequestError: the statement is wrong, or does something else than read.
        RunFolderError: a folder does not exist, or there is no run in any of them.
    """
    duckdb = _duckdb()
    places, passed = find_runs(folders)
    with duckdb.connect() as database:
        for name in TABLES:
            listed = ", ".join(f'"{column.name}" {column.type}' for column in columns(name))
            database.execute(f"CREATE TABLE {name} ({listed})")
        try:
            statements = database.extract_statements(sql)
            if [one.type for one in statements] != [duckdb.StatementType.SELECT]:
                raise RequestError(f"expected one SELECT, got {_kinds(statements)}: a query reads the tables, and nothing else")
            named = [name for name in TABLES if re.search(rf"\b{name}\b", sql, re.IGNORECASE)]
            _load(database, named, places, passed)
            for setting in ("enable_external_access = false", "python_enable_replacements = false", "lock_configuration = true"):
                database.execute(f"SET {setting}")
            found = database.execute(sql)
            rows = tuple(tuple(map(_value, row)) for row in found.fetchall())
            return Answer(tuple(str(column[0]) for column in found.description), rows, tuple(passed))
        except duckdb.Error as error:
            said = " ".join(str(error).split("\n\n")[0].split())
            raise RequestError(f"{said[:300]}\n{schema_text(short=True)}") from error


def _value(value: object) -> object:
    """A value as it came; decimal numbers, which literals such as 1.5 are in SQL, as floats."""
    if isinstance(value, list):
        return [_value(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value


def _duckdb() -> ModuleType:
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtraError(f"DuckDB cannot be imported ({error}): pip install 'cosearch[query]'") from error
    return duckdb


def _kinds(statements: Sequence[object]) -> str:
    return ", ".join(str(getattr(one, "type", "")).rpartition(".")[2] for one in statements) or "none"


def _load(database: DuckDBPyConnection, named: Sequence[str], places: Sequence[Place], passed: list[Passed]) -> None:
    """Fill the tables: a run whose files are damaged is passed over in all of them."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.jsonl" for name in named}
        opened = {name: path.open("w", encoding="utf-8") for name, path in files.items()}
        for place in places if named else ():
            if not place.begun:
                continue
            try:
                rows = _rows(place, named)
            except CosearchError as error:
                passed.append(Passed(place.path, str(error)))
                continue
            for name in named:
                opened[name].writelines(json.dumps(values, allow_nan=False) + "\n" for values in rows[name])
        for name, file in opened.items():
            file.close()
            types = {column.name: column.type for column in columns(name)}
            if files[name].stat().st_size:
                database.execute(
                    f"INSERT INTO {name} SELECT * FROM read_json($path, columns = $types, format = 'newline_delimited')",
                    {"path": str(files[name]), "types": types},
                )


def _rows(place: Place, named: Sequence[str]) -> dict[str, list[Values]]:
    run = read_run(place.path)
    row = row_of(place, run, FINISHED)
    row = replace(row, state=state_of(place, time.time(), gap_s(run)))
    return {name: list(rows_of(name, place, row, run)) for name in named}


def schema_text(*, short: bool = False) -> str:
    """The tables and their columns as text.

    Args:
        short: one line a table, with the names alone.
    """
    if short:
        return "\n".join(f"{name}: {', '.join(column.name for column in columns(name))}" for name in TABLES)
    lines = []
    for name, table in TABLES.items():
        lines += [f"{name}: {table.meaning}", *(f"  {one.name} {one.type}: {one.meaning}" for one in columns(name))]
    return "\n".join(lines)
