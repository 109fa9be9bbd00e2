"""GPUs by what the system shows of them, from pretended /proc and /sys trees."""

from __future__ import annotations

from pathlib import Path

from support.trees import write_tree
from trimoe.hardware.gpu import gpu_state


def test_a_gpu_is_told_with_its_driver_or_without(tmp_path: Path) -> None:
    assert gpu_state(tmp_path).in_words() == "none found"
    pci = {
        "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de",
        "sys/bus/pci/devices/0000:01:00.0/class": "0x030200",
    }
    sound = {
        "sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de",
        "sys/bus/pci/devices/0000:01:00.1/class": "0x040300",
    }
    without_driver = gpu_state(write_tree(tmp_path, pci | sound))
    assert not without_driver.present
    assert without_driver.n_pci_devices == 1
    assert "no driver" in without_driver.in_words()
    write_tree(tmp_path, {"dev/nvidia0": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""})
    assert gpu_state(tmp_path).names == ("NVIDIA GPU",)
    write_tree(
        tmp_path,
        {
            "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H100\nIRQ: 1\n",
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu\n",
        },
    )
    assert gpu_state(tmp_path).in_words() == "NVIDIA H100 (driver 550.54.14)"
