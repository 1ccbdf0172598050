"""Requests and responses of OpenAI's Responses API as pure values, shared by ``client.responses`` and the emulator."""
