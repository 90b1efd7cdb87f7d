"""``python -m extract``: the same as the console script."""

from extract.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
