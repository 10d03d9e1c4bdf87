"""cora.py: trains the two small graph networks of models/cora on the Cora citation graph, and scores them.

GAT (arXiv:1710.10903, section 3.3): two layers, 8 heads of 8 features with ELU, then one head of 7 classes; dropout 0.6
of inputs, features and coefficients; Adam at 0.005; L2 0.0005; early stopping after 100 epochs without a better loss or
accuracy on the validation nodes, at most 100,000.
GCN (arXiv:1609.02907, section 5.2): two layers, 16 hidden features; dropout 0.5 of inputs and features; Adam at 0.01; L2
0.0005 of the first layer; 200 epochs, early stopping when the validation loss is above its mean over the last 10.
Both: Glorot's uniform start, rows of words that sum to 1, Planetoid's split (140 papers to train, 500 to validate, 1,000
to test). The test papers are scored once, with the weights as they are exported: F16.
"""
import argparse
import math
import os
import pickle
import sys
import types

import numpy as np
import torch
import torch.nn.functional as F

import safetensors_file

CLASSES, WORDS, NODES, TRAIN, VALID = 7, 1433, 2708, 140, 500


class Stub:  # of a scipy matrix: its fields are all that is needed
    pass


def read(folder, name):
    for module in ("scipy", "scipy.sparse", "scipy.sparse.csr"):
        sys.modules.setdefault(module, types.ModuleType(module))
    sys.modules["scipy.sparse.csr"].csr_matrix = Stub
    with open(os.path.join(folder, "ind.cora." + name), "rb") as f:
        return pickle.load(f, encoding="latin1")


def words_of(matrix):
    rows, words = matrix._shape
    dense = np.zeros((rows, words), np.float32)
    for row in range(rows):
        begin, end = matrix.indptr[row], matrix.indptr[row + 1]
        dense[row, matrix.indices[begin:end]] = matrix.data[begin:end]
    return dense


class Cora:
    def __init__(self, folder):
        order = np.loadtxt(os.path.join(folder, "ind.cora.test.index"), dtype=int)
        words = np.zeros((NODES, WORDS), np.float32)
        labels = np.zeros(NODES, int)
        known = NODES - len(order)
        words[:known], words[order] = words_of(read(folder, "allx")), words_of(read(folder, "tx"))
        labels[:known], labels[order] = read(folder, "ally").argmax(1), read(folder, "ty").argmax(1)
        words /= np.maximum(words.sum(1, keepdims=True), 1)
        edges = {(i, i) for i in range(NODES)}
        for i, neighbours in read(folder, "graph").items():
            edges |= {(i, j) for j in neighbours} | {(j, i) for j in neighbours}
        edges = torch.tensor(sorted(edges))
        self.looks, self.seen = edges[:, 0], edges[:, 1]
        degree = torch.bincount(self.looks).float()
        self.weights = (degree[self.looks] * degree[self.seen]).rsqrt()
        self.words = torch.tensor(words)
        self.places = self.words.nonzero().T.contiguous()
        self.values = self.words[self.places[0], self.places[1]]
        self.labels = torch.tensor(labels)
        self.train, self.valid, self.test = torch.arange(TRAIN), torch.arange(TRAIN, TRAIN + VALID), torch.arange(known, NODES)

    def project(self, w, drop):  # words, with dropout, times w^T
        x = torch.sparse_coo_tensor(self.places, F.dropout(self.values, drop, drop > 0), (NODES, WORDS))
        return torch.sparse.mm(x, w.T)


def glorot(*shape):
    bound = math.sqrt(6 / (shape[-1] + shape[-2]))
    return ((torch.rand(shape) * 2 - 1) * bound).requires_grad_()


def start(model):
    zeros = lambda n: torch.zeros(n, requires_grad=True)
    if model == "gcn":
        return {"0.weight": glorot(16, WORDS), "0.bias": zeros(16), "1.weight": glorot(CLASSES, 16), "1.bias": zeros(CLASSES)}
    p = {}
    for layer, heads, width, inputs in ((0, 8, 8, WORDS), (1, 1, CLASSES, 64)):
        # each head is a layer of its own to Glorot: W [width][inputs], a [2 width]
        p[f"{layer}.weight"] = torch.cat([glorot(width, inputs).detach() for _ in range(heads)]).requires_grad_()
        p[f"{layer}.from"] = glorot(heads, 1, width).detach().squeeze(1).requires_grad_()
        p[f"{layer}.to"] = glorot(heads, 1, width).detach().squeeze(1).requires_grad_()
        p[f"{layer}.bias"] = zeros(heads * width)
    return p


def attend(g, p, layer, h, drop):
    heads, width = p[f"{layer}.from"].shape
    h = h.view(NODES, heads, width)
    scores = (h * p[f"{layer}.from"]).sum(2)[g.looks] + (h * p[f"{layer}.to"]).sum(2)[g.seen]
    e = F.leaky_relu(scores, 0.2).exp()
    sums = torch.zeros(NODES, heads).index_add(0, g.looks, e)
    alpha = F.dropout(e / sums[g.looks], drop, drop > 0)
    h = F.dropout(h, drop, drop > 0)
    out = torch.zeros(NODES, heads, width).index_add(0, g.looks, alpha[:, :, None] * h[g.seen])
    return out.flatten(1) + p[f"{layer}.bias"]


def gat(g, p, training):
    drop = 0.6 if training else 0.0
    h = F.elu(attend(g, p, 0, g.project(p["0.weight"], drop), drop))
    return attend(g, p, 1, F.dropout(h, drop, training) @ p["1.weight"].T, drop)


def gcn(g, p, training):
    drop = 0.5 if training else 0.0
    total = lambda h: torch.zeros_like(h).index_add(0, g.looks, g.weights[:, None] * h[g.seen])
    h = F.relu(total(g.project(p["0.weight"], drop)) + p["0.bias"])
    return total(F.dropout(h, drop, training) @ p["1.weight"].T) + p["1.bias"]


def accuracy(logits, g, nodes):
    return (logits[nodes].argmax(1) == g.labels[nodes]).float().mean().item()


def train(model, g, seed, epochs):
    torch.manual_seed(seed)
    p = start(model)
    run = gat if model == "gat" else gcn
    first = [p[n] for n in p if model == "gat" or n == "0.weight"]
    others = [p[n] for n in p if not (model == "gat" or n == "0.weight")]
    adam = torch.optim.Adam([{"params": first, "weight_decay": 5e-4}, {"params": others}], lr=0.005 if model == "gat" else 0.01)
    best_loss, best_accuracy, waited, losses, kept = math.inf, 0, 0, [], None
    for epoch in range(epochs):
        adam.zero_grad()
        F.cross_entropy(run(g, p, True)[g.train], g.labels[g.train]).backward()
        adam.step()
        with torch.no_grad():
            logits = run(g, p, False)
        loss = F.cross_entropy(logits[g.valid], g.labels[g.valid]).item()
        losses.append(loss)
        if model == "gcn":
            if epoch > 10 and loss > sum(losses[-11:-1]) / 10:
                break
            continue
        right = accuracy(logits, g, g.valid)
        if right >= best_accuracy and loss <= best_loss:
            kept = {n: t.detach().clone() for n, t in p.items()}
        waited = 0 if right >= best_accuracy or loss <= best_loss else waited + 1
        best_accuracy, best_loss = max(best_accuracy, right), min(best_loss, loss)
        if waited == 100:
            break
    return {n: t.detach() for n, t in (kept or p).items()}, epoch + 1


def main():
    args = argparse.ArgumentParser(description="train GAT and GCN on Cora")
    args.add_argument("--data", default="../shared/data/cora", help="the folder of ind.cora.*")
    args.add_argument("--out", default="build/train/cora")
    args.add_argument("--seeds", type=int, default=10, help="runs of each; the first one's weights are the model")
    args.add_argument("--threads", type=int, default=1)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    os.makedirs(args.out, exist_ok=True)
    g = Cora(args.data)
    for model, epochs in (("gcn", 200), ("gat", 100000)):
        figures = []
        for seed in range(args.seeds):
            path = os.path.join(args.out, f"{model}-{seed}.safetensors")
            trained = "as trained before"
            if not os.path.exists(path):
                p, n = train(model, g, seed, epochs)
                safetensors_file.write(path + ".new", {name: t.numpy() for name, t in p.items()}, "F16")
                os.replace(path + ".new", path)
                trained = f"{n} epochs"
            p = {n: torch.tensor(t) for n, t in safetensors_file.read(path).items()}
            logits = (gat if model == "gat" else gcn)(g, p, False)
            figures.append(100 * accuracy(logits, g, g.test))
            print(f"{model} seed {seed}: {figures[-1]:.1f} % of the test papers, validation "
                  f"{100 * accuracy(logits, g, g.valid):.1f} %, {trained}", flush=True)
        print(f"{model}: {np.mean(figures):.2f} +- {np.std(figures):.2f} % over {len(figures)} seeds", flush=True)


if __name__ == "__main__":
    main()
