"""Muon (Keller Jordan 2024, https://kellerjordan.github.io/posts/muon): momentum whose steps are made orthogonal.

As torch.optim.Muon with adjust_lr_fn="match_rms_adamw", but in the precision asked for, and matrices of one
shape together: PyTorch's computes in bfloat16 wherever it runs, which takes a CPU that has none ten times as
long as all the rest of a training step.
"""

from __future__ import annotations

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the odd quintic that the post settles on
STEPS, EPS = 5, 1e-7


def has_bfloat16(device: torch.device) -> bool:
    """Whether it computes in bfloat16; CPUs that only pretend to are fifty times slower so."""
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Muon(torch.optim.Optimizer):
    """`dtype`: in which the steps are made orthogonal. Raises ValueError for weights that are no matrices; give those to AdamW."""

    def __init__(self, params, lr: float, weight_decay: float = 0.1, momentum: float = 0.95, dtype: torch.dtype = torch.bfloat16):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype
        if shapes := {tuple(p.shape) for group in self.param_groups for p in group["params"] if p.ndim != 2}:
            raise ValueError(f"weights of shapes {sorted(shapes)}, expected matrices; give the others to AdamW")

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            alike: dict[torch.Size, list[torch.Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.shape, []).append(p)
            for (rows, columns), matrices in alike.items():
                rate = group["lr"] * 0.2 * max(rows, columns) ** 0.5  # steps as large as AdamW's
                steps = orthogonal(torch.stack([self.momentum(p, group["momentum"]) for p in matrices]).to(self.dtype))
                for p, step in zip(matrices, steps):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step.to(p.dtype), alpha=rate)

    def momentum(self, p: torch.Tensor, share: float) -> torch.Tensor:
        """Nesterov's: where the momentum will have carried the gradient by the next step."""
        past = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        past.lerp_(p.grad, 1 - share)
        return p.grad.lerp(past, share)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """The orthogonal matrices nearest to these, N x rows x columns, about: singular values come out between 0.7 and 1.2."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=EPS)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
