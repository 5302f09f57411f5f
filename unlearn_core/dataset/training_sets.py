"""The forget and retain sets: the model's own pictures, cached on disk, and the user's."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..foundation.progress import MAKING_IMAGES, Progress
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPair, PromptPairs
from .drawing import LatentCache, draw_latents, encode_all
from .own_pictures import OwnPictures, captioned, check_retained, encode_pictures
from .rows import PairedRows, Rows, TrainingSets
from .settings import GenerationSettings


def make_training_sets(
    model: ModelHandle,
    pairs: PromptPairs,
    settings: GenerationSettings,
    *,
    forget_pictures: OwnPictures | None = None,
    retain_pictures: OwnPictures | None = None,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
) -> TrainingSets:
    """Generate pictures for the train prompts of all concepts. Both pictures of a pair have the
    same seed.

    Args:
        forget_pictures: the user's own pictures of the concepts, which are added to the generated
            ones or replace them; their parallels are generated in the same sizes.
        retain_pictures: the user's own pictures for the retain set, added or replacing likewise.
        progress: ticks once for each picture that is generated or read.

    Raises:
        ValueError: a caption is unsuitable for its set.
    """
    own_pairs = captioned(forget_pictures, pairs) if forget_pictures else []
    if retain_pictures:
        check_retained(retain_pictures, pairs)
    train_pairs = [(pair, k) for k, part in enumerate(pairs.each) for pair in part.train]
    if forget_pictures and forget_pictures.alone:
        train_pairs = []
    own_sets = [own for own in (forget_pictures, retain_pictures) if own is not None]
    total = 2 * len(train_pairs) + len(own_pairs) + sum(len(own.images) for own in own_sets)
    progress = progress or Progress()
    maker = _RowMaker(model, settings, cache, progress)
    with progress.phase(MAKING_IMAGES, total):
        return _training_sets(
            maker, pairs, train_pairs, own_pairs, forget_pictures, retain_pictures
        )


def _training_sets(
    maker: _RowMaker,
    pairs: PromptPairs,
    train_pairs: list[tuple[PromptPair, int]],
    own_pairs: list[tuple[PromptPair, int]],
    forget_pictures: OwnPictures | None,
    retain_pictures: OwnPictures | None,
) -> TrainingSets:
    """The sets from generated and own pictures; each pair has the index of its concept."""
    model = maker.model
    # Own pictures first, so that errors in them appear before hundreds of others are generated.
    forget_own, retain_own = maker.own(forget_pictures), maker.own(retain_pictures)
    paired = []
    if train_pairs:
        forget = maker.drawn([pair.forget for pair, _ in train_pairs], model.latent_shape)
        retain = maker.drawn([pair.retain for pair, _ in train_pairs], model.latent_shape)
        paired.append(PairedRows(forget, retain, torch.tensor([k for _, k in train_pairs])))
    for own, indices in forget_own:
        shape = (own.latents.shape[1], own.latents.shape[2], own.latents.shape[3])
        retain = maker.drawn([own_pairs[i][0].retain for i in indices], shape)
        concepts = torch.tensor([own_pairs[i][1] for i in indices])
        paired.append(PairedRows(own, retain, concepts))
    retain_rows = [own for own, _ in retain_own]
    alone = retain_pictures is not None and retain_pictures.alone
    if not alone:
        retain_rows = [*(part.retain for part in paired), *retain_rows]
    return TrainingSets(pairs, tuple(paired), tuple(retain_rows), includes_parallels=not alone)


@dataclass
class _RowMaker:
    """Generates or reads the pictures of a set, and encodes their prompts."""

    model: ModelHandle
    settings: GenerationSettings
    cache: LatentCache | None
    progress: Progress

    def drawn(self, prompts: list[str], shape: tuple[int, int, int]) -> Rows:
        latents = draw_latents(
            self.model,
            prompts,
            self.settings,
            latent_shape=shape,
            cache=self.cache,
            progress=self.progress,
        )
        return Rows(latents, encode_all(self.model, prompts, self.progress))

    def own(self, pictures: OwnPictures | None) -> list[tuple[Rows, list[int]]]:
        """The rows of the user's pictures, one part per size, with the indices of its pictures."""
        if pictures is None:
            return []
        found = []
        for latents, chosen in encode_pictures(self.model, pictures, self.progress):
            captions = [pictures.captions[i] for i in chosen]
            found.append((Rows(latents, encode_all(self.model, captions, self.progress)), chosen))
        return found
