"""How long the page of many runs takes to make and to open: run folders copied from an old one, with other scores and full logs.

    python tests/support/dashboard_load.py --runs 200 --runs 1000

The browser's figures are those of a headless Chromium with a new profile, three times each: wall time from the navigation to the
end of its load event, and CPU time of the page's process until the browser is quiet.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from pathlib import Path

from report_browser import Browser
from report_fake_run import change, metric_lines

ASSET = Path(__file__).resolve().parents[1] / "assets" / "run_0_1_0"
STRATEGIES = ("a3cs", "reinforce", "random", "evolution")
TIMES = 3


def make_runs(folder: Path, count: int) -> None:
    """Copies of the old run with other names, seeds, strategies, scores and latencies, and logs of 243 lines."""
    draws = random.Random(0)
    log = "".join(json.dumps(line) + "\n" for line in metric_lines())
    for index in range(count):
        run, quality = shutil.copytree(ASSET, folder / f"run-{index:04}"), draws.random()
        score, strategy = 5 + 10 * quality + draws.gauss(0, 1), draws.choice(STRATEGIES)
        change(run, "run.json", name=run.name, seed=index, config__strategy__name=strategy)
        change(
            run,
            "summary.json",
            seed=index,
            strategy=strategy,
            score_mean=score,
            score_ci95=[score - 1, score + 1],
            latency_predicted_s=1e-3 * (0.3 + quality + draws.random() / 4),
        )
        (run / "metrics.jsonl").write_text(log, encoding="utf-8")


def opened(page: Path) -> tuple[float, float]:
    """Wall time of the page's load, and CPU time of its process, both in seconds."""
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        browser.call("Performance.enable")
        browser.open(page.as_uri(), 1280)
        figures = {item["name"]: item["value"] for item in browser.call("Performance.getMetrics")["metrics"]}
        assert browser.console == [] and browser.requests == [page.as_uri()]
        return browser.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1e3, figures["ProcessTime"]


def main() -> None:
    """Print one row a number of runs, as Markdown."""
    from cosearch.overview.page import write_page
    from cosearch.overview.rows import Reader

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, action="append", help="how many run folders; may be given several times")
    print("| runs | page | made, CPU | made again | opened, wall | opened, CPU |\n| --- | --- | --- | --- | --- | --- |")
    for count in parser.parse_args().runs or [200]:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            make_runs(folder, count)
            reader, took = Reader(), []
            for _ in range(2):
                begun = time.process_time()
                page = write_page(*reader.rows([folder], time.time()), folder / "page.html", time.time())
                took.append(time.process_time() - begun)
            wall, cpu = zip(*(opened(page) for _ in range(TIMES)), strict=True)
            size = page.stat().st_size / 1e6
            print(
                f"| {count} | {size:.1f} MB | {took[0]:.1f} s | {took[1]:.1f} s | {min(wall):.2f} to {max(wall):.2f} s | "
                f"{min(cpu):.2f} to {max(cpu):.2f} s |",
                flush=True,
            )


if __name__ == "__main__":
    main()
