"""How drawn examples are run in all tests."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)  # a busy machine is no failure of the code
settings.load_profile("patient")
