"""A TCP proxy that plays network faults between a client and a gRPC server."""
