"""A whole job from a settings file: prompts, unlearning, evaluation, saving, in one folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..dataset.drawing import LatentCache
from ..evaluation.evaluate import evaluate
from ..evaluation.results import AlignmentReport
from ..foundation.atomic import appearing
from ..foundation.progress import Progress
from ..judging.clip_scorer import check_scorer
from ..judging.evaluators import find_scorer
from ..judging.neighbours import with_neighbours
from ..models.load import load_model
from ..prompts.concept import ForgetConcept
from ..prompts.files import write_prompts
from ..prompts.pairs import PromptPairs
from ..prompts.settings import PromptSettings
from ..reporting.grids import comparison_grid
from ..reporting.html_report import html_report
from ..reporting.loss_picture import loss_picture
from ..reporting.report import report_json
from ..saving.diffusers_folder import save_diffusers_folder
from ..saving.lora import SUITABLE, save_lora
from ..saving.run_state import read_description, read_unlearned, write_unlearned
from ..saving.single_file import save_single_file
from ..unlearning.methods import Run
from ..unlearning.results import UnlearnedModel
from .engine import Observer, Task, unlearn
from .settings_file import OWN_PICTURES, JobSettings

SAVE_AS = ("as-loaded", "checkpoint", "lora", "folder")
TENSORS = "unlearned.safetensors"
LOSSES = "loss.png"
REPORT = "report.json"
OF_EVALUATION = ("report.html", REPORT, "before_after.png")


def require_unlearned(folder: Path) -> None:
    """Refuse a folder in which no job has left a model.

    Raises:
        ValueError: naming the folder.
    """
    if not (folder / TENSORS).exists():
        raise ValueError(f"out: no unlearned model in {str(folder)!r}; run `unlearn` first")


class Job(Observer):
    """A job and its folder. Each stage leaves its result there, for the next one or another day."""

    def __init__(
        self,
        settings: JobSettings,
        folder: Path,
        *,
        cache: LatentCache | None = None,
        device: str = "cpu",
        progress: Progress | None = None,
    ) -> None:
        self.settings, self.folder, self.cache = settings, folder, cache
        self.progress = progress or Progress()
        self.captured = 1.0  # share of the change that what was saved holds; a LoRA may hold less
        # Before the model: what is wrong here is refused at once.
        _check_folder("out", folder)
        if cache is not None:
            _check_folder("cache", cache.folder)
        pairs = settings.pairs()
        self.own = [settings.own_pictures(name, self.progress) for name in OWN_PICTURES]
        if settings.evaluation.scorer is not None:
            check_scorer(settings.evaluation.scorer)
        self.base = load_model(settings.model, device, settings.loading, self.progress)
        self.task = self._task(pairs)
        if settings.wants_neighbours:
            self.task = self._task(settings.pairs(self._protect))

    def _task(self, pairs: PromptPairs) -> Task:
        settings = self.settings
        task = Task(self.base, pairs, settings.unlearn, settings.generation, *self.own)
        task.check()
        return task

    @property
    def seconds(self) -> dict[str, float]:
        """The duration of each phase."""
        return self.progress.seconds

    def _protect(self, concept: ForgetConcept, prompts: PromptSettings) -> ForgetConcept:
        return with_neighbours(
            self.base,
            concept,
            *prompts.grid(concept),
            prompts.candidates,
            prompts.neighbours,
            find_scorer(self.base, self.settings.evaluation.scorer),
            seed=prompts.seed,
            drawing=self.settings.generation,
            cache=self.cache,
            progress=self.progress,
        )

    def unlearn(self) -> UnlearnedModel:
        """Draw the sets, unlearn, and leave the changed tensors in the folder."""
        return unlearn(self.task, self, cache=self.cache, progress=self.progress)

    def ended(self, run: Run) -> None:
        """Keep the steps of a run that failed or was stopped, too; no step is no result."""
        unlearned = run.result()
        if unlearned.reports or not len(run):
            for name in OF_EVALUATION:  # an earlier one was of other weights
                (self.folder / name).unlink(missing_ok=True)
            self._store(unlearned)
            if unlearned.reports:
                loss_picture(unlearned.reports).save(self.folder / LOSSES)

    def _store(self, unlearned: UnlearnedModel) -> None:
        said = {"of": self.task.identity(), "seconds": self.seconds}
        write_unlearned(unlearned, self.folder / TENSORS, said)
        for file in (*self.folder.glob("prompts-*.json"), self.folder / LOSSES):
            file.unlink(missing_ok=True)  # of another run
        for i, part in enumerate(self.task.pairs.each):  # with the neighbours that were found
            name = f"prompts-{i + 1}.json" if i else "prompts.json"
            self._write(name, write_prompts(part))

    def unlearned(self) -> UnlearnedModel:
        """What ``unlearn`` left in the folder.

        Raises:
            ValueError: it left nothing, or not for this model, these prompts and settings.
        """
        require_unlearned(self.folder)
        file = self.folder / TENSORS
        try:
            said = read_description(file)
            of, seconds = said["of"], said["seconds"]
        except (ValueError, KeyError) as error:
            raise ValueError(f"out: no unlearned model in {str(self.folder)!r} ({error})") from None
        for section, wanted in self.task.identity().items():
            if of.get(section) != wanted:
                raise ValueError(
                    f"{section}: the model in {str(self.folder)!r} was made with other values of "
                    f"{section}{_difference(of.get(section), wanted)}; "
                    "unlearn again, or choose another folder"
                )
        for phase, taken in seconds.items():
            self.seconds.setdefault(phase, taken)
        return read_unlearned(file, self.base, self.task.pairs, self.settings.unlearn)

    def evaluate(self, unlearned: UnlearnedModel) -> AlignmentReport:
        """Judge the model; leaves ``report.html``, ``report.json`` and ``before_after.png``."""
        report = evaluate(
            unlearned, self.settings.evaluation, cache=self.cache, progress=self.progress
        )
        comparison_grid(report).save(self.folder / "before_after.png")
        self._write("report.html", html_report(unlearned, report))
        self._write_report(report_json(unlearned, report, self.seconds))
        return report

    def save(
        self,
        unlearned: UnlearnedModel,
        save_as: str = SAVE_AS[0],
        rank: int = 32,
    ) -> Path:
        """Write the model into the folder: ``model`` or ``model.safetensors``, with the figures of
        its evaluation, if there was one.

        Args:
            save_as: a name in ``SAVE_AS``.
            rank: of a LoRA.
        """
        destination = self.folder / "model"
        figures = self.figures()
        options: dict[str, Any] = {
            "overwrite": True,
            "report": figures,
            "progress": self.progress,
        }
        file = destination.with_suffix(".safetensors")
        if save_as == "as-loaded":
            save_as = "checkpoint" if self.settings.model.is_file() else "folder"
        savers: dict[str, Callable[[], Path]] = {
            "checkpoint": lambda: save_single_file(unlearned, file, **options),
            "lora": lambda: self._save_lora(unlearned, file, rank, options),
            "folder": lambda: save_diffusers_folder(unlearned, destination, **options),
        }
        saved = savers[save_as]()
        if figures is not None:
            seconds = {phase: round(taken, 2) for phase, taken in self.seconds.items()}
            self._write_report({**figures, "seconds": {**figures.get("seconds", {}), **seconds}})
        return saved

    def _save_lora(
        self, unlearned: UnlearnedModel, file: Path, rank: int, options: dict[str, Any]
    ) -> Path:
        saved = save_lora(unlearned, file, rank=rank, **options)
        self.captured = saved.captured
        return saved.path

    def check_save(self, save_as: str, rank: int) -> None:
        """Refuse what ``save`` would refuse, before the work is done that it would save.

        Raises:
            ValueError: a kind of file that cannot be made of this model, or not here.
        """
        model = self.settings.model
        if rank < 1:
            raise ValueError(f"rank must be 1 or more, got {rank}")
        if save_as == "checkpoint" and not model.is_file():
            raise ValueError(
                f"as: {model.name!r} is a folder, so it cannot be saved as a checkpoint; "
                "choose 'folder' or 'lora'"
            )
        family = self.base.info.family
        if save_as == "lora" and family not in SUITABLE:
            raise ValueError(
                f"as: {model.name!r} is {family}, and no program loads LoRA files for it; "
                "choose 'as-loaded'"
            )
        for made in (self.folder / "model", self.folder / "model.safetensors"):
            if made.exists() and model.exists() and made.samefile(model):
                raise ValueError(
                    f"out: {str(self.folder)!r} contains the original model, which is "
                    "never overwritten; choose another folder"
                )

    def figures(self) -> dict[str, Any] | None:
        """What ``evaluate`` found of the weights in the folder; None before it.

        Raises:
            ValueError: its ``report.json`` is broken.
        """
        file = self.folder / REPORT
        if not file.is_file():
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"out: {str(file)!r} is broken ({error}); evaluate again") from None

    def _write_report(self, content: dict[str, Any]) -> None:
        self._write(REPORT, json.dumps(content, indent=1) + "\n")

    def _write(self, name: str, text: str) -> None:
        with appearing(self.folder / name) as part:
            part.write_text(text, encoding="utf-8")


def _difference(there: object, wanted: object) -> str:
    """The first field of a section that is another one; empty where a section has no fields."""
    if not isinstance(there, dict) or not isinstance(wanted, dict):
        return ""
    for name in wanted:
        if there.get(name) != wanted[name]:
            return f" ({name} {there.get(name)!r}, now {wanted[name]!r})"
    return ""


def _check_folder(field: str, folder: Path) -> None:
    """Refuse at once what could not be written in the end. Nothing is made.

    Raises:
        ValueError: naming the field.
    """
    there = next(
        place for place in (folder.absolute(), *folder.absolute().parents) if place.exists()
    )
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(f"{field}: cannot write into {str(folder)!r} ({error})") from None
