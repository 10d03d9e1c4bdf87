"""training.py: what the recipes share: the Muon optimizer, checkpoints that are whole or absent, memory that is kept,
and the flags and the step of those that train small models on made-up tasks."""
import argparse
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


def task_parser(description, out, steps, lr):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", default=out)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only print what there is")
    return parser


def begin(args):
    os.makedirs(args.out, exist_ok=True)
    keep_memory()
    torch.set_num_threads(args.threads)


def resume(checkpoint, model, optimizer):
    """The state that was saved, its model and optimizer loaded; {}: there is none."""
    if not os.path.exists(checkpoint):
        return {}
    state = torch.load(checkpoint)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state


def warm_up_and_decay(optimizer, lr, at, steps):
    """The rate of step `at`: up over 50 steps, down over the last 30 %."""
    for group in optimizer.param_groups:
        group["lr"] = lr * min(1.0, (at + 1) / 50, (steps - at) / (0.3 * steps))


def descend(loss, model, optimizer):
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
