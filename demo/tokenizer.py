"""The standard CLIP tokenizer, built from the vocabulary file that open_clip ships: no download."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import open_clip
from transformers import CLIPTokenizer

MERGES = 49152 - 256 - 2  # how many of the file's merges CLIP uses
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_symbols() -> list[str]:
    """GPT-2's 256 printable stand-ins for bytes, in the order of CLIP's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def write_vocabulary(folder: Path) -> tuple[Path, Path]:
    """Write ``vocab.json`` (49,408 entries) and ``merges.txt``, as in the original CLIP release."""
    source = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(source.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : MERGES + 1]
    symbols = byte_symbols()
    vocabulary = symbols + [s + "</w>" for s in symbols]
    vocabulary += ["".join(merge.split()) for merge in merges] + [START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocab_file.write_text(json.dumps({s: i for i, s in enumerate(vocabulary)}), encoding="utf-8")
    merges_file.write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return vocab_file, merges_file


def new_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer as Stable Diffusion 1.x has it: 77 tokens, padded with the end token."""
    write_vocabulary(folder)
    return CLIPTokenizer.from_pretrained(
        folder,
        model_max_length=77,
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
    )
