"""``python -m cache_schema``: the same as the console script."""

from cache_schema.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
