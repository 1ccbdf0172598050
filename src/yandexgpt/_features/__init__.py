"""The pure logic behind the facade: chat history, tool loop, polling, batches. Nothing here blocks or does I/O."""
