"""Study files: the paper's study, its extension and the built-in miniature, and how such a file is read.

Imports datasets and classes; only commands import it.
"""
