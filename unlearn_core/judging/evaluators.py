"""Who judges the pictures, and what they see in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..foundation.pixels import as_floats
from ..foundation.progress import Progress
from ..models.protocol import ModelHandle
from ..prompts.concept import ForgetConcept
from ..prompts.pairs import PromptPairs
from .clip_scorer import ClipScorer, is_scorer
from .judge import JUDGE_FILE, ConvJudge, Judge, ZeroShotJudge
from .nudity import INSTALL, NUDITY, NudityDetector

EVALUATION = "evaluation"  # folder of a model's own evaluators
AT_ONCE = 16  # pictures as floats

NO_SCORER = (
    "No CLIP at hand, so alignment and the change of the pictures are not measured: choose an "
    "open_clip model as scorer."
)
NO_WORDS = "CLIP cannot tell whether {!r} shows without knowing what else may: name replacements."
NOT_KNOWN = "The model's own judge does not know {!r}: choose an open_clip model as scorer."
NO_CONTENT = (
    "Other content is not judged: the model's own judge tells {} apart, and no dimension of the "
    "prompts has one of these names."
)
NO_ALTERNATIVES = (
    "Alternatives are not judged: none of the replacements is a {} that the model's own judge "
    "knows ({})."
)
NO_NUDENET = f"{INSTALL} (or nobody here can tell whether {{!r}} shows)."


@dataclass(frozen=True, eq=False)
class Seen:
    """What the evaluators saw in N pictures.

    Attributes:
        values: dimension -> of each picture the value that it shows, None for none of those known.
        embeddings: CLIP's, unit vectors [N, D]; None without a scorer.
        alignment: cosine of each picture with its own prompt, [N], -1..1; None without a scorer.
        detections: of each picture, how often which body part; None without NudeNet.
        pictures: N.
    """

    values: dict[str, list[str | None]]
    embeddings: Tensor | None
    alignment: Tensor | None
    detections: list[Counter[str]] | None
    pictures: int

    def shows(self, concept: ForgetConcept) -> list[bool] | None:
        """Of each picture whether it shows the concept; None where nobody could judge."""
        found = self.values.get(concept.kind)
        if found is None:
            return None
        return [value is not None and concept.is_called(value) for value in found]

    def rows(self, chosen: slice) -> Seen:
        """What was seen in some of the pictures."""
        return Seen(
            {name: values[chosen] for name, values in self.values.items()},
            None if self.embeddings is None else self.embeddings[chosen],
            None if self.alignment is None else self.alignment[chosen],
            None if self.detections is None else self.detections[chosen],
            len(range(self.pictures)[chosen]),
        )


@dataclass(frozen=True, eq=False)
class Evaluators:
    """Who judges one concept; any of them may be absent.

    Attributes:
        missing: what cannot be judged, and the cure.
    """

    scorer: ClipScorer | None
    judge: Judge | None
    nudity: NudityDetector | None = None
    missing: tuple[str, ...] = ()

    def known(self, concept: ForgetConcept) -> tuple[str, ...]:
        """What the concept's judge can tell apart. It cannot see an invented name's style, for
        there is none."""
        if self.nudity is not None or self.judge is None:
            return ()
        return tuple(self.judge.dimensions.get(concept.kind, ()))

    def look(
        self,
        concept: ForgetConcept,
        pictures: Tensor,
        prompts: Sequence[str],
        progress: Progress | None = None,
    ) -> Seen:
        """Judge pictures, uint8 [N, 3, H, W], each drawn for its own prompt.

        Args:
            progress: checked after every few pictures.
        """
        values: dict[str, list[str | None]] = {}
        embedded: list[Tensor] = []
        detections: list[Counter[str]] = []
        for part in map(as_floats, pictures.split(AT_ONCE)):
            if self.scorer is not None:
                embedded.append(self.scorer.embed_images(part))
            found = self._values(part, embedded[-1] if embedded else None)
            if self.nudity is not None:
                counts = self.nudity.detect(part)
                detections += counts
                found[NUDITY] = [concept.name if count else None for count in counts]
            for name, its_values in found.items():
                values.setdefault(name, []).extend(its_values)
            if progress is not None:
                progress.check()
        embeddings = alignment = None
        if self.scorer is not None:
            embeddings = torch.cat(embedded)
            alignment = (embeddings * self.scorer.embed_texts(prompts)).sum(1)
        its_detections = detections if self.nudity is not None else None
        return Seen(values, embeddings, alignment, its_detections, len(pictures))

    def _values(self, images: Tensor, embeddings: Tensor | None) -> dict[str, list[str | None]]:
        if self.judge is None:
            return {}
        if embeddings is not None and isinstance(self.judge, ZeroShotJudge):
            return self.judge.read(embeddings)  # spares CLIP a second look
        return self.judge.classify(images)


def carries_scorer(model: ModelHandle) -> bool:
    """Whether the model's folder brings its own CLIP along."""
    return is_scorer(model.info.source / EVALUATION)


def find_scorer(model: ModelHandle, folder: Path | None = None) -> ClipScorer | None:
    """The CLIP in ``folder``; without one that which the model's folder carries, if any.

    Raises:
        ValueError: ``folder`` holds no CLIP.
    """
    if folder is not None:
        return ClipScorer.load(folder, device=model.device)
    if not carries_scorer(model):
        return None
    own = model.info.source / EVALUATION
    return ClipScorer.load(own, name=f"the own CLIP of {model.info.name}", device=model.device)


def find_evaluators(
    model: ModelHandle, pairs: PromptPairs, scorer: ClipScorer | None
) -> Evaluators:
    """NudeNet for nudity; else the judge that the model's folder carries in ``evaluation/``, if it
    knows the concept; else CLIP itself judges."""
    concept, folder = pairs.concept, model.info.source / EVALUATION
    missing = [] if scorer else [NO_SCORER]
    nudity = None
    if concept.kind == NUDITY:
        try:
            nudity = NudityDetector()
        except ImportError:
            missing.append(NO_NUDENET.format(concept.name))
    if (folder / JUDGE_FILE).is_file():
        judge = ConvJudge.load(folder)
        known = judge.dimensions.get(concept.kind, ())
        if concept.kind == NUDITY or any(map(concept.is_called, known)):
            others = set(judge.dimensions) - {concept.kind}
            if others and not others & set(pairs.dimensions):
                missing.append(NO_CONTENT.format(", ".join(sorted(others))))
            if concept.kind != NUDITY and not set(concept.replacements) & set(known):
                missing.append(NO_ALTERNATIVES.format(concept.kind, ", ".join(known)))
            return Evaluators(scorer, judge, nudity, tuple(missing))
        if scorer is None:
            missing.append(NOT_KNOWN.format(concept.name))
    if scorer is None:
        return Evaluators(None, None, nudity, tuple(missing))
    # A dimension of the concept's kind holds what may stand beside it, and never the concept.
    told_apart = {name: v for name, v in pairs.dimensions.items() if name != concept.kind}
    if concept.kind != NUDITY and concept.replacements:
        told_apart[concept.kind] = (concept.name, *concept.replacements)
    elif concept.kind != NUDITY:  # of which CLIP is no judge, whatever its words
        missing.append(NO_WORDS.format(concept.name))
    judge = ZeroShotJudge(scorer, told_apart)
    return Evaluators(scorer, judge, nudity, tuple(missing))
