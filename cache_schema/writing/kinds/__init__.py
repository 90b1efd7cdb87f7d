"""Write the stores besides predictions: heads, references, summaries, texts.

Imports the builder and the readers in ``cache_schema.reading.kinds``.
"""
