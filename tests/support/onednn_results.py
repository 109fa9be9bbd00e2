"""A program, for the core that has the table entry "onednn": every case in every format, as JSON lines."""

from __future__ import annotations

import json
import sys

import torch

from support.cases import CASES, FORMATS, INTEGER, Case, make_problem, rel_error
from trimoe import _cpu
from trimoe.layer.op import forward_on

# Real sizes: several blocks of what oneDNN's own kernels cut a product into, and many rows.
EXTRA = [
    Case("wide", tokens=5, hidden=1500, inter=96, experts=2),
    Case("many_rows", tokens=200, hidden=260, inter=130, experts=2, topk=1, routing="one"),
]

# As in tests/cpu/test_kernels.py: sums run in another order, and an h near the middle of two bf16 may round
# the other one.
TOLERANCE = {name: 2e-3 if name in INTEGER else 1e-4 for name in FORMATS} | {"fp32": 3e-6}


def main() -> None:
    torch.set_num_threads(1)
    isas = [entry["isa"] for entry in _cpu.kernel_table()]
    print(json.dumps({"isas": isas, "selected": _cpu.selected_isa()}))
    for case in [*CASES, *EXTRA]:
        for name in FORMATS:
            problem = make_problem(case, name, hidden="fp32")
            results = {
                key: forward_on(
                    isa, problem.hidden, problem.ids, problem.weights, problem.layer.handle, threads
                )
                for key, isa, threads in [
                    ("onednn", "onednn", 1),
                    ("threads", "onednn", 3),
                    ("ref", "ref", 1),
                    ("selected", _cpu.selected_isa(), 1),
                ]
            }
            oracle = results["onednn"]
            print(
                json.dumps(
                    {
                        "case": case.name,
                        "format": name,
                        "exact": rel_error(oracle, problem.exact()),
                        "ref": rel_error(results["ref"], oracle.double()),
                        "selected": rel_error(results["selected"], oracle.double()),
                        "same_on_threads": torch.equal(results["threads"], oracle),
                        "same_as_ref": torch.equal(results["ref"], oracle),
                    }
                )
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
