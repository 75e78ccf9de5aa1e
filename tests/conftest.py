"""Settings of every test: no deadlines (machines are noisy), and hypothesis examples that are the same in each run."""

from hypothesis import settings

settings.register_profile("underdog", deadline=None, derandomize=True)
settings.load_profile("underdog")
