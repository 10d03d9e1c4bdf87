"""atlas_models.py: one small decoder, and the mechanisms that can sit in it, in PyTorch.

Owns the mixers (softmax attention with windows, sinks and blocks, linear attention, Performer, RetNet, GLA, the gated
delta net, Mamba-2, RWKV-7, Hyena), the feed-forward layers, and how each of them is called in the folders that the engine
loads: settings() gives config.json, tensors() the names of Hugging Face, flash-linear-attention or the project's own.
`chunked_recurrence` is the one chunked form of everything that keeps a state. Refuses nothing: atlas.py and recall.py
decide what is built.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

CHUNK = 16


@dataclass
class Shape:
    kind: str = "mha"
    dim: int = 64
    n_layers: int = 4
    n_heads: int = 4
    hidden: int = 224
    vocab_size: int = 1024
    seq_len: int = 512
    window: int = 64
    n_sinks: int = 4
    n_experts: int = 4
    n_used: int = 2
    k_dim: int = 16        # of a head of a recurrent mechanism
    v_dim: int = 32
    n_features: int = 64   # of a head of Performer
    block: int = 16        # tokens of BigBird's blocks; a query sees 2 blocks of window, the first, and 1 drawn
    filter_dim: int = 16   # of the network that gives Hyena's filters
    filter_bands: int = 4  # cosines and sines of a position that it reads
    short_conv: bool = False   # before every mixer, width 4, with its input added (recall.py)
    eps: float = 1e-5


# -- the recurrence ---------------------------------------------------------------------------------------------

def recurrence(q, k, v, g, a=None, b=None):
    with torch.autocast(q.device.type, enabled=False):
        return chunked_recurrence(q, k, v, g, a, b)


def chunked_recurrence(q, k, v, g, a, b):
    """o_t = S_t q_t of  S' = S_{t-1} diag(e^{g_t});  S_t = S' + (S' a_t) b_t^T + v_t k_t^T, from S = 0.

    q, k, a, b: [n, t, k_dim]; v: [n, t, v_dim]; g <= 0: [n, t, 1 or k_dim]. Chunks of CHUNK tokens in the WY form of
    arXiv:2406.06484 and 2412.06464: within a chunk products of matrices, between chunks the state. With a g for each
    channel keys are divided by their decay within the chunk, so a chunk's decays must stay in the range of fp32.
    """
    n, t, _ = q.shape
    pad = -t % CHUNK
    def cut(x):
        return None if x is None else F.pad(x.float(), (0, 0, 0, pad)).view(n, -1, CHUNK, x.shape[-1])
    q, k, v, g, a, b = map(cut, (q, k, v, g, a, b))
    G = g.cumsum(2)
    last = G[:, :, -1:]
    see = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).tril()
    before = see.tril(-1)
    if g.shape[-1] == 1:
        decay = (G - G.transpose(2, 3)).masked_fill(~see, -math.inf).exp()
        def pairs(x, y, mask):
            return (x @ y.transpose(2, 3) * decay).masked_fill(~mask, 0)
    else:
        grow, shrink = (-G).exp(), G.exp()
        def pairs(x, y, mask):
            return ((x * shrink) @ (y * grow).transpose(2, 3)).masked_fill(~mask, 0)
    to_end = (last - G).exp()
    kv = (k * to_end).transpose(2, 3) @ v
    if a is not None:
        eye = torch.eye(CHUNK, device=q.device)
        sides = torch.cat([a * G.exp(), pairs(a, k, before) @ v], -1)
        sides = torch.linalg.solve_triangular(eye - pairs(a, b, before), sides, upper=False, unitriangular=True)
        left, right = sides.split([a.shape[-1], v.shape[-1]], -1)
        b_end = (b * to_end).transpose(2, 3)
    keep = last.exp().transpose(2, 3)
    S = torch.zeros_like(kv[:, 0])
    states, updates = [], []
    for c in range(q.shape[1]):
        states.append(S)
        S_next = S * keep[:, c] + kv[:, c]
        if a is not None:
            u = left[:, c] @ S + right[:, c]
            updates.append(u)
            S_next = S_next + b_end[:, c] @ u
        S = S_next
    o = (q * G.exp()) @ torch.stack(states, 1) + pairs(q, k, see) @ v
    if a is not None:
        o = o + pairs(q, b, see) @ torch.stack(updates, 1)
    return o.reshape(n, -1, v.shape[-1])[:, :t]


# -- parts ------------------------------------------------------------------------------------------------------

def rms(x, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


class RmsNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return rms(x, self.eps) * self.weight


class Conv(nn.Module):
    """Causal, each channel by itself; the last tap multiplies the present."""
    def __init__(self, width, taps=4, bias=False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 1, taps).uniform_(-0.5, 0.5))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x):
        taps = self.weight.shape[-1]
        x = F.pad(x, (0, 0, taps - 1, 0))
        y = sum(x[:, j:x.shape[1] - taps + 1 + j] * self.weight[:, 0, j] for j in range(taps))
        return y if self.bias is None else y + self.bias


def linear(n, m, bias=False):
    return nn.Linear(n, m, bias=bias)


def heads(x, n):
    """[rows, t, n d] -> [rows n, t, d]"""
    rows, t, _ = x.shape
    return x.view(rows, t, n, -1).transpose(1, 2).reshape(rows * n, t, -1)


def join(x, n):
    """[rows n, t, d] -> [rows, t, n d]"""
    return x.view(-1, n, *x.shape[1:]).transpose(1, 2).flatten(2)


def rotate(x, theta=10000.0):
    """RoPE on the halves of each head: [n, t, d]."""
    half = x.shape[-1] // 2
    angle = torch.outer(torch.arange(x.shape[1], device=x.device).float(),
                        theta ** (-torch.arange(half, device=x.device).float() / half))
    x1, x2, cos, sin = x[..., :half], x[..., half:], angle.cos(), angle.sin()
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1)


# -- mixers: names of parts as in the folders ---------------------------------------------------------------------

WINDOW_BLOCKS, GLOBAL_BLOCKS, RANDOM_BLOCKS = 2, 1, 1      # of BigBird


def drawn_block(layer, block, i):
    """The i-th of the blocks that a layer draws for a block of queries, from those before it: as the engine draws it."""
    word = (1 << 64) - 1
    z = (layer << 40 | block << 8 | i) + 1
    z = z * 0x9E3779B97F4A7C15 & word
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & word
    z = (z ^ z >> 27) * 0x94D049BB133111EB & word
    return (z ^ z >> 31) % block


def block_pattern(layer, n):
    """[n, n]: which block of queries sees which block of keys; what is ahead is hidden by token."""
    see = torch.zeros(n, n, dtype=torch.bool)
    for b in range(n):
        see[b, :GLOBAL_BLOCKS] = True
        see[b, max(0, b - WINDOW_BLOCKS + 1):b + 1] = True
        for i in range(RANDOM_BLOCKS if b else 0):
            see[b, drawn_block(layer, b, i)] = True
    return see


class Softmax(nn.Module):
    """Attention of Llama; a query sees the last `window` keys, itself included, and the first `sinks`; 0: all. With
    `blocks` tokens to a block, those that the layer's pattern shows."""
    def __init__(self, s, n_kv=None, window=0, sinks=0, blocks=0, layer=0):
        super().__init__()
        self.n, self.n_kv, self.window, self.sinks = s.n_heads, n_kv or s.n_heads, window, sinks
        self.blocks, self.layer = blocks, layer
        d = s.dim // s.n_heads
        self.q_proj, self.k_proj = linear(s.dim, s.dim), linear(s.dim, d * self.n_kv)
        self.v_proj, self.o_proj = linear(s.dim, d * self.n_kv), linear(s.dim, s.dim)

    def forward(self, x, carried):
        rows, t, _ = x.shape
        group = self.n // self.n_kv
        q, k, v = rotate(heads(self.q_proj(x), self.n)), rotate(heads(self.k_proj(x), self.n_kv)), heads(self.v_proj(x), self.n_kv)
        q = q.reshape(rows * self.n_kv, group, t, -1)
        i = torch.arange(t, device=x.device)
        see = i[None, :] <= i[:, None]
        if self.window:
            see &= (i[None, :] > i[:, None] - self.window) | (i[None, :] < self.sinks)
        if self.blocks:
            pattern = block_pattern(self.layer, -(-t // self.blocks)).to(x.device)
            see &= pattern[i[:, None] // self.blocks, i[None, :] // self.blocks]
        score = (q @ k[:, None].transpose(2, 3)) * q.shape[-1] ** -0.5
        o = torch.softmax(score.masked_fill(~see, -math.inf), -1) @ v[:, None]
        return self.o_proj(join(o.reshape(rows * self.n, t, -1), self.n))


class LinearAttention(nn.Module):
    """phi = elu + 1 over its sum (arXiv:2006.16236), as flash-linear-attention's linear_attn: no positions."""
    def __init__(self, s):
        super().__init__()
        self.n, self.eps, self.v_dim = s.n_heads, s.eps, s.v_dim
        keys, values = s.n_heads * s.k_dim, s.n_heads * s.v_dim
        self.q_proj, self.k_proj, self.v_proj = linear(s.dim, keys), linear(s.dim, keys), linear(s.dim, values)
        self.norm, self.o_proj = RmsNorm(s.v_dim, s.eps), linear(values, s.dim)

    def forward(self, x, carried):
        q, k, v = (heads(p(x), self.n) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = (F.elu(q) + 1) * q.shape[-1] ** -0.5, F.elu(k) + 1
        o = recurrence(q, k, F.pad(v, (0, 1), value=1.0), torch.zeros_like(q[..., :1]))
        return self.o_proj(join(self.norm(o[..., :-1] / (o[..., -1:] + 1e-10)), self.n))


def orthogonal_directions(n, d):
    """[n, d]: rows orthogonal within each d of them, as long as those of a normal matrix (arXiv:2009.14794, section 2.4)."""
    blocks = [torch.linalg.qr(torch.randn(d, d))[0] for _ in range(-(-n // d))]
    return torch.cat(blocks)[:n] * torch.randn(n, d).norm(dim=1, keepdim=True)


class Performer(nn.Module):
    """FAVOR+ (arXiv:2009.14794, equation 7): features exp(W x - |x|^2 / 2) whose products are exp(q . k / sqrt(d)) on
    average, over their sum; rotary positions as attention has them. W is drawn once and stays."""
    def __init__(self, s):
        super().__init__()
        self.n, d = s.n_heads, s.dim // s.n_heads
        self.q_proj, self.k_proj, self.v_proj = linear(s.dim, s.dim), linear(s.dim, s.dim), linear(s.dim, s.n_heads * s.v_dim)
        self.norm, self.o_proj = RmsNorm(s.v_dim, s.eps), linear(s.n_heads * s.v_dim, s.dim)
        self.feature_map = nn.ModuleDict(dict(projection=linear(d, s.n_features)))
        self.feature_map.projection.weight = nn.Parameter(orthogonal_directions(s.n_features, d), requires_grad=False)

    def forward(self, x, carried):
        q, k, v = (heads(p(x), self.n).float() for p in (self.q_proj, self.k_proj, self.v_proj))
        with torch.autocast(x.device.type, enabled=False):
            q, k = (rotate(y) * y.shape[-1] ** -0.25 for y in (q, k))
            w = self.feature_map.projection.weight
            q, k = q @ w.T, k @ w.T - k.pow(2).sum(-1, keepdim=True) / 2
            q = (q - q.amax(-1, keepdim=True)).exp() * w.shape[0] ** -0.5     # the query's own factor cancels
            o = recurrence(q, k.exp(), F.pad(v, (0, 1), value=1.0), torch.zeros_like(q[..., :1]))
        return self.o_proj(join(self.norm(o[..., :-1] / (o[..., -1:] + 1e-10)), self.n))


class Gated(nn.Module):
    """What RetNet and GLA of flash-linear-attention share: an output norm for each head and a silu gate."""
    def __init__(self, s):
        super().__init__()
        self.n = s.n_heads
        keys, values = s.n_heads * s.k_dim, s.n_heads * s.v_dim
        self.q_proj, self.k_proj, self.v_proj = linear(s.dim, keys), linear(s.dim, keys), linear(s.dim, values)
        self.g_proj, self.o_proj, self.g_norm_swish_gate = linear(s.dim, values), linear(values, s.dim), RmsNorm(s.v_dim, s.eps)

    def finish(self, o, x):
        return self.o_proj(join(self.g_norm_swish_gate(o), self.n) * F.silu(self.g_proj(x)))


class Retention(Gated):
    """arXiv:2307.08621, with rotary positions: S = gamma_h S + v k^T, gamma_h = 1 - 2^(-5 - h)."""
    def forward(self, x, carried):
        q, k, v = (heads(p(x), self.n) for p in (self.q_proj, self.k_proj, self.v_proj))
        g = torch.log1p(-torch.exp2(-5.0 - torch.arange(self.n, device=x.device)))
        g = g.repeat(len(x))[:, None, None].expand(-1, x.shape[1], 1)
        return self.finish(recurrence(rotate(q) * q.shape[-1] ** -0.5, rotate(k), v, g), x)


class Gla(Gated):
    """arXiv:2312.06635: a decay for each channel of the keys, sigmoid(B A x + b)^(1/16)."""
    def __init__(self, s, rank=16):
        super().__init__(s)
        self.gk_proj = nn.Sequential(linear(s.dim, rank), linear(rank, s.n_heads * s.k_dim, bias=True))

    def forward(self, x, carried):
        q, k, v, g = (heads(p(x), self.n) for p in (self.q_proj, self.k_proj, self.v_proj, self.gk_proj))
        return self.finish(recurrence(q * q.shape[-1] ** -0.5, k, v, F.logsigmoid(g.float()) / 16), x)


class DeltaNet(nn.Module):
    """The gated delta net (arXiv:2412.06464) as Qwen 3.5 has it, as many value heads as key heads."""
    def __init__(self, s):
        super().__init__()
        self.n = s.n_heads
        self.widths = [s.n_heads * s.k_dim, s.n_heads * s.k_dim, s.n_heads * s.v_dim]
        self.in_proj_qkv, self.in_proj_z = linear(s.dim, sum(self.widths)), linear(s.dim, self.widths[2])
        self.in_proj_b, self.in_proj_a = linear(s.dim, s.n_heads), linear(s.dim, s.n_heads)
        self.conv1d, self.norm, self.out_proj = Conv(sum(self.widths)), RmsNorm(s.v_dim, s.eps), linear(self.widths[2], s.dim)
        self.A_log, self.dt_bias = decay_parameters(s.n_heads)

    def forward(self, x, carried):
        q, k, v = (heads(p, self.n) for p in F.silu(self.conv1d(self.in_proj_qkv(x).float())).split(self.widths, -1))
        q, k = (y * torch.rsqrt(y.pow(2).sum(-1, keepdim=True) + 1e-6) for y in (q, k))
        beta = heads(self.in_proj_b(x).float().sigmoid(), self.n)
        g = heads(-self.A_log.exp() * F.softplus(self.in_proj_a(x).float() + self.dt_bias), self.n)
        o = recurrence(q * q.shape[-1] ** -0.5, beta * k, v, g, -k, beta * k)
        return self.out_proj(join(self.norm(o), self.n) * F.silu(self.in_proj_z(x)))


def decay_parameters(n):
    """Mamba-2's: A from 1 to 16, steps from 0.001 to 0.1, both spread evenly on a logarithmic scale."""
    step = torch.logspace(-3, -1, n)
    return nn.Parameter(torch.linspace(0, math.log(16), n)), nn.Parameter(step + torch.log(-torch.expm1(-step)))


class Mamba2(nn.Module):
    """arXiv:2405.21060, one group; gate before the norm."""
    def __init__(self, s):
        super().__init__()
        self.n, self.inner, self.state = s.n_heads, s.n_heads * s.v_dim, s.k_dim
        self.in_proj = linear(s.dim, 2 * self.inner + 2 * self.state + self.n)
        self.conv1d, self.norm = Conv(self.inner + 2 * self.state, bias=True), RmsNorm(self.inner, s.eps)
        self.A_log, self.dt_bias = decay_parameters(self.n)
        self.D, self.out_proj = nn.Parameter(torch.ones(self.n)), linear(self.inner, s.dim)

    def forward(self, x, carried):
        z, xbc, dt = self.in_proj(x).float().split([self.inner, self.inner + 2 * self.state, self.n], -1)
        v, k, q = F.silu(self.conv1d(xbc)).split([self.inner, self.state, self.state], -1)
        dt = heads(F.softplus(dt + self.dt_bias), self.n)
        g = dt * -self.A_log.exp().repeat(len(x))[:, None, None]
        v = heads(v, self.n)
        k, q = (y.repeat_interleave(self.n, 0) for y in (k, q))
        o = recurrence(q, k, v * dt, g) + v * self.D.repeat(len(x))[:, None, None]
        return self.out_proj(self.norm(join(o, self.n) * F.silu(z)))


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)


class HyenaFilter(nn.Module):
    """h_t = W3 sin(W2 sin(W1 sin(W0 e(t)))) exp(-delta t / (L - 1)) (arXiv:2302.10866, section 3.3); e(t) = t / (L - 1),
    cosines, minus sines of 2 pi f t / L. The first frequency of the sines, 10, is in the weights."""
    def __init__(self, s, frequency=10.0):
        super().__init__()
        self.length, self.bands, m = s.seq_len, s.filter_bands, s.filter_dim
        widths = [2 * s.filter_bands + 1, m, m, m]
        parts = []
        for n, out in zip(widths, widths[1:]):
            parts += [linear(n, out, bias=True), Sine()]
            with torch.no_grad():
                parts[-2].weight.mul_(frequency)
                parts[-2].bias.mul_(frequency)
        self.implicit_filter = nn.Sequential(*parts, linear(m, s.dim))
        self.bias = nn.Parameter(torch.randn(s.dim))
        decays = torch.linspace(math.log(100) / 1.5, math.log(100) / 0.3, s.dim)
        self.modulation = nn.ParameterDict(dict(deltas=nn.Parameter(decays, requires_grad=False)))

    def forward(self, n):
        """[n, dim]"""
        at = torch.arange(n, dtype=torch.float32)[:, None]
        turn = 2 * math.pi * at / self.length * torch.linspace(1e-4, self.bands - 1, self.bands)
        at = at / (self.length - 1)
        h = self.implicit_filter(torch.cat([at, turn.cos(), -turn.sin()], -1))
        return h * (-at * self.modulation.deltas).exp()


class Hyena(nn.Module):
    """arXiv:2302.10866, definition 3.1, order 2: y = W_o (x0 * (h conv (x1 * v))), x0, x1, v behind short convolutions."""
    def __init__(self, s):
        super().__init__()
        self.in_proj, self.out_proj = linear(s.dim, 3 * s.dim, bias=True), linear(s.dim, s.dim, bias=True)
        self.short_filter, self.filter_fn = Conv(3 * s.dim, taps=3, bias=True), HyenaFilter(s)

    def forward(self, x, carried):
        n = x.shape[1]
        x0, x1, v = self.short_filter(self.in_proj(x).float()).chunk(3, -1)
        z = x1 * v
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.fft.rfft(z, 2 * n, dim=1) * torch.fft.rfft(self.filter_fn(n), 2 * n, dim=0)
            y = torch.fft.irfft(spectrum, 2 * n, dim=1)[:, :n] + z * self.filter_fn.bias
        return self.out_proj(y * x0)


class LowRank(nn.Module):
    def __init__(self, dim, rank, out, act, bias):
        super().__init__()
        self.lora = nn.Sequential(linear(dim, rank), act, linear(rank, out, bias=bias))

    def forward(self, x):
        return self.lora(x)


def before(x):
    """The row before, zeros at the first."""
    return F.pad(x, (0, 0, 1, 0))[:, :-1]


class Rwkv7(nn.Module):
    """arXiv:2503.14456; `carried` holds the first layer's values."""
    def __init__(self, s, layer):
        super().__init__()
        self.head, self.n, self.layer, d = s.v_dim, s.dim // s.v_dim, layer, s.dim
        for c in "rwkvag":
            setattr(self, "x_" + c, nn.Parameter(torch.full((1, 1, d), 0.5)))
        self.k_k, self.k_a, self.r_k = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(self.n, self.head))
        self.r_proj, self.k_proj, self.v_proj, self.o_proj = (linear(d, d) for _ in range(4))
        self.w_lora, self.a_lora = LowRank(d, 16, d, nn.Tanh(), True), LowRank(d, 16, d, nn.Identity(), True)
        self.g_lora = LowRank(d, 16, d, nn.Sigmoid(), False)
        if layer:
            self.v_lora = LowRank(d, 8, d, nn.Identity(), True)
        self.g_norm = nn.GroupNorm(self.n, d, eps=self.head * s.eps)
        with torch.no_grad():
            self.w_lora.lora[2].bias.copy_(torch.linspace(-4, 1, d))

    def forward(self, x, carried):
        d = before(x) - x
        r, w, k, v, a, g = (x + d * getattr(self, "x_" + c) for c in "rwkvag")
        r, k, vv = self.r_proj(r), self.k_proj(k), self.v_proj(v)
        if self.layer:
            vv = vv + (carried["v"] - vv) * self.v_lora(v).sigmoid()
        else:
            carried["v"] = vv
        g_log = -0.60653066 * self.w_lora(w).float().sigmoid()
        a, g = self.a_lora(a).sigmoid(), self.g_lora(g)
        kk = F.normalize(heads(k * self.k_k, self.n).float(), dim=-1, eps=1e-12)
        k = k * (1 + (a - 1) * self.k_a)
        r, k, v, a, g_log = (heads(y, self.n).float() for y in (r, k, vv, a, g_log))
        o = recurrence(r, k, v, g_log, -kk * (-g_log).exp(), kk * a)
        o = self.g_norm(join(o, self.n).flatten(0, 1).float()).view(x.shape)
        bonus = (r * k * self.r_k.repeat(len(x), 1)[:, None]).sum(-1, keepdim=True) * v
        return self.o_proj((o + join(bonus, self.n)) * g)


# -- feed-forward layers --------------------------------------------------------------------------------------------

class SwiGlu(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = linear(dim, hidden), linear(dim, hidden), linear(hidden, dim)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class ChannelMix(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.x_k, self.key, self.value = nn.Parameter(torch.full((dim,), 0.5)), linear(dim, hidden), linear(hidden, dim)

    def forward(self, x):
        return self.value(F.relu(self.key(x + (before(x) - x) * self.x_k)).pow(2))


class Experts(nn.Module):
    """Mixtral's: the best n_used of a softmax, renormalised; each is computed for every token and weighed."""
    def __init__(self, s):
        super().__init__()
        self.gate, self.used = linear(s.dim, s.n_experts), s.n_used
        self.experts = nn.ModuleList(SwiGlu(s.dim, s.hidden // s.n_used) for _ in range(s.n_experts))
        self.imbalance = 0.0

    def forward(self, x):
        p = self.gate(x).float().softmax(-1)
        top, which = p.topk(self.used, -1)
        weights = torch.zeros_like(p).scatter(-1, which, top / top.sum(-1, keepdim=True))
        share = (weights > 0).float().mean((0, 1)) / self.used          # arXiv:2101.03961, equation 4
        self.imbalance = len(self.experts) * (share * p.mean((0, 1))).sum()
        return sum(weights[..., e:e + 1] * expert(x) for e, expert in enumerate(self.experts))


# -- the decoder ----------------------------------------------------------------------------------------------------

MIXERS = {
    "mha": lambda s, layer: Softmax(s),
    "gqa": lambda s, layer: Softmax(s, n_kv=2),
    "mqa": lambda s, layer: Softmax(s, n_kv=1),
    "window": lambda s, layer: Softmax(s, window=s.window),
    "sinks": lambda s, layer: Softmax(s, window=s.window - s.n_sinks, sinks=s.n_sinks),
    "bigbird": lambda s, layer: Softmax(s, blocks=s.block, layer=layer),
    "linear": lambda s, layer: LinearAttention(s),
    "performer": lambda s, layer: Performer(s),
    "retnet": lambda s, layer: Retention(s),
    "gla": lambda s, layer: Gla(s),
    "gdn": lambda s, layer: DeltaNet(s),
    "mamba2": lambda s, layer: Mamba2(s),
    "rwkv7": lambda s, layer: Rwkv7(s, layer),
    "hyena": lambda s, layer: Hyena(s),
    "hybrid": lambda s, layer: Softmax(s) if layer % 4 == 3 else Mamba2(s),
    "moe": lambda s, layer: Softmax(s),
}


class Layer(nn.Module):
    def __init__(self, s, layer):
        super().__init__()
        norm = (lambda: nn.LayerNorm(s.dim, s.eps)) if s.kind == "rwkv7" else (lambda: RmsNorm(s.dim, s.eps))
        self.norm1, self.norm2, self.mixer = norm(), norm(), MIXERS[s.kind](s, layer)
        self.ffn = (ChannelMix(s.dim, s.hidden) if s.kind == "rwkv7" else Experts(s) if s.kind == "moe"
                    else SwiGlu(s.dim, s.hidden))
        self.conv = Conv(s.dim) if s.short_conv else None

    def forward(self, x, carried):
        h = self.norm1(x)
        x = x + self.mixer(h if self.conv is None else h + self.conv(h), carried)
        return x + self.ffn(self.norm2(x))


class Decoder(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.shape, rwkv = s, s.kind == "rwkv7"
        self.embed = nn.Embedding(s.vocab_size, s.dim)          # also the classifier
        self.pre_norm = nn.LayerNorm(s.dim, s.eps) if rwkv else nn.Identity()
        self.layers = nn.ModuleList(Layer(s, i) for i in range(s.n_layers))
        self.norm = nn.LayerNorm(s.dim, s.eps) if rwkv else RmsNorm(s.dim, s.eps)
        last = ("o_proj.weight", "out_proj.weight", "down_proj.weight", "value.weight")
        for name, p in self.named_parameters():
            if p.dim() == 2 and name.endswith("weight") and p.requires_grad and "filter_fn" not in name:
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * s.n_layers) if name.endswith(last) else 0.02)

    def forward(self, tokens):
        x, carried = self.pre_norm(self.embed(tokens)), {}
        for layer in self.layers:
            x = layer(x, carried)
        return F.linear(self.norm(x), self.embed.weight)


def fit_hidden(s, target, step=4):
    """The feed-forward width, a multiple of `step`, with which the decoder is nearest to `target` parameters."""
    def size(hidden):
        return sum(p.numel() for p in Decoder(Shape(**{**s.__dict__, "hidden": hidden})).parameters())
    slope = (size(2 * step) - size(step)) / step
    s.hidden = max(step, round((target - size(step)) / slope / step + 1) * step)
    return s


def state_bytes(s, tokens):
    """What a text of so many tokens leaves in memory: keys and values as bf16, states and convolutions as fp32."""
    model = Decoder(s)
    total = 0
    for m in (layer.mixer for layer in model.layers):
        if isinstance(m, Softmax):
            seen = min(tokens, m.window + m.sinks) if m.window else tokens
            total += 2 * seen * 2 * m.n_kv * s.dim // s.n_heads
        elif isinstance(m, Hyena):
            total += 2 * tokens * s.dim + 4 * 3 * s.dim * 2
        elif isinstance(m, Performer):
            total += 4 * s.n_heads * s.n_features * (s.v_dim + 1)
        elif isinstance(m, Rwkv7):
            total += 4 * (s.dim * m.head + 2 * s.dim)
        else:
            conv = m.conv1d.weight.shape[0] * 3 if hasattr(m, "conv1d") else 0
            values = s.v_dim + isinstance(m, LinearAttention)
            total += 4 * (s.n_heads * s.k_dim * values + conv)
    return total


# -- folders --------------------------------------------------------------------------------------------------------

LLAMA = dict(embed="embed_tokens", norm="norm", norm1="input_layernorm", norm2="post_attention_layernorm",
             mixer="self_attn", ffn="mlp")
FLA = dict(embed="embeddings", norm="norm", norm1="attn_norm", norm2="mlp_norm", mixer="attn", ffn="mlp")
HYENA = dict(LLAMA, mixer="mixer")
BAMBA = dict(LLAMA, norm="final_layernorm", norm2="pre_ff_layernorm", ffn="feed_forward")
NAMES = {"linear": FLA, "performer": FLA, "hyena": HYENA, "retnet": FLA, "gla": FLA, "gdn": dict(LLAMA, mixer="linear_attn"), "mamba2": BAMBA, "hybrid": BAMBA,
         "rwkv7": dict(FLA, norm2="ffn_norm", ffn="ffn"), "moe": dict(LLAMA, ffn="block_sparse_moe")}
EXPERT = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


def settings(s):
    """config.json"""
    head = s.dim // s.n_heads
    c = dict(hidden_size=s.dim, num_hidden_layers=s.n_layers, vocab_size=s.vocab_size, intermediate_size=s.hidden,
             max_position_embeddings=s.seq_len, hidden_act="silu", rms_norm_eps=s.eps, tie_word_embeddings=True,
             bos_token_id=1, eos_token_id=2, torch_dtype="float16")
    attention = dict(num_attention_heads=s.n_heads, num_key_value_heads=s.n_heads, head_dim=head, rope_theta=10000.0)
    expand = dict(num_heads=s.n_heads, expand_k=s.n_heads * s.k_dim / s.dim, expand_v=s.n_heads * s.v_dim / s.dim,
                  norm_eps=s.eps)
    mamba = dict(attention, mamba_n_heads=s.n_heads, mamba_d_state=s.k_dim, mamba_d_head=s.v_dim, mamba_d_conv=4,
                 mamba_n_groups=1, mamba_expand=s.n_heads * s.v_dim // s.dim, partial_rotary_factor=1.0)
    own = {
        "gqa": dict(attention, model_type="llama", num_key_value_heads=2),
        "mqa": dict(attention, model_type="llama", num_key_value_heads=1),
        "window": dict(attention, model_type="mistral", sliding_window=s.window),
        "moe": dict(attention, model_type="mixtral", num_local_experts=s.n_experts, num_experts_per_tok=s.n_used,
                    intermediate_size=s.hidden // s.n_used),
        "linear": dict(expand, model_type="linear_attn", feature_map="elu", norm_feature_map=True),
        "performer": dict(expand, model_type="performer", expand_k=1.0, num_features=s.n_features,
                          position_embedding_type="rope", rope_theta=10000.0),
        "bigbird": dict(attention, model_type="bigbird_causal", block_size=s.block, num_window_blocks=WINDOW_BLOCKS,
                        num_global_blocks=GLOBAL_BLOCKS, num_random_blocks=RANDOM_BLOCKS),
        "hyena": dict(model_type="hyena", short_filter_order=3, filter_order=s.filter_dim, emb_dim=2 * s.filter_bands + 1,
                      l_max=s.seq_len, max_position_embeddings=9216),
        "retnet": dict(expand, model_type="retnet"),
        "gla": dict(expand, model_type="gla"),
        "gdn": dict(attention, model_type="qwen3_5_text", layer_types=["linear_attention"] * s.n_layers,
                    linear_num_key_heads=s.n_heads, linear_num_value_heads=s.n_heads, linear_key_head_dim=s.k_dim,
                    linear_value_head_dim=s.v_dim, linear_conv_kernel_dim=4),
        "mamba2": dict(mamba, model_type="bamba", attn_layer_indices=[]),
        "hybrid": dict(mamba, model_type="bamba", attn_layer_indices=list(range(3, s.n_layers, 4))),
        "rwkv7": dict(model_type="rwkv7", head_dim=s.v_dim, norm_eps=s.eps, hidden_act="sqrelu"),
    }
    return {**c, **own.get(s.kind, dict(attention, model_type="llama"))}


def tensors(model):
    """{name in the folder: fp32 array}"""
    s, names, out = model.shape, NAMES.get(model.shape.kind, LLAMA), {}
    for name, p in model.state_dict().items():
        x, parts = p.float().cpu(), name.split(".")
        if parts[0] == "pre_norm":
            parts = ["layers", "0", *parts]
        elif parts[0] == "layers":
            mamba = parts[2] == "mixer" and isinstance(model.layers[int(parts[1])].mixer, Mamba2)
            parts[2] = "mamba" if mamba else names[parts[2]]
            if "experts" in parts:
                parts[5] = EXPERT[parts[5]]
        else:
            parts[0] = names[parts[0]]
        plus_one = s.kind == "gdn" and "norm" in name and "mixer" not in name     # stored as weight - 1
        out["model." + ".".join(parts)] = (x - 1 if plus_one else x).numpy()
    return out
