"""Pieces of work and the engines that do them: processes of this machine, or a Ray cluster.

``work`` says what an engine is, ``processes`` is the one that needs no further package, ``ray_engine`` the other one; ``workers``
does many pieces of one kind with either. Nothing here knows what a run is.
"""
