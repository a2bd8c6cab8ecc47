"""Fixtures of the chaos tests."""

from tests.chaos.sites import new_url  # noqa: F401
