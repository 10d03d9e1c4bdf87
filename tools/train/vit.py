"""vit.py: the recipe that makes the small vision transformer, from Fashion-MNIST to a folder the engine opens.

    /usr/bin/python3 tools/train/vit.py --minutes 80 --out build/train/vit

It owns four things, in this order: the pictures (read, split, augmented), the model (Vision Transformer,
arXiv:2010.11929, in the proportions of ViT-Lite, arXiv:2104.05704), its training loop (Muon and AdamW, a moving
average of the weights), and the export to the folder that Hugging Face's ViTForImageClassification has. A run that
stops, for whatever reason, goes on from its last checkpoint when it is started again. The test pictures are never
read here, but for the samples that --samples writes.
"""
import argparse
import gzip
import json
import math
import os
import shutil
import struct
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import safetensors_file
from training import Muon, keep_memory, save_atomically

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
MEAN, STD = 0.2860, 0.3530           # of the training pictures, in 0..1
N_VALID = 5000


@dataclass
class Config:
    dim: int = 128
    hidden_dim: int = 256
    n_layers: int = 6
    n_heads: int = 4
    norm_eps: float = 1e-6
    image_size: int = 28
    patch_size: int = 4
    n_channels: int = 1
    n_classes: int = len(CLASSES)

    @property
    def n_patches(self):
        return (self.image_size // self.patch_size) ** 2


# -- pictures --------------------------------------------------------------------------------------------

def read_idx(path):
    """The format of the MNIST files: 0, 0, type (8 = bytes), number of dimensions, sizes (big endian), values."""
    raw = gzip.open(path).read()
    sizes = struct.unpack_from(f">{raw[3]}I", raw, 4)
    assert raw[2] == 8, path + ": not bytes"
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def read_pictures(folder, part):
    images = read_idx(os.path.join(folder, f"{part}-images-idx3-ubyte.gz"))
    labels = read_idx(os.path.join(folder, f"{part}-labels-idx1-ubyte.gz"))
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def split(images, labels):
    """5,000 pictures of the training set for validation: always the same ones."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(images)))
    train, valid = order[N_VALID:], order[:N_VALID]
    return (images[train], labels[train]), (images[valid], labels[valid])


def normalise(images):
    return (images.float() / 255 - MEAN) / STD


def rectangles(n, size, area, rng):
    """[n, size, size], true in a rectangle that covers about `area` [n] of the picture, wherever its centre falls."""
    def inside(length):
        centre = torch.rand(n, 1, generator=rng) * size
        return (torch.arange(size) + 0.5 - centre).abs() < length[:, None] / 2
    stretch = torch.exp(torch.rand(n, generator=rng) - 0.5)
    side = area.sqrt() * size
    return inside(side * stretch)[:, :, None] & inside(side / stretch)[:, None, :]


def chance(n, p, rng):
    return torch.rand(n, generator=rng) < p


def augment(images, labels, args, rng):
    """Bytes [n, size, size] to normalised pictures, and labels to distributions over the classes."""
    n, size, shift = len(images), images.shape[-1], args.shift
    windows = F.pad(images, [shift] * 4).unfold(1, size, 1).unfold(2, size, 1)
    dy, dx = torch.randint(2 * shift + 1, (2, n), generator=rng)
    x = normalise(windows[torch.arange(n), dy, dx])
    x = torch.where(chance(n, 0.5, rng)[:, None, None], x.flip(-1), x)

    erased = rectangles(n, size, 0.02 + 0.2 * torch.rand(n, generator=rng), rng)
    erased &= chance(n, args.erase, rng)[:, None, None]
    x = torch.where(erased, normalise(256 * torch.rand(n, 1, 1, generator=rng)), x)

    target = torch.full((n, len(CLASSES)), args.smoothing / len(CLASSES))
    target[torch.arange(n), labels] += 1 - args.smoothing
    return mix(x, target, args, rng)


def mix(x, target, args, rng):
    """CutMix (arXiv:1905.04899) for a share of the pictures, mixup (arXiv:1710.09412) for another."""
    n = len(x)
    other = torch.randperm(n, generator=rng)
    u, share = torch.rand(n, generator=rng), 0.5 * torch.rand(n, generator=rng)
    cut, blend = u < args.cutmix, (u >= args.cutmix) & (u < args.cutmix + args.mixup)
    pasted = rectangles(n, x.shape[-1], share, rng).float()
    weight = torch.where(cut[:, None, None], pasted, (share * blend)[:, None, None])
    share = weight.mean((1, 2))[:, None]
    return x + weight * (x[other] - x), target + share * (target[other] - target)


# -- model -----------------------------------------------------------------------------------------------

class Attention(torch.autograd.Function):
    """softmax(q k^T / sqrt(head_dim)) v in bf16. qkv: [rows, tokens, 3, n_heads, head_dim]."""

    @staticmethod
    def forward(ctx, qkv):
        rows, tokens, _, n_heads, head_dim = qkv.shape
        q, k, v = qkv.permute(2, 0, 3, 1, 4).reshape(3, rows * n_heads, tokens, head_dim)
        q.mul_(head_dim ** -0.5)
        p = torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1)
        ctx.save_for_backward(q, k, v, p)
        return torch.bmm(p, v).view(rows, n_heads, tokens, head_dim).transpose(1, 2).reshape(rows, tokens, -1)

    @staticmethod
    def backward(ctx, grad):
        q, k, v, p = ctx.saved_tensors
        rows, (heads, tokens, head_dim) = len(grad), q.shape
        grad = grad.view(rows, tokens, -1, head_dim).transpose(1, 2).reshape(heads, tokens, head_dim)
        dp = torch.bmm(grad, v.transpose(1, 2))
        ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
        dq, dk, dv = (torch.bmm(ds, k).mul_(head_dim ** -0.5), torch.bmm(ds.transpose(1, 2), q),
                      torch.bmm(p.transpose(1, 2), grad))
        dqkv = torch.empty(rows, tokens, 3, heads // rows, head_dim, dtype=grad.dtype, device=grad.device)
        for i, d in enumerate((dq, dk, dv)):
            dqkv[:, :, i].copy_(d.view(rows, -1, tokens, head_dim).transpose(1, 2))
        return dqkv


class Layer(nn.Module):
    def __init__(self, c, drop):
        super().__init__()
        self.c, self.drop = c, drop
        self.norm_before, self.norm_after = (nn.LayerNorm(c.dim, eps=c.norm_eps) for _ in range(2))
        self.qkv = nn.Parameter(torch.empty(3, c.dim, c.dim))       # one product for three, still three for Muon
        self.qkv_bias = nn.Parameter(torch.zeros(3, c.dim))
        self.out = nn.Linear(c.dim, c.dim)
        self.up = nn.Linear(c.dim, c.hidden_dim)
        self.down = nn.Linear(c.hidden_dim, c.dim)

    def attend(self, h):
        qkv = F.linear(h, self.qkv.flatten(0, 1), self.qkv_bias.flatten())
        return Attention.apply(qkv.view(*h.shape[:2], 3, self.c.n_heads, -1))

    def kept(self, h):
        """Stochastic depth (arXiv:1603.09382): the branch is left out for some of the pictures."""
        if not self.training or self.drop == 0:
            return h
        return h * ((torch.rand(len(h), 1, 1, device=h.device) >= self.drop) / (1 - self.drop)).to(h.dtype)

    def forward(self, x, n_used):
        """n_used: how many of the tokens somebody reads afterwards."""
        h = self.attend(self.norm_before(x))
        if n_used < x.shape[1]:
            x, h = x[:, :n_used], h[:, :n_used]
        x = x + self.kept(self.out(h))
        return x + self.kept(self.down(F.gelu(self.up(self.norm_after(x)))))


class ViT(nn.Module):
    def __init__(self, c, drop_path=0.0):
        super().__init__()
        self.c = c
        self.patch = nn.Linear(c.n_channels * c.patch_size ** 2, c.dim)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, c.dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + c.n_patches, c.dim))
        self.layers = nn.ModuleList(Layer(c, drop_path * i / max(1, c.n_layers - 1)) for i in range(c.n_layers))
        self.norm = nn.LayerNorm(c.dim, eps=c.norm_eps)
        self.classifier = nn.Linear(c.dim, c.n_classes)
        for name, p in self.layers.named_parameters():
            if name.endswith(("qkv", ".weight")) and p.dim() > 1:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * c.n_layers) if residual else 0.02)

    def patches(self, images):
        """[n, size, size] to [n, n_patches, patch_size^2], row by row."""
        size, side = self.c.patch_size, self.c.image_size // self.c.patch_size
        return images.view(-1, side, size, side, size).transpose(2, 3).reshape(len(images), side * side, -1)

    def forward(self, images):
        with torch.autocast(images.device.type, torch.bfloat16):
            x = self.patch(self.patches(images))
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x.float()], 1) + self.positions
            for layer in self.layers:
                x = layer(x, 1 if layer is self.layers[-1] else x.shape[1])
            return self.classifier(self.norm(x[:, 0])).float()


# -- training --------------------------------------------------------------------------------------------

def make_optimizers(model, args):
    """Muon for the matrices of the layers; AdamW for the first and last matrix, and without decay for all else."""
    matrices = [p for name, p in model.layers.named_parameters() if p.dim() > 1 and not name.endswith("bias")]
    ends = [model.patch.weight, model.classifier.weight]
    taken = {id(p) for p in [*matrices, *ends]}
    rest = [p for p in model.parameters() if id(p) not in taken]
    groups = [dict(params=ends, weight_decay=args.weight_decay), dict(params=rest, weight_decay=0.0)]
    return [Muon(matrices, args.lr, weight_decay=args.weight_decay), torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))]


def learning_rate(args, step, progress):
    """Warm-up, stable, linear decay to 0 over the last --decay of the time."""
    return args.lr * max(0.0, min(1.0, (step + 1) / args.warmup_steps, (1 - progress) / args.decay))


class Average:
    """Exponential moving average of the weights; a young one forgets faster."""

    def __init__(self, model, decay):
        self.decay, self.weights = decay, {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model, step):
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, p in model.named_parameters():
            self.weights[name].lerp_(p, 1 - decay)


@torch.no_grad()
def accuracy(model, weights, images, labels):
    """Of a copy with these weights, without augmentation."""
    copy = ViT(model.c).to(labels.device).eval()
    copy.load_state_dict(weights)
    logits = torch.cat([copy(normalise(part)) for part in images.split(250)])
    return (logits.argmax(1) == labels).float().mean().item(), F.cross_entropy(logits, labels).item()


def train(args, model, train_set, valid_set, device):
    optimizers, average = make_optimizers(model, args), Average(model, args.average)
    path, stop = os.path.join(args.out, "checkpoint.pt"), os.path.join(args.out, "stop")
    at = dict(step=0, seconds=0.0)
    if os.path.exists(path):
        state = torch.load(path, map_location=device)
        model.load_state_dict(state["model"])
        average.weights = state["average"]
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        at = state["at"]
    images, labels = train_set
    steps_per_epoch = len(images) // args.batch
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(images)} pictures an epoch, from step "
          f"{at['step']}, {at['seconds'] / 60:.1f} of {args.minutes} minutes, {torch.get_num_threads()} threads, "
          f"{device}", flush=True)

    def checkpoint():
        save_atomically(dict(model=model.state_dict(), average=average.weights, at=at,
                             optimizers=[o.state_dict() for o in optimizers]), path)

    def validate():
        acc, loss = accuracy(model, average.weights, *valid_set)
        print(f"step {at['step']}  valid {100 * acc:.2f} %  loss {loss:.4f}", flush=True)

    losses, last = [], False
    began = last_tick = saved = validated = time.time()
    while not last:
        epoch, row = divmod(at["step"], steps_per_epoch)
        order = torch.from_numpy(np.random.default_rng([args.seed, epoch]).permutation(len(images)))
        rng = torch.Generator().manual_seed(args.seed + at["step"])
        chosen = order[row * args.batch:(row + 1) * args.batch].to(device)
        x, target = augment(images[chosen], labels[chosen], args, rng)
        progress = at["seconds"] / (60 * args.minutes)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(args, at["step"], progress)
        loss = F.cross_entropy(model(x), target)
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        average.update(model, at["step"])
        losses.append(loss.item())
        now = time.time()
        at.update(step=at["step"] + 1, seconds=at["seconds"] + now - last_tick)
        last_tick, last = now, at["seconds"] >= 60 * args.minutes
        if at["step"] % 50 == 0 or last:
            print(f"step {at['step']}  {at['step'] / steps_per_epoch:.2f} epochs  loss {np.mean(losses):.4f}  "
                  f"lr {group['lr']:.5f}  {len(losses) * args.batch / (now - began):.0f} pictures/s  "
                  f"{at['seconds'] / 60:.1f} of {args.minutes} min", flush=True)
            began, losses = now, []
        stopping = os.path.exists(stop)
        if now - saved > 150 or last or stopping:
            checkpoint()
            saved = now
        if now - validated > 300 or last or stopping:
            validate()
            validated = time.time()
            began += validated - now
        if stopping:
            os.remove(stop)
            return False
    return True


# -- export ----------------------------------------------------------------------------------------------

def named_tensors(weights, c):
    """The names and shapes of ViTForImageClassification's state dict."""
    w = {name: t.detach().float().cpu().numpy() for name, t in weights.items()}
    patch = w["patch.weight"].reshape(c.dim, c.n_channels, c.patch_size, c.patch_size)
    yield "vit.embeddings.cls_token", w["class_token"]
    yield "vit.embeddings.position_embeddings", w["positions"]
    yield "vit.embeddings.patch_embeddings.projection.weight", patch
    yield "vit.embeddings.patch_embeddings.projection.bias", w["patch.bias"]
    places = {"out": "attention.output.dense", "up": "intermediate.dense", "down": "output.dense",
              "norm_before": "layernorm_before", "norm_after": "layernorm_after"}
    for i in range(c.n_layers):
        ours, theirs = f"layers.{i}.", f"vit.encoder.layer.{i}."
        for n, part in enumerate(("query", "key", "value")):
            yield f"{theirs}attention.attention.{part}.weight", w[ours + "qkv"][n]
            yield f"{theirs}attention.attention.{part}.bias", w[ours + "qkv_bias"][n]
        for name, place in places.items():
            for kind in ("weight", "bias"):
                yield f"{theirs}{place}.{kind}", w[f"{ours}{name}.{kind}"]
    for name, place in (("norm", "vit.layernorm"), ("classifier", "classifier")):
        for kind in ("weight", "bias"):
            yield f"{place}.{kind}", w[f"{name}.{kind}"]


def model_config(c):
    return dict(
        architectures=["ViTForImageClassification"], model_type="vit", hidden_size=c.dim, num_hidden_layers=c.n_layers,
        num_attention_heads=c.n_heads, intermediate_size=c.hidden_dim, hidden_act="gelu", hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.02, layer_norm_eps=c.norm_eps, image_size=c.image_size,
        patch_size=c.patch_size, num_channels=c.n_channels, qkv_bias=True, encoder_stride=c.patch_size,
        id2label={str(i): name for i, name in enumerate(CLASSES)}, label2id={name: i for i, name in enumerate(CLASSES)},
        problem_type="single_label_classification", torch_dtype="float16")


def preprocessor_config(c):
    return dict(
        do_normalize=True, do_rescale=True, do_resize=True, image_mean=[MEAN] * c.n_channels,
        image_processor_type="ViTImageProcessor", image_std=[STD] * c.n_channels, resample=2, rescale_factor=1 / 255,
        size=dict(height=c.image_size, width=c.image_size))


def export(weights, c, folder):
    """Written beside its place and renamed, so that a reader never meets half a model."""
    new = folder.rstrip("/") + ".new"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new)
    for name, content in (("config.json", model_config(c)), ("preprocessor_config.json", preprocessor_config(c))):
        with open(os.path.join(new, name), "w", encoding="utf-8") as f:
            f.write(json.dumps(content, indent=2) + "\n")
    safetensors_file.write(os.path.join(new, "model.safetensors"), dict(named_tensors(weights, c)), "F16")
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(new, folder)


def write_samples(data, folder):
    """The first test picture of each class, as an 8-bit grey PNG."""
    images, labels = read_pictures(data, "t10k")
    os.makedirs(folder, exist_ok=True)
    for i, name in enumerate(CLASSES):
        first = int((labels == i).nonzero()[0])
        file_name = name.split("/")[0].lower().replace(" ", "-") + ".png"
        Image.fromarray(images[first].numpy()).save(os.path.join(folder, file_name))


def arguments():
    parser = argparse.ArgumentParser(description="Train the small vision transformer, export it as Hugging Face does.")
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="folder of the four idx .gz files")
    parser.add_argument("--out", default="build/train/vit")
    parser.add_argument("--minutes", type=float, default=80, help="of training, all starts together")
    parser.add_argument("--decay", type=float, default=0.7, help="the share of the time in which the rate falls to 0")
    parser.add_argument("--warmup-steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--average", type=float, default=0.998, help="decay of the moving average, a step")
    parser.add_argument("--drop-path", type=float, default=0.0, help="stochastic depth of the last layer")
    parser.add_argument("--smoothing", type=float, default=0.1, help="of the labels")
    parser.add_argument("--shift", type=int, default=2, help="pixels, at most, each way")
    parser.add_argument("--erase", type=float, default=0.2, help="share of the pictures")
    parser.add_argument("--cutmix", type=float, default=0.2, help="share of the pictures")
    parser.add_argument("--mixup", type=float, default=0.1, help="share of the pictures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--export", action="store_true", help="only export the checkpoint there is")
    parser.add_argument("--samples", metavar="FOLDER", help="only write a test picture of each class to FOLDER")
    return parser.parse_args()


def main():
    args, config = arguments(), Config()
    if args.samples:
        write_samples(args.data, args.samples)
        return
    os.makedirs(args.out, exist_ok=True)
    keep_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder, path = os.path.join(args.out, "model"), os.path.join(args.out, "checkpoint.pt")
    if not args.export:
        model = ViT(config, args.drop_path).to(device)
        train_set, valid_set = split(*read_pictures(args.data, "train"))
        if not train(args, model, train_set, valid_set, device):
            return
    export(torch.load(path, map_location="cpu")["average"], config, folder)


if __name__ == "__main__":
    main()
