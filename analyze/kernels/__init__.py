"""Compiled passes over rows, one job a file; plain numpy twins of them stand in the tests.

Imports nothing else of ``analyze``; whatever goes over rows may import it.
"""
