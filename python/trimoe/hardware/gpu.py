"""Is there an NVIDIA GPU, and a driver for it? Read from the kernel's files; no CUDA library is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimoe.hardware.proc import read_text

__all__ = ["GpuState", "gpu_state"]

_NVIDIA_VENDOR = "0x10de"
# PCI base class 0x03 is a display controller (0x0300 VGA, 0x0302 3D); a card's sound function is not.
_DISPLAY_CLASS = "0x03"


@dataclass(frozen=True)
class GpuState:
    """GPUs that a driver serves (`names`), and how many the PCI bus shows, driver or not."""

    names: tuple[str, ...]
    driver: str | None
    n_pci_devices: int

    @property
    def present(self) -> bool:
        """A GPU that a driver serves, so that CUDA may use it."""
        return bool(self.names)

    def in_words(self) -> str:
        """One clause for people."""
        if self.present:
            return f"{', '.join(self.names)} (driver {self.driver or 'version unknown'})"
        if self.n_pci_devices:
            return f"{self.n_pci_devices} NVIDIA device(s) on the PCI bus, but no driver is loaded"
        return "none found"


def gpu_state(root: Path = Path("/")) -> GpuState:
    """Look at /proc/driver/nvidia, then /dev/nvidiaN, then the PCI bus."""
    names = [
        _field(read_text(folder / "information"), "Model") or "NVIDIA GPU"
        for folder in sorted((root / "proc/driver/nvidia/gpus").glob("*"))
    ]
    if not names:
        # Some sandboxes pass the device nodes in, and hide /proc/driver.
        names = ["NVIDIA GPU"] * len(list((root / "dev").glob("nvidia[0-9]*")))
    return GpuState(names=tuple(names), driver=_driver_version(root), n_pci_devices=_n_pci_devices(root))


def _field(text: str | None, name: str) -> str | None:
    for line in (text or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _driver_version(root: Path) -> str | None:
    version = read_text(root / "sys/module/nvidia/version")
    if version:
        return version
    for word in (read_text(root / "proc/driver/nvidia/version") or "").split():
        if word[:1].isdigit() and "." in word:
            return word
    return None


def _n_pci_devices(root: Path) -> int:
    return sum(
        read_text(device / "vendor") == _NVIDIA_VENDOR
        and (read_text(device / "class") or "").startswith(_DISPLAY_CLASS)
        for device in (root / "sys/bus/pci/devices").glob("*")
    )
