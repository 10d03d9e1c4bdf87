"""bart_reference.py: the BART family written down once more, plainly, as the reference for other implementations.

    /usr/bin/python3 tools/train/bart_reference.py FOLDER [--beam B] WORD ...
    /usr/bin/python3 tools/train/bart_reference.py FOLDER --dict FOLDER/test.dict > g2p_greedy.tsv
    /usr/bin/python3 tools/train/bart_reference.py FOLDER --gold us_gold.json --count 500 > us_bart_greedy.tsv

FOLDER holds config.json and model.safetensors (or us_bart_config.json and us_bart.safetensors). Everything is fp32, one
word at a time, without a cache. Lewis et al., "BART" (2019) and Liu et al., "Multilingual Denoising Pre-training"
(2020), in the form and with the tensor names of Hugging Face transformers: model_type "bart" normalises after each
residual, "mbart" before each sublayer and once more after the last layer.

Output: word, tab, what the model says. Words where two logits nearly tie at some step are listed on stderr.
"""
import argparse
import json
import math
import os
import re
import sys

import torch
import torch.nn.functional as F

import safetensors_file

BOS, EOS, UNK = 1, 2, 3
FIRST_SYMBOL = 4          # below it: padding, start, end, unknown
POSITION_OFFSET = 2       # position p is row p + 2 of its table
NEAR_TIE = 1e-4


class Model:
    def __init__(self, config, tensors):
        self.config = config
        self.tensors = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
        self.pre_norm = config["model_type"] == "mbart"
        self.max_new_tokens = config["max_position_embeddings"] - 2
        if "graphemes" in config:
            self.symbol_of_id = {i: p for p, i in config["phonemes"].items()}
            self.id_of_letter, self.separator = config["graphemes"], " "
        else:
            self.symbol_of_id = dict(enumerate(config["phoneme_chars"]))
            self.id_of_letter, self.separator = {c: i for i, c in enumerate(config["grapheme_chars"])}, ""

    # -- layers ------------------------------------------------------------------------------------------

    def linear(self, name, x):
        return x @ self.tensors[name + ".weight"].T + self.tensors[name + ".bias"]

    def layer_norm(self, name, x):
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred / torch.sqrt(variance + 1e-5) * self.tensors[name + ".weight"] + self.tensors[name + ".bias"]

    def attention(self, name, n_heads, x, source, causal):
        """x: [seq, d_model] asks, source: [n, d_model] answers; one head after the other."""
        q = self.linear(name + ".q_proj", x)
        k, v = self.linear(name + ".k_proj", source), self.linear(name + ".v_proj", source)
        head_dim = x.shape[-1] // n_heads
        outputs = []
        for h in range(n_heads):
            part = slice(h * head_dim, (h + 1) * head_dim)
            scores = q[..., part] @ k[..., part].transpose(-1, -2) * head_dim ** -0.5
            if causal:
                scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
            outputs.append(torch.softmax(scores, -1) @ v[..., part])
        return self.linear(name + ".out_proj", torch.cat(outputs, -1))

    def feed_forward(self, name, x):
        return self.linear(name + ".fc2", F.gelu(self.linear(name + ".fc1", x)))     # the exact GELU, with erf

    def residual(self, norm, x, sublayer):
        if self.pre_norm:
            return x + sublayer(self.layer_norm(norm, x))
        return self.layer_norm(norm, x + sublayer(x))

    def embed(self, stack, tokens):
        table = self.tensors["model.shared.weight"]
        x = table[tokens] * (math.sqrt(table.shape[1]) if self.config["scale_embedding"] else 1.0)
        rows = self.tensors[stack + ".embed_positions.weight"][POSITION_OFFSET:][:tokens.shape[-1]]
        return self.layer_norm(stack + ".layernorm_embedding", x + rows)

    def run(self, side, tokens, encoded=None):
        stack, decoding = "model." + side, side == "decoder"
        n_heads = self.config[side + "_attention_heads"]
        x = self.embed(stack, tokens)
        for n in range(self.config[side + "_layers"]):
            layer = f"{stack}.layers.{n}"
            x = self.residual(layer + ".self_attn_layer_norm", x,
                              lambda y: self.attention(layer + ".self_attn", n_heads, y, y, causal=decoding))
            if decoding:
                x = self.residual(layer + ".encoder_attn_layer_norm", x,
                                  lambda y: self.attention(layer + ".encoder_attn", n_heads, y, encoded, causal=False))
            x = self.residual(layer + ".final_layer_norm", x, lambda y: self.feed_forward(layer, y))
        return self.layer_norm(stack + ".layer_norm", x) if self.pre_norm else x

    # -- the two halves ----------------------------------------------------------------------------------

    def encode(self, tokens):
        return self.run("encoder", torch.tensor(tokens))

    def decode(self, tokens, encoded):
        """Logits after each token: [..., seq, vocab_size]; tokens may be several hypotheses of one length."""
        x = self.run("decoder", torch.as_tensor(tokens), encoded)
        return x @ self.tensors["model.shared.weight"].T + self.tensors["final_logits_bias"][0]

    # -- text --------------------------------------------------------------------------------------------

    def tokens_of(self, word):
        return [BOS, *(self.id_of_letter.get(c, UNK) for c in word), EOS]

    def symbols_of(self, tokens):
        return [self.symbol_of_id.get(i, "?") for i in tokens if i >= FIRST_SYMBOL]


def load(folder):
    name = "us_bart" if os.path.exists(os.path.join(folder, "us_bart.safetensors")) else None
    config = json.load(open(os.path.join(folder, f"{name}_config.json" if name else "config.json"), encoding="utf-8"))
    return Model(config, safetensors_file.read(os.path.join(folder, f"{name or 'model'}.safetensors")))


# -- decoding: both return the generated tokens, the closing EOS included ------------------------------------

@torch.no_grad()
def greedy(model, word):
    """Also the smallest distance between the two best logits of a step."""
    encoded, tokens, gap = model.encode(model.tokens_of(word)), [model.config["decoder_start_token_id"]], math.inf
    while len(tokens) <= model.max_new_tokens and (len(tokens) == 1 or tokens[-1] != EOS):
        (first, second), (best, _) = model.decode(tokens, encoded)[-1].topk(2)
        gap = min(gap, float(first - second))
        tokens.append(int(best))
    return tokens[1:], gap


def best_continuations(sums, log_probs, n):
    """The n best (sum, hypothesis, token), by sum; among equals the lower hypothesis, then the lower token."""
    flat = (sums[:, None] + log_probs).flatten()
    order = torch.sort(flat, descending=True, stable=True).indices[:n].tolist()
    return [(float(flat[i]), i // log_probs.shape[1], i % log_probs.shape[1]) for i in order]


@torch.no_grad()
def beam_search(model, word, beams):
    """The hypothesis of best sum of log-probabilities / generated tokens, EOS counted.

    Hugging Face's rules for early_stopping=False and length_penalty=1: of the 2 * beams best continuations, an EOS
    among the first `beams` finishes its hypothesis, an EOS behind them is dropped, and the first `beams` others go on.
    The search ends when `beams` have finished and the best open one, at its present length, would displace none.
    """
    encoded, start = model.encode(model.tokens_of(word)), model.config["decoder_start_token_id"]
    hypotheses, sums, finished = [[start]], torch.zeros(1), []
    for length in range(1, model.max_new_tokens + 1):
        log_probs = torch.log_softmax(model.decode(hypotheses, encoded)[:, -1], -1)
        going_on = []
        for rank, (total, h, token) in enumerate(best_continuations(sums, log_probs, 2 * beams)):
            if token != EOS:
                going_on.append((total, hypotheses[h] + [token]))
            elif rank < beams:
                finished.append((total / length, hypotheses[h][1:] + [EOS]))
        going_on = going_on[:beams]
        finished = sorted(finished, key=lambda f: -f[0])[:beams]
        if len(finished) == beams and going_on[0][0] / length <= finished[-1][0]:
            break
        hypotheses, sums = [tokens for _, tokens in going_on], torch.tensor([total for total, _ in going_on])
    else:
        finished += [(total / length, tokens[1:]) for total, tokens in going_on]
    return max(finished, key=lambda f: f[0])[1]


def pronounce(model, word, beams=1):
    """Symbols, the special ones left out; one beam is greedy decoding."""
    return model.symbols_of(greedy(model, word)[0] if beams == 1 else beam_search(model, word, beams))


# -- command line ----------------------------------------------------------------------------------------

def dictionary_words(path):
    """The distinct words of a file in CMUdict's format, in its order."""
    return list(dict.fromkeys(re.sub(r"\(\d+\)$", "", line.split()[0]) for line in open(path, encoding="utf-8")))


def gold_words(path, count):
    """count words, evenly spaced, of those in plain lower-case letters with one pronunciation."""
    gold = json.load(open(path, encoding="utf-8"))
    words = [word for word, spoken in gold.items() if re.fullmatch("[a-z]+", word) and isinstance(spoken, str)]
    return {word: gold[word] for word in words[::len(words) // count][:count]}


def main():
    parser = argparse.ArgumentParser(description="Reference output of a BART or mBART pronunciation model.")
    parser.add_argument("folder")
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--dict", help="all words of a file in CMUdict's format")
    parser.add_argument("--gold", help="words of a {word: pronunciation} file, and the rate of exact matches")
    parser.add_argument("--count", type=int, default=500, help="words of --gold")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_intermixed_args()
    torch.set_num_threads(args.threads)
    model = load(args.folder)
    gold = gold_words(args.gold, args.count) if args.gold else {}
    words = args.words + (dictionary_words(args.dict) if args.dict else []) + list(gold)
    near_ties, matches = [], 0
    for word in words:
        if args.beam == 1:
            tokens, gap = greedy(model, word)
            near_ties += [word] if gap < NEAR_TIE else []
        else:
            tokens = beam_search(model, word, args.beam)
        spoken = model.separator.join(model.symbols_of(tokens))
        matches += gold.get(word) == spoken
        print(f"{word}\t{spoken}")
    if args.beam == 1:
        print(f"{len(near_ties)} near ties:", *near_ties, file=sys.stderr)
    if gold:
        print(f"{matches} of {len(gold)} as in {os.path.basename(args.gold)}", file=sys.stderr)


if __name__ == "__main__":
    main()
