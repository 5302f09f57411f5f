"""Text encoders: they turn prompts into the embeddings that the denoiser attends to."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from ..foundation.safetensors_file import write_converted
from .errors import UnsupportedError
from .prompt_tokens import check_length, chunks, empty_chunk
from .protocol import Embeddings, Vocabulary

if TYPE_CHECKING:  # the import takes a second, so it is left to the functions that load models
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

BATCH = 32  # chunks of prompts
MOST_CHUNKS = 3  # per prompt: 225 tokens, as in LoRA trainers
MERGES = 49152 - 256 - 2  # number of merges that CLIP uses of those in the vocabulary file
PREFIXES = ("text_model.", "text_projection.")  # of the weights' names in a file
WORD = re.compile("([a-z]+)</w>")  # a token that is a whole word
START, END = "<|startoftext|>", "<|endoftext|>"


Read = Callable[[Any], "tuple[Tensor, Tensor | None]"]
"""Selects [N, 77, D], and [N, P] or None, from an encoder's output for N chunks."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Encoded prompts.

    Attributes:
        states: [77 k, D] for a prompt of k chunks.
        pooled: [B, P], or None.
    """

    states: tuple[Tensor, ...]
    pooled: Tensor | None


def weighted(states: Tensor, empty: Tensor, weights: Sequence[Sequence[float]]) -> Tensor:
    """The embeddings [N, L, D], each moved away from that of the empty prompt [L, D] by its
    weight."""
    factors = torch.tensor(weights, device=states.device).unsqueeze(-1)
    return torch.where(factors == 1, states, (states - empty) * factors + empty)


@dataclass(frozen=True, eq=False)
class Clip:
    """One of CLIP's text encoders; ``learned`` replaces the embeddings of some tokens."""

    encoder: CLIPTextModel | CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    learned: Mapping[int, Tensor] = field(default_factory=dict)

    def run(self, prompts: Sequence[str], read: Read, *, hidden: bool) -> Encoded:
        """The parts of the encoder's output that ``read`` selects. They are selected after every
        ``BATCH`` chunks, because all outputs of a large encoder together need gigabytes. Only
        ``learned`` gets gradients.

        As in ComfyUI, each chunk of tokens is encoded alone, and a weight moves a token's embedding
        away from that of the empty prompt at the same position. The pooled embedding is that of the
        first chunk.

        Raises:
            UnsupportedError: see ``chunks``.
        """
        rows = chunks(self.tokenizer, prompts)
        flat = [chunk for row in rows for chunk in row]
        is_weighted = any(weight != 1 for chunk in flat for weight in chunk.weights)
        encoded = [*flat, empty_chunk(self.tokenizer)] if is_weighted else flat
        tokens = torch.tensor([chunk.tokens for chunk in encoded], device=self.encoder.device)
        hook = self.encoder.get_input_embeddings().register_forward_hook(self._replace_learned)
        try:
            with torch.set_grad_enabled(any(e.requires_grad for e in self.learned.values())):
                states, pooled = self._outputs(tokens, read, hidden)
        finally:
            hook.remove()
        if is_weighted:
            states = weighted(states[:-1], states[-1], [chunk.weights for chunk in flat])
        counts = [len(row) for row in rows]
        first = [sum(counts[:i]) for i in range(len(counts))]
        return Encoded(
            tuple(part.flatten(0, 1) for part in states.split(counts)),
            None if pooled is None else pooled[first],
        )

    def _outputs(self, tokens: Tensor, read: Read, hidden: bool) -> tuple[Tensor, Tensor | None]:
        parts = [
            read(self.encoder(part, output_hidden_states=hidden)) for part in tokens.split(BATCH)
        ]
        pooled = [part[1].float() for part in parts if part[1] is not None]
        return torch.cat([part[0].float() for part in parts]), torch.cat(pooled) if pooled else None

    def _replace_learned(self, _: Any, tokens: tuple[Tensor], output: Tensor) -> Tensor:
        for token, embedding in self.learned.items():
            output = torch.where(tokens[0].eq(token).unsqueeze(-1), embedding, output)
        return output

    @property
    def room(self) -> int:
        """Tokens in a chunk, without start and end."""
        return self.tokenizer.model_max_length - 2

    def embedding(self, word: str) -> Tensor:
        """The mean embedding of the word's tokens, [E]."""
        return self.embeddings(self._tokens(word)).mean(0)

    def with_word(self, word: str, embedding: Tensor) -> Clip:
        tokens = self._tokens(word)
        if len(tokens) != 1:
            raise UnsupportedError(
                f"word must be a single token to be learned, {word!r} is {tokens}"
            )
        return replace(self, learned={**self.learned, tokens[0]: embedding})

    def words(self) -> dict[str, int]:
        """The words of a single token, a-z only, and their tokens."""
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        return {match[1]: token for name, token in vocabulary if (match := WORD.fullmatch(name))}

    def embeddings(self, tokens: Sequence[int]) -> Tensor:
        """The input embeddings of tokens, [N, E]."""
        table: Any = self.encoder.get_input_embeddings()
        return table.weight[list(tokens)].detach().float()

    def _tokens(self, word: str) -> list[int]:
        return self.tokenizer(word, add_special_tokens=False).input_ids


@dataclass(frozen=True, eq=False)
class TextEncoder(ABC):
    """The frozen text encoding of a Stable Diffusion handle."""

    clips: tuple[Clip, ...]
    most_chunks: ClassVar[int] = MOST_CHUNKS

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Embeddings:
        """Encode prompts. Prompts that ``check`` refuses as too long may be truncated.

        Raises:
            UnsupportedError: syntax that cannot be followed.
        """

    def check(self, prompts: Sequence[str]) -> None:
        """Check that ``encode`` can read the whole prompts, without running an encoder.

        Raises:
            UnsupportedError: a prompt is too long, or has syntax that cannot be followed.
        """
        for clip in self.clips:
            check_length(clip.tokenizer, prompts, self.most_chunks * clip.room)

    def word_embedding(self, word: str) -> Tensor:
        """The encoders' embeddings of a word, concatenated."""
        return torch.cat([clip.embedding(word) for clip in self.clips])

    def with_word(self, word: str, embedding: Tensor) -> Self:
        """A text encoder in which ``word`` has the input embedding ``embedding``."""
        parts = embedding.split([len(clip.embedding(word)) for clip in self.clips])
        pairs = zip(self.clips, parts, strict=True)
        return replace(self, clips=tuple(clip.with_word(word, part) for clip, part in pairs))

    def vocabulary(self) -> Vocabulary:
        """The words that all encoders have as a single token."""
        tables = [clip.words() for clip in self.clips]
        words = [word for word in tables[0] if all(word in table for table in tables)]
        parts = [
            clip.embeddings([table[word] for word in words])
            for clip, table in zip(self.clips, tables, strict=True)
        ]
        return Vocabulary(tuple(words), torch.cat(parts, dim=1))


@dataclass(frozen=True, eq=False)
class ClipText(TextEncoder):
    """Stable Diffusion 1.x and 2.x: one encoder's last layer, [B, 77 k, D], or with ``clip_skip``
    the layer of that number from the end; both with the encoder's last normalization."""

    clip_skip: int = 0

    def encode(self, prompts: Sequence[str]) -> Embeddings:
        clip = self.clips[0]
        if self.clip_skip < 2:
            encoded = clip.run(prompts, lambda output: (output[0], None), hidden=False)
        else:
            normalize = final_norm(clip.encoder)
            encoded = clip.run(
                prompts,
                lambda output: (normalize(output.hidden_states[-self.clip_skip]), None),
                hidden=True,
            )
        return Embeddings.of_rows(encoded.states)


class ClipPairText(TextEncoder):
    """Stable Diffusion XL: the penultimate layers of two encoders, concatenated,
    [B, 77 k, D1 + D2], and the second's pooled embedding, [B, D2]."""

    def encode(self, prompts: Sequence[str]) -> Embeddings:
        def read(output: Any) -> tuple[Tensor, Tensor | None]:
            # Only the second encoder has a projection.
            return output.hidden_states[-2], output[0] if output[0].ndim == 2 else None

        first, second = (clip.run(prompts, read, hidden=True) for clip in self.clips)
        rows = [
            torch.cat([a[: len(b)], b[: len(a)]], dim=-1)
            for a, b in zip(first.states, second.states, strict=True)
        ]
        return Embeddings.of_rows(rows, second.pooled)


def final_norm(encoder: Any) -> Any:
    """The normalization after the last layer; transformers 5 has no level ``text_model``."""
    return getattr(encoder, "text_model", encoder).final_layer_norm


def save_clip(clip: Clip, encoder: Path, tokenizer: Path, dtype: torch.dtype) -> None:
    """Write the encoder's and the tokenizer's folder in the layout that all programs read.

    transformers 5 omits the prefix of the weights' names and the two vocabulary files; without
    them, ComfyUI and transformers 4 would load an encoder without weights or vocabulary."""
    encoder.mkdir(parents=True)
    clip.encoder.config.save_pretrained(encoder)
    state = {
        name if name.startswith(PREFIXES) else f"text_model.{name}": tensor
        for name, tensor in clip.encoder.state_dict().items()
    }
    write_converted(encoder / "model.safetensors", state, dtype, lambda _: {"format": "pt"})
    clip.tokenizer.save_pretrained(tokenizer)
    if not (tokenizer / "vocab.json").is_file():
        backend: Any = clip.tokenizer.backend_tokenizer
        backend.model.save(str(tokenizer))


def clip_tokenizer(pad_token: str = END) -> CLIPTokenizer:
    """CLIP's tokenizer, 77 tokens per prompt, from the vocabulary file in open_clip."""
    from transformers import CLIPTokenizer

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
    """GPT-2's 256 printable characters for bytes, in the order of CLIP's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
