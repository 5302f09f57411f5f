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
from .protocol import Embeddings
from .text import BATCH, TextEncoder


@dataclass(frozen=True, eq=False)
class T5:
    """A T5 encoder; ``length`` is the number of tokens of every prompt."""

    encoder: Any
    tokenizer: Any
    length: int

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """[B, length, D]; longer prompts are truncated."""
        ids = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(self.encoder.device)
        return torch.cat([self.encoder(part)[0].float() for part in ids.split(BATCH)])


@dataclass(frozen=True, eq=False)
class FlowText(TextEncoder):
    """One or two CLIPs, and T5 if the model has it."""

    t5: T5 | None

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Embeddings: ...

    def networks(self) -> tuple[nn.Module, ...]:
        clips = tuple(clip.encoder for clip in self.clips)
        return clips if self.t5 is None else (*clips, self.t5.encoder)

    def with_word(self, word: str, embedding: Tensor) -> Self:
        if self.t5 is not None:
            raise UnsupportedError("a new word cannot be taught to a model with a T5 encoder")
        return super().with_word(word, embedding)


@dataclass(frozen=True, eq=False)
class StableDiffusion3Text(FlowText):
    """The penultimate layers of two CLIPs side by side, [B, 77, D1 + D2], filled up with zeros to
    ``width``; below them T5's embeddings, [B, length, width]. Without T5 there are no further rows,
    as in ComfyUI (diffusers adds rows of zeros). Pooled: both projections, [B, P1 + P2]."""

    width: int

    def encode(self, prompts: Sequence[str]) -> Embeddings:
        pooled: list[Tensor] = []

        def read(output: Any) -> Tensor:
            pooled.append(output[0].float())
            return output.hidden_states[-2]

        hidden, projections = [], []
        for clip in self.clips:
            hidden.append(clip.run(prompts, read, hidden=True))
            projections.append(torch.cat(pooled))
            pooled.clear()
        values = torch.cat(hidden, dim=-1)
        values = pad(values, (0, self.width - values.shape[-1]))
        if self.t5 is not None:
            values = torch.cat([values, self.t5.encode(prompts)], dim=1)
        return Embeddings(values, torch.cat(projections, dim=-1))


@dataclass(frozen=True, eq=False)
class FluxText(FlowText):
    """T5's embeddings, [B, length, D], and CLIP's pooled embedding, [B, P]."""

    def encode(self, prompts: Sequence[str]) -> Embeddings:
        assert self.t5 is not None, "Flux always has T5"
        pooled = self.clips[0].run(prompts, lambda output: output.pooler_output, hidden=False)
        return Embeddings(self.t5.encode(prompts), pooled)
