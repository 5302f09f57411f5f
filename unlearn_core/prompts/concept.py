"""The concept to forget."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..foundation.checks import LONGEST_WORD, require_length, require_words
from ..foundation.fields import other
from .english import ARTICLE, FILES, FOLLOWERS, LEADS, LOOSE_ENDS, SUFFIX, WEIGHT, with_articles
from .mentions import mention_pattern, without_syntax

MOST_SYNONYMS = 200  # every prompt is searched for each of them
LOOK = "look"
"""The kind of a concept that no word names, such as a watermark. It is given by pictures with and
without it; its name is only a label."""
KINDS: tuple[str, ...] = ("style", "object", "person", "nudity", "class", LOOK)


@dataclass(frozen=True)
class ForgetConcept:
    """A concept and the words that mention it in a prompt. ``kind`` is also the name of the
    dimension in which a judge recognizes it."""

    name: str = field(
        metadata=other("a word", help="The word for the concept in prompts, such as ink.")
    )
    kind: str = field(
        default="style",
        metadata=other(
            f"one of {', '.join(KINDS)}",
            help="The type of the concept. 'look' is what no word names, such "
            "as a watermark; it is given by pictures.",
        ),
    )
    synonyms: tuple[str, ...] = field(
        default=(),
        metadata=other(
            "a list of texts",
            help="Other words for the concept. A prompt with one of them counts as a prompt with "
            "the concept.",
        ),
    )
    replacements: tuple[str, ...] = field(
        default=(),
        metadata=other(
            "a list of texts",
            help="Words that take the place of the concept in the prompts that must keep working: "
            "other styles for a style. If empty, the concept's words are removed from those "
            "prompts. A look has none.",
        ),
    )

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"concept must be a word, got {self.name!r:.200}")
        require_length("concept", self.name)
        if not self.name.strip():
            raise ValueError(
                f"concept must name what to forget, got {self.name!r}: type a word such as 'ink'"
            )
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r:.200}")
        for field_name in ("synonyms", "replacements"):
            require_words(field_name, getattr(self, field_name), LONGEST_WORD)
            for word in getattr(self, field_name):
                if not word.strip():
                    raise ValueError(f"{field_name} contains an empty word: remove it")
        if len(self.synonyms) > MOST_SYNONYMS:
            raise ValueError(
                f"synonyms must be {MOST_SYNONYMS} words or fewer, got {len(self.synonyms)}; use "
                "one word for the concept in all prompts"
            )
        conflicts = [word for word in self.replacements if self.is_mentioned_in(word)]
        if conflicts:
            raise ValueError(
                f"replacements: {conflicts[0]!r} is or contains one of the concept's own words "
                f"({', '.join(self.words)}); remove the replacement or that word"
            )

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its synonyms, longest first so that replacement is unambiguous."""
        return tuple(sorted((self.name, *self.synonyms), key=len, reverse=True))

    @property
    def has_word(self) -> bool:
        """Whether a word names it in prompts; not so for a look."""
        return self.kind != LOOK

    @property
    def alone(self) -> str:
        """A prompt that consists of the concept only."""
        return f"{self.name} style" if self.kind == "style" else self.name

    def is_called(self, word: str) -> bool:
        """Whether the word is the concept's name or a synonym, in any spelling that
        ``mention_pattern`` accepts."""
        return self._pattern().fullmatch(word.strip()) is not None

    def is_mentioned_in(self, prompt: str) -> bool:
        """Whether the prompt contains one of the concept's words, in any spelling that
        ``mention_pattern`` accepts."""
        return any(map(self._pattern().search, (prompt, without_syntax(prompt))))

    def replaced_in(self, prompt: str, replacement: str) -> str:
        """The prompt with every mention replaced. An empty replacement removes the mentions and
        the English words that introduce them: "a cat in the style of X" becomes "a cat". Brackets
        and weights inside a name, "(van:1.2) gogh", are removed first."""
        if self.is_mentioned_in(self._pattern().sub(",", prompt)):
            prompt = without_syntax(prompt)
        if replacement:
            replaced = self._pattern().sub(lambda _: replacement, prompt)
            return with_articles(re.sub(r"\s{2,}", " ", replaced).strip(), (replacement,))
        return self._removed_from(prompt)

    def _removed_from(self, prompt: str) -> str:
        prompt = " ".join(prompt.split())
        tag_start, tag_end, embedding_start, embedding_end = FILES
        prompt = self._pattern(tag_start, tag_end).sub(" ", prompt)
        prompt = self._pattern(embedding_start, embedding_end).sub(" ", prompt)
        # Brackets that contain only the concept set its weight.
        bare = self._pattern(r"\\?[(\[]\s*(", rf"{SUFFIX})\s*{WEIGHT}\\?[)\]]")
        while (unwrapped := bare.sub(r" \1 ", prompt)) != prompt:
            prompt = unwrapped
        repeated = self._pattern(after=rf"\s+(?={self._pattern().pattern})")
        prompt = repeated.sub("", prompt)
        after = self._pattern(after=rf"{SUFFIX}\s+(?:and\s+)?(?!{ARTICLE})(\w+)")
        nouns = [match[1] for match in after.finditer(prompt)]
        # In a list, "by X and Y", the second name keeps the words before the first.
        first_of_two = self._pattern(
            rf"(?<!\w)({LEADS}\s+)({ARTICLE})?", rf"{SUFFIX}\s+and\s+(?=({ARTICLE})?)"
        )
        prompt = first_of_two.sub(lambda m: m[1] + ("" if m[3] else m[2] or ""), prompt)
        # If the concept is a noun, its article and preposition are removed too; if it is an
        # adjective ("a nude man"), they belong to the noun and stay.
        noun = self._pattern(
            rf"(?:,?\s*(?<!\w)(?:{LEADS})\s+|,\s*)?(?:(?<!\w){ARTICLE})?",
            rf"{SUFFIX}(?=\s*(?:$|[,.;:)\]]|(?:{FOLLOWERS})(?!\w)))",
        )
        adjective = self._pattern(after=SUFFIX)
        prompt = adjective.sub(" ", noun.sub(" ", prompt))
        for loose_end, repaired in LOOSE_ENDS:
            prompt = re.sub(loose_end, repaired, prompt)
        return with_articles(prompt.strip(" ,;:"), nouns)

    def _pattern(self, before: str = "", after: str = "") -> re.Pattern[str]:
        words = "|".join(map(mention_pattern, self.words))
        return re.compile(rf"{before}(?:{words}){after}", re.IGNORECASE)
