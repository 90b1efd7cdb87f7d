"""Readers of the stores besides predictions: heads, references, summaries, texts.

``cache_schema.reading.store`` finds them by name; ``cache_schema.writing.kinds`` writes these stores.
"""
