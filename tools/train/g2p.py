"""g2p.py: the recipe of models/g2p, a transformer that turns English spelling into ARPAbet pronunciation.

    /usr/bin/python3 tools/train/g2p.py --data DIR --out build/train/g2p

It owns four things, in this order: the dictionary (CMUdict, its split and its symbols), the batches (words of one
length together), the model with its training loop (the mBART shape of Hugging Face transformers; Muon and AdamW), and
the export to config.json, model.safetensors (F16) and test.dict. A run that stops, for whatever reason, goes on from
its last checkpoint when it is started again. The test words are never trained on nor looked at before --score, which
decodes them with bart_reference.py from the exported file.
"""
import argparse
import json
import math
import os
import re
import shutil
import time
import zlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import safetensors_file
from training import Muon, keep_memory, save_atomically

PAD, BOS, EOS, UNK = range(4)
GRAPHEMES = "'-.abcdefghijklmnopqrstuvwxyz"


@dataclass
class Config:
    d_model: int = 128
    heads: int = 4
    ffn_dim: int = 512
    encoder_layers: int = 4
    decoder_layers: int = 3
    max_positions: int = 64
    vocab_size: int = 0


# -- dictionary ------------------------------------------------------------------------------------------

def read_dictionary(path):
    """{word: [pronunciation, ...]}, the first one first, and the lines whose word has another character."""
    words, dropped = {}, []
    for line in open(path, encoding="utf-8"):
        entry, *phonemes = line.split(" #")[0].split()
        word = re.sub(r"\(\d+\)$", "", entry)
        if set(word) <= set(GRAPHEMES):
            words.setdefault(word, []).append(phonemes)
        else:
            dropped.append(line)
    return words, dropped


def part_of(word):
    """A word keeps its part whatever else the dictionary holds, and its alternates stay with it."""
    h = zlib.crc32(word.encode()) % 100
    return "test" if h < 10 else "valid" if h < 12 else "train"


def split(words):
    parts = {"train": {}, "valid": {}, "test": {}}
    for word in sorted(words):
        parts[part_of(word)][word] = words[word]
    return parts


class Symbols:
    """One table of disjoint ids: the four specials, then letters, then phonemes."""

    def __init__(self, words):
        phonemes = sorted({p for all_of_word in words.values() for one in all_of_word for p in one})
        self.graphemes = {c: EOS + 2 + i for i, c in enumerate(GRAPHEMES)}
        self.phonemes = {p: EOS + 2 + len(GRAPHEMES) + i for i, p in enumerate(phonemes)}
        self.name = {i: p for p, i in self.phonemes.items()}

    def __len__(self):
        return EOS + 2 + len(self.graphemes) + len(self.phonemes)

    def spell(self, word):
        return [BOS, *(self.graphemes[c] for c in word), EOS]

    def sound(self, phonemes):
        return [BOS, *(self.phonemes[p] for p in phonemes), EOS]


def dictionary_text(words):
    """CMUdict's own format."""
    return "".join(f"{word}({n}) {' '.join(phonemes)}\n" if n > 1 else f"{word} {' '.join(phonemes)}\n"
                   for word in sorted(words) for n, phonemes in enumerate(words[word], 1))


# -- batches: (letters [words, n], phonemes [words, m]), PAD at the ends -----------------------------------

def lay_rows(rows):
    table = np.full((len(rows), max(map(len, rows))), PAD, np.int64)
    for r, row in enumerate(rows):
        table[r, :len(row)] = row
    return table


def epoch_batches(entries, batch, rng):
    """One pronunciation of each word, the first twice as likely; neighbours in length make a batch, nearly unpadded."""
    pairs = [(letters, sounds[max(0, rng.integers(-1, len(sounds)))]) for letters, sounds in entries]
    order = sorted(rng.permutation(len(pairs)), key=lambda i: (len(pairs[i][0]), len(pairs[i][1])))
    order = order[rng.integers(batch):]                   # so that other words meet in every epoch
    batches = [[pairs[i] for i in order[at:at + batch]] for at in range(0, len(order) - batch + 1, batch)]
    return [batches[i] for i in rng.permutation(len(batches))]


def lay_batch(pairs, rng, unknown):
    letters, sounds = lay_rows([p[0] for p in pairs]), lay_rows([p[1] for p in pairs])
    letters[(rng.random(letters.shape) < unknown) & (letters > UNK)] = UNK
    return torch.from_numpy(letters), torch.from_numpy(sounds)


# -- model -----------------------------------------------------------------------------------------------

class Dropout:
    """Slices of one long random mask: torch's own dropout draws every number anew, which costs more than a matrix."""

    def __init__(self, rate, size=1 << 23):
        self.rate = rate
        keep = (torch.from_numpy(np.random.default_rng(0).random(size, np.float32)) >= rate).float() / (1 - rate)
        self.masks = {dtype: keep.to(dtype) for dtype in (torch.float32, torch.bfloat16)}

    def __call__(self, x):
        mask = self.masks[x.dtype]
        at = np.random.randint(len(mask) - x.numel())
        return x * mask[at:at + x.numel()].view(x.shape)


def no_dropout(x):
    return x


def linear(x, *layers):
    """The layers side by side, in x's type: their outputs follow each other in the last dimension."""
    weight = torch.cat([m.weight for m in layers]) if len(layers) > 1 else layers[0].weight
    bias = torch.cat([m.bias for m in layers]) if len(layers) > 1 else layers[0].bias
    return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))


class Norm(nn.LayerNorm):
    def forward(self, x, dtype=torch.float32):
        return super().forward(x).to(dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c.heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(c.d_model, c.d_model) for _ in range(4))

    def split_heads(self, x, n):
        """[words, seq, n * d_model] to n times [words * heads, seq, head_dim]."""
        words, seq, width = x.shape
        x = x.view(words, seq, n, self.heads, width // n // self.heads).permute(2, 0, 3, 1, 4)
        return x.reshape(n, words * self.heads, seq, -1).unbind(0)

    def forward(self, x, source=None, mask=None):
        if source is None:
            q, k, v = self.split_heads(linear(x, self.q_proj, self.k_proj, self.v_proj), 3)
        else:
            q, = self.split_heads(linear(x, self.q_proj), 1)
            k, v = self.split_heads(linear(source, self.k_proj, self.v_proj), 2)
        scores = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2))
        if mask is not None:
            scores = scores + mask.to(scores.dtype)
        out = torch.bmm(torch.softmax(scores, -1), v)
        words, seq, width = x.shape
        return linear(out.view(words, self.heads, seq, -1).transpose(1, 2).reshape(words, seq, width), self.out_proj)


class Layer(nn.Module):
    def __init__(self, c, cross):
        super().__init__()
        self.self_attn, self.self_attn_layer_norm = Attention(c), Norm(c.d_model)
        if cross:
            self.encoder_attn, self.encoder_attn_layer_norm = Attention(c), Norm(c.d_model)
        self.fc1, self.fc2 = nn.Linear(c.d_model, c.ffn_dim), nn.Linear(c.ffn_dim, c.d_model)
        self.final_layer_norm = Norm(c.d_model)

    def forward(self, x, mask, drop, dtype, source=None, source_mask=None):
        x = x + drop(self.self_attn(self.self_attn_layer_norm(x, dtype), mask=mask))
        if source is not None:
            x = x + drop(self.encoder_attn(self.encoder_attn_layer_norm(x, dtype), source, source_mask))
        return x + drop(linear(F.gelu(linear(self.final_layer_norm(x, dtype), self.fc1)), self.fc2))


class Stack(nn.Module):
    """The encoder, or the decoder; position p is row p + 2 of its table, as in BART."""

    def __init__(self, c, n_layers, cross):
        super().__init__()
        self.embed_positions = nn.Embedding(c.max_positions + 2, c.d_model)
        self.layernorm_embedding = Norm(c.d_model)
        self.layers = nn.ModuleList(Layer(c, cross) for _ in range(n_layers))
        self.layer_norm = Norm(c.d_model)

    def forward(self, embedded, mask, drop, dtype, source=None, source_mask=None):
        x = drop(self.layernorm_embedding(embedded + self.embed_positions.weight[2:2 + embedded.shape[1]]))
        for layer in self.layers:
            x = layer(x, mask, drop, dtype, source, source_mask)
        return self.layer_norm(x, dtype)


class Transformer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.shared = nn.Embedding(c.vocab_size, c.d_model)       # letters, phonemes and the classifier
        self.encoder = Stack(c, c.encoder_layers, cross=False)
        self.decoder = Stack(c, c.decoder_layers, cross=True)


class G2P(nn.Module):
    """MBartForConditionalGeneration in its names and numbers; the residual stream stays fp32 beside a bf16 dtype."""

    def __init__(self, c, dtype=torch.float32, drop=no_dropout):
        super().__init__()
        self.c, self.dtype, self.drop = c, dtype, drop
        self.model = Transformer(c)
        self.register_buffer("final_logits_bias", torch.zeros(1, c.vocab_size))
        depth = 2 * c.encoder_layers + 3 * c.decoder_layers
        for name, p in self.named_parameters():
            if p.dim() == 2:
                residual = name.endswith(("out_proj.weight", "fc2.weight"))
                nn.init.normal_(p, std=0.04 / math.sqrt(depth) if residual else 0.04)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def padding(self, letters):
        """0 at letters, very negative at padding, for each head: [words * heads, 1, n]; None without padding."""
        pad = letters == PAD
        return (pad.float() * -1e9).repeat_interleave(self.c.heads, 0)[:, None] if pad.any() else None

    def encode(self, letters):
        mask = self.padding(letters)
        return self.model.encoder(self.model.shared(letters), mask, self.drop, self.dtype), mask

    def decode(self, sounds, source, source_mask):
        """Padding needs no mask here: it stands behind everything that counts."""
        causal = torch.full((sounds.shape[1],) * 2, -1e9).triu(1)
        x = self.model.decoder(self.model.shared(sounds), causal, self.drop, self.dtype, source, source_mask)
        return F.linear(x, self.model.shared.weight.to(x.dtype)).float() + self.final_logits_bias

    def forward(self, letters, sounds):
        return self.decode(sounds, *self.encode(letters))


# -- training --------------------------------------------------------------------------------------------

def make_optimizers(model, args):
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.dim() == 2 and "layers." in name]
    tables = [p for name, p in named if p.dim() == 2 and "layers." not in name]
    vectors = [p for _, p in named if p.dim() == 1]
    adamw = torch.optim.AdamW([dict(params=tables, weight_decay=0.1), dict(params=vectors, weight_decay=0.0)],
                              lr=args.lr, betas=(0.9, 0.98), foreach=True)
    return [Muon(matrices, args.lr), adamw]


def learning_rate(args, at):
    """Warm-up, stable, linear decay to 0; planned by the clock, as the share of the machine is not known before."""
    left = 1 - at["seconds"] / (60 * args.minutes)
    return args.lr * max(0.0, min(1.0, (at["step"] + 1) / args.warmup_steps, left / args.decay))


def average(model, ema, at):
    """Exponential moving average of the weights: over a fifth of the steps at first, over 1000 of them later."""
    newest = max(1e-3, 5 / (at["step"] + 5))
    with torch.no_grad():
        torch._foreach_mul_(ema, 1 - newest)
        torch._foreach_add_(ema, list(model.parameters()), alpha=newest)


def averaged_model(config, ema):
    model = G2P(config).eval()
    with torch.no_grad():
        for p, mean in zip(model.parameters(), ema):
            p.copy_(mean)
    return model


@torch.no_grad()
def greedy(model, letters):
    """Phoneme ids of each row up to EOS."""
    source = model.encode(letters)
    out = torch.full((len(letters), 1), BOS)
    while out.shape[1] <= model.c.max_positions - 2 and not (out == EOS).any(1).all():
        out = torch.cat([out, model.decode(out, *source)[:, -1].argmax(-1, keepdim=True)], 1)
    return [row[1:row.index(EOS) if EOS in row else len(row)] for row in out.tolist()]


def without_stress(phonemes):
    return [p.rstrip("012") for p in phonemes]


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def error_rates(outputs, references):
    """(words, phonemes), as in Yao and Zweig (2015): a word is right if it equals any reference; the nearest counts."""
    wrong = errors = length = 0
    for output, refs in zip(outputs, references):
        distance, n = min((edit_distance(output, ref), len(ref)) for ref in refs)
        wrong, errors, length = wrong + (distance > 0), errors + distance, length + n
    return wrong / len(outputs), errors / length


def both_error_rates(outputs, references):
    plain = [without_stress(o) for o in outputs], [[without_stress(r) for r in refs] for refs in references]
    return error_rates(*plain), error_rates(outputs, references)


def report(rates):
    (wer, per), (wer_stress, per_stress) = rates
    return (f"WER {100 * wer:.2f} %  PER {100 * per:.2f} %  with stress WER {100 * wer_stress:.2f} %  "
            f"PER {100 * per_stress:.2f} %")


def validate(model, symbols, words, batch=256):
    order = sorted(words, key=len)
    outputs = []
    for at in range(0, len(order), batch):
        letters = torch.from_numpy(lay_rows([symbols.spell(word) for word in order[at:at + batch]]))
        outputs += [[symbols.name.get(i, "?") for i in row] for row in greedy(model, letters)]
    return both_error_rates(outputs, [words[word] for word in order])


def backward(model, pairs, args, share, seed):
    rng = np.random.default_rng(seed)
    letters, sounds = lay_batch(pairs, rng, args.unknown)
    logits = model(letters, sounds[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), sounds[:, 1:].flatten(), ignore_index=PAD,
                           label_smoothing=args.smoothing)
    (loss * share).backward()
    return loss.item()


def take_step(model, optimizers, batches, args, at):
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args, at)
    model.zero_grad(set_to_none=True)
    losses = []
    for pairs in batches:
        losses.append(backward(model, pairs, args, 1 / len(batches), seed=[args.seed, at["words"]]))
        at["words"] += len(pairs)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return losses


def train(args, config, symbols, parts):
    model = G2P(config, torch.bfloat16 if args.bf16 else torch.float32, Dropout(args.dropout))
    optimizers = make_optimizers(model, args)
    ema = [p.detach().clone() for p in model.parameters()]
    path, stop = os.path.join(args.out, "checkpoint.pt"), os.path.join(args.out, "stop")
    at = dict(step=0, epoch=0, batch=0, words=0, seconds=0.0)
    if os.path.exists(path):
        state = torch.load(path)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        ema, at = state["ema"], state["at"]
    entries = [(symbols.spell(word), [symbols.sound(one) for one in all_of_word])
               for word, all_of_word in parts["train"].items()]
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(entries)} training words, from minute "
          f"{at['seconds'] / 60:.1f} to {args.minutes}, {torch.get_num_threads()} threads", flush=True)

    def checkpoint():
        save_atomically(dict(model=model.state_dict(), ema=ema, optimizers=[o.state_dict() for o in optimizers], at=at),
                        path)

    def show_validation():
        rates = validate(averaged_model(config, ema), symbols, parts["valid"])
        print(f"step {at['step']}  valid {report(rates)}", flush=True)

    batches, losses = None, []
    began = saved = validated = tick = time.time()
    while at["seconds"] < 60 * args.minutes:
        if batches is None:
            batches = epoch_batches(entries, args.batch, np.random.default_rng([args.seed, at["epoch"]]))
        if at["batch"] + args.accumulate > len(batches):
            at["epoch"], at["batch"], batches = at["epoch"] + 1, 0, None
            continue
        losses += take_step(model, optimizers, batches[at["batch"]:at["batch"] + args.accumulate], args, at)
        average(model, ema, at)
        at["step"], at["batch"] = at["step"] + 1, at["batch"] + args.accumulate
        now = time.time()
        at["seconds"], tick = at["seconds"] + now - tick, now
        last, stopping = at["seconds"] >= 60 * args.minutes, os.path.exists(stop)
        if at["step"] % 100 == 0 or last:
            speed = len(losses) * args.batch / (now - began)
            print(f"minute {at['seconds'] / 60:.1f}/{args.minutes}  step {at['step']}  "
                  f"{at['words'] / len(entries):.2f} epochs  loss {np.mean(losses):.4f}  "
                  f"lr {learning_rate(args, at):.5f}  {speed:.0f} words/s", flush=True)
            began, losses = now, []
        if now - saved > 150 or last or stopping:
            checkpoint()
            saved = now
        if now - validated > 300 or last or stopping:
            show_validation()
            validated = time.time()
            began += validated - now
        if stopping:
            os.remove(stop)
            return False
    return True


# -- export ----------------------------------------------------------------------------------------------

def hugging_face_config(c, symbols):
    return dict(
        architectures=["MBartForConditionalGeneration"], model_type="mbart", language="en-us", vocab_size=c.vocab_size,
        d_model=c.d_model,
        encoder_layers=c.encoder_layers, decoder_layers=c.decoder_layers, encoder_attention_heads=c.heads,
        decoder_attention_heads=c.heads, encoder_ffn_dim=c.ffn_dim, decoder_ffn_dim=c.ffn_dim,
        activation_function="gelu", max_position_embeddings=c.max_positions, scale_embedding=False, bos_token_id=BOS,
        eos_token_id=EOS, pad_token_id=PAD, unk_token_id=UNK, decoder_start_token_id=BOS, is_encoder_decoder=True,
        tie_word_embeddings=True, torch_dtype="float16", graphemes=symbols.graphemes, phonemes=symbols.phonemes)


def export(args, model, symbols, parts, folder):
    """The whole folder appears at once; one that is there already is replaced file by file."""
    new = folder.rstrip("/") + ".new"
    os.makedirs(new, exist_ok=True)
    with open(os.path.join(new, "config.json"), "w", encoding="utf-8") as f:
        f.write(json.dumps(hugging_face_config(model.c, symbols), indent=1) + "\n")
    with open(os.path.join(new, "test.dict"), "w", encoding="utf-8") as f:
        f.write(dictionary_text(parts["test"]))
    shutil.copyfile(os.path.join(args.data, "LICENSE"), os.path.join(new, "LICENSE-cmudict"))
    tensors = {name: t.detach().numpy() for name, t in model.state_dict().items()}
    safetensors_file.write(os.path.join(new, "model.safetensors"), tensors, "F16")
    if not os.path.isdir(folder):
        os.rename(new, folder)
        return
    for name in os.listdir(new):
        os.replace(os.path.join(new, name), os.path.join(folder, name))
    os.rmdir(new)


def score(folder, beams):
    """Error rates of the exported files, decoded by the independent implementation."""
    import bart_reference
    model = bart_reference.load(folder)
    words, _ = read_dictionary(os.path.join(folder, "test.dict"))
    for beam in beams:
        outputs = [bart_reference.pronounce(model, word, beam) for word in words]
        print(f"{len(words)} words, beam {beam}: {report(both_error_rates(outputs, list(words.values())))}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Train the pronunciation model and export it as Hugging Face's mBART.")
    parser.add_argument("--data", help="folder of cmudict.dict and its LICENSE")
    parser.add_argument("--out", default="build/train/g2p")
    parser.add_argument("--minutes", type=float, default=85, help="of training, over all its sittings")
    parser.add_argument("--decay", type=float, default=0.4, help="share of the minutes in which the rate falls to 0")
    parser.add_argument("--warmup-steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--batch", type=int, default=256, help="words of about one length in a forward pass")
    parser.add_argument("--accumulate", type=int, default=2, help="forward passes a step")
    parser.add_argument("--dropout", type=float, default=0.15)
    parser.add_argument("--smoothing", type=float, default=0.1, help="label smoothing")
    parser.add_argument("--unknown", type=float, default=1e-3, help="share of letters replaced by <unk>")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", metavar="FOLDER", help="only export the checkpoint there is to FOLDER")
    parser.add_argument("--score", metavar="FOLDER", help="only score the test words of an exported FOLDER")
    parser.add_argument("--beam", type=int, nargs="+", default=[1, 4], help="beams of --score; 1 is greedy")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.score:
        return score(args.score, args.beam)
    os.makedirs(args.out, exist_ok=True)
    keep_memory()
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    words, dropped = read_dictionary(os.path.join(args.data, "cmudict.dict"))
    parts, symbols = split(words), Symbols(words)
    print(f"{len(words)} words ({', '.join(f'{len(part)} {name}' for name, part in parts.items())}), "
          f"{len(dropped)} lines dropped, {len(symbols)} symbols", flush=True)
    config = Config(vocab_size=len(symbols))
    if args.export or train(args, config, symbols, parts):
        ema = torch.load(os.path.join(args.out, "checkpoint.pt"))["ema"]
        export(args, averaged_model(config, ema), symbols, parts, args.export or os.path.join(args.out, "g2p"))


if __name__ == "__main__":
    main()
