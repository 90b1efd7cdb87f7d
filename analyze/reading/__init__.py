"""How a cache is read: which stores numbers are computed from, which classes enter the softmax, blocks read ahead.

Imports kernels and settings; whatever opens a store imports it.
"""
