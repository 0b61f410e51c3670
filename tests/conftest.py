"""How all tests are run."""

import signal

from hypothesis import settings

settings.register_profile("patient", deadline=None)  # a busy machine is no failure of the code
settings.load_profile("patient")

# A shell starts what it runs behind itself with Ctrl-C ignored, and processes of the tests inherit
# that, unless it is handled here.
signal.signal(signal.SIGINT, signal.default_int_handler)
