"""safetensors_file.py: the two sides of the safetensors format that the recipes and the test fixtures need.

write(path, tensors): {name: float32 numpy array} and a dtype for each, in a file whose header is padded so that the
data begins on a 64-byte boundary.
read(path): the same dictionary back as float32, whatever F32, F16 or BF16 it was stored in.
"""
import json
import struct

import numpy as np


def encode(array, dtype):
    if dtype == "F32":
        return np.ascontiguousarray(array, dtype="<f4").tobytes()
    if dtype == "F16":
        return np.ascontiguousarray(array, dtype="<f2").tobytes()
    if dtype == "BF16":
        bits = np.ascontiguousarray(array, dtype="<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    raise ValueError(f"{dtype}: not one of F32, F16, BF16")


def decode(raw, dtype, shape):
    if dtype == "BF16":
        bits = np.frombuffer(raw, dtype="<u2").astype("<u4") << 16
        return bits.view("<f4").reshape(shape)
    return np.frombuffer(raw, dtype={"F32": "<f4", "F16": "<f2"}[dtype]).astype("<f4").reshape(shape)


def write(path, tensors, dtype="F32"):
    """dtype is one for all, or a function of (name, array)."""
    header, chunks, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name, array in tensors.items():
        kind = dtype(name, array) if callable(dtype) else dtype
        raw = encode(array, kind)
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + len(raw)]}
        chunks.append(raw)
        end += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def read(path):
    raw = open(path, "rb").read()
    (n,) = struct.unpack_from("<Q", raw)
    tensors = {}
    for name, t in json.loads(raw[8:8 + n]).items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            tensors[name] = decode(raw[8 + n + begin:8 + n + end], t["dtype"], t["shape"])
    return tensors
