"""What calls from many threads and event loops share: limiters, registries, threads, the token cache. No gRPC."""
