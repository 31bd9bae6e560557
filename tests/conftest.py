"""What every test runs under."""

import signal

from hypothesis import settings

# Shared machines stall now and then: how long an example takes says nothing. Where CI is set, the default profile
# draws the same examples each time, so that a commit is judged by what it changes; elsewhere new ones are drawn.
settings.register_profile("atelier", settings.default, deadline=None)
settings.load_profile("atelier")


def pytest_configure() -> None:
    """Give Ctrl-C its meaning back: shells start background jobs with it ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
