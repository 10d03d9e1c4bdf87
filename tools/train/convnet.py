"""convnet.py: four small networks of one size that tell clothes apart: what do gates add, and what is a ViT beside them?

    /usr/bin/python3 tools/train/convnet.py                  trains and exports what is not there yet
    /usr/bin/python3 tools/train/convnet.py --table          scores what is there, from the exported files

A residual network (arXiv:1512.03385) of three blocks, plain; with squeeze-and-excitation (arXiv:1709.01507, equations 2
to 4) and with CBAM (arXiv:1807.06521, equations 1 to 3) behind the second convolution of each block, as both papers have
it; and a vision transformer with as many parameters. Pictures, their split and their augmentation are vit.py's; all four
have the same order of pictures, steps, optimizer and rate. Batch norm is folded into the convolutions at export. The
test pictures are scored by --table alone, with the exported weights.
"""
import json
import os
import shutil
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import safetensors_file
import vit
from training import begin, descend, resume, save_atomically, task_parser, warm_up_and_decay
from vit_reference import Model as ReferenceVit

KINDS = ("plain", "se", "cbam", "vit")
VIT = vit.Config(dim=32, hidden_dim=128, n_layers=4, n_heads=4)
STEM, CHANNELS, STRIDES, REDUCTION, SIDE = 16, (24, 24, 48), (2, 1, 2), 8, 7
FIXTURE = 12  # test pictures whose logits the engine is checked against


# -- model -----------------------------------------------------------------------------------------------

def gated(x, w1, w2, taps):
    """x: [n, channels, height, width]. w1 None: as it is; taps None: channels alone."""
    if w1 is None:
        return x
    def excited(z):
        return F.relu(z @ w1.T) @ w2.T
    gate = excited(x.mean((2, 3)))
    if taps is not None:
        gate = gate + excited(x.amax((2, 3)))
    x = x * torch.sigmoid(gate)[:, :, None, None]
    if taps is None:
        return x
    maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
    return x * torch.sigmoid(F.conv2d(maps, taps[None], padding=SIDE // 2))


class ConvNorm(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        return self.norm(self.conv(x))

    def folded(self):
        """Weight [outputs, kernel, kernel, inputs] and bias."""
        scale = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        weight = self.conv.weight * scale[:, None, None, None]
        return weight.permute(0, 2, 3, 1), self.norm.bias - self.norm.running_mean * scale


class Block(nn.Module):
    def __init__(self, kind, inputs, outputs, stride):
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, 3, stride)
        self.conv2 = ConvNorm(outputs, outputs, 3, 1)
        self.shortcut = ConvNorm(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None
        hidden = max(1, outputs // REDUCTION)
        draw = lambda *shape: nn.Parameter(torch.randn(shape) * (2 / np.prod(shape[1:])) ** 0.5)
        self.w1 = None if kind == "plain" else draw(hidden, outputs)
        self.w2 = None if kind == "plain" else draw(outputs, hidden)
        self.taps = draw(2, SIDE, SIDE) if kind == "cbam" else None

    def forward(self, x):
        y = gated(self.conv2(F.relu(self.conv1(x))), self.w1, self.w2, self.taps)
        return F.relu(y + (self.shortcut(x) if self.shortcut else x))


class Convnet(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.stem = ConvNorm(1, STEM, 3, 1)
        inputs = (STEM, *CHANNELS)
        self.blocks = nn.ModuleList(Block(kind, *shape) for shape in zip(inputs, CHANNELS, STRIDES))
        self.classifier = nn.Linear(CHANNELS[-1], len(vit.CLASSES))

    def forward(self, images):
        x = F.relu(self.stem(images[:, None]))
        for block in self.blocks:
            x = block(x)
        return self.classifier(x.mean((2, 3)))


def make_model(kind):
    # channels last: half as long again without
    return vit.ViT(VIT) if kind == "vit" else Convnet(kind).to(memory_format=torch.channels_last)


# -- training --------------------------------------------------------------------------------------------

def train(args, kind, model, train_set, folder):
    checkpoint = folder + ".pt"
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=args.weight_decay)
    state = resume(checkpoint, model, optimizer)
    at, spent = state.get("at", 0), state.get("seconds", 0.0)
    images, labels = train_set
    per_epoch = len(images) // args.batch
    print(f"{kind}: {sum(p.numel() for p in model.parameters())} parameters to train, step {at} of {args.steps}, "
          f"{args.steps / per_epoch:.1f} epochs", flush=True)
    losses, began, saved = [], time.time(), time.time()
    model.train()
    while at < args.steps:
        epoch, row = divmod(at, per_epoch)
        order = torch.from_numpy(np.random.default_rng([args.seed, epoch]).permutation(len(images)))
        chosen = order[row * args.batch:(row + 1) * args.batch]
        rng = torch.Generator().manual_seed(args.seed + at)
        x, target = vit.augment(images[chosen], labels[chosen], args, rng)
        warm_up_and_decay(optimizer, args.lr, at, args.steps)
        loss = F.cross_entropy(model(x), target)
        descend(loss, model, optimizer)
        losses.append(loss.item())
        at += 1
        if at % 100 == 0 or at == args.steps:
            now = time.time()
            spent += now - began
            print(f"{kind} step {at}  {at / per_epoch:.2f} epochs  loss {np.mean(losses):.4f}  "
                  f"{len(losses) * args.batch / (now - began):.0f} pictures/s  {spent / 60:.1f} min", flush=True)
            began, losses = now, []
            if now - saved > 60 or at == args.steps:
                save_atomically(dict(model=model.state_dict(), optimizer=optimizer.state_dict(), at=at, seconds=spent),
                                checkpoint)
                saved = now


# -- export ----------------------------------------------------------------------------------------------

def named_tensors(model):
    def conv(name, module):
        yield name + ".weight", module.folded()[0]
        yield name + ".bias", module.folded()[1]
    yield from conv("stem", model.stem)
    for i, block in enumerate(model.blocks):
        yield from conv(f"blocks.{i}.conv1", block.conv1)
        yield from conv(f"blocks.{i}.conv2", block.conv2)
        if block.shortcut:
            yield from conv(f"blocks.{i}.shortcut", block.shortcut)
        for part in ("w1", "w2", "taps"):
            if getattr(block, part) is not None:
                yield f"blocks.{i}.gates.{part}", getattr(block, part)
    yield "classifier.weight", model.classifier.weight
    yield "classifier.bias", model.classifier.bias


def export(model, folder):
    """Written beside its place and renamed, as vit.export does, so that a reader never meets half a model."""
    new = folder + ".new"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new)
    config = dict(model_type="convnet", attention="none" if model.kind == "plain" else model.kind, image_size=28,
                  image_mean=vit.MEAN, image_std=vit.STD, stem_channels=STEM, num_blocks=len(CHANNELS),
                  channels=CHANNELS, strides=STRIDES, reduction=REDUCTION,
                  id2label={str(i): name for i, name in enumerate(vit.CLASSES)})
    with open(os.path.join(new, "config.json"), "w", encoding="utf-8") as f:
        f.write(json.dumps(config, indent=2) + "\n")
    tensors = {name: t.detach().float().numpy() for name, t in named_tensors(model)}
    safetensors_file.write(os.path.join(new, "model.safetensors"), tensors, "F16")
    os.rename(new, folder)


# -- scores, of the exported files -----------------------------------------------------------------------

class Exported:
    def __init__(self, folder, dtype):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
            self.config = json.load(f)
        tensors = safetensors_file.read(os.path.join(folder, "model.safetensors"))
        self.tensors = {name: torch.from_numpy(array.copy()).to(dtype) for name, array in tensors.items()}

    def conv(self, name, x, stride=1):
        weight = self.tensors[name + ".weight"].permute(0, 3, 1, 2)
        return F.conv2d(x, weight, self.tensors[name + ".bias"], stride, weight.shape[-1] // 2)

    def forward(self, x):
        x = F.relu(self.conv("stem", x))
        for i, stride in enumerate(self.config["strides"]):
            name = f"blocks.{i}."
            y = self.conv(name + "conv2", F.relu(self.conv(name + "conv1", x, stride)))
            y = gated(y, *(self.tensors.get(f"{name}gates.{part}") for part in ("w1", "w2", "taps")))
            x = F.relu(y + (self.conv(name + "shortcut", x, stride) if name + "shortcut.bias" in self.tensors else x))
        return F.linear(x.mean((2, 3)), self.tensors["classifier.weight"], self.tensors["classifier.bias"])


@torch.no_grad()
def logits_of(folder, kind, images, dtype=torch.float32):
    model = ReferenceVit.from_folder(folder, dtype) if kind == "vit" else Exported(folder, dtype)
    x = ((images.to(dtype) / 255 - vit.MEAN) / vit.STD)[:, None]
    return torch.cat([model.forward(part) for part in x.split(250)])


def table(args):
    """A line for each folder; the logits of the first test pictures go to OUT/logits.tsv."""
    _, (valid, valid_labels) = vit.split(*vit.read_pictures(args.data, "train"))
    test, test_labels = vit.read_pictures(args.data, "t10k")
    with open(os.path.join(args.out, "logits.tsv"), "w", encoding="utf-8") as f:
        for kind in KINDS:
            folder = os.path.join(args.out, f"{kind}-{args.seed}")
            if not os.path.exists(folder):
                continue
            right = lambda images, labels: (logits_of(folder, kind, images).argmax(1) == labels).sum().item()
            began = time.time()
            n_right = right(test, test_labels)
            took = time.time() - began
            n_params = sum(a.size for a in safetensors_file.read(os.path.join(folder, "model.safetensors")).values())
            print(f"{kind}: {n_right} of {len(test)} test pictures, {100 * right(valid, valid_labels) / len(valid):.2f} % "
                  f"of the validation pictures, {n_params} parameters, {took:.1f} s for the test pictures", flush=True)
            if kind != "vit":
                for row in logits_of(folder, kind, test[:FIXTURE], torch.float64).tolist():
                    print(kind, n_right, *(f"{value:.9g}" for value in row), sep="\t", file=f)


def arguments():
    parser = task_parser("Train small convolutional networks with and without gates, and a ViT of their size.",
                         "build/train/convnet", steps=3435, lr=3e-3)
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="folder of the four idx .gz files")
    parser.add_argument("--kind", choices=KINDS, help="only this one")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--smoothing", type=float, default=0.1, help="of the labels")
    parser.add_argument("--shift", type=int, default=2, help="pixels, at most, each way")
    parser.add_argument("--erase", type=float, default=0.1, help="share of the pictures")
    parser.add_argument("--cutmix", type=float, default=0.0, help="share of the pictures")
    parser.add_argument("--mixup", type=float, default=0.0, help="share of the pictures")
    return parser.parse_args()


def main():
    args = arguments()
    begin(args)
    if args.table:
        table(args)
        return
    train_set, _ = vit.split(*vit.read_pictures(args.data, "train"))
    for kind in [args.kind] if args.kind else KINDS:
        folder = os.path.join(args.out, f"{kind}-{args.seed}")
        if os.path.exists(folder):
            continue
        torch.manual_seed(args.seed)
        model = make_model(kind)
        train(args, kind, model, train_set, folder)
        model.eval()
        if kind == "vit":
            vit.export(model.state_dict(), VIT, folder)
        else:
            export(model, folder)


if __name__ == "__main__":
    main()
