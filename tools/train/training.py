"""training.py: what the recipes share: the Muon optimizer, checkpoints that are whole or absent, memory that is kept."""
import ctypes
import math
import os

import torch


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is replaced by (nearly) the closest orthogonal one; every step has the same size.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). Five Newton-Schulz steps push
    the singular values toward 1; the factor 0.2 sqrt(max(rows, columns)) gives an update about the root mean square
    of AdamW's (Liu et al., "Muon is scalable for LLM training", 2025), so both take the same learning rate. A
    parameter of three dimensions is a stack of matrices.
    """

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.1):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @staticmethod
    def orthogonalise(m):
        wide = m.shape[-2] <= m.shape[-1]
        x = (m if wide else m.transpose(1, 2)).bfloat16()
        x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
        for _ in range(5):
            gram = torch.bmm(x, x.transpose(1, 2))
            x = 3.4445 * x + torch.bmm(-4.7750 * gram + 2.0315 * torch.bmm(gram, gram), x)
        return x if wide else x.transpose(1, 2)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                buf = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                buf.mul_(group["momentum"]).add_(p.grad)
                shapes.setdefault(tuple(p.shape), []).append((p, p.grad.add(buf, alpha=group["momentum"])))
            for shape, same in shapes.items():
                updates = self.orthogonalise(torch.stack([u for _, u in same]).view(-1, *shape[-2:]))
                for (p, _), u in zip(same, updates.reshape(-1, *shape)):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(u, alpha=-group["lr"] * 0.2 * math.sqrt(max(shape[-2:])))


def save_atomically(state, path):
    torch.save(state, path + ".new")
    os.replace(path + ".new", path)


def keep_memory():
    """glibc otherwise returns every big tensor to the kernel and faults it in again: a quarter of the time."""
    m_trim_threshold, m_top_pad, m_mmap_max, m_arena_max = -1, -2, -4, -8
    libc = ctypes.CDLL(None)
    for option, value in ((m_mmap_max, 0), (m_trim_threshold, 2**31 - 1), (m_top_pad, 1 << 28), (m_arena_max, 1)):
        libc.mallopt(option, value)
