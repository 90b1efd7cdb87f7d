"""Catalogues: what was read of the headers of a cache, kept so that they need not be read again.

A catalogue is optional. A cache is listed the same without one, only more slowly.
"""
