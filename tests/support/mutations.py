"""Seeded damage to files, as disks, editors, spreadsheets and strangers do it."""

import copy
import json
import random

NASTY = (
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\xe4", b"\xed\xa0\x80", b'"\\ud800"', b"\x1b]0;x\x07"),
    *(b"1e999", b"NaN", b"-1", b"0", b"1.5", b"true", b"null", b"1" * 5000, b"1" * 400, b"9" * 31),
    *(b"[" * 2000, b"{}", b"[]", b'""', b'"x"', b",", b";", b"\n", b"\r", b'"'),
)
VALUES = (
    *(None, True, False, 0, -1, 1, 0.5, 1e300, 10**30, 10**39, "", "x", "1", "a" * 3000),
    *([], [[]], {}, {"a": [1]}, [1, "x"], [None] * 9),
)


def damaged(data: bytes, seed: int, count: int):
    """``count`` damaged versions of ``data``: bytes changed, put in, cut out, doubled, cut off."""
    draw = random.Random(seed)
    for _ in range(count):
        new = data
        for _ in range(draw.choice((1, 1, 2, 4))):
            place, length = draw.randrange(len(new) + 1), draw.choice((1, 2, 8, 60))
            part = draw.choice((draw.choice(NASTY), bytes([draw.randrange(256)]), new[place : place + length] * 2, b""))
            new = new[:place] + part + new[place + draw.choice((0, 1, length)) :]
        yield draw.choice((new, new, new, new[: draw.randrange(len(new) + 1)]))


def changed(content: object, seed: int, count: int):
    """``count`` versions of a JSON value as bytes, in which values have other types, fields are absent, or are there too much."""
    draw = random.Random(seed)
    for _ in range(count):
        new = json.loads(json.dumps(content))
        for _ in range(draw.choice((1, 1, 2))):
            change(new, draw)
        yield json.dumps(new).encode()


def change(content, draw):
    """Change one place of a JSON value: remove it, put another value there, or one beside it."""
    places = list(_places(content))
    if not places:
        return
    holder, key = draw.choice(places)
    kind = draw.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[draw.choice(("x", "stride_h", "", "\x1b", "name"))] = copy.deepcopy(draw.choice(VALUES))
    elif kind == 1:
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[key] = copy.deepcopy(draw.choice(VALUES))


def _places(content):
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield content, key
        if isinstance(value, (dict, list)):
            yield from _places(value)
