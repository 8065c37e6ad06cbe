"""What the worker processes of ``test_pipeline_workers`` do; spawned processes import it."""

import os
import signal
import time
from pathlib import Path

from latency_tables.errors import ConfigError


def job(words, send):
    """Obey the words of a job: send, sleep, raise, or die (always, or only the first time: then a file is left)."""
    kind, content = words
    if kind == "send":
        for number in range(content):
            send(number)
    elif kind == "sleep":
        time.sleep(content)
    elif kind == "wrong request":
        raise ConfigError(content)
    elif kind == "crash":
        raise ZeroDivisionError(content)
    elif kind == "die" or (kind == "die once" and not Path(content).exists()):
        if kind == "die once":
            Path(content).write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "live for ever":
        Path(content).write_text(str(os.getpid()))
        time.sleep(1000)
    return kind, os.getpid()
