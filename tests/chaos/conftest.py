"""Long fault loops: repeated faults against a whole system. `make chaos` runs them, `make test` does not."""
