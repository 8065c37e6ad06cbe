"""Drawings of the report: curves, fronts, probabilities and graphs, as SVG inside the page."""
