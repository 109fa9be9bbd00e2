"""What tasks occupy on a machine, as numbers: one of each engine, every memory channel, every DIMM."""

from __future__ import annotations

from trimoe.hardware.profile import Profile

__all__ = ["Resources"]


class Resources:
    """Numbers of a machine's resources; `names` has one word for each.

    Attributes:
        gpu, h2d, d2h, cpu, link: the GPU, the copy engines to it and back, all CPU cores together, the link
            between DIMMs (one for all: two moves take turns).
        names: "gpu", "h2d", "d2h", "cpu", "link", "channel0", ..., "dimm0", ...
        n_channels, n_dimms: of the host memory; n_dimms is 0 where DIMMs have no core.
        channels, dimms: all of them, as slices of a load.
    """

    gpu, h2d, d2h, cpu, link = range(5)
    _FIRST_CHANNEL = 5

    def __init__(self, profile: Profile) -> None:
        self.n_channels = profile.memory.channels
        self.n_dimms = profile.ndp.dimms if profile.ndp else 0
        self._per_channel = profile.ndp.dimms_per_channel if profile.ndp else 1
        first_dimm = self._FIRST_CHANNEL + self.n_channels
        self.channels = slice(self._FIRST_CHANNEL, first_dimm)
        self.dimms = slice(first_dimm, first_dimm + self.n_dimms)
        self.names = (
            *("gpu", "h2d", "d2h", "cpu", "link"),
            *(f"channel{index}" for index in range(self.n_channels)),
            *(f"dimm{index}" for index in range(self.n_dimms)),
        )

    def __len__(self) -> int:
        return len(self.names)

    def channel(self, index: int) -> int:
        """A memory channel."""
        return self._FIRST_CHANNEL + index

    def dimm(self, index: int) -> int:
        """A DIMM's core and its ranks."""
        return self.dimms.start + index

    def channel_of(self, dimm: int) -> int:
        """The channel that a DIMM (or, on plain memory, a localized expert's place) is on."""
        return self.channel(dimm // self._per_channel)
