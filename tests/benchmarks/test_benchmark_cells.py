"""The comparison of cells: what is trained for how long, what is kept, and what the table says."""

import json

from cosearch.benchmarks.searches import cells


def words(out, times=1):
    return {
        "seeds": 1,
        "env": "minatar:breakout",
        "strategy": "rl-darts",
        "search_steps": 2048,
        "train_steps": 2048,
        "depths": "4",
        "normal_cells": 1,
        "episodes": 2,
        "threads": 1,
        "random_times": times,
        "out": out,
    }


def test_random_cells_get_so_many_times_the_steps_beside_the_equal_ones(tmp_path, monkeypatch, capsys):
    """The longer trainings come beside those that a first call kept, which are not made again."""
    steps, real = [], cells.train_alone

    def trained(config, network, step, seed, episodes):
        steps.append(step)
        return real(config, network, step, seed, episodes)

    monkeypatch.setattr(cells, "train_alone", trained)
    cells.main(**words(tmp_path / "cells.json"))
    assert steps == [2048] * 4
    cells.main(**words(tmp_path / "cells.json", times=3))
    assert steps == [2048] * 4 + [3 * 2048] * 2
    rows = json.loads((tmp_path / "cells.json").read_text())["seeds"]["0"]
    assert rows["random-0-x3"]["curve"][-1][0] == 3 * 2048 and rows["random-0"]["curve"][-1][0] == 2048
    table = capsys.readouterr().out
    mean = (rows["random-0-x3"]["score"] + rows["random-1-x3"]["score"]) / 2
    assert rows["random-0-x3"]["macs"] == rows["random-0"]["macs"]
    assert f"| random, 3 times the steps | {mean:.2f}, no interval" in table


def test_a_longer_training_that_not_every_seed_has_is_left_out_of_the_table():
    row = {"score": 1.0, "macs": 10}
    rows = dict.fromkeys(("derived", "random-0", "random-1", "impala"), row) | {"search": {"curve": [[1, 0.0], [2, 1.0]]}}
    longer = {"random-0-x5": row, "random-1-x5": row}
    result = {"env": "e", "search_steps": 1, "train_steps": 1, "seeds": {"0": rows | longer, "1": rows}}
    assert "5 times" not in cells.markdown(result)
    result["seeds"]["1"] = rows | longer
    assert "| random, 5 times the steps | 1.00" in cells.markdown(result)
