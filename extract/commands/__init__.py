"""One file a subcommand: ``add_arguments(parser)`` and ``run(args) -> exit code``; and what they share: one run from
its options to its summary, its progress, tables of rows.

Imports whatever it needs, inside ``run``; nothing imports it but ``extract.cli``, by name.
"""
