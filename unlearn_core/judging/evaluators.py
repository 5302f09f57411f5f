"""The evaluators of pictures (CLIP, a judge, NudeNet) and their observations."""

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
from ..prompts.concept import LOOK, ForgetConcept
from ..prompts.pairs import PromptPairs
from .clip_scorer import ClipScorer, is_scorer
from .judge import JUDGE_FILE, ConvJudge, Judge, ZeroShotJudge
from .nudity import INSTALL, NUDITY, NudityDetector

EVALUATION = "evaluation"  # folder of a model's own evaluators
CHUNK = 16  # pictures that are converted to floats together

NO_SCORER = (
    "Without a CLIP, alignment and the change of the pictures are not measured: choose an "
    "open_clip model as scorer."
)
NO_REPLACEMENTS = "CLIP recognizes {!r} only in comparison with alternatives: name replacements."
UNKNOWN = "The model's own judge does not know {!r}: choose an open_clip model as scorer."
NO_CONTENT = (
    "Other content is not judged: the model's own judge recognizes {}, but no dimension of the "
    "prompts has one of these names."
)
NO_ALTERNATIVES = (
    "Alternatives are not judged: none of the replacements is a {} that the model's own judge "
    "knows ({})."
)
NO_LOOK = "CLIP does not recognize {!r}, because no word names it: look at the pictures."
NO_NUDENET = f"{INSTALL} (without it, {{!r}} cannot be recognized)."


@dataclass(frozen=True, eq=False)
class Observations:
    """The observations of the evaluators in N pictures.

    Attributes:
        values: dimension -> the value recognized in each picture, or None.
        embeddings: CLIP's, unit vectors [N, D]; None without a scorer.
        alignment: cosine of each picture with its own prompt, [N], -1..1; None without a scorer.
        detections: for each picture, the count of each uncovered body part; None without NudeNet.
        pictures: N.
    """

    values: dict[str, list[str | None]]
    embeddings: Tensor | None
    alignment: Tensor | None
    detections: list[Counter[str]] | None
    pictures: int

    def shows(self, concept: ForgetConcept) -> list[bool] | None:
        """For each picture whether it shows the concept; None if no evaluator can judge."""
        values = self.values.get(concept.kind)
        if values is None:
            return None
        return [value is not None and concept.is_called(value) for value in values]

    def rows(self, selection: slice) -> Observations:
        """The observations in a selection of the pictures."""
        return Observations(
            {name: values[selection] for name, values in self.values.items()},
            None if self.embeddings is None else self.embeddings[selection],
            None if self.alignment is None else self.alignment[selection],
            None if self.detections is None else self.detections[selection],
            len(range(self.pictures)[selection]),
        )


@dataclass(frozen=True, eq=False)
class Evaluators:
    """The evaluators of one concept; any of them may be absent.

    Attributes:
        missing: messages about figures that cannot be measured, each with its remedy.
    """

    scorer: ClipScorer | None
    judge: Judge | None
    nudity: NudityDetector | None = None
    missing: tuple[str, ...] = ()

    def known_values(self, concept: ForgetConcept) -> tuple[str, ...]:
        """The values of the concept's kind that the judge recognizes. Made-up names are never among
        them, because no pictures in their style exist."""
        if self.nudity is not None or self.judge is None:
            return ()
        return tuple(self.judge.dimensions.get(concept.kind, ()))

    def look(
        self,
        concept: ForgetConcept,
        pictures: Tensor,
        prompts: Sequence[str],
        progress: Progress | None = None,
    ) -> Observations:
        """Judge pictures, uint8 [N, 3, H, W], each generated from its own prompt.

        Args:
            progress: checked after every few pictures.
        """
        values: dict[str, list[str | None]] = {}
        vectors: list[Tensor] = []
        detections: list[Counter[str]] = []
        for part in map(as_floats, pictures.split(CHUNK)):
            if self.scorer is not None:
                vectors.append(self.scorer.embed_images(part))
            part_values = self._values(part, vectors[-1] if vectors else None)
            if self.nudity is not None:
                counts = self.nudity.detect(part)
                detections += counts
                part_values[NUDITY] = [concept.name if count else None for count in counts]
            for name, new_values in part_values.items():
                values.setdefault(name, []).extend(new_values)
            if progress is not None:
                progress.check()
        embeddings = alignment = None
        if self.scorer is not None:
            embeddings = torch.cat(vectors)
            alignment = (embeddings * self.scorer.embed_texts(prompts)).sum(1)
        return Observations(
            values,
            embeddings,
            alignment,
            detections if self.nudity is not None else None,
            len(pictures),
        )

    def _values(self, images: Tensor, embeddings: Tensor | None) -> dict[str, list[str | None]]:
        if self.judge is None:
            return {}
        if embeddings is not None and isinstance(self.judge, ZeroShotJudge):
            return self.judge.classify_embeddings(embeddings)  # saves a second embedding
        return self.judge.classify(images)


def carries_scorer(model: ModelHandle) -> bool:
    """Whether the model's folder contains a CLIP."""
    folder = _own_folder(model)
    return folder is not None and is_scorer(folder)


def _own_folder(model: ModelHandle) -> Path | None:
    """The folder for the model's own judge and CLIP, which need not exist."""
    info = model.info
    if info.evaluation is not None or info.source is None:
        return info.evaluation
    return info.source / EVALUATION


def find_scorer(model: ModelHandle, folder: Path | None = None) -> ClipScorer | None:
    """The CLIP in ``folder``; if that is None, the one in the model's folder, if any.

    Raises:
        ValueError: ``folder`` contains no CLIP.
    """
    if folder is not None:
        return ClipScorer.load(folder, device=model.device)
    own = _own_folder(model)
    if own is None or not is_scorer(own):
        return None
    return ClipScorer.load(own, name=f"{model.info.name}'s own CLIP", device=model.device)


def find_evaluators(
    model: ModelHandle, pairs: PromptPairs, scorer: ClipScorer | None
) -> Evaluators:
    """The evaluators of a concept: NudeNet for nudity; otherwise the judge in the model's folder
    ``evaluation/`` if it knows the concept; otherwise CLIP."""
    concept, folder = pairs.concept, _own_folder(model)
    missing = [] if scorer else [NO_SCORER]
    nudity = None
    if concept.kind == NUDITY:
        try:
            nudity = NudityDetector()
        except ImportError:
            missing.append(NO_NUDENET.format(concept.name))
    if folder is not None and (folder / JUDGE_FILE).is_file():
        judge = ConvJudge.load(folder)
        known = judge.dimensions.get(concept.kind, ())
        if concept.kind == NUDITY or any(map(concept.is_called, known)):
            others = set(judge.dimensions) - {concept.kind}
            if others and not others & set(pairs.dimensions):
                missing.append(NO_CONTENT.format(", ".join(sorted(others))))
            if concept.kind not in (NUDITY, LOOK) and not set(concept.replacements) & set(known):
                missing.append(NO_ALTERNATIVES.format(concept.kind, ", ".join(known)))
            return Evaluators(scorer, judge, nudity, tuple(missing))
        if scorer is None:
            missing.append(UNKNOWN.format(concept.name))
    if scorer is None:
        return Evaluators(None, None, nudity, tuple(missing))
    # A dimension of the concept's kind lists other things in the prompts, not the concept.
    dimensions = {name: v for name, v in pairs.dimensions.items() if name != concept.kind}
    if not concept.has_word:
        missing.append(NO_LOOK.format(concept.name))
    elif concept.kind != NUDITY and concept.replacements:
        dimensions[concept.kind] = (concept.name, *concept.replacements)
    elif concept.kind != NUDITY:  # replacements would not enable CLIP to recognize nudity
        missing.append(NO_REPLACEMENTS.format(concept.name))
    judge = ZeroShotJudge(scorer, dimensions)
    return Evaluators(scorer, judge, nudity, tuple(missing))
