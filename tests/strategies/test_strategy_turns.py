"""Whose turn it is: batches, results as they end, and recorded events; small schedules worked out by hand."""

import itertools

import pytest

from cosearch.strategies.turns import BEGIN, Turns, in_order
from latency_tables.errors import RequestError


def played(turns, durations, workers=None):
    """Events of a search whose trainings take so long, and for each moment between two ends how many are in training.

    Args:
        turns: fresh.
        durations: of each candidate.
        workers: that take the trainings in the order begun; None: as many as there are slots.
    """
    begun, ends, queue, now, busy = 0, {}, [], 0.0, []
    while True:
        while (turn := turns.next(begun < len(durations))) is not None:
            if turn == BEGIN:
                turns.begin(begun)
                queue.append(begun)
                begun += 1
            else:
                turns.take(turn)
        while queue and len(ends) < (workers or turns.slots):
            index = queue.pop(0)
            ends[index] = now + durations[index]
        if not ends:
            return turns.events, busy
        busy.append(len(ends))
        first = min(ends, key=lambda index: (ends[index], index))
        now = ends.pop(first)
        turns.end(first)


def test_a_result_is_taken_as_its_training_ends_and_the_next_one_begins_at_once():
    events, busy = played(Turns(2), [5.0, 1.0, 1.0, 9.0])
    assert events == [-1, -1, 1, -1, 2, -1, 0, 3]  # 1 ends at 1, 2 at 2, 0 at 5, 3 at 11
    assert busy == [2, 2, 2, 1]  # nobody waits while there is a candidate


def test_a_batch_is_taken_in_the_order_begun_when_its_last_has_ended():
    events, busy = played(Turns(2, in_batches=True), [5.0, 1.0, 1.0, 9.0, 1.0])
    assert events == [-1, -1, 0, 1, -1, -1, 2, 3, -1, 4] == in_order(5, 0, 2)
    assert busy == [2, 1, 2, 1, 1]
    assert in_order(2, 2, 2) == [-1, -1, 0, 1, -1, -1]


def test_one_slot_makes_no_difference():
    durations = [3.0, 1.0, 2.0]
    assert played(Turns(1), durations)[0] == played(Turns(1, in_batches=True), durations)[0] == [-1, 0, -1, 1, -1, 2]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_recorded_events_are_repeated_whatever_ends_first_and_by_any_number_of_workers(workers):
    recorded, _ = played(Turns(3), [5.0, 1.0, 1.0, 9.0, 2.0])
    for durations in itertools.islice(itertools.permutations([5.0, 1.0, 1.0, 9.0, 2.0]), 0, 120, 7):
        assert played(Turns(2, recorded=recorded), durations, workers)[0] == recorded


def test_after_the_recorded_events_results_are_taken_as_they_end():
    events, _ = played(Turns(2, recorded=[-1, -1, 1]), [1.0, 5.0, 1.0])  # 0 ended first, and is taken as soon as it may be
    assert events == [-1, -1, 1, 0, -1, 2]


@pytest.mark.parametrize(
    "recorded, text",
    [
        ([-1, 3], "the result of candidate 3 as its event 1"),
        ([-1, 0, 0], "the result of candidate 0 as its event 2"),
        ([-1, -1, -1, -1], "another training to begin as its event 3.*there is no other"),
    ],
)
def test_events_of_another_search_are_refused(recorded, text):
    with pytest.raises(RequestError, match=text):
        played(Turns(4, recorded=recorded), [1.0, 1.0, 1.0])


def test_restored_it_goes_on_where_it_stood():
    turns = Turns(2, in_batches=True)
    for index in (0, 1):
        assert turns.next(True) == BEGIN
        turns.begin(index)
    restored = Turns(2, in_batches=True)
    restored.restore(turns.events, turns.waiting)
    assert restored.next(True) is None  # the batch is full: nothing begins before it is taken
    restored.end(1)
    assert restored.next(True) is None
    restored.end(0)
    assert restored.next(True) == 0 and restored.running == 0
