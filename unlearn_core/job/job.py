"""A whole job from a settings file: prompts, unlearning, evaluation, saving, in one folder."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..dataset.drawing import LatentCache
from ..dataset.own_pictures import OwnPictures
from ..dataset.rows import TrainingSets
from ..dataset.training_sets import make_training_sets
from ..evaluation.evaluate import evaluate
from ..evaluation.results import AlignmentReport
from ..foundation.atomic import appearing
from ..judging.clip_scorer import check_scorer
from ..judging.evaluators import find_scorer
from ..judging.neighbours import with_neighbours
from ..models.load import load_model
from ..prompts.concept import ForgetConcept
from ..prompts.files import write_prompts
from ..prompts.settings import PromptSettings
from ..reporting.grids import comparison_grid
from ..reporting.html_report import html_report
from ..reporting.loss_picture import loss_picture
from ..reporting.report import report_json
from ..saving.diffusers_folder import save_diffusers_folder
from ..saving.lora import SUITABLE, save_lora
from ..saving.run_state import read_description, read_unlearned, run_identity, write_unlearned
from ..saving.single_file import save_single_file
from ..unlearning.methods import begin, check
from ..unlearning.results import StepReport, UnlearnedModel
from ..unlearning.settings import UCE
from .settings_file import OWN_PICTURES, JobSettings

OnProgress = Callable[[str, int, int, StepReport | None], None]
"""Called with (phase, done, total, the step's report while unlearning)."""

SAVE_AS = ("as-loaded", "checkpoint", "lora", "folder")
TENSORS = "unlearned.safetensors"
LOSSES = "loss.png"
REPORT = "report.json"
OF_EVALUATION = ("report.html", REPORT, "before_after.png")

Result = TypeVar("Result")


def require_unlearned(folder: Path) -> None:
    """Refuse a folder in which no job has left a model.

    Raises:
        ValueError: naming the folder.
    """
    if not (folder / TENSORS).exists():
        raise ValueError(f"out: no unlearned model in {str(folder)!r}; run `unlearn` first")


class Job:
    """A job and its folder. Each stage leaves its result there, for the next one or another day."""

    def __init__(
        self,
        settings: JobSettings,
        folder: Path,
        *,
        cache: LatentCache | None = None,
        device: str = "cpu",
        on_progress: OnProgress = lambda *_: None,
    ) -> None:
        self.settings, self.folder, self.cache = settings, folder, cache
        self.on_progress = on_progress
        self.seconds: dict[str, float] = {}
        self.captured = 1.0  # share of the change that what was saved holds; a LoRA may hold less
        # Before the model: what is wrong here is refused at once.
        _check_folder("out", folder)
        if cache is not None:
            _check_folder("cache", cache.folder)
        self.pairs = settings.pairs()
        self.forget_pictures, self.retain_pictures = map(self._own_pictures, OWN_PICTURES)
        if settings.evaluation.scorer is not None:
            check_scorer(settings.evaluation.scorer)
        self.base = self._timed(
            "loading",
            lambda: load_model(
                settings.model,
                device,
                settings.loading,
                lambda done, total: self.on_progress("loading", done, total, None),
            ),
        )
        own = self.forget_pictures, self.retain_pictures
        check(self.base, self.pairs, settings.unlearn, *own)
        if settings.wants_neighbours:
            self.pairs = self._timed("comparing", lambda: settings.pairs(self._protect))
            check(self.base, self.pairs, settings.unlearn, *own)

    def _own_pictures(self, name: str) -> OwnPictures | None:
        return self.settings.own_pictures(
            name, lambda done, total: self.on_progress(name, done, total, None)
        )

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
            on_picture=lambda done, total: self.on_progress("comparing", done, total, None),
        )

    def unlearn(self) -> UnlearnedModel:
        """Draw the sets, unlearn, and leave the changed tensors in the folder."""
        settings = self.settings
        sets = TrainingSets(self.pairs, (), ())
        if settings.unlearn.method != UCE:  # which looks at words alone
            sets = self._timed("making images", self._make_sets)
        run = self._timed(
            "first edit",
            lambda: begin(
                self.base,
                sets,
                settings.unlearn,
                lambda done, total: self.on_progress("first edit", done, total, None),
            ),
        )

        def train() -> None:
            for report in run:
                self.on_progress("unlearning", report.step, len(run), report)

        try:
            self._timed("unlearning", train)
        finally:  # broken off, the steps made so far are kept, but none is no result
            unlearned = run.result()
            if unlearned.reports or not len(run):
                for name in OF_EVALUATION:  # an earlier one was of other weights
                    (self.folder / name).unlink(missing_ok=True)
                self._store(unlearned)
                if unlearned.reports:
                    loss_picture(unlearned.reports).save(self.folder / LOSSES)
        return unlearned

    def _make_sets(self) -> TrainingSets:
        return make_training_sets(
            self.base,
            self.pairs,
            self.settings.generation,
            forget_pictures=self.forget_pictures,
            retain_pictures=self.retain_pictures,
            cache=self.cache,
            on_picture=lambda done, total: self.on_progress("making images", done, total, None),
        )

    def _store(self, unlearned: UnlearnedModel) -> None:
        said = {"of": self._identity(), "seconds": self.seconds}
        write_unlearned(unlearned, self.folder / TENSORS, said)
        for file in (*self.folder.glob("prompts-*.json"), self.folder / LOSSES):
            file.unlink(missing_ok=True)  # of another run
        for i, part in enumerate(self.pairs.each):  # with the neighbours that were found
            name = f"prompts-{i + 1}.json" if i else "prompts.json"
            self._write(name, write_prompts(part))

    def _identity(self) -> dict[str, Any]:
        """What weights left in the folder must have been made from."""
        return run_identity(
            self.base,
            self.pairs,
            self.settings.unlearn,
            self.settings.generation,
            self.forget_pictures,
            self.retain_pictures,
        )

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
        for section, wanted in self._identity().items():
            if of.get(section) != wanted:
                raise ValueError(
                    f"{section}: what `unlearn` left in {str(self.folder)!r} was made with another "
                    f"{section} than the settings name{_difference(of.get(section), wanted)}; "
                    "unlearn again, or choose another folder"
                )
        self.seconds = {**seconds, **self.seconds}
        return read_unlearned(file, self.base, self.pairs, self.settings.unlearn)

    def evaluate(self, unlearned: UnlearnedModel) -> AlignmentReport:
        """Judge the model; leaves ``report.html``, ``report.json`` and ``before_after.png``."""
        report = self._timed(
            "evaluating",
            lambda: evaluate(
                unlearned,
                self.settings.evaluation,
                cache=self.cache,
                on_picture=lambda done, total: self.on_progress("evaluating", done, total, None),
                on_probe=lambda done, total: self.on_progress("probing", done, total, None),
            ),
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
        options: dict[str, Any] = {"overwrite": True, "report": figures}
        file = destination.with_suffix(".safetensors")

        def told(done: int, total: int) -> None:
            self.on_progress("saving", done, total, None)

        if save_as == "as-loaded":
            save_as = "checkpoint" if self.settings.model.is_file() else "folder"
        savers: dict[str, Callable[[], Path]] = {
            "checkpoint": lambda: save_single_file(unlearned, file, on_bytes=told, **options),
            "lora": lambda: self._save_lora(unlearned, file, rank, options),
            "folder": lambda: save_diffusers_folder(
                unlearned, destination, on_bytes=told, **options
            ),
        }
        saved = self._timed("saving", savers[save_as])
        if figures is not None:
            seconds = {phase: round(taken, 2) for phase, taken in self.seconds.items()}
            self._write_report({**figures, "seconds": {**figures.get("seconds", {}), **seconds}})
        return saved

    def _save_lora(
        self, unlearned: UnlearnedModel, file: Path, rank: int, options: dict[str, Any]
    ) -> Path:
        saved = save_lora(
            unlearned,
            file,
            rank=rank,
            on_tensor=lambda done, total: self.on_progress("extracting", done, total, None),
            **options,
        )
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
                f"as: {model.name!r} is a folder, of which no checkpoint can be made; choose "
                "'folder' or 'lora'"
            )
        family = self.base.info.family
        if save_as == "lora" and family not in SUITABLE:
            raise ValueError(
                f"as: {model.name!r} is {family}, for which no program loads LoRA files; choose "
                "'as-loaded'"
            )
        for made in (self.folder / "model", self.folder / "model.safetensors"):
            if made.exists() and model.exists() and made.samefile(model):
                raise ValueError(
                    f"out: {str(self.folder)!r} holds the model that you start from, which is "
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

    def _timed(self, phase: str, work: Callable[[], Result]) -> Result:
        started = time.perf_counter()
        result = work()
        self.seconds[phase] = time.perf_counter() - started
        return result


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
