"""`trimoe policy`: how long the systems' decisions take, and how good they are."""

from trimoe.cli.policy import bench, gap, options, stratify  # noqa: F401 - they register
from trimoe.cli.policy.options_common import policy_app

__all__ = ["policy_app"]
