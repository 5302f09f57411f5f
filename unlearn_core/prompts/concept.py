"""What is to be forgotten."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..foundation.checks import require_words
from ..foundation.fields import other
from .english import (
    ARTICLE,
    BELONGS,
    GO_ON,
    LEADS,
    LOOSE_ENDS,
    WEIGHT,
    spaced_pattern,
    with_articles,
)

KINDS: tuple[str, ...] = ("style", "object", "person", "nudity", "class")


@dataclass(frozen=True)
class ForgetConcept:
    """A concept and the words by which prompts mention it. ``kind`` is also the name of the
    dimension that a judge reads it from."""

    name: str = field(
        metadata=other("a word", help="The word by which prompts ask for the concept, such as ink.")
    )
    kind: str = field(
        default="style",
        metadata=other(f"one of {', '.join(KINDS)}", help="What sort of thing the concept is."),
    )
    synonyms: tuple[str, ...] = field(
        default=(),
        metadata=other(
            "a list of texts",
            help="Other words for it; a prompt that uses one mentions the concept too.",
        ),
    )
    replacements: tuple[str, ...] = field(
        default=(),
        metadata=other(
            "a list of texts",
            help="What may stand in its place in prompts that must keep working: other styles for "
            "a style. Without any, the concept's words are dropped there.",
        ),
    )

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"concept must be a word, got {self.name!r}")
        if not self.name.strip():
            raise ValueError(
                f"concept must name what to forget, got {self.name!r}: type a word such as 'ink'"
            )
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for field_name in ("synonyms", "replacements"):
            require_words(field_name, getattr(self, field_name))
            for word in getattr(self, field_name):
                if not word.strip():
                    raise ValueError(f"{field_name} holds an empty word: remove it")
        clash = [word for word in self.replacements if self.is_mentioned_in(word)]
        if clash:
            raise ValueError(
                f"replacements: {clash[0]!r} is or holds one of the concept's own words "
                f"({', '.join(self.words)}); take it out, or that word"
            )

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its synonyms, longest first so that replacing is unambiguous."""
        return tuple(sorted((self.name, *self.synonyms), key=len, reverse=True))

    @property
    def alone(self) -> str:
        """The prompt that asks for it and for nothing else."""
        return f"{self.name} style" if self.kind == "style" else self.name

    def is_called(self, word: str) -> bool:
        """Whether the word alone is one of the concept's, in any case."""
        return self._pattern().fullmatch(word.strip()) is not None

    def is_mentioned_in(self, prompt: str) -> bool:
        """Whether the prompt holds one of the concept's words as a whole word, in any case."""
        return self._pattern().search(prompt) is not None

    def replaced_in(self, prompt: str, replacement: str) -> str:
        """The prompt with every mention replaced. An empty replacement drops it, and the English
        words that stand there for its sake: "a cat in the style of X" becomes "a cat"."""
        if replacement:
            found = self._pattern().sub(lambda _: replacement, prompt)
            return with_articles(re.sub(r"\s{2,}", " ", found).strip(), (replacement,))
        return self._dropped_from(prompt)

    def _dropped_from(self, prompt: str) -> str:
        prompt = " ".join(prompt.split())
        # Brackets around it alone only weigh it.
        bare = self._pattern(r"[(\[]\s*(", rf"{BELONGS})\s*{WEIGHT}[)\]]")
        while (unwrapped := bare.sub(r" \1 ", prompt)) != prompt:
            prompt = unwrapped
        twice = self._pattern(after=rf"\s+(?={self._pattern().pattern})")
        prompt = twice.sub("", prompt)
        after = self._pattern(after=rf"{BELONGS}\s+(?:and\s+)?(?!{ARTICLE})(\w+)")
        nouns = [match[1] for match in after.finditer(prompt)]
        # Of two that are listed, "by X and Y", the other takes over what stands before them.
        listed = self._pattern(
            rf"(?<!\w)({LEADS}\s+)({ARTICLE})?", rf"{BELONGS}\s+and\s+(?=({ARTICLE})?)"
        )
        prompt = listed.sub(lambda m: m[1] + ("" if m[3] else m[2] or ""), prompt)
        # Where the concept is the noun, its article and preposition go; where it is an adjective
        # ("a nude man"), they are the noun's and stay.
        noun = self._pattern(
            rf"(?:,?\s*(?<!\w)(?:{LEADS})\s+|,\s*)?(?:(?<!\w){ARTICLE})?",
            rf"{BELONGS}(?=\s*(?:$|[,.;:)\]]|(?:{GO_ON})(?!\w)))",
        )
        adjective = self._pattern(after=BELONGS)
        found = adjective.sub(" ", noun.sub(" ", prompt))
        for loose, instead in LOOSE_ENDS:
            found = re.sub(loose, instead, found)
        return with_articles(found.strip(" ,;:"), nouns)

    def _pattern(self, before: str = "", after: str = "") -> re.Pattern[str]:
        words = "|".join(map(spaced_pattern, self.words))
        return re.compile(rf"{before}(?<!\w)(?:{words})(?!\w){after}", re.IGNORECASE)
