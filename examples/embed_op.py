"""From tensors to the output of a layer: torch alone, no transformers, no checkpoint."""

import torch

import trimoe

experts, hidden, inner, topk = 8, 256, 128, 2
gate, up = torch.randn(2, experts, inner, hidden) / hidden**0.5  # y = down(silu(gate x) * up x)
down = torch.randn(experts, hidden, inner) / inner**0.5

layer = trimoe.ExpertLayer.from_tensors(gate, up, down, weights="int8")  # packed once, by all threads
print(layer)

x = torch.randn(5, hidden)
topk_weights, topk_ids = (x @ torch.randn(hidden, experts)).softmax(dim=1).topk(topk)
with torch.inference_mode():
    y = trimoe.moe_forward(x, topk_ids, topk_weights, layer.handle)

h = torch.nn.functional.silu(torch.einsum("eih,th->tei", gate, x)) * torch.einsum("eih,th->tei", up, x)
every = torch.einsum("ehi,tei->teh", down, h)  # the same, all experts for all tokens
chosen = every.gather(1, topk_ids[..., None].expand(-1, -1, hidden))
exact = (chosen * topk_weights[..., None]).sum(dim=1)
print(f"{tuple(y.shape)}, {100 * (y - exact).norm() / exact.norm():.1f} % from fp32")
