"""What the command lines share: subcommands, numeric options, progress, messages, tables.

Imports only ``closerlook_common.errors`` and ``redaction``.
"""
