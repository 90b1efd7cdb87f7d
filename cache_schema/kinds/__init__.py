"""The kinds of stores beside predictions, one a file: what it holds, how it is read, how it is written.

Imports the builder and the reader of any store; those find the kinds by name, in ``cache_schema.store``.
"""
