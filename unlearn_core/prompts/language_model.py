"""Further values for a dimension, proposed by a local language model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..foundation.lists import COLONS, SEPARATORS
from ..foundation.progress import PROPOSING, Progress
from ..models.versions import dtype_argument
from ..models.weights import fork_rng
from .concept import ForgetConcept
from .pairs import folded

ATTEMPTS = 6
TOKENS_PER_VALUE = 8
MOST_WORDS = 6  # of a value; a longer line is prose
BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])?\s*")


class Proposer:
    """A causal language model, loaded from a folder in transformers' layout.

    Raises:
        ValueError: the folder contains no model, or only a pickle.
    """

    def __init__(self, folder: str | Path, device: str | torch.device = "cpu") -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"language_model: {folder.name!r} has no config.json, so it is not a model in "
                "transformers' layout; choose a model folder"
            )
        try:
            local_only: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local_only)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, **{dtype_argument(): "auto"}, **local_only
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ValueError(f"language_model: cannot open {folder.name!r} ({error})") from None
        self.model = model.to(device).eval()

    @torch.no_grad()
    def propose(
        self,
        dimension: str,
        values: Sequence[str],
        count: int,
        concept: ForgetConcept,
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> tuple[str, ...]:
        """Up to ``count`` further values, from the model's continuation of the list of ``values``.

        Args:
            values: the existing values; the list in the prompt begins with them.
            concept: values that mention it are omitted.
            progress: ticks once for each attempt.
        """
        progress = progress or Progress()
        proposals: dict[str, None] = {}
        seen = {folded(value) for value in values}
        with fork_rng(self.model.device):
            for attempt in range(ATTEMPTS):
                torch.manual_seed(seed + attempt)
                listed = "\n".join(f"- {value}" for value in (*values, *proposals))
                text = f"A list of different things for {dimension!r}, one a line:\n{listed}\n-"
                prompt = self.tokenizer(text, return_tensors="pt").to(self.model.device)
                tokens = self.model.generate(
                    **prompt,
                    do_sample=True,
                    temperature=0.9,
                    top_p=0.95,
                    max_new_tokens=TOKENS_PER_VALUE * (count - len(proposals)),
                    pad_token_id=self.tokenizer.eos_token_id,
                )
                progress.tick()
                continuation = self.tokenizer.decode(
                    tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True
                )
                # The last line may be incomplete.
                for line in continuation.split("\n")[:-1]:
                    value = BULLET.sub("", line).strip(" .,;:\"'")
                    if usable(value, concept) and folded(value) not in seen:
                        seen.add(folded(value))
                        proposals[value] = None
                if len(proposals) >= count:
                    break
        return tuple(proposals)[:count]


def usable(value: str, concept: ForgetConcept) -> bool:
    """Whether a line can be a value: a few words, without the separators and braces of the node's
    two text fields, and without the concept."""
    words = value.split()
    return (
        0 < len(words) <= MOST_WORDS
        and value.isprintable()
        and not any(mark in value for mark in f"{SEPARATORS}{COLONS}{{}}")
        and not concept.is_mentioned_in(value)
    )


def extended(
    proposer: Proposer,
    dimensions: Mapping[str, Sequence[str]],
    count: int,
    concept: ForgetConcept,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, tuple[str, ...]]:
    """The dimensions, each with up to ``count`` proposed values after its own.

    Args:
        progress: ticks once for each of at most ``ATTEMPTS`` attempts for each dimension.
    """
    progress = progress or Progress()
    with progress.phase(PROPOSING, ATTEMPTS * len(dimensions)):
        return {
            name: (
                *values,
                *proposer.propose(name, values, count, concept, seed=seed, progress=progress),
            )
            for name, values in dimensions.items()
        }
