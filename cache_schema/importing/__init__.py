"""Somebody's own arrays, tables and ``.npz`` files in, stores out: outputs, statistics of a training set, last layers.

Imports whatever stores are made of; only ``commands`` imports it.
"""
