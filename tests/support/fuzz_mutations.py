"""Changes that know a format: fields of JSON, lines, cells and values; what is left of the work is the fuzzer's own bytes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable

from mutations import NASTY, VALUES, change

HOSTILE = (
    *(
        "\x1b]0;x\x07",
        "$\\frac{$",
        "[/]",
        "[bold]",
        "a|b`c",
        "<script>alert(1)</script>",
        "{{ 7 * 7 }}",
        "\u202egnp",
        "../../etc/passwd",
    ),
    *("\x00", "/dev/full", "nan", "inf", "-0", "%s%n", "\u00b5", "\U0001f600", "a\nb", "'; --", '"', "\\"),
)
NUMBERS = (0, -1, 1, 2, 7, 0.5, -0.0, 1e-300, 5e-324, 1e300, 1.7e308, -1e300, 2**31, 2**53 + 1, 2**63, 10**18, 10**30, 10**39)


def mutated(name: str, content: bytes, seed: int, by_bytes: Callable[[bytes], bytes]) -> bytes:
    """One further version of a content.

    Args:
        name: of the reader; its ending names the format.
        content: to change.
        seed: of the draws.
        by_bytes: changes bytes without knowing what they mean.
    """
    draw = random.Random(seed)
    known = {"json": _json, "jsonl": _line, "journal": _line, "csv": _cell, "toml": _value, "txt": _line}.get(
        name.rsplit(".", 1)[-1]
    )
    if known is None or draw.random() < 0.35:
        return by_bytes(content)
    try:
        return known(content, draw)
    except (ValueError, RecursionError, LookupError, TypeError):
        return by_bytes(content)


def _json(content: bytes, draw: random.Random) -> bytes:
    first, _, rest = content.partition(b"\n")
    if rest and not first.lstrip().startswith(b"{"):  # a verb, then its answer
        return first + b"\n" + _json(rest, draw)
    value = json.loads(content)
    if not isinstance(value, dict | list):
        raise ValueError("no place to change")
    for _ in range(draw.choice((1, 1, 2, 3))):
        if draw.random() < 0.5:
            change(value, draw)
        else:
            _leaf(value, draw)
    return json.dumps(value, ensure_ascii=draw.random() < 0.9).encode("utf-8", "surrogatepass")


def _leaf(value: object, draw: random.Random) -> None:
    """Give one place a number or text of the same kind, or another field's value."""
    places = []
    level: list[object] = [value]
    while level:
        holder = level.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, inner in items:
            places.append((holder, key))
            level.append(inner)
    holder, key = draw.choice(places)
    old, (other, name) = holder[key], draw.choice(places)
    if isinstance(old, bool) or old is None:
        holder[key] = draw.choice((True, False, None, 0))
    elif isinstance(old, int | float):
        near = (old * 2, -old, old + 1, old * 1e-6, old * 10**9, 0 if isinstance(old, int) else 0.0)
        holder[key] = draw.choice((*NUMBERS, *near))
    elif isinstance(old, str):
        holder[key] = draw.choice((*HOSTILE, old + draw.choice(HOSTILE), draw.choice(HOSTILE) * 60, old[1:], ""))
    else:
        holder[key] = copy.deepcopy(other[name])
    if isinstance(holder, dict) and draw.random() < 0.1:
        holder[draw.choice(HOSTILE)] = holder.pop(key)


def _line(content: bytes, draw: random.Random) -> bytes:
    lines = content.split(b"\n")
    at = draw.randrange(len(lines))
    kind = draw.random()
    if kind < 0.7:
        lines[at] = _json(lines[at], draw)
    elif kind < 0.8:
        del lines[at]
    elif kind < 0.9:
        lines.insert(draw.randrange(len(lines)), lines[at])
    else:
        lines[at], lines[-1] = lines[-1], lines[at]
    return b"\n".join(lines)


def _cell(content: bytes, draw: random.Random) -> bytes:
    rows = [row.split(b",") for row in content.split(b"\n")]
    row = draw.choice(rows)
    at = draw.randrange(len(row))
    kind = draw.random()
    if kind < 0.6:
        row[at] = _word(row[at], draw)
    elif kind < 0.7:
        for each in rows:
            if at < len(each):
                del each[at]
    elif kind < 0.8:
        row.insert(at, draw.choice(row))
    elif kind < 0.9:
        rows.insert(draw.randrange(len(rows)), list(row))
    else:
        rows.remove(row)
    return b"\n".join(b",".join(each) for each in rows)


def _value(content: bytes, draw: random.Random) -> bytes:
    lines = content.split(b"\n")
    at = draw.choice([i for i, line in enumerate(lines) if b"=" in line])
    key, _, value = lines[at].partition(b"=")
    lines[at] = b"=".join((key, _word(value, draw))) if draw.random() < 0.8 else b"=".join((_word(key, draw), value))
    return b"\n".join(lines)


def _word(old: bytes, draw: random.Random) -> bytes:
    value = draw.choice((*NUMBERS, *HOSTILE, *VALUES))
    text = value if isinstance(value, str) else json.dumps(value)
    return draw.choice((draw.choice(NASTY), text.encode(), old + text.encode(), old[1:]))
