"""The pure logic behind the facade: history, tool loop, polling, batches. Nothing here waits."""
