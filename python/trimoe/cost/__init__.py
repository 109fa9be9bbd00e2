"""The one cost core: what work takes on a machine, and what it occupies meanwhile. Needs no torch.

`CostModel` turns experts, copies and moves into `Task`s; `schedule` puts tasks on a clock. Policies, the
runtime's predictions and the simulator all use these.
"""

from trimoe.cost.clock import NOTHING, Clock, Interval, Task
from trimoe.cost.curve import LookupCurve, RampCurve
from trimoe.cost.model import CostModel
from trimoe.cost.resources import Resources
from trimoe.cost.schedule import Schedule, schedule

__all__ = [
    "NOTHING",
    "Clock",
    "CostModel",
    "Interval",
    "LookupCurve",
    "RampCurve",
    "Resources",
    "Schedule",
    "Task",
    "schedule",
]
