"""A stand-in for `trimoe._cpu` that describes any CPU a test wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trimoe.errors import InputError

AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "avx512_vnni")
FLAGS = ("avx2", "fma", "f16c", "avx_vnni", *AVX512, "amx_tile", "amx_bf16", "amx_int8")
PREFERENCE = ("amx", "avx512", "avx512_bf16", "avx2", "ref")


@dataclass
class FakeCpu:
    """By default a Sapphire Rapids with everything on; `lacks` maps an entry to the reason it gives."""

    arch: str = "x86_64"
    missing: tuple[str, ...] = ()
    os: dict[str, bool] = field(default_factory=lambda: {"avx": True, "avx512": True, "amx": True})
    amx_permission: bool = True
    lacks: dict[str, str] = field(default_factory=dict)
    chosen: str = "amx"
    bandwidth: list[float] = field(default_factory=lambda: [10.0, 30.0, 11.0])
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def features(self) -> dict[str, Any]:
        return {
            "arch": self.arch,
            "vendor": "GenuineIntel",
            "brand": "Pretended CPU",
            "xcr0": 0x602E7 if self.arch == "x86_64" else None,
            "cpuid": {flag: self.arch == "x86_64" and flag not in self.missing for flag in FLAGS},
            "os": self.os,
            "amx_permission": self.amx_permission,
        }

    def kernel_table(self) -> list[dict[str, Any]]:
        return [
            {
                "isa": isa,
                "weights": ["fp32", "bf16"],
                "supported": isa not in self.lacks,
                "reason": self.lacks.get(isa, "used"),
                "chosen": isa == self.chosen,
            }
            for isa in PREFERENCE
        ]

    def selected_isa(self) -> str:
        if self.chosen not in PREFERENCE:
            raise InputError(expected="a known entry", got=self.chosen, hint="amx")
        return self.chosen

    def probe_bandwidth_gbps(self, size: int, repeats: int, threads: int) -> list[float]:
        self.calls.append(("bandwidth", size, repeats, threads))
        return self.bandwidth

    def probe_gflops(self, weights: str, seconds: float, repeats: int, threads: int) -> list[float]:
        self.calls.append(("gflops", weights, seconds, repeats, threads))
        return [100.0, 90.0, 300.0] if weights == "bf16" else [50.0]
