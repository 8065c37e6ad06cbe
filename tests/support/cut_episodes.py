"""A restored off-policy training, one of whose environments could not be continued."""


def check_cut_episode(training, again):
    """The episode of an environment that begins anew ends in the replay; the others go on.

    Args:
        training: has filled its replay, four environments.
        again: a new one, made alike.
    """
    state, replay = training.state(), training.rounds.replay
    newest = (replay.written - 1) % replay.times
    running = [i for i in range(4) if replay.ends[newest, i] == 0]
    restore, rounds = again.rounds.collector.restore, again.rounds
    rounds.collector.restore = lambda saved: [*restore(saved), running[1]]
    assert again.restore(state) == [running[1]] and len(running) > 1
    ends = rounds.replay.ends[newest]
    assert ends[running[1]] == 2 and ends[running[0]] == 0 and newest * 4 + running[1] in rounds.replay.last_frames
