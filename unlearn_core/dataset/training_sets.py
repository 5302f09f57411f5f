"""The forget and retain sets: the model's own pictures, cached on disk, and the user's."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..foundation.processes import ALONE, Processes
from ..foundation.progress import MAKING_IMAGES, Progress
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPair, PromptPairs
from .drawing import LatentCache, draw_latents, encode_all
from .looks import check_look, look_sets
from .own_pictures import OwnPictures, captioned, check_retained, encode_pictures
from .rows import PairedRows, Rows, TrainingSets
from .settings import GenerationSettings


def make_training_sets(
    model: ModelHandle,
    pairs: PromptPairs,
    settings: GenerationSettings,
    most_pairs: int | None = None,
    *,
    forget_pictures: OwnPictures | None = None,
    retain_pictures: OwnPictures | None = None,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
    processes: Processes = ALONE,
) -> TrainingSets:
    """Generate pictures for the train prompts of all concepts. Both pictures of a pair have the
    same seed. For a look, nothing is generated: see ``look_sets``.

    Args:
        most_pairs: of each concept, pictures are generated for its first pairs up to this number;
            None for all pairs.
        forget_pictures: the user's own pictures of the concepts, which are added to the generated
            ones or replace them; their parallels are generated in the same sizes.
        retain_pictures: the user's own pictures for the retain set, in addition to the generated
            parallels or instead of them.
        progress: ticks once for each picture that is generated or read.
        processes: share the generation of the pictures.

    Raises:
        ValueError: a caption is unsuitable for its set.
    """
    if not pairs.concept.has_word:
        check_look(pairs, forget_pictures, retain_pictures)
        assert forget_pictures is not None
        assert retain_pictures is not None
        progress = progress or Progress()
        return look_sets(model, pairs, forget_pictures, retain_pictures, progress)
    own_pairs = captioned(forget_pictures, pairs) if forget_pictures else []
    if retain_pictures:
        check_retained(retain_pictures, pairs)
    model_pairs = [
        (pair, k) for k, part in enumerate(pairs.each) for pair in part.train[:most_pairs]
    ]
    if forget_pictures and forget_pictures.alone:
        model_pairs = []
    own_sets = [own for own in (forget_pictures, retain_pictures) if own is not None]
    total = 2 * len(model_pairs) + len(own_pairs) + sum(len(own.images) for own in own_sets)
    progress = progress or Progress()
    maker = _RowMaker(model, settings, cache, progress, processes)
    with progress.phase(MAKING_IMAGES, total):
        return _training_sets(
            maker, pairs, model_pairs, own_pairs, forget_pictures, retain_pictures
        )


def _training_sets(
    maker: _RowMaker,
    pairs: PromptPairs,
    model_pairs: list[tuple[PromptPair, int]],
    own_pairs: list[tuple[PromptPair, int]],
    forget_pictures: OwnPictures | None,
    retain_pictures: OwnPictures | None,
) -> TrainingSets:
    """Build the sets.

    Args:
        model_pairs: pairs of which both pictures are generated, each with the index of its concept.
        own_pairs: pairs for the user's pictures, each with the index of its concept.
    """
    model = maker.model
    # The user's pictures first, so that errors in them appear before hundreds are generated.
    forget_own, retain_own = maker.read(forget_pictures), maker.read(retain_pictures)
    paired = []
    if model_pairs:
        forget = maker.generate([pair.forget for pair, _ in model_pairs], model.latent_shape)
        retain = maker.generate([pair.retain for pair, _ in model_pairs], model.latent_shape)
        paired.append(PairedRows(forget, retain, torch.tensor([k for _, k in model_pairs])))
    for own, indices in forget_own:
        shape = (own.latents.shape[1], own.latents.shape[2], own.latents.shape[3])
        retain = maker.generate([own_pairs[i][0].retain for i in indices], shape)
        concepts = torch.tensor([own_pairs[i][1] for i in indices])
        paired.append(PairedRows(own, retain, concepts))
    retain_set = [own for own, _ in retain_own]
    alone = retain_pictures is not None and retain_pictures.alone
    if not alone:
        retain_set = [*(part.retain for part in paired), *retain_set]
    return TrainingSets(pairs, tuple(paired), tuple(retain_set), includes_parallels=not alone)


@dataclass
class _RowMaker:
    """Generates or reads the pictures of a set, and encodes their prompts."""

    model: ModelHandle
    settings: GenerationSettings
    cache: LatentCache | None
    progress: Progress
    processes: Processes

    def generate(self, prompts: list[str], shape: tuple[int, int, int]) -> Rows:
        """The rows of generated pictures, one per prompt."""
        latents = draw_latents(
            self.model,
            prompts,
            self.settings,
            latent_shape=shape,
            cache=self.cache,
            progress=self.progress,
            processes=self.processes,
        )
        return Rows(latents, encode_all(self.model, prompts, self.progress))

    def read(self, pictures: OwnPictures | None) -> list[tuple[Rows, list[int]]]:
        """The rows of the user's pictures, one part per size, with the indices of its pictures."""
        if pictures is None:
            return []
        parts = []
        for latents, indices in encode_pictures(self.model, pictures, self.progress):
            captions = [pictures.captions[i] for i in indices]
            rows = Rows(latents, encode_all(self.model, captions, self.progress))
            parts.append((rows, indices))
        return parts
