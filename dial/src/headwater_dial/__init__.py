"""What operator and gateway share: how they reach the API server and nodes, and look for garbage."""
