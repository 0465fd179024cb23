"""`headwater`, also as `python -m headwater_sandbox`."""

from headwater_sandbox.cli import app


def main() -> None:
    app()


if __name__ == "__main__":
    main()
