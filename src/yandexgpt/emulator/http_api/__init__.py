"""The HTTP faces of the emulator, REST and OpenAI's: translations of calls that its gRPC face answers.

Nothing is answered here: every request becomes a gRPC call to the same emulator, so that keys, quotas, scripts, faults
and the record of what arrived are the same whichever face a client uses. Needs the extra ``yandexgpt[emulator]``.
"""
