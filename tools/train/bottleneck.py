"""bottleneck.py: reversing a word with and without attention: accuracy against length, and where the decoder looked.

    /usr/bin/python3 tools/train/bottleneck.py --out build/train/bottleneck

Owns the task (random letters, to be written backwards), a GRU encoder-decoder, and its kinds of attention: none (the
encoder's last state starts the decoder and is all that it sees), additive (arXiv:1409.0473), Luong's dot and general
(1508.04025), argmax (one position, the gradient of the softmax: straight-through) and sampled hard attention trained by
REINFORCE (1502.03044, section 4.1). All read the encoder after the decoder's step, as Luong has it, so that only the
score differs. Trained on lengths up to --longest, scored on longer ones too, greedily. A run goes on from its last
checkpoint; a finished one is not repeated.
"""
import json
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from training import begin, descend, resume, save_atomically, task_parser, warm_up_and_decay

LETTERS, START, DIM = 16, 16, 64
KINDS = ("fixed", "additive", "dot", "general", "argmax", "reinforce")
LENGTHS = (4, 8, 12, 16, 20, 24, 32, 40)


class Reverser(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.embed = nn.Embedding(LETTERS + 1, DIM)
        self.encoder, self.decoder = nn.GRU(DIM, DIM, batch_first=True), nn.GRU(DIM, DIM, batch_first=True)
        self.w_q, self.w_k, self.v = nn.Linear(DIM, DIM, False), nn.Linear(DIM, DIM, False), nn.Linear(DIM, 1, False)
        self.mix, self.out = nn.Linear(2 * DIM, DIM), nn.Linear(DIM, LETTERS)

    def scores(self, q, k):
        """[rows, m, n]"""
        if self.kind == "additive":
            return self.v(torch.tanh(self.w_q(q)[:, :, None] + self.w_k(k)[:, None]))[..., 0]
        return (q if self.kind == "dot" else self.w_q(q)) @ k.transpose(1, 2)

    def look(self, q, k):
        """weights [rows, m, n], and for REINFORCE the log probability of what was drawn, [rows, m]"""
        p = torch.softmax(self.scores(q, k), -1)
        if self.kind == "reinforce" and self.training:
            drawn = torch.distributions.Categorical(p).sample()
            return F.one_hot(drawn, p.shape[-1]).float(), p
        if self.kind in ("argmax", "reinforce"):
            return F.one_hot(p.argmax(-1), p.shape[-1]).float() + p - p.detach(), p
        return p, p

    def forward(self, word, written, h=None):
        """Logits [rows, m, LETTERS] of the letters behind `written`, the weights and probabilities, the state."""
        k, last = self.encoder(self.embed(word))
        q, h = self.decoder(self.embed(written), last if h is None else h)
        if self.kind == "fixed":
            return self.out(torch.tanh(self.mix(torch.cat([q, last[0][:, None].expand_as(q)], -1)))), None, None, h
        weights, p = self.look(q, k)
        return self.out(torch.tanh(self.mix(torch.cat([q, weights @ k], -1)))), weights, p, h


def make_words(rows, n, rng):
    word = torch.from_numpy(rng.integers(0, LETTERS, (rows, n)))
    target = word.flip(1)
    return word, target, torch.cat([torch.full((rows, 1), START), target[:, :-1]], 1)


@torch.no_grad()
def write(model, word):
    """Greedily: letters [rows, n], weights [n, n] of the first row."""
    written, h, letters, looked = torch.full((len(word), 1), START), None, [], []
    for _ in range(word.shape[1]):
        logits, weights, _, h = model(word, written, h)
        written = logits.argmax(-1)
        letters.append(written)
        looked.append(weights[0, 0] if weights is not None else None)
    return torch.cat(letters, 1), looked


def accuracy(model, n):
    model.eval()
    word, target, _ = make_words(128, n, np.random.default_rng(n))
    right = (write(model, word)[0] == target)
    model.train()
    return right.float().mean().item(), right.all(1).float().mean().item()


def loss_of(model, batch, state):
    """For REINFORCE the reward of a draw is the log probability of the letter, over a running mean, plus entropy."""
    word, target, written = batch
    logits, weights, p, _ = model(word, written)
    log_p = F.log_softmax(logits, -1).gather(-1, target[..., None])[..., 0]
    if model.kind != "reinforce":
        return -log_p.mean()
    reward = log_p.detach() - state["baseline"]
    state["baseline"] += 0.05 * (log_p.mean().item() - state["baseline"])
    drawn = (p.clamp_min(1e-9).log() * weights).sum(-1)
    entropy = -(p * p.clamp_min(1e-9).log()).sum(-1)
    return -(log_p + reward * drawn + state["bonus"] * entropy).mean()


def run(args, kind):
    path, checkpoint = (os.path.join(args.out, kind + end) for end in (".json", ".pt"))
    if os.path.exists(path):
        return
    torch.manual_seed(args.seed)
    model = Reverser(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.0)
    saved = resume(checkpoint, model, optimizer)
    at, state = saved.get("step", 0), saved.get("state", {"baseline": -2.8, "bonus": 0.0})
    began, start = time.time(), at
    while at < args.steps:
        rng = np.random.default_rng([args.seed, at])
        n = int(rng.integers(2, min(args.longest, 4 + at * args.longest // (args.steps // 2)) + 1))   # short ones first
        warm_up_and_decay(optimizer, args.lr, at, args.steps)
        state["bonus"] = 0.02 * (1 - at / args.steps)
        loss = loss_of(model, make_words(args.rows, n, rng), state)
        descend(loss, model, optimizer)
        at += 1
        if at % 250 == 0 or at == args.steps:
            left = (args.steps - at) * (time.time() - began) / (at - start)
            print(f"{kind}: step {at}/{args.steps}  loss {loss.item():.4f}  {100 * accuracy(model, args.longest)[0]:.1f} % "
                  f"of letters at {args.longest}  ETA {left:.0f} s", flush=True)
            save_atomically(dict(model=model.state_dict(), optimizer=optimizer.state_dict(), step=at, state=state), checkpoint)
    model.eval()
    word = make_words(1, 12, np.random.default_rng(0))[0]
    looked = write(model, word)[1]
    weights = [] if kind == "fixed" else [[round(x, 3) for x in row.tolist()] for row in looked]
    with open(path, "w", encoding="utf-8") as f:
        json.dump(dict(kind=kind, accuracy={n: accuracy(model, n) for n in LENGTHS}, weights=weights), f)


def table(args):
    print("| letters right (whole words) at length | " + " | ".join(map(str, LENGTHS)) + " |")
    print("|---" * (1 + len(LENGTHS)) + "|")
    done = [json.load(open(p, encoding="utf-8")) for k in KINDS if os.path.exists(p := os.path.join(args.out, k + ".json"))]
    for r in done:
        print(f"| {r['kind']} | " + " | ".join(f"{100 * a:.0f} ({100 * w:.0f}) %" for a, w in r["accuracy"].values()) + " |")
    for r in done:
        if r["weights"]:
            print(f"\n{r['kind']}: a row a letter written, a column a letter read; tenths of the weight\n")
            print("\n".join("    " + " ".join(str(min(9, int(10 * x))) if x >= 0.05 else "." for x in row) for row in r["weights"]))


def main():
    parser = task_parser("Train encoder-decoders to reverse words; print accuracy by length.", "build/train/bottleneck",
                         1200, 3e-3)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--longest", type=int, default=20, help="length trained on")
    args = parser.parse_args()
    begin(args)
    for kind in () if args.table else KINDS:
        run(args, kind)
    table(args)


if __name__ == "__main__":
    main()
