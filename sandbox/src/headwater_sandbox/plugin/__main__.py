"""`python -m headwater_sandbox.plugin`, also as `kubectl headwater`."""

from headwater_sandbox.plugin.cli import main

if __name__ == "__main__":
    main()
