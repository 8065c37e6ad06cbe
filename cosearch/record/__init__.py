"""A run on disk: its folder, its checkpoints, its log, and files that are whole or absent.

Whoever writes into a run folder does it through this room. Nothing here knows what a stage is.
"""
