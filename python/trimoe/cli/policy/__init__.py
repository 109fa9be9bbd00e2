"""`trimoe policy`: what the systems' decisions take, and how good they are."""

from trimoe.cli.policy import bench  # noqa: F401 - it registers
from trimoe.cli.policy.options_common import policy_app

__all__ = ["policy_app"]
