"""Client address to region."""
