"""What stands before the details of the report."""

NOTES = """
## What to know before reading

- **Same cost model for all.** Every system has the same kernels, links and memory, so that gains which a paper
  measured over another system's *implementation* (Python loops over experts, slower CPU kernels, launches) cannot
  come out, and should not. What is compared is decisions: what runs where, what is moved when.
- **Same requests for all.** Routing is generated (docs/traces.md): a published skew, drift from step to step, and a
  calibration set of other prompts whose popularity correlates with the workload's by `static` (0.5 unless a row says
  otherwise). No system is told the workload before it runs. Single requests have no tastes of their own, so that
  caches gain less at batch 1 than on real text.
- **"Off" in TriMoE's ablation.** Relayout off: weights lie where the calibration set places them, and nothing is
  prefetched, moved or rebalanced. Refinement off: the greedy plan stands. CPU off: experts run on the GPU and the DIMMs
  only, and the calibration places them for that. Each row adds one part to the one before.
- **Centre of TriMoE's sweep**: batch 512, 512 tokens in, 128 out, 4 ranks and 0.5 TFLOP/s per DIMM, KV cache on the GPU
  as far as it fits, for all systems alike; rows name what differs. The paper keeps the KV cache in host memory, which
  is a row of its own: there the baselines stream it to the GPU, as TriMoE may, unless its planner finds attention on the
  CPU or the DIMMs faster.
- **Not attempted**: claims about dense models with sparse neurons (Hermes, PowerInfer), of other
  accelerators (Duplex, PIMoE, context-aware CXL-NDP), and of systems whose paper's setting we do not know well enough
  (MoE-Infinity, MoE-Gen's table on an A5000, MoNDE's models); FlexGen's published policy of OPT-30B is checked by a
  test (two of three settings within 5 points; docs/policies.md).
- Every row's first command is printed below its table; `--json` shows everything about it.
"""
