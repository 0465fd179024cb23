"""The demonstration: bots in every region, a live view, and an unattended check."""
