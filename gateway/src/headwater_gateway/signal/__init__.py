"""What a signalling session and its transport agree on."""
