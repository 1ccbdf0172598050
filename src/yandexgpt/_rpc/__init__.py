"""Makes calls. Only this package creates channels and stubs."""
