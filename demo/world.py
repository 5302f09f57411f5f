"""The vocabulary of EmojiCanvas: styles, objects and backgrounds, and the captions of pictures."""

from __future__ import annotations

import random
from dataclasses import dataclass

from unlearn_core.prompts.english import with_articles

STYLES: tuple[str, ...] = ("noto", "twemoji", "fluent", "ink", "pixel")

# word in captions -> name of the icon in every emoji set
OBJECT_ICONS: dict[str, str] = {
    "cat": "cat-face",
    "dog": "dog-face",
    "fish": "fish",
    "bird": "bird",
    "apple": "red-apple",
    "banana": "banana",
    "pizza": "pizza",
    "rocket": "rocket",
    "house": "house",
    "tree": "evergreen-tree",
    "sunflower": "sunflower",
    "tulip": "tulip",
    "cactus": "cactus",
    "mushroom": "mushroom",
    "butterfly": "butterfly",
    "frog": "frog",
    "pig": "pig-face",
    "rabbit": "rabbit-face",
    "bear": "bear",
    "lion": "lion",
    "car": "automobile",
    "bicycle": "bicycle",
    "sailboat": "sailboat",
    "umbrella": "umbrella",
    "guitar": "guitar",
    "key": "key",
    "crown": "crown",
    "heart": "red-heart",
    "star": "star",
    "sun": "sun",
    "hamburger": "hamburger",
    "cake": "birthday-cake",
}
OBJECTS: tuple[str, ...] = tuple(OBJECT_ICONS)

# word in captions -> sRGB
BACKGROUND_COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "pink": (255, 180, 205),
    "blue": (130, 188, 245),
    "green": (148, 214, 150),
    "yellow": (250, 226, 110),
    "gray": (165, 166, 172),
}
BACKGROUNDS: tuple[str, ...] = tuple(BACKGROUND_COLOURS)

FULL_CAPTIONS: tuple[str, ...] = (
    "a {object} in {style} style on a {background} background",
    "a {object} drawn in {style} style, {background} background",
    "{style} style {object} on {background}",
    "a {background} picture of a {object} in {style} style",
)
# Captions that omit a dimension teach the model the meaning of a prompt without it; otherwise
# "a cat" would be out of distribution, and unlearning would have no neutral prompt as a target.
NO_STYLE_CAPTIONS: tuple[str, ...] = (
    "a {object} on a {background} background",
    "{object}, {background} background",
)
NO_BACKGROUND_CAPTIONS: tuple[str, ...] = ("a {object} in {style} style", "{style} style {object}")
OBJECT_ONLY_CAPTIONS: tuple[str, ...] = ("a {object}", "a picture of a {object}")
NO_OBJECT_CAPTIONS: tuple[str, ...] = ("a picture in {style} style on a {background} background",)


@dataclass(frozen=True)
class Subject:
    """One picture's content, each field a word of the vocabulary above."""

    style: str
    object: str
    background: str


def caption(subject: Subject, rng: random.Random) -> str:
    """A training caption: usually complete, sometimes without a dimension."""
    draw = rng.random()
    if draw < 0.70:
        templates = FULL_CAPTIONS
    elif draw < 0.80:
        templates = NO_STYLE_CAPTIONS
    elif draw < 0.90:
        templates = NO_BACKGROUND_CAPTIONS
    elif draw < 0.95:
        templates = OBJECT_ONLY_CAPTIONS
    else:
        templates = NO_OBJECT_CAPTIONS
    return fill_caption(rng.choice(templates), subject)


def fill_caption(template: str, subject: Subject) -> str:
    """Fill a caption template with the subject's words."""
    words = vars(subject)
    return with_articles(template.format(**words), words.values())


def random_subject(rng: random.Random) -> Subject:
    return Subject(rng.choice(STYLES), rng.choice(OBJECTS), rng.choice(BACKGROUNDS))
