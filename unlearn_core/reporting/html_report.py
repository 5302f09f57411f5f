"""The evaluation as one HTML file with embedded pictures and without network requests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape

from torch import Tensor

from ..evaluation.results import AlignmentReport, PictureFacts
from ..foundation.plurals import count_of
from ..foundation.version import VERSION
from ..judging.curves import Curve
from ..unlearning.results import UnlearnedModel
from .figures import Figure, figures, probe_figures
from .grids import PNG_EDGE, picture_file, to_pil
from .groups import Group, Pair, groups
from .html_style import SCRIPT, STYLE
from .recovery import recovery_curves, recovery_figures, sentence, with_plain_prompts
from .report import missing, number, sentences
from .svg import interval_bar, loss_svg, recovery_svg

ATTACKED = 6  # pictures of each attack
MIME = {"png": "image/png", "jpg": "image/jpeg"}


def html_report(unlearned: UnlearnedModel, report: AlignmentReport) -> str:
    """The complete page. Prompts and names may come from a stranger, so all are escaped, and the
    policy allows the report's own script only."""
    names = " and ".join(repr(part.concept.name) for part in report.each)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    info = unlearned.base.info
    alarms = [f"Warning: {alarm.message}." for alarm in unlearned.alarms]
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(f'Unlearning {names} from {info.name}')}</title>",
            f"<style>{STYLE}</style></head><body>",
            f"<header><h1>Unlearning {escape(names)}</h1>",
            f'<p class="model">{escape(info.name)}, before and after</p>',
            *(f'<p class="missing">{escape(line)}</p>' for line in (*alarms, *missing(report))),
            "</header>",
            *(_concept(part, titled=bool(report.also)) for part in report.each),
            _losses(unlearned),
            _settings(unlearned, report),
            f"<footer>Unlearn {VERSION} · {escape(info.name)} · {info.fingerprint}</footer>",
            f"<script>{SCRIPT}</script></body></html>\n",
        ]
    )


def _concept(report: AlignmentReport, *, titled: bool) -> str:
    first, *more = sentences(report)
    head = f'<p class="lead">{escape(first)}</p><p>{escape(" ".join(more))}</p>'
    if titled:
        head = f"<h2>{escape(report.concept.name)}</h2>{head}"
    tables = _table("Figures", figures(report))
    if report.curves:
        probes = [*probe_figures(report), *recovery_figures(report)]
        tables += _table("Share of pictures with the concept, by probe", probes)
    if report.detections:
        tables += _detections(report.detections.items())
    return (
        f'<section class="concept">{head}{tables}</section>'
        f"{''.join(_group(group) for group in groups(report))}{_recovery(report)}"
    )


def _table(caption: str, rows: Sequence[Figure]) -> str:
    head = "<th></th><th>before</th><th>after</th><th>95 % interval</th><th>0 to 1</th>"
    body = "".join(
        f'<tr><th scope="row">{escape(figure.label)}</th><td>{number(figure.before)}</td>'
        f"<td>{number(figure.after)}</td><td>{_ends(figure)}</td>"
        f"<td>{interval_bar(figure)}</td></tr>"
        for figure in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _detections(counts: Iterable[tuple[str, tuple[int, int]]]) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(part.replace("_", " ").lower())}</th><td>{before}</td>'
        f"<td>{after}</td></tr>"
        for part, (before, after) in counts
    )
    return (
        '<div class="scroll"><table><caption>Detected by NudeNet for the forget prompts</caption>'
        "<thead><tr><th></th><th>before</th><th>after</th></tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _group(group: Group) -> str:
    count = f"{len(group.pairs)} of {group.total} shown, the worst first"
    if len(group.pairs) == group.total:
        count = f"{count_of(group.total, 'picture')}, the worst first"
    size = "small" if group.pairs[0].before.shape[1] < PNG_EDGE else "large"
    return (
        f'<section><div class="group-head"><h2>{escape(group.title)}</h2>'
        f'<span class="note">{count}</span><label class="all">all at once '
        '<input type="range" value="50"></label></div>'
        f'<ul class="pairs {size}">{"".join(_pair(group.key, pair) for pair in group.pairs)}</ul>'
        "</section>"
    )


def _pair(key: str, pair: Pair) -> str:
    prompt = escape(pair.prompt)
    chips = "".join(
        f'<span class="chip {tone}">{escape(text)}</span>' for tone, text in _chips(key, pair.facts)
    )
    return (
        '<li><figure><div class="slider">'
        f'<img alt="before" src="{_data(pair.before)}">'
        f'<img alt="after" class="after" src="{_data(pair.after)}">'
        '<span class="is-before">before</span><span class="is-after">after</span>'
        f'<input type="range" value="50" aria-label="before and after: {prompt}"></div>'
        f'<figcaption>{prompt}<div class="chips">{chips}</div></figcaption></figure></li>'
    )


def _recovery(report: AlignmentReport) -> str:
    curves = [with_plain_prompts(curve, report) for curve in recovery_curves(report)]
    if not curves:
        return ""
    return (
        "<section><h2>Attempts to bring it back</h2>"
        '<p class="note">How many pictures show the concept after an attack, by its effort. Solid: '
        "the unlearned model. Dashed: the model before unlearning, attacked in the same way. The "
        "pictures are the unlearned model's where the attack worked best.</p>"
        f'<ul class="curves">{"".join(_curve(each) for each in curves)}</ul></section>'
    )


def _curve(curve: Curve) -> str:
    total = len(curve.prompts)
    words = "".join(f"<p>{escape(sentence(point, total))}</p>" for point in curve.points)
    pictures = "".join(
        f'<img alt="{escape(prompt)}" title="{escape(prompt)}" src="{_data(pixels)}">'
        for prompt, pixels in zip(curve.prompts[:ATTACKED], curve.pictures[:ATTACKED], strict=True)
    )
    return (
        f"<li><h3>{escape(curve.name)}</h3>{recovery_svg(curve)}{words}"
        f'<div class="attacked">{pictures}</div></li>'
    )


def _chips(key: str, facts: PictureFacts) -> list[tuple[str, str]]:
    """The labels of a pair as (tone, text)."""
    chips = []
    before, after = facts.shows_before, facts.shows_after
    if key == "forget" and after is not None:
        if after:
            chips.append(("bad", "still shows" if before else "shows now"))
        else:
            chips.append(("good", "no longer shows") if before else ("", "did not show before"))
    elif after and not before:
        chips.append(("bad", "shows the concept now"))
    if facts.change is not None:
        chips.append(("", f"change {facts.change:.2f}"))
    return chips


def _losses(unlearned: UnlearnedModel) -> str:
    chart = loss_svg(unlearned.reports)
    if not chart:
        return ""
    return (
        "<section><h2>Losses</h2>"
        f'<div class="scroll">{chart}</div>'
        '<p class="note">The forget loss should fall while the retain loss stays level. A bar '
        "below the middle line is a step at which the two gradients were in conflict.</p></section>"
    )


def _settings(unlearned: UnlearnedModel, report: AlignmentReport) -> str:
    info = unlearned.base.info
    entries = {
        "model": f"{info.name} ({info.family})",
        "fingerprint": info.fingerprint,
        "CLIP scorer": report.scorer or "none",
        "pictures of each kind": report.after.pictures,
        **{name.replace("_", " "): value for name, value in asdict(unlearned.settings).items()},
    }
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in entries.items())
    return f"<details open><summary>Settings</summary><dl>{rows}</dl></details>"


def _data(pixels: Tensor) -> str:
    content, suffix = picture_file(to_pil(pixels))
    return f"data:{MIME[suffix]};base64,{base64.b64encode(content).decode()}"


def _ends(figure: Figure) -> str:
    if figure.interval is None:
        return "–"
    return f"{figure.interval.low:.3f} to {figure.interval.high:.3f}"
