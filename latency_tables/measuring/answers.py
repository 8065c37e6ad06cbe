"""What a measuring core answers: lines of JSON from a machine that may be broken, checked where they come in.

Behind :func:`read_answer` an answer has the fields of its verb, of the right types; anything else is a lost board, as a cut
connection is: whatever runs there is no measuring core of ours, or not any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from latency_tables.board.timing import Paced, Visit
from latency_tables.measuring.ssh import LostBoard
from latency_tables.text.reading import parse_json, shown

Answer = dict[str, object]
LONGEST_REASON = 1000  # letters


def read_answer(line: str, verb: str, where: str) -> Answer:
    """One answer to a request.

    Args:
        line: as it came.
        verb: of the request, see ``board.core.RequestFields``.
        where: which core, for the message.

    Returns:
        ``{"end": True}`` after the last answer, ``{"error": ...}`` where the core refused the request, or the verb's fields.

    Raises:
        LostBoard: it is no such answer.
    """
    answer = parse_json(line, f"{where} answered {shown(line)}", LostBoard)
    if not isinstance(answer, dict):
        raise LostBoard(f"{where} answered {shown(line)}, expected a JSON object")
    if answer.get("end") is True:
        return {"end": True}
    if "error" in answer:
        return {**answer, "error": str(answer["error"])[:LONGEST_REASON]}
    try:
        if verb in FIELDS:
            FIELDS[verb](answer)
    except (KeyError, TypeError, ValueError) as error:
        raise LostBoard(f"{where} answered {verb} with {shown(line)}: {type(error).__name__}: {str(error)[:200]}") from error
    return answer


def _hello(answer: Mapping[str, object]) -> None:
    for name in ("fingerprint", "settings", "state"):
        _object(answer, name)
    _text(answer, "runtime_version")


def _graph(answer: Mapping[str, object]) -> None:
    _text(answer, "id")
    if not all(type(count) is int and count >= 0 for count in _object(answer, "graph").values()):
        raise TypeError("graph must hold counts")


def _visit(answer: Mapping[str, object]) -> None:
    _text(answer, "id")
    Visit.from_dict(answer["visit"])


def _paced(answer: Mapping[str, object]) -> None:
    _text(answer, "id")
    Paced.from_dict(answer["paced"])


def _energy(answer: Mapping[str, object]) -> None:
    _text(answer, "id")
    value = answer["energy_j"]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
        raise TypeError(f"energy_j must be joules or null, got {shown(value)}")


def _state(answer: Mapping[str, object]) -> None:
    _object(answer, "state")


FIELDS: Mapping[str, Callable[[Mapping[str, object]], None]] = {  # nobody reads what ``drop`` is answered
    "hello": _hello,
    "load": _graph,
    "visit": _visit,
    "paced": _paced,
    "energy": _energy,
    "state": _state,
}


def _object(answer: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = answer[name]
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be an object, got {shown(value)}")
    return value


def _text(answer: Mapping[str, object], name: str) -> str:
    value = answer[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {shown(value)}")
    return value
