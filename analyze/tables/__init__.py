"""Result tables as pages: for terminals, papers and notebooks."""

from analyze.tables.build import Cell, Column, Table, build_tables, split_names

__all__ = ["Cell", "Column", "Table", "build_tables", "split_names"]
