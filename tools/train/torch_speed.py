"""torch_speed.py: build/encdec and build/vit against PyTorch, the same weights, in one run.

    /usr/bin/python3 tools/train/torch_speed.py [--threads 2] [--rounds 5]

Each round times every program once, in turn, so that a busy machine disturbs all of them alike; the medians and their
ratios are printed. PyTorch runs vit_reference.py's forward pass and, for spelling, the loop a person would write for
speed: keys and values of earlier steps are kept, cross-attention's are computed once, one word at a time.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

import bart_reference
import safetensors_file
import vit_reference

FASHION = "/usr/share/datasets/fashion-mnist/t10k-"


class CachedDecoder:
    """Greedy decoding of one word with a cache, over the tensors of an mBART folder."""

    def __init__(self, folder):
        self.config = json.load(open(os.path.join(folder, "config.json"), encoding="utf-8"))
        tensors = safetensors_file.read(os.path.join(folder, "model.safetensors"))
        self.t = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
        self.reference = bart_reference.load(folder)
        self.n_heads, self.dim = self.config["decoder_attention_heads"], self.config["d_model"]

    def linear(self, name, x):
        return F.linear(x, self.t[name + ".weight"], self.t[name + ".bias"])

    def norm(self, name, x):
        return F.layer_norm(x, (self.dim,), self.t[name + ".weight"], self.t[name + ".bias"])

    def heads(self, x):
        return x.view(-1, self.n_heads, self.dim // self.n_heads).transpose(0, 1)

    def attend(self, name, x, k, v):
        q = self.heads(self.linear(name + ".q_proj", x)) * (self.dim // self.n_heads) ** -0.5
        mixed = torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1), v)
        return self.linear(name + ".out_proj", mixed.transpose(0, 1).reshape(-1, self.dim))

    @torch.no_grad()
    def greedy(self, word):
        encoded = self.reference.encode(self.reference.tokens_of(word))
        layers = [f"model.decoder.layers.{i}" for i in range(self.config["decoder_layers"])]
        cross = [(self.heads(self.linear(f"{l}.encoder_attn.k_proj", encoded)),
                  self.heads(self.linear(f"{l}.encoder_attn.v_proj", encoded))) for l in layers]
        past, tokens = [None] * len(layers), [self.config["decoder_start_token_id"]]
        while len(tokens) <= self.config["max_position_embeddings"] - 2:
            x = self.t["model.shared.weight"][tokens[-1:]]
            x = x + self.t["model.decoder.embed_positions.weight"][len(tokens) + 1]
            x = self.norm("model.decoder.layernorm_embedding", x)
            for i, layer in enumerate(layers):
                h = self.norm(f"{layer}.self_attn_layer_norm", x)
                k, v = (self.heads(self.linear(f"{layer}.self_attn.{p}_proj", h)) for p in "kv")
                past[i] = (k, v) if past[i] is None else tuple(torch.cat(pair, 1) for pair in zip(past[i], (k, v)))
                x = x + self.attend(f"{layer}.self_attn", h, *past[i])
                h = self.norm(f"{layer}.encoder_attn_layer_norm", x)
                x = x + self.attend(f"{layer}.encoder_attn", h, *cross[i])
                h = self.norm(f"{layer}.final_layer_norm", x)
                x = x + self.linear(f"{layer}.fc2", F.gelu(self.linear(f"{layer}.fc1", h)))
            x = self.norm("model.decoder.layer_norm", x)
            logits = x @ self.t["model.shared.weight"].T + self.t["final_logits_bias"]
            tokens.append(int(logits.argmax()))
            if tokens[-1] == self.config["eos_token_id"]:
                break
        return self.reference.symbols_of(tokens[1:])


def seconds_of(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def words_per_second(folder, words, path, threads, batch):
    """As build/encdec says it: without loading."""
    command = ["build/encdec", folder, "-f", path, "-t", str(threads), "--batch", str(batch)]
    line = subprocess.run(command, capture_output=True, check=True, text=True).stderr
    return float(line.split(" words, ")[1].split()[0])


def images_per_second(folder, threads, batch):
    command = ["build/vit", folder, "--eval", FASHION + "images-idx3-ubyte.gz", FASHION + "labels-idx1-ubyte.gz",
               "-t", str(threads), "--batch", str(batch), "-o", "json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["images_per_second"]


def report(name, rounds):
    """rounds: a list of {what: per second}, the first one the yardstick."""
    medians = {what: statistics.median(r[what] for r in rounds) for what in rounds[0]}
    base = next(iter(medians.values()))
    print(name)
    for what, value in medians.items():
        low, high = (f(r[what] for r in rounds) for f in (min, max))
        print(f"  {what:34} {value:10.1f} /s  ({low:.1f} to {high:.1f})  {value / base:6.2f}x")


def main():
    parser = argparse.ArgumentParser(description="build/encdec and build/vit against PyTorch.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--words", type=int, default=300, help="of models/g2p/test.dict, for PyTorch")
    parser.add_argument("--batch", type=int, default=64, help="pictures of a batch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, {args.rounds} rounds in turn")

    decoder = CachedDecoder("models/g2p")
    words = bart_reference.dictionary_words("models/g2p/test.dict")
    words = words[::len(words) // args.words][:args.words]
    assert all(decoder.greedy(w) == bart_reference.pronounce(decoder.reference, w) for w in words[:20])
    path = "build/torch_speed.words"
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(words * 10) + "\n")
    rounds = []
    for _ in range(args.rounds):
        rounds.append({
            "PyTorch, a word at a time": len(words) / seconds_of(lambda: [decoder.greedy(w) for w in words]),
            "encdec, a word at a time": words_per_second("models/g2p", words, path, args.threads, 1),
            "encdec, 1 thread": words_per_second("models/g2p", words, path, 1, 1),
            "encdec, batches of 32": words_per_second("models/g2p", words, path, args.threads, 32),
        })
    report("words, greedy", rounds)

    model = vit_reference.Model.from_folder("models/vit")
    images = vit_reference.read_idx(FASHION + "images-idx3-ubyte.gz")[:1280]
    pixels = vit_reference.preprocess(images, "models/vit")
    rounds = []
    for _ in range(args.rounds):
        run = lambda: [model.forward(part) for part in pixels.split(args.batch)]
        rounds.append({
            f"PyTorch, batches of {args.batch}": len(images) / seconds_of(run),
            f"vit, batches of {args.batch}": images_per_second("models/vit", args.threads, args.batch),
        })
    report("pictures", rounds)


if __name__ == "__main__":
    sys.exit(main())
