"""A report's files: HTML and JSON in ComfyUI's output folder, and pictures for the page."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import folder_paths

from ...unlearn_core.evaluation.results import AlignmentReport
from ...unlearn_core.foundation.atomic import appearing
from ...unlearn_core.reporting.figures import Figure, figures, probe_figures
from ...unlearn_core.reporting.grids import to_pil
from ...unlearn_core.reporting.groups import Group, groups
from ...unlearn_core.reporting.html_report import html_report
from ...unlearn_core.reporting.recovery import recovery_figures
from ...unlearn_core.reporting.report import missing, report_json, sentences
from ...unlearn_core.unlearning.results import UnlearnedModel
from ..host.images import FilePlace, to_temp


def save_report(unlearned: UnlearnedModel, report: AlignmentReport, name: str) -> list[FilePlace]:
    """Write the report's HTML and JSON into the output folder, numbered like ComfyUI's own
    pictures, so that nothing is overwritten.

    Args:
        name: a plain name, see ``check_name``.
    """
    output = folder_paths.get_output_directory()
    folder, name, number, subfolder, _ = folder_paths.get_save_image_path(name, output)
    content = json.dumps(report_json(unlearned, report), indent=1) + "\n"
    texts = {"html": html_report(unlearned, report), "json": content}
    while any(Path(folder, f"{name}_{number:05}_.{suffix}").exists() for suffix in texts):
        number += 1  # another server has written a report since
    places = []
    for suffix, text in texts.items():
        path = Path(folder, f"{name}_{number:05}_.{suffix}")
        with appearing(path) as part:
            part.write_text(text, encoding="utf-8")
        place = {"filename": path.name, "subfolder": subfolder, "type": "output"}
        places.append({**place, "label": suffix.upper()})
    return places


def for_page(report: AlignmentReport, files: list[FilePlace]) -> dict[str, Any]:
    """The report as JSON for the page; its pictures are written to the temp folder."""
    key = uuid.uuid4().hex
    return {
        "concepts": [_concept(part, f"{key}/{i}") for i, part in enumerate(report.each)],
        "files": files,
        "scorer": report.scorer,
        "missing": missing(report),
    }


def _concept(report: AlignmentReport, folder: str) -> dict[str, Any]:
    return {
        "name": report.concept.name,
        "kind": report.concept.kind,
        "summary": sentences(report),
        "figures": [
            {"key": figure.key, "label": figure.label, **_values(figure)}
            for figure in figures(report)
        ],
        "groups": [_group(group, folder) for group in groups(report)],
        "probes": [
            {"name": figure.label, **_values(figure)}
            for figure in (*probe_figures(report), *recovery_figures(report))
        ],
    }


def _values(figure: Figure) -> dict[str, float | None]:
    interval = figure.interval
    return {
        "before": figure.before,
        "after": figure.after,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }


def _group(group: Group, folder: str) -> dict[str, Any]:
    return {
        "key": group.key,
        "title": group.title,
        "total": group.total,
        "pairs": [
            {
                "prompt": pair.prompt,
                "before": to_temp(to_pil(pair.before), folder, f"{group.key}_{i:02}_before"),
                "after": to_temp(to_pil(pair.after), folder, f"{group.key}_{i:02}_after"),
                "shows_before": pair.facts.shows_before,
                "shows_after": pair.facts.shows_after,
                "change": pair.facts.change,
            }
            for i, pair in enumerate(group.pairs)
        ],
    }
