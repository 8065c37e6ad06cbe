"""Pieces of work and the engines that do them: processes of this machine, or a Ray cluster.

``work`` says what an engine is, ``processes`` is the one that needs no further package, ``ray_engine`` the other one; ``workers``
does many pieces of one kind with either. Pieces that are folders are made by ``folder_work`` where the worker is, and asked for,
tried again and put in place by ``folder_making``; ``watch`` tells what is idle, stuck or slow, and ``log`` records what each
process did. Nothing here knows what a run is.
"""
