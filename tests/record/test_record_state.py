"""Saved states are read back as what they must be, or refused with the entry's name."""

import pytest
import torch

from cosearch.record.state import read, read_list, read_state
from latency_tables.errors import RunFolderError

STATE = {"count": 3, "mean": 0.5, "name": "a", "rows": [torch.zeros(2)], "pair": (1, 2), "inner": {0: "x"}}


def test_entries_come_back_as_they_were_saved():
    assert read(STATE, "count", int) == 3 and read(STATE, "mean", float) == 0.5 and read(STATE, "name", str) == "a"
    assert read_list(STATE, "rows", torch.Tensor)[0] is STATE["rows"][0]
    assert read_list(STATE, "pair", int) == [1, 2] and read_state(STATE, "inner") == {0: "x"}
    whole = read(STATE, "count", float)
    assert whole == 3.0 and isinstance(whole, float)


@pytest.mark.parametrize(
    "key, reader, text",
    [
        ("lost", lambda key: read(STATE, key, int), "'lost' of type int, it has nothing"),
        ("name", lambda key: read(STATE, key, float), "'name' of type float, it has str"),
        ("mean", lambda key: read(STATE, key, int), "'mean' of type int, it has float"),
        ("count", lambda key: read_list(STATE, key, int), "'count' of type list of int, it has int"),
        ("pair", lambda key: read_list(STATE, key, str), "'pair' of type str, it has int"),
        ("rows", lambda key: read_state(STATE, key), "'rows' of type dict, it has list"),
    ],
)
def test_another_entry_is_refused_with_what_was_expected(key, reader, text):
    with pytest.raises(RunFolderError, match=text):
        reader(key)
