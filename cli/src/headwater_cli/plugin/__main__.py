"""`python -m headwater_cli.plugin`, also as `kubectl headwater`."""

from headwater_cli.plugin.cli import main

if __name__ == "__main__":
    main()
