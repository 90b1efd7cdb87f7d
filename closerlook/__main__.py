"""``python -m closerlook``: the same as the console script."""

from closerlook.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
