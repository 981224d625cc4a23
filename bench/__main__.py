"""``./dev bench [NAME]``: every measurement, or one of them by its module's name."""

import importlib
import sys

NAMES = ("invocations",)


def main() -> None:
    """Run what was asked for."""
    for name in sys.argv[1:] or NAMES:
        importlib.import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main()
