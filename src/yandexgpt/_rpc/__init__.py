"""How a call is made: the only room that holds channels and stubs."""
