"""Runs the Python it is given, as a module: `python -m tests.unit.embedded.said CODE`."""

import sys

if __name__ == "__main__":
    exec(sys.argv[1])
