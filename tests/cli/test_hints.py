"""Wherever a name is chosen from a list, the hint is the choice that is written most like what came."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.command_line import run_here

SMALL = ["simulate", "--model", "deepseek-v2-lite", "--hardware", "rtx6000ada-8452y", "--batch", "4"]
SMALL += ["--input", "8", "--output", "3", "--system", "n-cpu-moe"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["simulate", "--model", "gpt-oss-20b"], "gpt-oss-120b"),
        (["compare", "--model", "qwen3-30b"], "qwen3-30b-a3b"),
        (["plan", "--model", "mixtral"], "mixtral-8x7b"),
        (["policy", "gap", "--model", "kimi"], "kimi-k2"),
        (["simulate", "--hardware", "h100"], "h100-8452y"),
        (["policy", "bench", "--hardware", "machine"], "this-machine"),
        (["simulate", "--system", "ktransformer"], "ktransformers"),
        (["compare", "--systems", "trimoe,hybrid-moe"], "hybrimoe"),
        (["policy", "bench", "--policy", "moegen"], "moe-gen"),
        (["policy", "options", "infinity"], "moe-infinity"),
        ([*SMALL, "--set", "n-cpu-moe.batch=2"], "n-cpu-moe.micro_batch"),
        (["policy", "gap", "--set", "trimoe.prefetching=off"], "trimoe.prefetch"),
        (["policy", "bench", "--set", "trimo.eta=1"], "trimoe"),
        (["simulate", "--set", "flexgen2.attention=gpu", "--system", "flexgen"], "flexgen"),
        ([*SMALL, "--system", "flexgen", "--set", "flexgen.attention=gpus"], "flexgen.attention=gpu"),
        ([*SMALL, "--profile-set", "gpu.mem_gbps=3"], "gpu.memory_gbps"),
        ([*SMALL, "--weights", "fp6"], "fp8"),
        ([*SMALL, "--preset", "qwen"], "--preset qwen3-30b"),
        ([*SMALL, "--shape", "zip"], "--shape zipf"),
        ([*SMALL, "--phase", "decoding"], "--phase decode"),
        (["trace", "stats", "--phase", "filling"], "--phase prefill"),
        (["trace", "generate", "--output", "a.parquet", "--preset", "mixtral"], "--preset mixtral-8x7b"),
        (["trace", "generate", "--output", "a.parquet", "--shape", "normal"], "--shape lognormal"),
        (["policy", "gap", "--layouts", "local"], "localized"),
        (["bench", "layer", "--dtype", "mxfp"], "--format mxfp4"),
        (["bench", "layer", "--routing", "zip"], "--routing zipf"),
        (["bench", "layer", "--dtype", "int4", "--activations", "fp16"], "bf16"),
        (["generate", "--format", "int"], "--format int8"),
        (["generate", "--dtype", "bf16"], "--dtype bfloat16"),
        (["pack", "nowhere", "--format", "mxfp8"], "--format mxfp4"),
        (["ndp", "bench", "--spec", "5600"], "5600B"),
        (["ndp", "bench", "--pattern", "row"], "row-major"),
        (["ndp", "trace", "--pattern", "random-bank"], "random-single-bank"),
        (["ndp", "expert", "--dtype", "int16"], "int8"),
        (["ndp", "expert", "--layout", "strip"], "striped"),
        (["ndp", "expert", "--mode", "concurrently"], "concurrent"),
        (["ndp", "validate", "--only", "cores"], "core"),
        (["sim"], "`trimoe simulate`, or `trimoe --help`"),
        (["trace", "rec"], "`trimoe trace record`, or `trimoe trace --help`"),
    ],
)
def test_the_nearest_name_is_the_hint(
    arguments: list[str], hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = run_here(arguments, capfd)
    outcome.assert_one_line()
    assert outcome.err.partition("; try ")[2] == f"{hint}\n"


def test_an_instruction_set_has_the_nearest_one_as_its_hint() -> None:
    command = [sys.executable, "-m", "trimoe.cli.main", "doctor", "--no-measure"]
    environment = os.environ | {"TRIMOE_CPU_ISA": "avx-2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "; got avx-2; try avx2\n" in done.stderr
