"""One finished run made readable: figures, plots and the page.

It reads a run folder and writes ``report.html``; it computes nothing that ``summary.json`` does not hold.
"""
