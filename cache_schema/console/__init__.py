"""What the command lines of the three packages share: subcommands by name, a progress bar, one style of tables.

Imports the errors alone.
"""
