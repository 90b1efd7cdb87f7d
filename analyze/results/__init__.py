"""The result table, one row a number: its columns, its numbers by name, its rows by name, names for readers, tables
that others published.

Imports nothing else of ``analyze``; everything that writes, reads or shows numbers may import it.
"""

from analyze.results.joining import Merged, merge_results
from analyze.results.outdated import remove_other_roles
from analyze.results.table import (
    CARD_COLUMNS,
    KEY_COLUMNS,
    RESULT_SCHEMA,
    RESULT_VERSION,
    VARIANT_COLUMNS,
    ResultRow,
    card_cells,
    conform,
    read_results,
    store_digests,
    to_frame,
    write_results,
)

__all__ = [
    "CARD_COLUMNS",
    "KEY_COLUMNS",
    "RESULT_SCHEMA",
    "RESULT_VERSION",
    "VARIANT_COLUMNS",
    "Merged",
    "ResultRow",
    "card_cells",
    "conform",
    "merge_results",
    "read_results",
    "remove_other_roles",
    "store_digests",
    "to_frame",
    "write_results",
]
