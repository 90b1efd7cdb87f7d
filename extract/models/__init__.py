"""What models of every library share: the line and card of a model, weight files, heads, precision, memory.

Imports classes, datasets and preprocessing; names no library of models.
"""
