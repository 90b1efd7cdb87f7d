"""Places of caches: a folder, or an address whose files are kept on this machine once fetched.

Imports the backends and the format; ``store`` and ``cache`` import it.
"""
