"""What a measuring core answers to each verb."""

from latency_tables.board.timing import Paced, Visit

VISIT = Visit(*[1e-4] * 7, 50, 1, 1.0).to_dict()
ANSWERS = {
    "hello": {"fingerprint": {"cores": 4}, "runtime_version": "1.20", "settings": {"nice": 0}, "state": {}, "power": None},
    "load": {"id": "a", "graph": {"Conv": 2}},
    "visit": {"id": "a", "visit": VISIT, "at_s": 1.0},
    "paced": {"id": "a", "paced": Paced(0.01, *[1e-4] * 4, 10, 0).to_dict()},
    "energy": {"id": "a", "energy_j": None, "reason": "no sensor"},
    "state": {"state": {"load": 0.1}},
    "drop": {"models": 0},
}
