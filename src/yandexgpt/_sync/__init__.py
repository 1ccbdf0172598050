"""The synchronous facade, generated from ``_async`` by ``scripts/unasync.py``. Do not edit."""
