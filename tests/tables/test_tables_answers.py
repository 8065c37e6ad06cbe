"""What a board answers: the fields of each verb, and nothing else gets in."""

import json

import pytest
from board_answers import ANSWERS, VISIT
from mutations import NASTY, changed, damaged

from latency_tables.measuring.answers import read_answer
from latency_tables.measuring.ssh import LostBoard

WRONG = {
    "hello": ({"fingerprint": []}, {"runtime_version": None}, {"state": 1}),
    "load": ({"graph": {"Conv": -1}}, {"graph": {"Conv": "2"}}, {"graph": None}, {"id": ["a"]}),
    "visit": ({"visit": {**VISIT, "median_s": None}}, {"visit": {**VISIT, "samples": 1.5}}, {"visit": {**VISIT, "low_s": -1}}),
    "paced": ({"paced": {"period_s": 0.01}}, {"paced": None}),
    "energy": ({"energy_j": True}, {"energy_j": -1.0}, {"energy_j": "1"}),
    "state": ({"state": None},),
}


@pytest.mark.parametrize("verb", ANSWERS)
def test_an_answer_has_the_fields_of_its_verb(verb):
    assert read_answer(json.dumps(ANSWERS[verb]) + "\n", verb, "the board") == ANSWERS[verb]
    assert read_answer('{"end": true}', verb, "the board") == {"end": True}
    assert read_answer('{"error": "no", "id": "a"}', verb, "the board") == {"error": "no", "id": "a"}


@pytest.mark.parametrize("verb, change", [(verb, change) for verb, changes in WRONG.items() for change in changes])
def test_an_answer_of_another_kind_is_a_lost_board(verb, change):
    with pytest.raises(LostBoard, match=f"the board answered {verb} with"):
        read_answer(json.dumps(ANSWERS[verb] | change), verb, "the board")


@pytest.mark.parametrize("verb", ANSWERS)
def test_a_damaged_line_is_a_lost_board_or_an_answer(verb):
    whole = json.dumps(ANSWERS[verb]).encode()
    lost = []
    for line in [*NASTY, *damaged(whole, 0, 100), *changed(ANSWERS[verb], 0, 100)]:
        try:
            read_answer(line.decode("utf-8", "replace"), verb, "the board")
        except LostBoard as error:
            lost.append(str(error))
    assert len(lost) > 60 and max(map(len, lost)) < 500
