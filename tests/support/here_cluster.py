"""In place of a cluster: an engine that does each piece of work in this process, at once; one of them may be lost."""

from collections import deque

from cosearch.fleet.work import Done, Failed, Lost, Sent, Started, answer_of, ended


class HereEngine:
    """Does each piece at once; the ``loses``-th one is lost."""

    def __init__(self, loses=None):
        self.events, self.works, self.loses = deque(), [], loses

    def submit(self, work):
        self.works.append(work)
        self.events.append(Started(work.name, "here"))
        if len(self.works) == self.loses:
            self.events.append(Lost(work.name, "its process died"))
            return
        answer = answer_of(work.function, work.job, lambda message: self.events.append(Sent(work.name, message)))
        self.events.append(ended(work.name, answer))
        assert isinstance(self.events[-1], Done | Failed)

    def next(self, timeout_s=None):
        return self.events.popleft() if self.events else None

    def close(self):
        self.works.append(None)


class HereCluster:
    """A cluster without an address, so that nothing is carried, whose engine is the one above."""

    address = ""

    def __init__(self, loses=None):
        self.made = HereEngine(loses)

    def engine(self, most, files=None):
        assert files is None
        return self.made
