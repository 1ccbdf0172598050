"""The shapes of OpenAI's Responses API: pure values, shared by ``client.responses`` and the emulator."""
