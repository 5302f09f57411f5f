"""The text encoders of Stable Diffusion 3 and Flux: CLIP, and T5 (Raffel et al. 2020)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from typing_extensions import Self

from .errors import UnsupportedError
from .prompt_tokens import WeightedTokens, check_length, part_tokens
from .protocol import Embeddings, Vocabulary
from .text import BATCH, TextEncoder, weighted


@dataclass(frozen=True, eq=False)
class T5:
    """A T5 encoder; ``length`` is the number of tokens of every prompt."""

    encoder: Any
    tokenizer: Any
    length: int

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """[B, length, D], with the weights of the prompts' syntax; longer prompts are truncated.

        Raises:
            UnsupportedError: syntax that cannot be followed.
        """
        rows = [self._row(parts) for parts in part_tokens(self.tokenizer, [*prompts, ""])]
        ids = torch.tensor([[t for t, _ in row] for row in rows], device=self.encoder.device)
        states = torch.cat([self.encoder(part)[0].float() for part in ids.split(BATCH)])
        weights = [[weight for _, weight in row] for row in rows[:-1]]
        return weighted(states[:-1], states[-1], weights)

    def check(self, prompts: Sequence[str]) -> None:
        """Raise UnsupportedError for a prompt that would be truncated."""
        check_length(self.tokenizer, prompts, self.length - 1)  # the last token is the end

    def _row(self, parts: Sequence[WeightedTokens]) -> WeightedTokens:
        tokens = [token for part in parts for token in part][: self.length - 1]
        padding = [(self.tokenizer.pad_token_id, 1.0)] * (self.length - len(tokens) - 1)
        return [*tokens, (self.tokenizer.eos_token_id, 1.0), *padding]


@dataclass(frozen=True, eq=False)
class FlowText(TextEncoder):
    """One or two CLIPs, and T5 if the model has it."""

    t5: T5 | None

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Embeddings: ...

    def check(self, prompts: Sequence[str]) -> None:
        super().check(prompts)
        if self.t5 is not None:
            self.t5.check(prompts)

    def networks(self) -> tuple[nn.Module, ...]:
        clips = tuple(clip.encoder for clip in self.clips)
        return clips if self.t5 is None else (*clips, self.t5.encoder)

    def with_word(self, word: str, embedding: Tensor) -> Self:
        self._refuse_t5()
        return super().with_word(word, embedding)

    def vocabulary(self) -> Vocabulary:
        self._refuse_t5()
        return super().vocabulary()

    def _refuse_t5(self) -> None:
        if self.t5 is not None:
            raise UnsupportedError("a new word cannot be taught to a model with a T5 encoder")


class JointEmbeddings(Embeddings):
    """Embeddings for joint attention, in which repeated embeddings would gain weight against the
    picture. Shorter prompts are filled with zeros, and never predicted together with longer ones.
    """

    @staticmethod
    def common_length(lengths: Sequence[int]) -> int:
        return max(lengths)

    @staticmethod
    def filled(row: Tensor, length: int) -> Tensor:
        return pad(row, (0, 0, 0, length - len(row)))

    def groups(self) -> list[list[int]]:
        """The indices of the prompts of each length."""
        lengths = self.lengths or (self.values.shape[1],) * len(self)
        return [[i for i, n in enumerate(lengths) if n == one] for one in sorted(set(lengths))]


@dataclass(frozen=True, eq=False)
class StableDiffusion3Text(FlowText):
    """The penultimate layers of two CLIPs side by side, [77 k, D1 + D2] for k chunks, filled up
    with zeros to ``width``; below them T5's embeddings, [length, width]. Without T5 there are no
    further rows, as in ComfyUI (diffusers adds rows of zeros). Pooled: both projections,
    [B, P1 + P2], of the first chunk."""

    width: int

    def encode(self, prompts: Sequence[str]) -> JointEmbeddings:
        def read(output: Any) -> tuple[Tensor, Tensor | None]:
            return output.hidden_states[-2], output[0]

        encoded = [clip.run(prompts, read, hidden=True) for clip in self.clips]
        states = zip(*(part.states for part in encoded), strict=True)
        rows = [torch.cat(side_by_side, dim=-1) for side_by_side in states]
        rows = [pad(row, (0, self.width - row.shape[-1])) for row in rows]
        if self.t5 is not None:
            below = self.t5.encode(prompts)
            rows = [torch.cat(parts) for parts in zip(rows, below, strict=True)]
        pooled = [part.pooled for part in encoded if part.pooled is not None]
        return JointEmbeddings.of_rows(rows, torch.cat(pooled, dim=-1))


@dataclass(frozen=True, eq=False)
class FluxText(FlowText):
    """T5's embeddings, [B, length, D], and CLIP's pooled embedding, [B, P]. It is that of the first
    chunk of tokens, as in ComfyUI."""

    def check(self, prompts: Sequence[str]) -> None:
        assert self.t5 is not None, "Flux always has T5"
        self.t5.check(prompts)

    def encode(self, prompts: Sequence[str]) -> Embeddings:
        assert self.t5 is not None, "Flux always has T5"
        encoded = self.clips[0].run(
            prompts, lambda output: (output[0], output.pooler_output), hidden=False
        )
        return Embeddings(self.t5.encode(prompts), encoded.pooled)
