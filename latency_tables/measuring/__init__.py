"""Tables made by timing models on a device.

- ``job``: one measurement from request to file, in which the others meet.
- ``plan``: which models to time for a work list; ``settings``: how often and how long.
- ``remote``, ``rpc``: a measuring core here or on a board, or a device behind a TVM RPC tracker.
- ``loop``: what to visit next, until rows have converged; ``journal``: results on disk as they come.
- ``visits``: what a measurement saw, the only thing that passes from there to ``compose`` and ``certify``, which make rows,
  calibration and certificate of it by the estimators of ``statistics``.

Times are seconds. Nothing here knows estimates or how tables are shown.
"""
