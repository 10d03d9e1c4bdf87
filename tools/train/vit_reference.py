"""vit_reference.py: the forward pass of the ViT family in plain PyTorch, written to be read and to be compared with.

    /usr/bin/python3 tools/train/vit_reference.py FOLDER --eval IMAGES LABELS     accuracy on a pair of idx .gz files
    /usr/bin/python3 tools/train/vit_reference.py FOLDER --classes IMAGES         the class number of each picture
    /usr/bin/python3 tools/train/vit_reference.py FOLDER --logits IMAGES          a line of logits for each picture

FOLDER holds config.json and model.safetensors as Hugging Face names and shapes them, and, for pictures,
preprocessor_config.json. The architectures: ViTForImageClassification (arXiv:2010.11929),
DeiTForImageClassification and DeiTForImageClassificationWithTeacher (arXiv:2012.12877); use_mean_pooling as in BEiT
(arXiv:2106.08254). It shares no code with the recipe that trains.
"""
import argparse
import gzip
import json
import math
import os
import struct

import numpy as np
import torch
import torch.nn.functional as F

import safetensors_file

ARCHITECTURES = {"ViTForImageClassification": "vit", "DeiTForImageClassification": "deit",
                 "DeiTForImageClassificationWithTeacher": "deit"}

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_new": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
}


class Model:
    """config: the dictionary of config.json; tensors: {name: numpy array}; dtype: of all the arithmetic."""

    def __init__(self, config, tensors, dtype=torch.float32):
        (self.architecture,) = config["architectures"]
        self.prefix = ARCHITECTURES[self.architecture] + "."
        self.tensors = {name: torch.from_numpy(array.copy()).to(dtype) for name, array in tensors.items()}
        self.dtype = dtype
        self.image_size, self.patch_size = config["image_size"], config["patch_size"]
        self.n_channels, self.n_layers = config["num_channels"], config["num_hidden_layers"]
        self.n_heads, self.norm_eps = config["num_attention_heads"], config.get("layer_norm_eps", 1e-12)
        self.activation = ACTIVATIONS[config.get("hidden_act", "gelu")]
        self.qkv_bias, self.mean_pooling = config.get("qkv_bias", True), config.get("use_mean_pooling", False)
        if not self.has("embeddings.cls_token"):
            assert self.mean_pooling, "no class token, and not use_mean_pooling"

    @classmethod
    def from_folder(cls, folder, dtype=torch.float32):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
            config = json.load(f)
        return cls(config, safetensors_file.read(os.path.join(folder, "model.safetensors")), dtype)

    def has(self, name):
        return self.prefix + name in self.tensors

    def body(self, name):
        return self.tensors[self.prefix + name]

    def special_tokens(self):
        """What comes before the patches: the class token, then DeiT's distillation token."""
        names = ("embeddings.cls_token", "embeddings.distillation_token")
        return [self.body(name) for name in names if self.has(name)]

    def linear(self, x, name, bias=True):
        return F.linear(x, self.body(name + ".weight"), self.body(name + ".bias") if bias else None)

    def layer_norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.body(name + ".weight"), self.body(name + ".bias"), self.norm_eps)

    def embed(self, pixels):
        """[n, channels, size, size] to [n, tokens, dim]: patches row by row, as a convolution without overlap."""
        expected = (self.n_channels, self.image_size, self.image_size)
        assert pixels.shape[1:] == expected, f"pictures of {tuple(pixels.shape[1:])}, expected {expected}"
        name = "embeddings.patch_embeddings.projection"
        grid = F.conv2d(pixels, self.body(name + ".weight"), self.body(name + ".bias"), stride=self.patch_size)
        patches = grid.flatten(2).transpose(1, 2)
        tokens = [token.expand(len(pixels), -1, -1) for token in self.special_tokens()]
        return torch.cat([*tokens, patches], 1) + self.body("embeddings.position_embeddings")

    def attention(self, x, layer):
        """The mixed values before the output projection, and the probabilities [n, heads, tokens, tokens]."""
        n, tokens, dim = x.shape

        def heads(part):
            projected = self.linear(x, f"{layer}.attention.attention.{part}", self.qkv_bias)
            return projected.view(n, tokens, self.n_heads, dim // self.n_heads).transpose(1, 2)

        q, k, v = heads("query"), heads("key"), heads("value")
        scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(dim // self.n_heads)
        probabilities = torch.softmax(scores, -1)
        return torch.matmul(probabilities, v).transpose(1, 2).reshape(n, tokens, dim), probabilities

    def block(self, x, layer):
        mixed, probabilities = self.attention(self.layer_norm(x, layer + ".layernorm_before"), layer)
        x = x + self.linear(mixed, layer + ".attention.output.dense")
        hidden = self.linear(self.layer_norm(x, layer + ".layernorm_after"), layer + ".intermediate.dense")
        hidden = self.activation(hidden)
        return x + self.linear(hidden, layer + ".output.dense"), probabilities

    def classify(self, x, name="classifier"):
        return F.linear(x, self.tensors[name + ".weight"], self.tensors[name + ".bias"])

    def head(self, x):
        if self.mean_pooling:
            patches = x[:, len(self.special_tokens()):]
            return self.classify(self.layer_norm(patches.mean(1), "layernorm"))
        x = self.layer_norm(x, "layernorm")
        if self.architecture == "DeiTForImageClassificationWithTeacher":
            return (self.classify(x[:, 0], "cls_classifier") + self.classify(x[:, 1], "distillation_classifier")) / 2
        return self.classify(x[:, 0])

    @torch.no_grad()
    def forward(self, pixels, with_attention=False):
        """pixels: [n, channels, size, size], normalised. Logits [n, classes], and each layer's attention if asked."""
        x, attention = self.embed(pixels.to(self.dtype)), []
        for i in range(self.n_layers):
            x, probabilities = self.block(x, f"encoder.layer.{i}")
            attention.append(probabilities)
        logits = self.head(x)
        return (logits, attention) if with_attention else logits


# -- pictures --------------------------------------------------------------------------------------------

def read_idx(path):
    """An idx file of bytes: 0, 0, 8, number of dimensions, each size as a big-endian 32-bit number, the bytes."""
    with gzip.open(path) as f:
        zero, kind, n_dims = struct.unpack(">HBB", f.read(4))
        assert (zero, kind) == (0, 8), f"{path}: not an idx file of bytes"
        sizes = struct.unpack(f">{n_dims}I", f.read(4 * n_dims))
        return np.frombuffer(f.read(), np.uint8).reshape(sizes)


def preprocess(images, folder):
    """Grey pictures [n, height, width] of the model's size, rescaled and normalised: [n, 1, height, width]."""
    with open(os.path.join(folder, "preprocessor_config.json"), encoding="utf-8") as f:
        config = json.load(f)
    (mean,), (std,) = config["image_mean"], config["image_std"]
    return ((torch.from_numpy(images.astype(np.float32)) * config["rescale_factor"] - mean) / std)[:, None]


def logits_of(folder, images, batch=500):
    model = Model.from_folder(folder)
    return torch.cat([model.forward(part) for part in preprocess(images, folder).split(batch)])


def main():
    parser = argparse.ArgumentParser(description="The forward pass of a ViT in plain PyTorch, fp32.")
    parser.add_argument("folder", help="folder of config.json, preprocessor_config.json and model.safetensors")
    parser.add_argument("--eval", nargs=2, metavar=("IMAGES", "LABELS"), help="print the accuracy")
    parser.add_argument("--classes", metavar="IMAGES", help="print the class number of each picture, side by side")
    parser.add_argument("--logits", metavar="IMAGES", help="print the logits of each picture, separated by tabs")
    parser.add_argument("--first", type=int, help="only so many pictures")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.eval:
        images, labels = (read_idx(path)[:args.first] for path in args.eval)
        right = int((logits_of(args.folder, images).argmax(1).numpy() == labels).sum())
        print(f"accuracy {100 * right / len(labels):.2f} %  ({right} of {len(labels)})")
    if args.classes:
        classes = logits_of(args.folder, read_idx(args.classes)[:args.first]).argmax(1)
        print("".join(str(c) for c in classes.tolist()))
    if args.logits:
        for row in logits_of(args.folder, read_idx(args.logits)[:args.first]).tolist():
            print("\t".join(f"{value:.9g}" for value in row))


if __name__ == "__main__":
    main()
