"""The planner against a simulated fleet: the operator's own decisions, on made-up or recorded load, without
a cluster and without a clock."""
