"""One hypothesis profile for all tests: the same examples in every run, and no deadline on a busy machine."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "same_every_time",
    derandomize=True,
    deadline=None,
    max_examples=60,
    database=None,
    # Drawing a process takes a list per table; the examples themselves are small.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("same_every_time")
