"""`headwater`, also as `python -m headwater_sandbox`."""

import signal

from headwater_sandbox.cli import app


def main() -> None:
    # A shell's background jobs inherit an ignored SIGINT, and Python leaves it so. Here SIGINT is the
    # documented end of a whole cluster: it must reach us however we were started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app()


if __name__ == "__main__":
    main()
