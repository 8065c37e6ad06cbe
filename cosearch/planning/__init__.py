"""From a request to a checked plan: task, space, hardware, constraints, teacher and budget, before any folder is made.

A request that cannot work is refused here, with what to type next. Nothing here trains; for an accelerator its first design is
searched. ``device`` holds what the agent runs on, ``options`` which options have an effect; ``plan`` puts all together.
"""
