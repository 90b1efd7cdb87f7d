"""Result tables as pages: for terminals, papers and notebooks.

Imports results, and comparisons of evaluate; the notebook's class and commands import it.
"""

from analyze.tables.build import Table, build_tables, split_names
from analyze.tables.cells import Cell, Column

__all__ = ["Cell", "Column", "Table", "build_tables", "split_names"]
