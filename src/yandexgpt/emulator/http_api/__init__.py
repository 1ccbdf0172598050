"""The HTTP APIs of the emulator: REST and the OpenAI API.

They only translate: every HTTP request becomes a gRPC call to the same emulator. So credentials, quotas, scripts,
faults and recorded requests are the same for all clients. Needs the extra ``yandexgpt[emulator]``.
"""
