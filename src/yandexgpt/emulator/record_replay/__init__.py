"""Record and replay: calls forwarded to a real service and written down, and answered from what was written."""
