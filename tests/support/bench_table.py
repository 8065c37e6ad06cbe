"""Tables of the benchmark with scores that a test gives."""

from cosearch.bench import settings
from cosearch.bench.table import SeedResult, Table

TASK = "minatar:breakout"


def made_table(score, numbers=range(540), seeds=(0, 1, 2)):
    """``score(number, seed)`` of each network in ``numbers``; its curve rises linearly to the score."""
    points = tuple((point.name, point.candidates) for point in settings.space_for((10, 10, 4), 3).points)

    def result(number, seed):
        value = score(number, seed)
        return SeedResult(value, 0.5, tuple(None if value is None else value * (i + 1) / 6 for i in range(6)))

    results = {number: tuple(result(number, seed) for seed in seeds) for number in numbers}
    steps = tuple(4096 * (i + 1) for i in range(6))
    return Table(TASK, (10, 10, 4), 3, points, 540, tuple(seeds), steps, 128, settings.digest(), results)
