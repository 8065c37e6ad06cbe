"""Reading JSON, TOML and CSV that users give: limits before parsing, and each fault is one short message.

What comes out is plain data in which nothing surprises the code behind it: text that can be printed and written again, numbers
that are finite and fit a float, lists and objects of bounded depth, no field twice, and in a CSV every row as long as its header.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import reprlib
import tomllib
import zlib
from collections.abc import Iterable
from pathlib import Path

from latency_tables.errors import CosearchError

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 64
MAX_DIGITS = 40  # of a whole number: the entropy of a random generator has 39
OWN_DIGITS = 4000  # in files of ours: a count of architectures may have hundreds
MARKS = (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")
Fault = type[CosearchError]

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 2, 4, 4, 60, 60, 60


def shown(value: object, letters: int = 80) -> str:
    """A value for a message, at most so many letters long."""
    text = _SHORT.repr(value)
    return text if len(text) <= letters else text[: letters - 3] + "..."


def read_text(path: Path, what: str, fault: Fault) -> str:
    """The text of a UTF-8 file, unpacked where its name ends in ``.gz``.

    Args:
        path: the file.
        what: what it is to be, for the message: ``a design``.
        fault: class of the error.

    Raises:
        CosearchError: of that class: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError, EOFError, zlib.error) as error:  # ValueError: a path with a zero byte; the last two: of gzip
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise fault(f"{path}: cannot be read as {what}: {reason}") from error
    if len(data) > MAX_BYTES:
        raise fault(f"{path}: cannot be read as {what}: it has more than {MAX_BYTES // 2**20} MiB")
    if data.startswith(MARKS):
        raise fault(f"{path}: cannot be read as {what}: it begins with a byte order mark; save it as UTF-8 without one")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise fault(f"{path}: cannot be read as {what}: byte {error.start} is not UTF-8; save it as UTF-8") from error


def read_json(path: Path, what: str, fault: Fault, *, digits: int = MAX_DIGITS) -> object:
    """The content of a JSON file.

    Args:
        path, what, fault: see :func:`read_text`.
        digits: most of a whole number.

    Raises:
        CosearchError: of the class ``fault``: unreadable, or not such JSON.
    """
    return parse_json(read_text(path, what, fault), f"{path}: cannot be read as {what}", fault, digits=digits)


def parse_json(text: str, where: str, fault: Fault, *, digits: int = MAX_DIGITS) -> object:
    """The content of a JSON text: every number finite and of so many digits at most, no field twice, 64 levels at most.

    Args:
        text: the JSON.
        where: beginning of the message.
        fault: class of the error.
        digits: most of a whole number.

    Raises:
        CosearchError: of the class ``fault``: not such JSON.
    """

    def whole(number: str) -> int:
        if len(number) > digits:
            raise fault(f"{where}: a whole number of {len(number)} digits, expected at most {digits}")
        return int(number)

    def decimal(number: str) -> float:
        if not math.isfinite(float(number)):
            raise fault(f"{where}: {number[:20]} is too large for a number")
        return float(number)

    def constant(name: str) -> object:
        raise fault(f"{where}: {name} is not a number")

    def fields(items: list[tuple[str, object]]) -> dict[str, object]:
        record = dict(items)
        if len(record) != len(items):
            names = [name for name, _ in items]
            raise fault(f"{where}: the field {shown(next(name for name in names if names.count(name) > 1))} is named twice")
        return record

    try:
        content: object = json.loads(
            text, parse_int=whole, parse_float=decimal, parse_constant=constant, object_pairs_hook=fields
        )
    except RecursionError as error:
        raise fault(f"{where}: lists and objects within each other deeper than {MAX_DEPTH}") from error
    except ValueError as error:
        raise fault(f"{where}: not JSON: {error}") from error
    _check_plain(content, where, fault)
    return content


def parse_word(text: str, where: str, fault: Fault) -> object:
    """A value that somebody typed: what :func:`parse_json` makes of it, a list of names without quotes, else the text itself.

    A list of names is ``[a, b]``: none of them empty, a number, or with a bracket or a quote in it.

    Args:
        text: the word.
        where: beginning of the message.
        fault: class of the error.

    Raises:
        CosearchError: of the class ``fault``: text that cannot be written.
    """
    try:
        return parse_json(text, where, _OtherTextError)
    except _OtherTextError:
        _check_plain(text, where, fault)
        return _names(text) or text


def _names(text: str) -> list[str]:
    """The names of a list without quotes, or with some (a shell takes quotes away); nothing where it is no such list."""
    if not (text.startswith("[") and text.endswith("]")):
        return []
    try:
        (line,) = csv.reader([text[1:-1]], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):  # ValueError: there is no line
        return []
    names = [name.strip() for name in line]
    return names if all(name and not set(name) & set('[]{}"') and not _is_number(name) for name in names) else []


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _OtherTextError(CosearchError):
    """A word that is not JSON."""


def read_toml(path: Path, what: str, fault: Fault) -> dict[str, object]:
    """The content of a TOML file: every number finite and of 40 digits at most, 64 levels at most.

    Args:
        path, what, fault: see :func:`read_text`.

    Raises:
        CosearchError: of the class ``fault``: unreadable, or not such TOML.
    """
    where = f"{path}: cannot be read as {what}"

    def decimal(number: str) -> float:
        if not math.isfinite(float(number)):
            raise fault(f"{where}: {number[:20]} is not a number, or too large for one")
        return float(number)

    text = read_text(path, what, fault)
    try:
        content: dict[str, object] = tomllib.loads(text, parse_float=decimal)
    except RecursionError as error:
        raise fault(f"{where}: lists and objects within each other deeper than {MAX_DEPTH}") from error
    except ValueError as error:
        raise fault(f"{where}: not TOML: {str(error)[:200]}") from error
    _check_plain(content, where, fault, 10**MAX_DIGITS)
    return content


def _check_plain(content: object, where: str, fault: Fault, beyond: float = math.inf) -> None:
    """Refuse what is nested too deeply, text that cannot be encoded, and whole numbers of that size."""
    level = [content]
    for _ in range(MAX_DEPTH):
        inside: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inside += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                inside += value
            elif isinstance(value, str) and not _can_be_written(value):
                raise fault(f"{where}: a text with half of a surrogate pair, {shown(value)}")
            elif type(value) is int and abs(value) >= beyond:  # in TOML, which has other bases, too
                raise fault(f"{where}: a whole number of more than {MAX_DIGITS} digits")
        if not inside:
            return
        level = inside
    raise fault(f"{where}: lists and objects within each other deeper than {MAX_DEPTH}")


def _can_be_written(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


class CsvRow(dict[str, str]):
    """The values of a row by column, and ``number``, which counts the header and empty rows, too, as an editor does."""

    number = 0


def read_csv(path: Path, what: str, needed: Iterable[str], fault: Fault, *, trimmed: bool = False) -> list[CsvRow]:
    """Rows of a CSV file with commas and a header; empty columns at the end, as spreadsheets write them, are dropped.

    Args:
        path: the file.
        what: what it is to be, for the message.
        needed: columns that must be there.
        fault: class of the error.
        trimmed: spaces around values and names do not belong to them.

    Returns:
        At least one row; each with the header's columns.

    Raises:
        CosearchError: of the class ``fault``: unreadable, no rows, columns missing or named twice, or a row of another length.
    """
    where = f"{path}: cannot be read as {what}"
    text = read_text(path, what, fault)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise fault(f"{where}: not CSV: {error}") from error
    if trimmed:
        lines = [[value.strip() for value in line] for line in lines]
    filled = [(number, line) for number, line in enumerate(lines, start=1) if any(line)]
    if len(filled) < 2:
        raise fault(f"{where}: expected a header and at least one row, got {len(filled)} lines")
    names = filled[0][1]
    while names and not names[-1]:
        names = names[:-1]
    _check_names(names, needed, where, fault)
    rows = []
    for number, line in filled[1:]:
        if len(line) < len(names) or any(line[len(names) :]):
            raise fault(f"{where}: row {number} has {len(line)} values, the header {len(names)}")
        rows.append(CsvRow(zip(names, line)))
        rows[-1].number = number
    return rows


def _check_names(names: list[str], needed: Iterable[str], where: str, fault: Fault) -> None:
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise fault(f"{where}: its values are separated by semicolons or tabs, expected commas")
    spaced = [name for name in names if name != name.strip()]
    if spaced:
        raise fault(f"{where}: the column {shown(spaced[0])} begins or ends with a space; remove the spaces at the commas")
    if len(set(names)) != len(names):
        raise fault(f"{where}: the column {shown(next(name for name in names if names.count(name) > 1))} is named twice")
    missing = [name for name in needed if name not in names]
    if missing:
        raise fault(f"{where}: columns {', '.join(missing)} are missing; got {shown(names)}")
