"""Text encoders: prompts become what the denoiser attends to."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .protocol import Conditioning

BATCH = 32  # prompts encoded at once
MERGES = 49152 - 256 - 2  # how many of the vocabulary file's merges CLIP uses
START, END = "<|startoftext|>", "<|endoftext|>"


class TextEncoder(Protocol):
    """Frozen; what a Stable Diffusion handle needs to read prompts."""

    def encode(self, prompts: Sequence[str]) -> Conditioning: ...


@dataclass(frozen=True, eq=False)
class ClipText:
    """Stable Diffusion 1.x and 2.x: one encoder's last layer, [B, 77, D]."""

    encoder: CLIPTextModel
    tokenizer: CLIPTokenizer

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        chunks = tokenize(self.tokenizer, prompts).to(self.encoder.device).split(BATCH)
        return Conditioning(torch.cat([self.encoder(part)[0].float() for part in chunks]))


@dataclass(frozen=True, eq=False)
class ClipPairText:
    """Stable Diffusion XL: the last layer but one of two encoders side by side, [B, 77, D1 + D2],
    and the second's pooled embedding, [B, D2]."""

    encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection]
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer]

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        hidden, pooled = [], []
        for encoder, tokenizer in zip(self.encoders, self.tokenizers, strict=True):
            chunks = tokenize(tokenizer, prompts).to(encoder.device).split(BATCH)
            outputs = [encoder(part, output_hidden_states=True) for part in chunks]
            hidden.append(torch.cat([out.hidden_states[-2].float() for out in outputs]))
            pooled = [out[0].float() for out in outputs]
        return Conditioning(torch.cat(hidden, dim=-1), torch.cat(pooled))


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Token numbers int64 [B, 77]; what is longer is cut off."""
    return tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def clip_tokenizer(pad_token: str = END) -> CLIPTokenizer:
    """CLIP's tokenizer, 77 tokens a prompt, from the vocabulary file that open_clip ships."""
    with tempfile.TemporaryDirectory() as folder:
        write_vocabulary(Path(folder))
        return CLIPTokenizer.from_pretrained(
            folder,
            model_max_length=77,
            bos_token=START,
            eos_token=END,
            unk_token=END,
            pad_token=pad_token,
        )


def write_vocabulary(folder: Path) -> None:
    """Write ``vocab.json`` (49,408 entries) and ``merges.txt``, as in the original CLIP release."""
    import open_clip

    source = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(source.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : MERGES + 1]
    symbols = _byte_symbols()
    vocabulary = symbols + [s + "</w>" for s in symbols]
    vocabulary += ["".join(merge.split()) for merge in merges] + [START, END]
    numbered = json.dumps({symbol: i for i, symbol in enumerate(vocabulary)})
    (folder / "vocab.json").write_text(numbered, encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def _byte_symbols() -> list[str]:
    """GPT-2's 256 printable stand-ins for bytes, in the order of CLIP's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
