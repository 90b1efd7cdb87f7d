"""One file per subcommand: ``add_arguments(parser)`` and ``run(args) -> exit code``.

Modules import what they need inside ``run``; ``cache_schema.cli`` loads them by name.
"""
