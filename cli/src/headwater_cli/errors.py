"""What goes wrong for reasons outside this program."""


class CliError(Exception):
    """Ends the command. The message is one line that says what to do."""
