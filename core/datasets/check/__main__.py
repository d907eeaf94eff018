"""`python -m core.datasets.check`: the child process of a check."""

import sys

from core.quick_imports import import_quickly

if __name__ == "__main__":
    sys.exit(import_quickly("core.datasets.check.child").main())
