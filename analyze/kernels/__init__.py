"""Compiled passes over rows, one job a file; plain numpy twins of them stand in the tests."""
