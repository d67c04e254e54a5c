"""`python -m edgeagents.cli`."""

from edgeagents.cli import main

if __name__ == "__main__":
    main()
