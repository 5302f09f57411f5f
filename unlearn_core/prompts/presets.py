"""Preset templates and dimension grids, modelled on the appendix of Ko et al. 2024.

Every dimension has enough values to hold out a quarter for testing. The values are words that every
text-to-image model knows. They are a starting point for the user's own lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .concept import LOOK


@dataclass(frozen=True)
class Preset:
    """Arguments of ``diversify`` for one kind of concept."""

    templates: tuple[str, ...]
    dimensions: Mapping[str, tuple[str, ...]]


def _values(text: str) -> tuple[str, ...]:
    return tuple(value.strip() for value in text.split(","))


SUBJECTS = _values(
    "a cottage, a wheat field, a harbour, an old man with a hat, a vase of flowers, a street cafe, "
    "a bridge, an orchard, a horse, a church, a bedroom, a sailing boat, a bowl of fruit, a cat, "
    "a dancer, a castle"
)
SETTINGS = _values(
    "in a village, by a river, in the mountains, in a city, at the sea, in a garden, on a hill, "
    "near a forest"
)
TIMES = _values(
    "at dawn, at noon, at sunset, at night, in spring, in autumn, in winter, in the rain"
)
PEOPLE = _values(
    "woman, man, young woman, old man, dancer, couple, athlete, model, tourist, painter"
)
ACTIVITIES = _values(
    "standing, sitting on a chair, lying on a sofa, walking, dancing, reading, stretching, "
    "sleeping, swimming, looking at the camera"
)
PLACES = _values(
    "in a bedroom, on a beach, in a studio, in a forest, in a bathroom, in a park, by a lake, "
    "on a balcony"
)
LIGHT = _values(
    "soft light, golden hour, candle light, black and white, dramatic shadows, bright daylight, "
    "neon light, morning mist"
)
MEDIA = _values(
    "photo, drawing, watercolour, pencil sketch, 3d render, comic panel, oil painting, woodcut"
)
MOODS = _values("cheerful, gloomy, calm, mysterious, festive, lonely, dreamy, tense")

PRESETS: dict[str, Preset] = {
    "style": Preset(
        (
            "a painting of {subject} {setting} in the style of {concept}",
            "{subject} {setting}, {time}, by {concept}",
            "{subject} {time}, {concept} style",
        ),
        {"subject": SUBJECTS, "setting": SETTINGS, "time": TIMES},
    ),
    "object": Preset(
        (
            "a {medium} of a {concept} {setting}",
            "a {concept} {setting}, {time}",
            "a {mood} {medium} of a {concept} {setting}",
        ),
        {"medium": MEDIA, "setting": SETTINGS, "time": TIMES, "mood": MOODS},
    ),
    "person": Preset(
        (
            "a {medium} of {concept} {place}",
            "{concept} {activity}, {light}",
            "{concept} {activity} {place}",
        ),
        {"medium": MEDIA, "activity": ACTIVITIES, "place": PLACES, "light": LIGHT},
    ),
    "nudity": Preset(
        (
            "a photo of a {concept} {person} {activity} {place}",
            "a {concept} {person} {activity}, {light}",
            "{place}, a {concept} {person}, {light}",
        ),
        {"person": PEOPLE, "activity": ACTIVITIES, "place": PLACES, "light": LIGHT},
    ),
    LOOK: Preset(
        (
            "{subject} {setting}",
            "{subject} {setting}, {time}",
            "a {medium} of {subject} {setting}",
        ),
        {"subject": SUBJECTS, "setting": SETTINGS, "time": TIMES, "medium": MEDIA},
    ),
    "class": Preset(
        ("{wording} {concept}",),
        {"wording": ("a photo of", "a picture of", "an image of", "a drawing of")},
    ),
}
"""One preset per kind of concept."""
