"""One file a subcommand: ``add_arguments(parser)`` and ``run(args) -> exit code``.

Imports whatever it needs, inside ``run``; nothing imports it but ``cache_schema.cli``, by name.
"""
