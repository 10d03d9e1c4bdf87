"""atlas.py: one small decoder trained once for each attention mechanism, to be compared in the engine.

    /usr/bin/python3 tools/train/atlas.py --data DIR --all

Owns the text (long documents in rows of 512 tokens), the training, the folders that ./run loads, and the table of bits
per byte. Every mechanism gets the same data in the same order, tokens, rate and (MoE aside) number of parameters within
1 %. Each run goes on from its last checkpoint when it is started again, and a finished one is not repeated.
classics-valid.txt is only ever scored.
"""
import argparse
import json
import math
import os
import shutil
import subprocess
import time

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from torch import nn

import safetensors_file
from atlas_models import MIXERS, Decoder, Shape, fit_hidden, settings, state_bytes, tensors
from stories import BOS, check_vocabulary, read_stories, train_vocabulary
from training import Muon, keep_memory, save_atomically

PAD_TARGET = -1
MORE_SEEDS = [(kind, seed) for kind in ("mha", "window", "linear", "mamba2") for seed in (2, 3)]
RUNS = [(kind, 1) for kind in MIXERS] + MORE_SEEDS
NOT_SHIPPED = ("bigbird",)       # so that models/atlas stays below 10 MB
VISIBLE = {"sinks": (Shape.window - Shape.n_sinks, Shape.n_sinks)}        # window and sinks, where a folder cannot say it


# -- text ---------------------------------------------------------------------------------------------------------

def cut_documents(vocab, documents, most):
    """Pieces of at most `most` tokens, of whole paragraphs; a paragraph longer than that is left out."""
    pieces = []
    for document in documents:
        at = ""
        for paragraph in document.split("\n"):
            longer = at + "\n" + paragraph if at else paragraph
            if len(vocab.encode(longer)) <= most:
                at = longer
                continue
            pieces += [at] if at else []
            at = paragraph if len(vocab.encode(paragraph)) <= most else ""
        pieces += [at] if at else []
    return pieces


def write_documents(documents, path):
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(d + "\n<|endoftext|>\n" for d in documents))


def prepare(args):
    """Vocabulary, training tokens, and the scored texts: all of valid.txt, and a few pieces as short.txt."""
    path = {name: os.path.join(args.data, f"classics-{name}.txt") for name in ("train", "valid")}
    model, cache = os.path.join(args.out, "tokenizer.model"), os.path.join(args.out, "train.npy")
    if not os.path.exists(model):
        documents = read_stories(path["train"])
        train_vocabulary(documents[::4], os.path.join(args.out, "vocabulary"), Shape.vocab_size)
        os.replace(os.path.join(args.out, "vocabulary.model"), model)
    vocab = sentencepiece.SentencePieceProcessor(model_file=model)
    if not os.path.exists(cache):
        pieces = cut_documents(vocab, read_stories(path["valid"]), Shape.seq_len - 1)
        check_vocabulary(vocab, pieces[:8])
        write_documents(pieces[::2], os.path.join(args.out, "valid.txt"))
        long = [p for p in pieces[1::2] if len(vocab.encode(p)) > 400]
        write_documents(long[::len(long) // 4][:4], os.path.join(args.out, "short.txt"))
        np.save(cache, np.array([i for ids in vocab.encode(read_stories(path["train"])) for i in (BOS, *ids)], dtype=np.uint16))
    texts = {name: read_stories(os.path.join(args.out, name + ".txt")) for name in ("valid", "short")}
    return vocab, np.load(cache), texts


def rows_of(tokens, seq_len, seed):
    """[rows, seq_len + 1]: slices of the documents laid end to end, each row begun by BOS, in the order of the seed."""
    rows = tokens[:len(tokens) // seq_len * seq_len].reshape(-1, seq_len).astype(np.int64)
    rows = np.concatenate([np.full((len(rows), 1), BOS), rows], 1)
    return rows[np.random.default_rng(seed).permutation(len(rows))]


# -- scores -------------------------------------------------------------------------------------------------------

@torch.no_grad()
def bits_per_byte(model, vocab, documents):
    """Each document from BOS, EOS not counted, over the bytes of its text; in fp32."""
    nats, n_bytes = 0.0, sum(len(d.encode()) for d in documents)
    encoded = sorted(([BOS, *ids] for ids in vocab.encode(documents)), key=len)
    for at in range(0, len(encoded), 8):
        batch = encoded[at:at + 8]
        tokens = np.zeros((len(batch), len(batch[-1])), np.int64)
        targets = np.full_like(tokens, PAD_TARGET)
        for row, ids in enumerate(batch):
            tokens[row, :len(ids)] = ids
            targets[row, :len(ids) - 1] = ids[1:]
        logits = model(torch.from_numpy(tokens))
        nats += F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten(), ignore_index=PAD_TARGET,
                                reduction="sum").item()
    return nats / (math.log(2) * n_bytes)


def unigram_bits(vocab, train_tokens, documents):
    """What the frequencies of the pieces in the training text give, each counted once more."""
    counts = np.bincount(train_tokens[train_tokens != BOS], minlength=Shape.vocab_size) + 1.0
    bits = -np.log2(counts / counts.sum())
    return sum(bits[ids].sum() for ids in vocab.encode(documents)) / sum(len(d.encode()) for d in documents)


def engine_bits(args, folder, kind, text):
    """The engine's figure of the same text."""
    command = [args.perplexity, folder, "-f", text, "--documents", "--kv", "f32", "-t", "1", "-o", "json"]
    if kind in VISIBLE:
        command += ["--window", str(VISIBLE[kind][0]), "--sinks", str(VISIBLE[kind][1])]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["bits_per_byte"]


# -- training -----------------------------------------------------------------------------------------------------

def shape_of(kind):
    """MoE has the parameters of the others in use for each token, and more in the file."""
    shape = Shape(kind=kind)
    return shape if kind in ("mha", "moe") else fit_hidden(shape, sum(p.numel() for p in Decoder(Shape()).parameters()))


def make_optimizers(model, lr):
    """Muon for the matrices of layers; a network that gives filters is trained as vectors are, without decay."""
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    filters = [p for name, p in learned.items() if "filter_fn" in name]
    apart = {id(p) for p in filters}
    matrices = [p for p in model.layers.parameters()
                if p.requires_grad and p.dim() == 2 and min(p.shape) >= 8 and id(p) not in apart]
    chosen = {id(p) for p in matrices} | apart
    others = [p for p in learned.values() if id(p) not in chosen]
    decayed, plain = [p for p in others if p.dim() == 2], [p for p in others if p.dim() != 2] + filters
    return [Muon(matrices, lr), torch.optim.AdamW([dict(params=decayed, weight_decay=0.1), dict(params=plain, weight_decay=0.0)],
                                                  lr=lr, betas=(0.9, 0.95))]


def loss_of(model, batch):
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
    spread = sum(getattr(layer.ffn, "imbalance", 0.0) for layer in model.layers)
    return loss, loss + 0.01 * spread


def train(args, kind, seed, train_tokens):
    """The trained model; its checkpoint is kept every half minute and at the end."""
    name = f"{kind}-{seed}"
    path = os.path.join(args.out, name + ".pt")
    torch.manual_seed(seed)
    shape = shape_of(kind)
    model = Decoder(shape)
    optimizers = make_optimizers(model, args.lr)
    at, seconds = 0, 0.0
    if os.path.exists(path):
        state = torch.load(path)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        at, seconds = state["step"], state["seconds"]
    rows, losses, began, saved = rows_of(train_tokens, shape.seq_len, seed), [], time.time(), time.time()
    while at < args.steps:
        batch = torch.from_numpy(np.take(rows, range(at * args.batch, (at + 1) * args.batch), 0, mode="wrap"))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * min(1.0, (at + 1) / (0.05 * args.steps), (args.steps - at) / (0.5 * args.steps))
        loss, total = loss_of(model, batch)
        model.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
        at, now = at + 1, time.time()
        if at % 25 == 0 or at == args.steps:
            left = (args.steps - at) * (now - began) / len(losses)
            print(f"{name}: step {at}/{args.steps}  loss {np.mean(losses[-25:]):.4f}  "
                  f"{args.batch * shape.seq_len * len(losses) / (now - began):.0f} tokens/s  ETA {left:.0f} s", flush=True)
        if now - saved > 30 or at == args.steps:
            save_atomically(dict(model=model.state_dict(), optimizers=[o.state_dict() for o in optimizers], step=at,
                                 seconds=seconds + now - began), path)
            saved = now
    return model, seconds + time.time() - began


def is_rounded(name, p):
    """What a folder has in F16: matrices, but for those whose products an exponential follows."""
    return p.ndim == 2 and "projection" not in name


def export(model, folder, tokenizer):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        f.write(json.dumps(settings(model.shape), indent=1) + "\n")
    safetensors_file.write(os.path.join(folder, "model.safetensors"), tensors(model),
                           lambda name, array: "F16" if is_rounded(name, array) else "F32")
    shutil.copy(tokenizer, os.path.join(folder, "tokenizer.model"))


def round_weights(model):
    """To what the exported file holds."""
    for name, p in model.named_parameters():
        if is_rounded(name, p):
            p.data = p.data.half().float()
    return model


def run(args, kind, seed, vocab, train_tokens, texts):
    """Trains, exports and scores one model; the figures stay in NAME.json."""
    name = f"{kind}-{seed}"
    path = os.path.join(args.out, name + ".json")
    if os.path.exists(path):
        return json.load(open(path, encoding="utf-8"))
    model, seconds = train(args, kind, seed, train_tokens)
    folder = os.path.join(args.out, name)
    export(round_weights(model), folder, os.path.join(args.out, "tokenizer.model"))
    s = model.shape
    result = dict(kind=kind, seed=seed, hidden=s.hidden, parameters=sum(p.numel() for p in model.parameters()),
                  tokens=args.steps * args.batch * s.seq_len, seconds=round(seconds), bytes_2048=state_bytes(s, 2048))
    for text, documents in texts.items():
        result[text] = bits_per_byte(model, vocab, documents)
        result["engine_" + text] = engine_bits(args, folder, kind, os.path.join(args.out, text + ".txt"))
    print(f"{name}: valid {result['valid']:.4f} bits per byte, engine {result['engine_valid']:.4f}", flush=True)
    if abs(result["valid"] - result["engine_valid"]) > 1e-3:
        raise SystemExit(f"{name}: expected the engine's bits per byte within 1e-3 of the framework's")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(result, f)
    return result


# -- the table ----------------------------------------------------------------------------------------------------

def table(args, vocab, train_tokens, texts):
    """Markdown on stdout: quality = 100 (unigram - x) / (unigram - MHA), of the means over seeds."""
    results = [json.load(open(p, encoding="utf-8")) for kind, seed in RUNS
               if os.path.exists(p := os.path.join(args.out, f"{kind}-{seed}.json"))]
    bits = {kind: [r["engine_valid"] for r in results if r["kind"] == kind] for kind in MIXERS}
    unigram, mha = unigram_bits(vocab, train_tokens, texts["valid"]), np.mean(bits["mha"])
    several = [b for b in bits.values() if len(b) > 1]
    freedom = sum(len(b) - 1 for b in several)
    noise = math.sqrt(sum(len(b) * np.var(b) for b in several) / freedom) if several else float("nan")
    print(f"unigram {unigram:.4f} bits per byte; standard deviation between seeds {noise:.4f}, of {len(several)} mechanisms\n")
    print("| mechanism | parameters | bits per byte | seeds | quality | bytes at 2,048 tokens | framework - engine |")
    print("|---|---|---|---|---|---|---|")
    for kind in MIXERS:
        own = [r for r in results if r["kind"] == kind]
        if not own:
            continue
        mean = np.mean(bits[kind])
        print(f"| {kind} | {own[0]['parameters']:,} | {mean:.4f} | {len(own)} | {100 * (unigram - mean) / (unigram - mha):.1f} % | "
              f"{own[0]['bytes_2048']:,} | {max((r['valid'] - r['engine_valid'] for r in own), key=abs):+.5f} |")


def ship(args):
    """Into --ship: the folders of seed 1, and what the check compares: short.txt and quality.tsv."""
    os.makedirs(args.ship, exist_ok=True)
    shutil.copy(os.path.join(args.out, "short.txt"), args.ship)
    with open(os.path.join(args.ship, "quality.tsv"), "w", encoding="utf-8") as f:
        f.write("# folder, bits per byte of short.txt by PyTorch, --window and --sinks of build/perplexity (0: none)\n")
        for kind in MIXERS:
            result = os.path.join(args.out, f"{kind}-1.json")
            if kind in NOT_SHIPPED or not os.path.exists(result):
                continue
            shutil.copytree(os.path.join(args.out, f"{kind}-1"), os.path.join(args.ship, kind), dirs_exist_ok=True)
            window, sinks = VISIBLE.get(kind, (0, 0))
            f.write(f"{kind}\t{json.load(open(result, encoding='utf-8'))['short']:.5f}\t{window}\t{sinks}\n")


def main():
    parser = argparse.ArgumentParser(description="Train the same small decoder once for each attention mechanism.")
    parser.add_argument("--data", required=True, help="folder of classics-train.txt and classics-valid.txt")
    parser.add_argument("--out", default="build/train/atlas")
    parser.add_argument("--all", action="store_true", help="every mechanism, then more seeds of some, then the table")
    parser.add_argument("--kind", choices=list(MIXERS), help="one mechanism")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch", type=int, default=4, help="rows of 512 tokens a step")
    parser.add_argument("--lr", type=float, default=1.5e-2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--perplexity", default="build/perplexity", help="the engine's program")
    parser.add_argument("--ship", metavar="FOLDER", help="copy the trained folders of seed 1 there, with their figures")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    keep_memory()
    torch.set_num_threads(args.threads)
    vocab, train_tokens, texts = prepare(args)
    for kind, seed in RUNS if args.all else [(args.kind, args.seed)] if args.kind else []:
        run(args, kind, seed, vocab, train_tokens, texts)
    table(args, vocab, train_tokens, texts)
    if args.ship:
        ship(args)


if __name__ == "__main__":
    main()
