"""Groups of metrics, one a file: per-image statistics in, rows of the result table out.

Imports predictions and all before them; evaluate asks them.
"""
