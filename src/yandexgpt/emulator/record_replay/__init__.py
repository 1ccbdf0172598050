"""Record and replay: calls are forwarded to a real service and written to a file, or answered from such a file."""
