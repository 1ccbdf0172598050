"""Limiters, weak sets, threads and the token cache, shared by threads and event loops. Does not use gRPC."""
