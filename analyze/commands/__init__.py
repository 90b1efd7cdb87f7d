"""One file a subcommand: ``add_arguments(parser)`` and ``run(args) -> exit code``; and what they share, the types of
words and the progress line.

Imports whatever it needs, inside ``run``; nothing imports it but ``analyze.cli``, by name.
"""
