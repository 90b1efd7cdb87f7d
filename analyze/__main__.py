"""``python -m analyze``: the same as the console script."""

from analyze.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
