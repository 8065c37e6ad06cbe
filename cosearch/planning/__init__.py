"""From a request to a checked plan: task, space, costs, targets, teacher and budget, before any folder is made.

A request that cannot work is refused here, with what to type next. Nothing here trains.
"""
