"""Property tests have no deadline: machines are noisy, and a slow one proves nothing wrong."""

from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")
