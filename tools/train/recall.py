"""recall.py: what a mechanism can look up again: associative recall and copying, against length and bytes of state.

    /usr/bin/python3 tools/train/recall.py --out build/train/recall

Owns two made-up tasks and the training of two-layer decoders on them. "recall" is multi-query associative recall
(arXiv:2312.04927): n / 4 pairs of a key and its value, then every key once more in the second half of n tokens, among
blanks; the value is to be said there. "copy": n / 2 symbols, a border, the symbols again. Every step has one length of a
mixture, so one training gives the whole curve. All mechanisms have a short convolution before them, softmax as well, so
that none lacks neighbours. Every run is made from two seeds, and the table has their means. A run goes on from its last
checkpoint; a finished one is not repeated.
"""
import json
import os
import time

import numpy as np
import torch
import torch.nn.functional as F

from atlas_models import Decoder, Shape, state_bytes
from training import begin, descend, resume, save_atomically, task_parser, warm_up_and_decay

LENGTHS = (8, 16, 32, 64, 128)
BLANK, N_KEYS, N_VALUES = 0, 64, 64           # keys 1..64, values 65..128
VOCAB = 1 + N_KEYS + N_VALUES
KINDS = [("mha", 16), ("window", 16), ("linear", 16), ("performer", 16), ("retnet", 16), ("gla", 16), ("gdn", 16),
         ("mamba2", 16), ("rwkv7", 32), ("hyena", 16)]
SIZES = [(kind, k_dim) for k_dim in (32, 64) for kind in ("linear", "gdn", "mamba2", "gla")]   # a state of 2 and 4 times


def make_recall(n, rows, rng):
    """tokens, targets [rows, n]; -1: not scored"""
    pairs = n // 4
    keys = 1 + np.argsort(rng.random((rows, N_KEYS)), 1)[:, :pairs]
    values = 1 + N_KEYS + rng.integers(0, N_VALUES, (rows, pairs))
    tokens, targets = np.full((rows, n), BLANK), np.full((rows, n), -1)
    tokens[:, 0:2 * pairs:2], tokens[:, 1:2 * pairs:2] = keys, values
    places = 2 * pairs + np.argsort(rng.random((rows, n - 2 * pairs)), 1)[:, :pairs]
    np.put_along_axis(tokens, places, keys, 1)
    np.put_along_axis(targets, places, values, 1)
    return tokens, targets


def make_copy(n, rows, rng):
    half = n // 2
    symbols = rng.integers(1, VOCAB, (rows, half))
    tokens = np.concatenate([symbols, np.full((rows, 1), BLANK), symbols[:, :-1]], 1)
    return tokens, np.concatenate([np.full((rows, half), -1), symbols], 1)


TASKS = {"recall": make_recall, "copy": make_copy}
RUNS = sorted(KINDS + SIZES, key=lambda run: ([kind for kind, _ in KINDS].index(run[0]), run[1]))
SEEDS = (1, 2)


def shape_of(kind, k_dim):
    """A window of 16 tokens, so that it is shorter than most texts here."""
    return Shape(kind=kind, n_layers=2, hidden=128, vocab_size=VOCAB, seq_len=LENGTHS[-1], window=16, k_dim=k_dim, short_conv=True)


@torch.no_grad()
def accuracy(model, task, n):
    tokens, targets = (torch.from_numpy(x) for x in TASKS[task](n, 4096 // n, np.random.default_rng(1 << 20)))
    scored = targets >= 0
    return (model(tokens).argmax(-1) == targets)[scored].float().mean().item()


def run(args, task, kind, k_dim, seed):
    name = f"{task}-{kind}-{k_dim}-{seed}"
    path, checkpoint = (os.path.join(args.out, name + end) for end in (".json", ".pt"))
    if os.path.exists(path):
        return
    torch.manual_seed(seed)
    shape = shape_of(kind, k_dim)
    model = Decoder(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01, betas=(0.9, 0.98))
    at = resume(checkpoint, model, optimizer).get("step", 0)
    began, start = time.time(), at
    while at < args.steps:
        rng = np.random.default_rng([seed, at])
        n = int(rng.choice(LENGTHS))
        tokens, targets = (torch.from_numpy(x) for x in TASKS[task](n, args.tokens // n, rng))
        warm_up_and_decay(optimizer, args.lr, at, args.steps)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(tokens)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-1)
        descend(loss, model, optimizer)
        at += 1
        if at % 100 == 0 or at == args.steps:
            longest, left = accuracy(model, task, LENGTHS[-1]), (args.steps - at) * (time.time() - began) / (at - start)
            print(f"{name}: step {at}/{args.steps}  loss {loss.item():.4f}  {100 * longest:.1f} % at {LENGTHS[-1]}  "
                  f"ETA {left:.0f} s", flush=True)
            save_atomically(dict(model=model.state_dict(), optimizer=optimizer.state_dict(), step=at), checkpoint)
            if longest > 0.99:
                break
    result = dict(task=task, kind=kind, k_dim=k_dim, seed=seed, steps=at, parameters=sum(p.numel() for p in model.parameters()),
                  bytes=state_bytes(shape, LENGTHS[-1]), accuracy={n: accuracy(model, task, n) for n in LENGTHS})
    with open(path, "w", encoding="utf-8") as f:
        json.dump(result, f)


def percent(share):
    return f"{100 * share:.1f} %"


def row(results):
    """Of one mechanism and size: means over its seeds, and what each seed gave at the longest."""
    first, longest = results[0], str(LENGTHS[-1])
    means = [percent(np.mean([r["accuracy"][str(n)] for r in results])) for n in LENGTHS]
    each = ", ".join(f"{100 * r['accuracy'][longest]:.1f}" for r in results)
    steps = ", ".join(dict.fromkeys(str(r["steps"]) for r in results))
    return f"| {first['kind']} | {first['k_dim']} | {first['bytes']:,} | {' | '.join(means)} | {each} | {steps} |"


def table(args):
    lengths = " | ".join(f"n = {n}" for n in LENGTHS)
    for task in TASKS:
        print(f"\n| {task}: mechanism | k of a head | bytes at {LENGTHS[-1]} | {lengths} | its seeds | steps |")
        print("|---|" + "--:|" * (4 + len(LENGTHS)))
        for kind, k_dim in RUNS:
            paths = [os.path.join(args.out, f"{task}-{kind}-{k_dim}-{seed}.json") for seed in SEEDS]
            results = [json.load(open(path, encoding="utf-8")) for path in paths if os.path.exists(path)]
            if results:
                print(row(results))


def main():
    parser = task_parser("Train small decoders on recall and copying; print accuracy by length.", "build/train/recall",
                         600, 4e-3)
    parser.add_argument("--task", choices=list(TASKS), help="one of them (default: both)")
    parser.add_argument("--tokens", type=int, default=2048, help="of a step")
    parser.set_defaults(seed=None)   # both
    args = parser.parse_args()
    begin(args)
    for task in [args.task] if args.task else TASKS:
        for kind, k_dim in () if args.table else RUNS:
            for seed in [args.seed] if args.seed else SEEDS:
                run(args, task, kind, k_dim, seed)
    table(args)


if __name__ == "__main__":
    main()
