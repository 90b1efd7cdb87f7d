"""Make stores of a user's own files: outputs, statistics of a training set, last layers.

Imports ``writing`` and ``reading``; only ``commands`` imports it.
"""
