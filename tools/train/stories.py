"""stories.py: the recipe that makes the small story model, from text to a file the engine opens.

    /usr/bin/python3 tools/train/stories.py --data DIR --out build/train/stories

It owns four things, in this order: the vocabulary (SentencePiece BPE), the packing of stories into rows,
the model with its training loop (the Llama shape of llama2.c; Muon and AdamW), and the export to llama2.c
.bin and tokenizer.bin. A run that stops, for whatever reason, goes on from its last checkpoint when it is
started again. stories-valid.txt is only ever scored.
"""
import argparse
import math
import os
import struct
import time
from dataclasses import asdict, dataclass

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from torch import nn

from training import Muon, keep_memory, save_atomically

UNK, BOS, EOS, FIRST_BYTE = 0, 1, 2, 3
PAD_TARGET = -1


@dataclass
class Config:
    dim: int = 192
    hidden_dim: int = 512
    n_layers: int = 6
    n_heads: int = 6
    n_kv_heads: int = 2
    vocab_size: int = 2048
    seq_len: int = 512
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0


# -- text ------------------------------------------------------------------------------------------------

def read_stories(path):
    text = open(path, encoding="utf-8").read()
    return [s for s in (part.strip("\n") for part in text.split("<|endoftext|>\n")) if s]


def train_vocabulary(stories, prefix, vocab_size):
    """Trained on paragraphs, so no piece holds a newline: in a story it becomes the byte token <0x0A>."""
    paragraphs = (line for story in stories for line in story.split("\n") if line)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=paragraphs, model_prefix=prefix, model_type="bpe", vocab_size=vocab_size,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, character_coverage=1.0, split_digits=True, max_sentence_length=1 << 16,
        unk_id=UNK, bos_id=BOS, eos_id=EOS, pad_id=-1, minloglevel=1)


def piece_bytes(vocab, i):
    return vocab.id_to_piece(i).replace("\u2581", " ").encode()


def merge_encode(text, scores):
    """The engine's algorithm, slowly: characters, then the adjacent pair of best score until none."""
    pieces = [c.encode() for c in " " + text]
    while True:
        pairs = [(scores.get(a + b, -math.inf), -i) for i, (a, b) in enumerate(zip(pieces, pieces[1:]))]
        best, at = max(pairs, default=(-math.inf, 0))
        if best == -math.inf:
            return pieces
        pieces[-at:2 - at] = [pieces[-at] + pieces[1 - at]]


def check_vocabulary(vocab, stories):
    assert [vocab.id_to_piece(i) for i in (UNK, BOS, EOS)] == ["<unk>", "<s>", "</s>"]
    assert all(vocab.id_to_piece(FIRST_BYTE + b) == f"<0x{b:02X}>" for b in range(256))
    first = FIRST_BYTE + 256
    ids = {piece_bytes(vocab, i): i for i in range(first, vocab.get_piece_size())}
    scores = {piece: vocab.get_score(i) for piece, i in ids.items()}
    for story in stories:
        expected = [i for p in merge_encode(story, scores) for i in ([ids[p]] if p in ids else [FIRST_BYTE + b for b in p])]
        assert vocab.encode(story) == expected, "SentencePiece and the engine would disagree on: " + story[:60]


def prepare(args, config):
    """Vocabulary and token arrays, made once and kept in the output folder."""
    path = {name: os.path.join(args.data, f"stories-{name}.txt") for name in ("train", "valid")}
    model = os.path.join(args.out, "vocabulary.model")
    if not os.path.exists(model):
        train_vocabulary(read_stories(path["train"]), model[:-len(".model")], config.vocab_size)
        check_vocabulary(sentencepiece.SentencePieceProcessor(model_file=model), read_stories(path["valid"])[:24])
    vocab = sentencepiece.SentencePieceProcessor(model_file=model)
    stories = {}
    for name in path:
        cache = os.path.join(args.out, name + ".npy")
        if not os.path.exists(cache):
            rows = [[BOS, *ids, EOS] for ids in vocab.encode(read_stories(path[name]))]
            np.save(cache, np.array([i for row in rows for i in row], dtype=np.uint16))
        tokens = np.load(cache)
        stories[name] = np.split(tokens, np.flatnonzero(tokens == BOS)[1:])
    return vocab, stories["train"], stories["valid"]


# -- rows: (tokens, targets, which story of the row a token belongs to) -----------------------------------

def lay_rows(rows, seq_len):
    tokens = np.full((len(rows), seq_len), EOS, np.int64)
    targets = np.full((len(rows), seq_len), PAD_TARGET, np.int64)
    owner = np.full((len(rows), seq_len), -1, np.int64)
    for r, row in enumerate(rows):
        at = 0
        for n, piece in enumerate(row):
            end = at + len(piece)
            tokens[r, at:end] = piece
            targets[r, at:end - 1] = piece[1:]
            if piece[-1] == EOS:
                targets[r, end - 1] = BOS      # llama2.c's own runner stops at BOS, others at EOS
            owner[r, at:end] = n
            at = end
    return tokens, targets, owner


def pack(stories, seq_len, rng):
    """Whole stories into rows, long ones first and best fit; the jitter makes every packing another one."""
    space = [[] for _ in range(seq_len + 1)]          # space[n]: rows with n free places
    for s in np.argsort([-len(story) - rng.uniform(0, 60) for story in stories]):
        for at in range(0, len(stories[s]), seq_len):
            piece = stories[s][at:at + seq_len]
            free = next((n for n in range(len(piece), seq_len) if space[n]), None)
            row = space[free].pop() if free is not None else []
            row.append(piece)
            space[(seq_len if free is None else free) - len(piece)].append(row)
    rows = [row for same in space for row in same]
    return [rows[i] for i in rng.permutation(len(rows))]


def story_mask(owner):
    """0 where a token may look (earlier, same story), very negative elsewhere: [rows, seq, seq]."""
    allowed = (owner[:, :, None] == owner[:, None, :]).tril()
    return torch.zeros(allowed.shape, dtype=torch.bfloat16, device=owner.device).masked_fill_(~allowed, -1e9)


# -- model -----------------------------------------------------------------------------------------------

class Attention(torch.autograd.Function):
    """softmax(q k^T + mask) v in bf16 over blocks of queries, skipping the keys behind each block.

    q: [rows * n_kv_heads, group, seq, head_dim], already scaled; k, v: [rows * n_kv_heads, seq, head_dim].
    The heads of a group lie under each other, so K and V are never repeated.
    """
    BLOCK = 128

    @staticmethod
    def forward(ctx, q, k, v, mask):
        n, group, seq, head_dim = q.shape
        out, weights = torch.empty_like(q), []
        for lo in range(0, seq, Attention.BLOCK):
            hi = min(lo + Attention.BLOCK, seq)
            s = torch.bmm(q[:, :, lo:hi].reshape(n, -1, head_dim), k[:, :hi].transpose(1, 2))
            s.view(len(mask), -1, hi - lo, hi).add_(mask[:, None, lo:hi, :hi])
            p = torch.softmax(s, -1).to(v.dtype)
            out[:, :, lo:hi] = torch.bmm(p, v[:, :hi]).view(n, group, hi - lo, head_dim)
            weights.append(p)
        ctx.save_for_backward(q, k, v, *weights)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, *weights = ctx.saved_tensors
        n, group, seq, head_dim = q.shape
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k, dtype=torch.float32), torch.zeros_like(v, dtype=torch.float32)
        for lo, p in zip(range(0, seq, Attention.BLOCK), weights):
            hi = min(lo + Attention.BLOCK, seq)
            g = grad[:, :, lo:hi].reshape(n, -1, head_dim)
            dp = torch.bmm(g, v[:, :hi].transpose(1, 2))
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            dq[:, :, lo:hi] = torch.bmm(ds, k[:, :hi]).view(n, group, hi - lo, head_dim)
            dk[:, :hi] += torch.bmm(ds.transpose(1, 2), q[:, :, lo:hi].reshape(n, -1, head_dim))
            dv[:, :hi] += torch.bmm(p.transpose(1, 2), g)
        return dq, dk.to(k.dtype), dv.to(v.dtype), None


def rms_norm(x, weight, eps):
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight).bfloat16()


def rotate(x, turn):
    """RoPE on neighbour pairs: [rows, seq, heads, head_dim] as complex numbers times turn [seq, 1, head_dim / 2]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        kv_dim = c.dim // c.n_heads * c.n_kv_heads
        self.c = c
        self.rms_att, self.rms_ffn = nn.Parameter(torch.ones(c.dim)), nn.Parameter(torch.ones(c.dim))
        self.wq = nn.Linear(c.dim, c.dim, bias=False)
        self.wk = nn.Linear(c.dim, kv_dim, bias=False)
        self.wv = nn.Linear(c.dim, kv_dim, bias=False)
        self.wo = nn.Linear(c.dim, c.dim, bias=False)
        self.w1 = nn.Linear(c.dim, c.hidden_dim, bias=False)
        self.w2 = nn.Linear(c.hidden_dim, c.dim, bias=False)
        self.w3 = nn.Linear(c.dim, c.hidden_dim, bias=False)

    def forward(self, x, turn, mask):
        c, (rows, seq, _) = self.c, x.shape
        group, head_dim = c.n_heads // c.n_kv_heads, c.dim // c.n_heads
        h = rms_norm(x, self.rms_att, c.norm_eps)
        q = rotate(self.wq(h).view(rows, seq, c.n_heads, head_dim), turn) * head_dim ** -0.5
        k = rotate(self.wk(h).view(rows, seq, c.n_kv_heads, head_dim), turn)
        v = self.wv(h).view(rows, seq, c.n_kv_heads, head_dim)
        q = q.bfloat16().transpose(1, 2).reshape(-1, group, seq, head_dim)
        k, v = (t.bfloat16().transpose(1, 2).reshape(-1, seq, head_dim) for t in (k, v))
        out = Attention.apply(q, k, v, mask)
        out = out.view(rows, c.n_heads, seq, head_dim).transpose(1, 2).reshape(rows, seq, c.dim)
        x = x + self.wo(out)
        h = rms_norm(x, self.rms_ffn, c.norm_eps)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.tok_emb = nn.Embedding(c.vocab_size, c.dim)          # also the classifier
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.n_layers))
        self.rms_final = nn.Parameter(torch.ones(c.dim))
        for name, p in self.named_parameters():
            if p.dim() == 2:
                residual = name.endswith(("wo.weight", "w2.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * c.n_layers) if residual else 0.02)

    def angles(self, seq):
        c = self.c
        i = torch.arange(0, c.dim // c.n_heads, 2).float() / (c.dim // c.n_heads)
        return torch.outer(torch.arange(seq).float(), c.rope_theta ** -i)

    def forward(self, tokens, owner):
        with torch.autocast(tokens.device.type, torch.bfloat16):
            angle = self.angles(tokens.shape[1]).to(tokens.device)
            turn, mask = torch.polar(torch.ones_like(angle), angle)[:, None], story_mask(owner)
            x = self.tok_emb(tokens)
            for layer in self.layers:
                x = layer(x, turn, mask)
            return F.linear(rms_norm(x, self.rms_final, self.c.norm_eps), self.tok_emb.weight)


# -- training --------------------------------------------------------------------------------------------

def make_optimizers(model, args):
    matrices = [p for p in model.layers.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    adamw = torch.optim.AdamW([dict(params=[model.tok_emb.weight], weight_decay=0.1), dict(params=norms, weight_decay=0.0)],
                              lr=args.lr, betas=(0.9, 0.95))
    return [Muon(matrices, args.lr), adamw]


def learning_rate(args, step):
    """Warm-up, stable, linear decay: only the last --decay-steps know how long the run is."""
    return args.lr * min(1.0, (step + 1) / args.warmup_steps, (args.steps - step) / args.decay_steps)


@torch.no_grad()
def bits_per_byte(model, vocab, stories, device):
    """Each story from BOS, EOS not counted, over the bytes of its text."""
    nats, n_bytes = 0.0, 0
    stories = sorted(stories, key=len)
    for at in range(0, len(stories), 16):
        batch = [[s] for s in stories[at:at + 16]]
        tokens, targets, owner = (torch.from_numpy(a).to(device) for a in lay_rows(batch, -(-len(batch[-1][0]) // 64) * 64))
        targets[(targets == BOS) | (targets == EOS)] = PAD_TARGET
        logits = model(tokens, owner).float()
        nats += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD_TARGET, reduction="sum").item()
        n_bytes += sum(len(vocab.decode(s[0].tolist()).encode()) for s in batch)
    return nats / (math.log(2) * n_bytes)


def train(args, config, model, vocab, train_stories, valid_stories, device):
    optimizers = make_optimizers(model, args)
    path, stop = os.path.join(args.out, "checkpoint.pt"), os.path.join(args.out, "stop")
    at = dict(step=0, epoch=0, row=0, tokens=0)       # with --seed, all the randomness there is
    if os.path.exists(path):
        state = torch.load(path, map_location=device)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        at = state["at"]
    n_tokens = sum(map(len, train_stories))
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {n_tokens} tokens an epoch, from step {at['step']} "
          f"to {args.steps}, {torch.get_num_threads()} threads, {device}", flush=True)

    def checkpoint():
        save_atomically(dict(model=model.state_dict(), optimizers=[o.state_dict() for o in optimizers], at=at,
                             config=asdict(config)), path)

    def validate():
        print(f"step {at['step']}  valid {bits_per_byte(model, vocab, valid_stories, device):.4f} bits per byte", flush=True)

    rows, losses = None, []
    began = saved = validated = time.time()
    seen = at["tokens"]
    while at["step"] < args.steps:
        if rows is None:
            rows = pack(train_stories, config.seq_len, np.random.default_rng([args.seed, at["epoch"]]))
        if at["row"] + args.batch > len(rows):        # the few rows left over wait for another epoch
            at["epoch"], at["row"], rows = at["epoch"] + 1, 0, None
            continue
        batch = lay_rows(rows[at["row"]:at["row"] + args.batch], config.seq_len)
        tokens, targets, owner = (torch.from_numpy(a).to(device) for a in batch)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(args, at["step"])
        loss = F.cross_entropy(model(tokens, owner).flatten(0, 1).float(), targets.flatten(), ignore_index=PAD_TARGET)
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
        at.update(step=at["step"] + 1, row=at["row"] + args.batch, tokens=at["tokens"] + int((batch[1] != PAD_TARGET).sum()))
        now, last = time.time(), at["step"] == args.steps
        if at["step"] % 20 == 0 or last:
            speed = (at["tokens"] - seen) / (now - began)
            left = (args.steps - at["step"]) * (now - began) / len(losses)
            print(f"step {at['step']}/{args.steps}  {at['tokens'] / 1e6:.2f} M tokens  {at['tokens'] / n_tokens:.2f} epochs  "
                  f"loss {np.mean(losses):.4f}  lr {learning_rate(args, at['step'] - 1):.5f}  {speed:.0f} tokens/s  "
                  f"ETA {left / 60:.0f} min", flush=True)
            began, seen, losses = now, at["tokens"], []
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

def weight_tensors(model):
    """The matrices in file order, after the embedding: each name for all layers before the next."""
    return [getattr(layer, name).weight for name in ("wq", "wk", "wv", "wo", "w1", "w2", "w3") for layer in model.layers]


def norm_tensors(model):
    return [layer.rms_att for layer in model.layers], [layer.rms_ffn for layer in model.layers], [model.rms_final]


def header(c):
    return struct.pack("<7i", c.dim, c.hidden_dim, c.n_layers, c.n_heads, c.n_kv_heads, c.vocab_size, c.seq_len)


def f32(tensor):
    return tensor.detach().float().cpu().numpy().astype("<f4")


def export_v2(model, path, group_size=64):
    """int8 with an fp32 scale for each 64 values: w = q * scale."""
    with open(path + ".new", "wb") as f:
        f.write((struct.pack("<Ii", 0x616B3432, 2) + header(model.c) + struct.pack("<Bi", 1, group_size)).ljust(256, b"\0"))
        for norms in norm_tensors(model):
            for norm in norms:
                f.write(f32(norm).tobytes())
        for weight in [model.tok_emb.weight, *weight_tensors(model)]:
            w = f32(weight).reshape(-1, group_size)
            scale = np.abs(w).max(1, keepdims=True) / np.float32(127)
            q = np.rint(w / np.where(scale > 0, scale, 1)).astype(np.int8)
            f.write(q.tobytes() + scale.astype("<f4").tobytes())
    os.replace(path + ".new", path)


def export_v0(model, path):
    att, ffn, final = norm_tensors(model)
    by_layer, n = weight_tensors(model), model.c.n_layers
    angle = model.angles(model.c.seq_len)
    with open(path + ".new", "wb") as f:
        f.write(header(model.c))
        for tensor in [model.tok_emb.weight, *att, *by_layer[:4 * n], *ffn, *by_layer[4 * n:5 * n],
                       *by_layer[5 * n:6 * n], *by_layer[6 * n:], *final, angle.cos(), angle.sin()]:
            f.write(f32(tensor).tobytes())
    os.replace(path + ".new", path)


def export_tokenizer(vocab, path):
    """Text and score of each piece; BOS and EOS keep llama2.c's spelling, with newlines around."""
    pieces = [piece_bytes(vocab, i) for i in range(vocab.get_piece_size())]
    pieces[BOS], pieces[EOS] = b"\n<s>\n", b"\n</s>\n"
    with open(path + ".new", "wb") as f:
        f.write(struct.pack("<I", max(map(len, pieces))))
        for i, piece in enumerate(pieces):
            f.write(struct.pack("<fi", vocab.get_score(i), len(piece)) + piece)
    os.replace(path + ".new", path)


def export(args, model, vocab):
    name = os.path.join(args.out, "stories")
    export_v2(model, name + ".bin")
    if args.f32:
        export_v0(model, name + "-f32.bin")
    export_tokenizer(vocab, name + ".tokenizer.bin")


@torch.no_grad()
def sample(model, vocab, prompt, temperature, device, n=320):
    ids = [BOS, *vocab.encode(prompt)]
    while len(ids) < n and ids[-1] != EOS:
        tokens = torch.tensor([ids], device=device)
        logits = model(tokens, torch.zeros_like(tokens))[0, -1].float()
        ids.append(int(logits.argmax() if temperature == 0 else torch.multinomial((logits / temperature).softmax(-1), 1)))
    return vocab.decode(ids)


def main():
    parser = argparse.ArgumentParser(description="Train the small story model and export it in llama2.c's format.")
    parser.add_argument("--data", required=True, help="folder of stories-train.txt and stories-valid.txt")
    parser.add_argument("--out", default="build/train/stories")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--decay-steps", type=int, default=900)
    parser.add_argument("--warmup-steps", type=int, default=60)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--batch", type=int, default=16, help="rows of 512 tokens a step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--export", action="store_true", help="only export the checkpoint there is")
    parser.add_argument("--f32", action="store_true", help="export fp32 (v0) too")
    parser.add_argument("--sample", metavar="PROMPT", help="only continue PROMPT with the checkpoint there is")
    parser.add_argument("--temperature", type=float, default=0.8)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    keep_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = Config()
    vocab, train_stories, valid_stories = prepare(args, config)
    model = Llama(config).to(device)
    if args.export or args.sample is not None:
        model.load_state_dict(torch.load(os.path.join(args.out, "checkpoint.pt"), map_location=device)["model"])
        if args.sample is not None:
            print(sample(model, vocab, args.sample, args.temperature, device))
    elif not train(args, config, model, vocab, train_stories, valid_stories, device):
        return
    if args.sample is None:
        export(args, model, vocab)


if __name__ == "__main__":
    main()
