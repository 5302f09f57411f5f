"""The training sets of a look, which no word names: the user's pictures with it and without it.

Two pictures are twins if they differ only in the look. Files are twins if they have the same name
but for the ending; linked pictures, if both sets have the same captions in the same order.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..foundation.progress import MAKING_IMAGES, Progress
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPairs
from .drawing import encode_all
from .own_pictures import OwnPictures, encode_pictures
from .rows import PairedRows, Rows, TrainingSets

UNLIKE = 0.8
"""Largest squared distance between twins, as a share of that between pictures that are none. The
twins of EmojiCanvas's watermark have 0.02 to 0.12; of 8 pictures that are none, 7 have more than
0.8. A look that changes the whole picture is allowed more than a watermark."""


def check_look(
    pairs: PromptPairs, with_look: OwnPictures | None, without: OwnPictures | None
) -> None:
    """Check that both sets are there, that no caption names the look, and that either all pictures
    with the look have a twin or none.

    Raises:
        ValueError: names the field.
    """
    name = pairs.concept.name
    sets = {"forget_pictures": (with_look, "with"), "retain_pictures": (without, "without")}
    for field, (pictures, preposition) in sets.items():
        if pictures is None:
            raise ValueError(
                f"{field}: no word names the look {name!r}, so the model learns it from pictures; "
                f"give it pictures {preposition} the look"
            )
        for caption in pictures.captions:
            if pairs.concept.is_mentioned_in(caption):
                raise ValueError(
                    f"captions: {caption!r} names the look {name!r}; captions describe only what "
                    "else a picture shows. Change it, or give the look another name"
                )
    assert with_look is not None
    assert without is not None
    twins_of(with_look, without)


def twins_of(with_look: OwnPictures, without: OwnPictures) -> list[int] | None:
    """The index of each picture's twin in ``without``; None if there are no twins.

    Raises:
        ValueError: only some of the pictures have a twin, or two have one name.
    """
    names, others = with_look.names, without.names
    if names is None or others is None:
        linked = names is None and others is None
        same = linked and with_look.captions == without.captions
        return list(range(len(with_look.captions))) if same else None
    for field, each in (("forget_pictures", names), ("retain_pictures", others)):
        if twice := next((name for i, name in enumerate(each) if name in each[:i]), None):
            raise ValueError(f"{field}: two pictures are named {twice!r}; rename one")
    place = {name: i for i, name in enumerate(others)}
    missing = [name for name in names if name not in place]
    if not missing:
        return [place[name] for name in names]
    if len(missing) == len(names):
        return None
    raise ValueError(
        f"retain_pictures: {missing[0]!r} is only among the pictures with the look, while others "
        "have a twin of the same name without it; add its twin, or remove it"
    )


def look_sets(
    model: ModelHandle,
    pairs: PromptPairs,
    with_look: OwnPictures,
    without: OwnPictures,
    progress: Progress,
) -> TrainingSets:
    """Read both sets. With twins, the parallel of a picture is its twin; otherwise, any picture
    without the look of the same size.

    Args:
        progress: ticks once for each picture.

    Raises:
        ValueError: a picture cannot be read, twins differ in more than the look, or no picture
            without the look has the size of one with it.
    """
    twins = twins_of(with_look, without)
    with progress.phase(MAKING_IMAGES, len(with_look.images) + len(without.images)):
        looks = _rows(model, with_look, progress)
        plain = _rows(model, without, progress)
    retain = tuple(rows for rows, _ in plain)
    if twins is None:
        paired = [_two_sets(rows, retain) for rows, _ in looks]
    else:
        paired = [_twins(*part, plain, twins, with_look) for part in looks]
    return TrainingSets(pairs, tuple(paired), retain, includes_parallels=False)


def _rows(
    model: ModelHandle, pictures: OwnPictures, progress: Progress
) -> list[tuple[Rows, list[int]]]:
    """One part per size, with the indices of its pictures."""
    parts = []
    for latents, indices in encode_pictures(model, pictures, progress):
        captions = [pictures.captions[i] for i in indices]
        parts.append((Rows(latents, encode_all(model, captions, progress)), indices))
    return parts


def _two_sets(rows: Rows, retain: tuple[Rows, ...]) -> PairedRows:
    same = [part for part in retain if part.latents.shape[1:] == rows.latents.shape[1:]]
    if not same:
        height, width = rows.latents.shape[2:]
        raise ValueError(
            "retain_pictures: none has the shape of some pictures with the look (about "
            f"{width}:{height}); add some, or crop those with the look"
        )
    # As many as the larger set has, so that no picture of either is left out.
    order = torch.arange(max(len(rows), len(same[0])))
    rows = Rows(rows.latents[order % len(rows)], rows.conditioning[order % len(rows)])
    order = order % len(same[0])
    parallels = Rows(same[0].latents[order], same[0].conditioning[order])
    concepts = torch.zeros(len(order), dtype=torch.int64)
    return PairedRows(rows, parallels, concepts, correspond=False)


def _twins(
    rows: Rows,
    indices: list[int],
    plain: list[tuple[Rows, list[int]]],
    twins: list[int],
    with_look: OwnPictures,
) -> PairedRows:
    """The rows and their twins, with the caption of the picture with the look."""
    latents = {i: part.latents[k] for part, places in plain for k, i in enumerate(places)}
    chosen = [latents[twins[i]] for i in indices]
    for i, twin, picture in zip(indices, chosen, rows.latents, strict=True):
        if twin.shape != picture.shape:
            raise ValueError(
                f"retain_pictures: {_name(with_look, i)} has another shape than its twin with the "
                "look; crop one of them"
            )
    _check_alike(rows.latents, torch.stack(chosen), [_name(with_look, i) for i in indices])
    parallels = Rows(torch.stack(chosen), rows.conditioning)
    return PairedRows(rows, parallels, torch.zeros(len(rows), dtype=torch.int64))


def _check_alike(pictures: Tensor, twins: Tensor, names: list[str]) -> None:
    """Raises:
    ValueError: a picture is no more like its twin than like others.
    """
    if len(names) < 2:
        return
    distances = torch.cdist(pictures.flatten(1), twins.flatten(1)).square()  # [N, N]
    own = distances.diagonal()
    others = (distances.sum(1) - own) / (len(names) - 1)
    for name, mine, other in zip(names, own.tolist(), others.tolist(), strict=True):
        if mine > UNLIKE * other:
            raise ValueError(
                f"retain_pictures: {name} shows something else than its twin with the look; twins "
                "differ only in the look. If they are none, give the files other names, or the "
                "pictures other captions"
            )


def _name(pictures: OwnPictures, i: int) -> str:
    source = pictures.images[i]
    return repr(source.name) if isinstance(source, Path) else f"picture {i + 1}"
