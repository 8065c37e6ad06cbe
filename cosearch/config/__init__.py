"""The request: every value that a user can set, its range, its default and the presets.

A new value goes into the section it belongs to (``run``, ``agent``, ``search``, ``accel``); ranges are in ``ranges``. Nothing
here knows what a value does: ``planning`` checks that it has an effect.
"""
