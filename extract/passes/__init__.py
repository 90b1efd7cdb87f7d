"""Images once through many models: decoded batches, models brought onto the device in time, outputs into stores.

Imports planning, models and datasets; engines hand it pieces of work, and commands listen to its events.
"""
