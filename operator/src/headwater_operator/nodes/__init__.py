"""gRPC to the SFU nodes: their reports in, the cordon flag out."""
