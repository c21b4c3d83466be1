"""Settings of the whole suite."""

from hypothesis import settings

# Busy machines miss deadlines; the same examples on every run keep failures reproducible.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")
