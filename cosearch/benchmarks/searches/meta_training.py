"""Does CATCH search faster where its networks have seen another game before? Searches on the tabular benchmark, 20 seeds.

``python -m cosearch.benchmarks.searches.meta_training`` writes ``meta_training.json`` and the table of
``docs/evidence/methods.md``. The networks of one game's table are the earlier task, with the mean score of their train seeds; the
other game is searched, and what is best so far is judged after 5, 10 and 20 queries. Beside it stand the same search after toy
tasks alone, without meta-training, with the earlier task but without the context, random search, and the best network of the
earlier game that meets the target, taken as it is. What is done already is kept in the file, so that a second command goes on.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cosearch.bench.benchmark import Benchmark
from cosearch.bench.searches import Search
from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import program
from cosearch.planning.builtins import load_builtins
from cosearch.quality import regret
from cosearch.record.json_record import from_json
from cosearch.statistics import interval_text, student_interval
from cosearch.strategies.base import ProposalStrategy
from cosearch.strategies.earlier_tasks import EarlierTask, write_tasks
from cosearch.strategies.proposal.catch import Catch, CatchOptions
from cosearch.strategies.proposal.random_search import RandomOptions, RandomSearch
from latency_tables.errors import RunFolderError
from latency_tables.text import markdown
from latency_tables.text.reading import read_json
from latency_tables.text.terminal import say

GAMES = ("minatar:breakout", "minatar:asterix")
DEVICES = ("pixel-3", "x86-epyc")
BUDGETS = (5, 10, 20)
SEEDS = 20
COPIED = "the earlier game's best network"
ARMS = {
    "toys and the earlier game": CatchOptions(tasks="given"),
    "toys and the earlier game, no context": CatchOptions(tasks="given", context=False),
    "toys": CatchOptions(),
    "no meta-training": CatchOptions(meta_steps=0),
    "random search": None,
}  # name -> options of CATCH; None: no CATCH
OUT = Path(__file__).with_suffix(".json")
PAGE = DOCS / "evidence" / "methods.md"


@dataclass(frozen=True)
class Found:
    """What one search had found.

    Attributes:
        game, device, arm, seed: which.
        regrets: after each of the budgets; of the copied network once.
    """

    game: str
    device: str
    arm: str
    seed: int
    regrets: tuple[float, ...]


def known(benchmark: Benchmark) -> EarlierTask:
    """A game's whole table as an earlier task."""
    finished = np.flatnonzero(benchmark.finished)
    choices = tuple(tuple(benchmark.architectures[i].choices) for i in finished)
    return EarlierTask(benchmark.table.task, choices, tuple(float(benchmark.scores[i]) for i in finished))


def searched(benchmark: Benchmark, device: str, options: CatchOptions | None, seed: int) -> tuple[float, ...]:
    """Regrets after each of the budgets, of one search.

    Args:
        benchmark: the game.
        device: whose default target holds.
        options: of CATCH; None: random search.
        seed: of the search.
    """
    search = Search(benchmark, device, benchmark.default_target_s(device), seed, BUDGETS[-1])
    strategy: ProposalStrategy
    if options is None:
        strategy = RandomSearch(benchmark.space, RandomOptions(), search.generator, search.is_feasible)
    else:
        strategy = Catch(benchmark.space, options, search.generator, search.is_feasible)
    asked, regrets, scores = [], [], benchmark.scores[search.feasible]
    for count in range(1, BUDGETS[-1] + 1):
        asked.append(strategy.ask())
        strategy.tell(search.evaluation(asked[-1]))
        if count in BUDGETS:
            regrets.append(regret(benchmark.score(asked[strategy.best()]), scores))
    return tuple(regrets)


def copied(earlier: Benchmark, benchmark: Benchmark, device: str) -> float:
    """Regret of the earlier game's best network that meets the target."""
    inside = benchmark.feasible(device, benchmark.default_target_s(device))
    return regret(float(benchmark.scores[inside[np.argmax(earlier.scores[inside])]]), benchmark.scores[inside])


def _row(name: str, rows: list[Found]) -> list[str]:
    texts = []
    for each in zip(*(row.regrets for row in rows)):
        interval = f" {interval_text(student_interval(list(each)), 'search')}" if len(each) > 1 else ""
        texts.append(f"{np.mean(each):.2f}{interval}")
    return [name, *(texts if len(texts) > 1 else [texts[0], *([""] * (len(BUDGETS) - 1))])]


def table(found: list[Found]) -> str:
    """One table a game and device, and the differences that the earlier game makes, by seed."""
    lines: list[str] = []
    for game in GAMES:
        for device in DEVICES:
            own = [one for one in found if (one.game, one.device) == (game, device)]
            names = [COPIED, *ARMS]
            by_arm = {name: [one for one in own if one.arm == name] for name in names}
            if not all(by_arm.values()):
                continue
            heads = ("CATCH after", *(f"{count} queries" for count in BUDGETS))
            lines += [f"{game} on {device}, regret [95 %]:", ""]
            lines += [*markdown.table(heads, [_row(name, rows) for name, rows in by_arm.items()]), ""]
            better, toys = by_arm["toys and the earlier game"], by_arm["toys"]
            differences = []
            for k, count in enumerate(BUDGETS):
                pairs = [one.regrets[k] - other.regrets[k] for one, other in zip(better, toys, strict=True)]
                differences.append(f"{np.mean(pairs):+.2f} {interval_text(student_interval(pairs), 'search')} after {count}")
            lines += [f"With the earlier game minus toys alone, by seed: {', '.join(differences)}.", ""]
    return "\n".join(lines)


def main(out: Annotated[Path, typer.Option(help="JSON file; a second command goes on with it.")] = OUT) -> None:
    """Run all searches, and write result and table."""
    load_builtins()
    found: list[Found] = []
    if out.exists():
        content = read_json(out, "the result of this benchmark", RunFolderError)
        rows = content.get("found") if isinstance(content, dict) else None
        found = [from_json(Found, row, out.name) for row in rows] if isinstance(rows, list) else []
    done = {(one.game, one.device, one.arm, one.seed) for one in found}
    games = {game: Benchmark(game) for game in GAMES}
    with tempfile.TemporaryDirectory() as folder:
        for game, earlier in zip(GAMES, reversed(GAMES)):
            file = Path(folder) / f"{earlier.replace(':', '-')}.json"
            write_tasks(file, games[earlier].space, [known(games[earlier])])
            for device in DEVICES:
                if (game, device, COPIED, 0) not in done:
                    found.append(Found(game, device, COPIED, 0, (copied(games[earlier], games[game], device),)))
                for arm, options in ARMS.items():
                    given = None if options is None else replace(options, tasks=str(file) if options.tasks else "")
                    for seed in (seed for seed in range(SEEDS) if (game, device, arm, seed) not in done):
                        found.append(Found(game, device, arm, seed, searched(games[game], device, given, seed)))
                    keep({"found": [asdict(one) for one in found]}, out, PAGE, "meta-training", table(found))
                    own = [one.regrets[-1] for one in found if (one.game, one.device, one.arm) == (game, device, arm)]
                    say(f"{game} {device} {arm}: {np.mean(own):.2f}")


if __name__ == "__main__":
    program(main)
