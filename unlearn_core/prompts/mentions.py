"""Mentions of words in a prompt, as a reader and a text encoder see them.

CLIP's tokenizer separates letters, digits and everything else, and ignores case and white space:
``ink_wash`` and ``(ink:1.3)`` contain the token *ink*, ``pink`` does not. On top of that, spellings
that a reader takes for the same name are equal: accents, initials, joined words, compatibility
characters.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata

ACCENTS = "\u0300-\u036f"  # combining marks of Latin, Greek and Cyrillic
INVISIBLE = "\u00ad\u200b-\u200d\u2060\ufeff"  # soft hyphen, zero-width characters
IGNORED = f"[{ACCENTS}{INVISIBLE}]*"
LETTER = r"[^\W\d_]"
UNSPACED = (
    "(?-i:["
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff\uff66-\uff9f"  # Japanese, Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "])"
)
"""Scripts without spaces between words: in them, any substring may be a word. They have no case,
and compiling so large a class with ``re.IGNORECASE`` is slow."""
HANGUL = re.compile("[\u1100-\u11ff\uac00-\ud7af]")
PARTICLES = "은|는|이|가|을|를|에|의|로|으로|와|과|도|만|에서|처럼|풍|풍의|풍으로|체|체로"
"""Korean particles, which follow a noun without a space."""
GAP = r"""[\s_\-.'’‘"“”/\\‐‑–—·・•]"""
"""Characters between the words of a name: Van Gogh, van_gogh, M.C. Escher, Toulouse-Lautrec."""
ESCAPE = re.compile(r"\\(?=[()\[\]{}])")
SYNTAX = re.compile(r"\\(?=[()\[\]])|[()\[\]{}]|:\s*\d*\.?\d+(?=\s*[)\]])")
"""The brackets, escapes and weights of ComfyUI's prompts."""
BRACKETS = "()[]{}"
"""Optional in a name, with or without an escape: ``saber (fate)``, ``saber \\(fate\\)``."""
# Letters with accents, full-width letters and mathematical letters.
DERIVED = ((0xC0, 0x250), (0x370, 0x530), (0x1E00, 0x2000), (0xFF10, 0xFF5B), (0x1D400, 0x1D800))
INITIALS = 3  # letters of a word that may be written as initials, if another word follows


def without_syntax(prompt: str) -> str:
    """The prompt without brackets and weights: "(van:1.2) gogh" becomes "van gogh"."""
    return SYNTAX.sub("", prompt)


def occurs_in(words: str, prompt: str) -> bool:
    """Whether a prompt contains these words."""
    pattern = re.compile(mention_pattern(words), re.IGNORECASE)
    return any(pattern.search(text) for text in (prompt, without_syntax(prompt)))


@functools.lru_cache(maxsize=1024)
def mention_pattern(words: str) -> str:
    """A regular expression for the words, to compile with ``re.IGNORECASE``. It has no capturing
    groups."""
    composed = unicodedata.normalize("NFC", ESCAPE.sub("", words.strip()))
    parts = [part for part in re.split(f"{GAP}+", composed) if part.strip()]
    patterns = [_word(part, followed=part is not parts[-1]) for part in parts]
    spaced = r"\s+".join(map(re.escape, words.split()))
    literal = rf"(?<!\w){spaced}(?!\w)"
    if not patterns or not all(patterns) or not all(part.strip(BRACKETS) for part in parts):
        return literal  # nothing but marks
    start, end = (re.search(pattern, composed) for pattern in (f"^{GAP}+", f"{GAP}+$"))
    before, after = (rf"(?:{re.escape(gap[0])})?" if gap else "" for gap in (start, end))
    core = f"{GAP}*".join(patterns)
    first, last = parts[0].lstrip(BRACKETS)[0], parts[-1].rstrip(BRACKETS)
    mention = f"{before}{_no_letter_before(first)}{core}{_no_letter_after(last)}{after}"
    # Normalization also replaces characters, such as duplicates of Chinese ones.
    return mention if composed == words.strip() else f"(?:{mention}|{literal})"


def _word(word: str, *, followed: bool) -> str:
    """The pattern for one word; ``followed`` means that the name has a further word."""
    letters: list[str] = []
    for brackets, run in itertools.groupby(word, BRACKETS.__contains__):
        characters = list(run)
        letters += [_optional_brackets(len(characters))] if brackets else map(_letter, characters)
    letters = list(filter(None, letters))
    initials = followed and len(letters) <= INITIALS and word.isalpha()
    pattern = (r"\.?\s?" if initials else "").join(letters)
    return pattern.replace(_letter("s") * 2, f"(?:{_letter('s') * 2}|[ßẞ])")


def _optional_brackets(most: int) -> str:
    """One pattern for a whole run: a run of optional patterns would take exponential time."""
    return rf"(?:\\?[()\[\]{{}}]){{0,{most}}}"


@functools.lru_cache(maxsize=4096)
def _letter(char: str) -> str:
    """The pattern for a character with or without accents, composed or decomposed; empty for a mark
    alone."""
    lower = char.casefold()
    base = _without_accents(lower)
    if len(lower) > 1 and len(base) > 1:  # "ß" is "ss"
        return f"(?:{re.escape(char)}{IGNORED}|{''.join(map(_letter, lower))})"
    if not base:
        return ""
    if len(base) > 1:  # a syllable or a letter with a mark that changes it, such as "が"
        parts = unicodedata.normalize("NFD", char)
        return f"(?:{re.escape(char)}|{re.escape(parts)}){IGNORED}"
    characters = dict.fromkeys((base, char, *_derived().get(base, ())))
    return f"[{''.join(map(re.escape, characters))}]{IGNORED}"


@functools.cache
def _derived() -> dict[str, list[str]]:
    """The characters that are a letter with accents or in another shape, by that letter."""
    derived: dict[str, list[str]] = {}
    for char in (chr(code) for limits in DERIVED for code in range(*limits)):
        base = _without_accents(char.casefold())
        if len(base) == 1 and base != char.casefold():
            derived.setdefault(base, []).append(char)
    return derived


def _without_accents(char: str) -> str:
    return re.sub(f"[{ACCENTS}]", "", unicodedata.normalize("NFKD", char))


def _no_letter_before(first: str) -> str:
    if re.match(UNSPACED, first):
        return ""
    if first.isdigit():
        return r"(?<!\d)"
    if not re.match(LETTER, first):
        return ""
    return rf"(?<!(?!{UNSPACED}){LETTER})(?<!{_marks()})"


def _no_letter_after(word: str) -> str:
    last = word[-1]
    if re.match(UNSPACED, last):
        return ""
    if last.isdigit():
        return r"(?!\d)"
    if not re.match(rf"{LETTER}|{_marks()}", last):
        return ""
    end = rf"(?!(?!{UNSPACED}){LETTER})(?!{_marks()})"
    if HANGUL.match(last):
        return rf"(?=(?:{PARTICLES})?{end})"
    return end


@functools.cache
def _marks() -> str:
    """A class of the combining marks, which are part of the letter before them, except those of
    scripts without spaces."""
    codes = (code for code in range(0x300, 0x3000) if _is_mark(chr(code)))
    codes = [code for code in codes if not re.match(UNSPACED, chr(code))]
    starts = [code for code in codes if code - 1 not in codes]
    ends = [code for code in codes if code + 1 not in codes]
    # Ranges, because every pattern contains this class, and single characters are slow to compile.
    members = (f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))
    return f"(?-i:[{''.join(members)}])"


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")
