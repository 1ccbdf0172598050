# Generated from ../_async by scripts/unasync.py. Do not edit.
"""The facade for threads, generated from ``_async`` by ``scripts/unasync.py``."""
