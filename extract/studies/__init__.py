"""Study files: the paper's study and its extension, and how such a file is read.

Imports datasets and classes; only commands import it.
"""
