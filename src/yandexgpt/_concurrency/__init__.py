"""Limiters, weak sets, threads and the token cache, shared by threads and event loops. Makes no calls."""
