"""More values for a dimension, proposed by a language model on the person's own disk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..foundation.progress import PROPOSING, Progress
from ..models.versions import dtype_argument
from ..models.weights import fork_rng
from .concept import ForgetConcept
from .pairs import folded

ATTEMPTS = 6
TOKENS_A_VALUE = 8
LONGEST = 6  # words; what is longer is prose and no value
BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])?\s*")


class Proposer:
    """A causal language model in transformers' layout, read from a folder.

    Raises:
        ValueError: a folder that holds none, or only a pickle.
    """

    def __init__(self, folder: str | Path, device: str | torch.device = "cpu") -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"language_model: {folder.name!r} has no config.json, so it is no model in "
                "transformers' layout"
            )
        try:
            only_here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **only_here)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, **{dtype_argument(): "auto"}, **only_here
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
        """Up to ``count`` further values: those of the list that the model would write on.

        Args:
            values: what is there, as the beginning of that list.
            concept: values that mention it are left out.
            progress: ticks once for each attempt.
        """
        progress = progress or Progress()
        found: dict[str, None] = {}
        known = {folded(value) for value in values}
        with fork_rng(self.model.device):
            for attempt in range(ATTEMPTS):
                torch.manual_seed(seed + attempt)
                listed = "\n".join(f"- {value}" for value in (*values, *found))
                text = f"A list of different things for {dimension!r}, one a line:\n{listed}\n-"
                given = self.tokenizer(text, return_tensors="pt").to(self.model.device)
                written = self.model.generate(
                    **given,
                    do_sample=True,
                    temperature=0.9,
                    top_p=0.95,
                    max_new_tokens=TOKENS_A_VALUE * (count - len(found)),
                    pad_token_id=self.tokenizer.eos_token_id,
                )
                progress.tick()
                told = self.tokenizer.decode(
                    written[0, given["input_ids"].shape[1] :], skip_special_tokens=True
                )
                # The last line may have been cut off.
                for line in told.split("\n")[:-1]:
                    value = BULLET.sub("", line).strip(" .,;:\"'")
                    if usable(value, concept) and folded(value) not in known:
                        known.add(folded(value))
                        found[value] = None
                if len(found) >= count:
                    break
        return tuple(found)[:count]


def usable(value: str, concept: ForgetConcept) -> bool:
    """Whether a line can be a value: a few words, nothing that the two text fields would read as
    more than a word, and not the concept."""
    words = value.split()
    return (
        0 < len(words) <= LONGEST
        and value.isprintable()
        and not any(mark in value for mark in ",:{}")
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
    """Every dimension with up to ``count`` proposed values behind its own.

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
