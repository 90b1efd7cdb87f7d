"""Compiled passes over rows, one job a file; the tests hold plain numpy versions of them.

Imports nothing else of ``analyze``; whatever goes over rows may import it.
"""
