"""A tabular benchmark of convolutional RL agents: every network of a space trained, so that a search takes seconds.

``settings`` says what is in the table and how it was trained; ``together`` and ``stacked`` train the seeds of a network at once;
``generate`` fills the table; ``table`` reads and writes it; ``benchmark`` answers queries; ``strategies`` runs searches on it,
``controls`` the rules that every search stands beside; ``leaderboard`` makes the page of all of them.
"""
