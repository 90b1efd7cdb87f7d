"""What all packages share: errors, the command line and terminal, input files, the user's cache folder, Ray.

Imports no other package of this distribution; all of them may import it.
"""
