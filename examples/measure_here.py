"""Measure this machine for a small search space, and search with the table that it made.

python examples/measure_here.py --out here.jsonl
"""

import argparse

import cosearch

SPACE = {"name": "chain", "values": {"stage_channels": [8, 16], "stage_repeats": [1, 1], "stage_strides": [1, 2]}}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="here.jsonl", help="the table file to write")
    parser.add_argument("--rounds", type=int, default=9, help="visits of each model, at least")
    parser.add_argument("--budget-s", type=float, default=60.0, help="seconds after which no new round starts")
    parser.add_argument("--steps", type=int, default=4096, help="environment steps of the search, and as many of retraining")
    parser.add_argument("--runs", default="runs")
    asked = parser.parse_args()

    env = "procgen:starpilot"
    table = cosearch.measure(asked.out, env, space=SPACE, networks=20, rounds=asked.rounds, budget_s=asked.budget_s)
    error = "unknown" if table.mape is None else f"{table.mape:.1%}"
    print(f"{table.path}: {table.rows} operations, mean error {error} on whole networks that were not fitted")

    run = cosearch.search(
        env,
        table=table.path,
        runs=asked.runs,
        preset="smoke",
        space=SPACE,
        budget={"search_steps": asked.steps, "retrain_steps": asked.steps, "measure_s": 1.0, "eval_episodes": 64},
        threads=1,
    )
    summary = run.summary
    measured = "not measured" if summary.latency_measured_s is None else f"measured {summary.latency_measured_s * 1e6:.0f} us"
    print(f"{run.folder}: predicted {summary.latency_predicted_s * 1e6:.0f} us, {measured}; target met: {summary.target_met}")
