"""A complete job from a settings file: prompts, unlearning, evaluation and saving in one folder."""

from __future__ import annotations

import errno
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from ..dataset.drawing import LatentCache
from ..evaluation.evaluate import evaluate
from ..evaluation.results import AlignmentReport
from ..foundation.atomic import refuse_existing
from ..foundation.cost import Cost, peak_bytes
from ..foundation.json_file import JsonError, read_object
from ..foundation.own_folder import OwnFolder
from ..foundation.processes import ALONE, Processes
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
from ..saving.resume import stored_identity, stored_steps
from ..saving.run_state import (
    difference,
    read_description,
    read_steps,
    read_unlearned,
    remove_outdated,
    write_unlearned,
)
from ..saving.single_file import save_single_file
from ..unlearning.alarms import Alarm
from ..unlearning.methods import Run
from ..unlearning.plan import Plan
from ..unlearning.results import UnlearnedModel
from .engine import Observer, Task, unlearn
from .resumption import Resumption
from .settings_file import OWN_PICTURES, JobSettings

SAVE_AS = ("as-loaded", "checkpoint", "lora", "folder")
TENSORS, RESUME = "unlearned.safetensors", "resume.safetensors"
LOSSES = "loss.png"
REPORT = "report.json"
PICTURES = "before_after.png"
EVALUATION_FILES = ("report.html", REPORT, PICTURES)


def on_disk(folder: Path) -> str:
    """What a stopped or failed run has left in its folder."""
    steps, result = stored_steps(folder / RESUME), read_steps(folder / TENSORS)
    if steps is not None and steps == result:
        return f"the unlearned model is stored in {folder}; the same command continues from there"
    state = "no step is stored, only the pictures drawn so far"
    if steps is not None:
        state = (
            f"step {len(steps)} is stored in {folder / RESUME}; the command that started this run "
            "continues from there, or uses this step as the result with --partial"
        )
    if result is None:
        return state
    return f"{state}; {folder} contains the unlearned model of the last complete run"


def require_unlearned(folder: Path) -> None:
    """Refuse a folder without an unlearned model.

    Raises:
        ValueError: names the folder.
    """
    if not (folder / TENSORS).exists():
        raise ValueError(f"out: no unlearned model in {str(folder)!r}; run `unlearn` first")


class Job(Observer):
    """A job and its folder. Each stage stores its result there, for a later stage or process.

    Several processes may share a job. Each of them performs every stage except ``save``, and the
    main process stores the results.
    """

    def __init__(
        self,
        settings: JobSettings,
        folder: Path,
        *,
        cache: LatentCache | None = None,
        device: str = "cpu",
        progress: Progress | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.settings, self.folder, self.cache = settings, folder, cache
        self.progress, self.processes = progress or Progress(), processes
        self.memory_plan: Mapping[str, Any] | None = None
        self.captured = 1.0  # share of the change in the saved file; below 1 for some LoRAs
        # Checked before the model is loaded, so that mistakes are reported at once.
        _check_folder("out", folder)
        if cache is not None:
            _check_folder(
                "cache", cache.folder, tolerated=(errno.ENOSPC, errno.EDQUOT, errno.EROFS)
            )
        self.files = OwnFolder(folder, _earlier_files(folder / TENSORS))
        self._refuse_others()
        pairs = settings.pairs()
        self.own = [settings.own_pictures(name, self.progress) for name in OWN_PICTURES]
        if settings.evaluation.scorer is not None:
            check_scorer(settings.evaluation.scorer)
        self.base = load_model(settings.model, device, settings.loading, self.progress)
        self.task = self._task(pairs)
        if settings.needs_neighbours:
            self.task = self._task(settings.pairs(self._with_neighbours))

    def _task(self, pairs: PromptPairs) -> Task:
        settings = self.settings
        task = Task(self.base, pairs, settings.unlearn, settings.generation, *self.own)
        task.check()
        return task

    @property
    def seconds(self) -> dict[str, float]:
        """The duration of each phase."""
        return self.progress.seconds

    @property
    def cost(self) -> Cost:
        """The cost of all stages, including those of an earlier process."""
        return replace(
            self.progress.cost(),
            peak_bytes=peak_bytes(self.base.device),
            memory_plan=self.memory_plan,
        )

    def _with_neighbours(self, concept: ForgetConcept, prompts: PromptSettings) -> ForgetConcept:
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
            processes=self.processes,
        )

    def unlearn(self, *, restart: bool = False, partial: bool = False) -> UnlearnedModel:
        """Draw the training sets, unlearn, and store the changed tensors in the folder. A stopped
        run in the folder is continued. Only a complete result replaces an earlier one.

        Args:
            restart: forget the stopped run and begin anew.
            partial: take the finished steps of the stopped run as the result.

        Raises:
            ValueError: the stopped run cannot be continued, or there is none for ``partial``.
        """
        steps = stored_steps(self.folder / RESUME)
        if partial and steps is None:
            raise ValueError(
                f"partial: there is no stopped run in {str(self.folder)!r}; leave --partial out"
            )
        if restart:
            self.resumption.restart()
        else:
            self._use_scope_of(stored_identity(self.folder / RESUME))
        unlearned = unlearn(
            self.task,
            self,
            last_step=len(steps) if partial and steps is not None else None,
            resumption=self.resumption,
            cache=self.cache,
            progress=self.progress,
            processes=self.processes,
        )
        self.memory_plan = unlearned.cost.memory_plan
        if self.processes.is_main:
            self._store(unlearned)
        return unlearned

    def _use_scope_of(self, identity: Mapping[str, Any] | None) -> None:
        """Use the smaller scope if a run in the folder has used it: how much memory there is now
        does not matter for it."""
        smaller = self.task.smaller
        if smaller is None or identity is None:
            return
        if difference(identity, smaller.identity()) is None:
            self.task = smaller

    @cached_property
    def resumption(self) -> Resumption:
        return Resumption(
            self.folder / RESUME,
            self.task.identity(),
            self.progress,
            self.processes,
            cure="begin anew with --restart, or choose another folder",
            warn=self.progress.announce,
        )

    def before_steps(self, run: Run, resumed_at: int) -> None:
        if resumed_at:
            self.progress.announce(f"Continuing after step {resumed_at} of {len(run)}.")

    def scope_changed(self, task: Task) -> None:
        self.task = task

    def plan_changed(self, plan: Plan) -> None:
        self.progress.announce(str(plan))

    def after_alarm(self, alarm: Alarm) -> None:
        self.progress.announce(f"Warning: {alarm.message}.")

    def _store(self, unlearned: UnlearnedModel) -> None:
        description = {
            "of": self.task.identity(),
            "seconds": self.seconds,
            "passes": self.progress.passes,
            "memory_plan": self.memory_plan,
            "resumed_at": unlearned.resumed_at,
        }
        write_unlearned(unlearned, self.folder / TENSORS, description, self._description_files)
        # From an earlier run.
        self.files.remove([name for name in self.files.names() if name.startswith("prompts-")])
        names = _prompt_files(len(self.task.pairs.each))
        for name, part in zip(names, self.task.pairs.each, strict=True):  # including neighbours
            self._write(name, write_prompts(part))
        if unlearned.reports:
            self._write_picture(LOSSES, loss_picture(unlearned.reports))

    @property
    def _description_files(self) -> list[Path]:
        """The files that describe the model in the folder."""
        return [self.folder / name for name in (*EVALUATION_FILES, LOSSES)]

    def unlearned(self) -> UnlearnedModel:
        """Load the result of ``unlearn`` from the folder.

        Raises:
            ValueError: there is none, or it belongs to another model, other prompts or settings.
        """
        require_unlearned(self.folder)
        file = self.folder / TENSORS
        try:
            description = read_description(file)
            identity, seconds = description["of"], description["seconds"]
            if self.processes.is_main:
                remove_outdated(file, self._description_files)
        except (ValueError, KeyError) as error:
            raise ValueError(f"out: no unlearned model in {str(self.folder)!r} ({error})") from None
        self._use_scope_of(identity)
        different = difference(identity, self.task.identity())
        if different is not None:
            section, field = different
            raise ValueError(
                f"{section}: the settings differ from those of the unlearned model in "
                f"{str(self.folder)!r}{field}; unlearn again or choose another folder"
            )
        for phase, duration in seconds.items():
            self.seconds.setdefault(phase, duration)
        for work, count in description.get("passes", {}).items():
            self.progress.passes[work] = self.progress.passes[work] or count
        self.memory_plan = description.get("memory_plan")
        resumed_at = description.get("resumed_at")
        unlearned = read_unlearned(file, self.base, self.task.pairs, self.task.settings)
        return replace(unlearned, resumed_at=resumed_at if isinstance(resumed_at, int) else None)

    def evaluate(self, unlearned: UnlearnedModel) -> AlignmentReport:
        """Evaluate the model; writes ``report.html``, ``report.json`` and ``before_after.png``."""
        report = evaluate(
            unlearned,
            self.settings.evaluation,
            cache=self.cache,
            progress=self.progress,
            processes=self.processes,
        )
        if not self.processes.is_main:
            return report
        self._write_picture(PICTURES, comparison_grid(report))
        self._write("report.html", html_report(unlearned, report))
        self._write_report(report_json(unlearned, report, self.cost))
        return report

    def save(
        self,
        unlearned: UnlearnedModel,
        save_as: str = SAVE_AS[0],
        rank: int = 32,
    ) -> Path:
        """Write the model into the folder, as ``model`` or ``model.safetensors``, with the results
        of its evaluation if there are any.

        Args:
            save_as: a name in ``SAVE_AS``.
            rank: rank of a LoRA.
        """
        figures = self.figures()
        options: dict[str, Any] = {
            "overwrite": True,
            "report": figures,
            "progress": self.progress,
        }
        if save_as == "as-loaded":
            save_as = self._as_loaded
        path = self._model_path(save_as)
        savers: dict[str, Callable[[], Path]] = {
            "checkpoint": lambda: save_single_file(unlearned, path, **options),
            "lora": lambda: self._save_lora(unlearned, path, rank, options),
            "folder": lambda: save_diffusers_folder(unlearned, path, **options),
        }
        saved = savers[save_as]()
        if figures is not None:
            seconds = {phase: round(duration, 2) for phase, duration in self.seconds.items()}
            self._write_report({**figures, "seconds": {**figures.get("seconds", {}), **seconds}})
        return saved

    @property
    def _as_loaded(self) -> str:
        return "checkpoint" if self.settings.model.is_file() else "folder"

    def _model_path(self, save_as: str) -> Path:
        kind = self._as_loaded if save_as == "as-loaded" else save_as
        return self.folder / ("model" if kind == "folder" else "model.safetensors")

    def _save_lora(
        self, unlearned: UnlearnedModel, file: Path, rank: int, options: dict[str, Any]
    ) -> Path:
        saved = save_lora(unlearned, file, rank=rank, **options)
        self.captured = saved.captured
        return saved.path

    def check_save(self, save_as: str, rank: int) -> None:
        """Check before the run whether ``save`` would refuse its result.

        Raises:
            ValueError: this model cannot be saved in this format, or in this folder.
        """
        model = self.settings.model
        if rank < 1:
            raise ValueError(f"rank must be 1 or more, got {rank}")
        if save_as == "checkpoint" and not model.is_file():
            raise ValueError(
                f"as: {model.name!r} is a folder, which cannot be saved as a checkpoint; choose "
                "'folder' or 'lora'"
            )
        family = self.base.info.family
        if save_as == "lora" and family not in SUITABLE:
            raise ValueError(
                f"as: {model.name!r} is {family}, and no program loads LoRA files for this family; "
                "choose 'as-loaded'"
            )
        for path in (self.folder / "model", self.folder / "model.safetensors"):
            if path.exists() and model.exists() and path.samefile(model):
                raise ValueError(
                    f"out: {str(self.folder)!r} contains the original model, which is never "
                    "overwritten; choose another folder"
                )
        refuse_existing(self._model_path(save_as), None, overwrite=True)

    def figures(self) -> dict[str, Any] | None:
        """The report of the weights in the folder; None if they have not been evaluated.

        Raises:
            ValueError: ``report.json`` is broken.
        """
        file = self.folder / REPORT
        if not file.is_file():
            return None
        try:
            return read_object(file)
        except JsonError as error:
            raise ValueError(f"out: {str(file)!r} {error}; evaluate again") from None

    def _write_report(self, content: dict[str, Any]) -> None:
        self._write(REPORT, json.dumps(content, indent=1) + "\n")

    def _write(self, name: str, text: str) -> None:
        self.files.write(name, text.encode())

    def _write_picture(self, name: str, picture: Image.Image) -> None:
        content = io.BytesIO()
        picture.save(content, "PNG")
        self.files.write(name, content.getvalue())

    def _refuse_others(self) -> None:
        """Refuse a folder with files of the user under the names of the results.

        Raises:
            FileExistsError: names the first one.
        """
        tensors = self.folder / TENSORS
        if tensors.exists() and not _is_result(tensors):
            raise FileExistsError(
                f"out: {TENSORS!r} in {str(self.folder)!r} is damaged or was not written by "
                "Unlearn; move it away, or choose another folder"
            )
        prompts = _prompt_files(1 + len(self.settings.also))
        self.files.refuse_others([*EVALUATION_FILES, LOSSES, *prompts], "out")


def _prompt_files(concepts: int) -> list[str]:
    return ["prompts.json", *(f"prompts-{i + 2}.json" for i in range(concepts - 1))]


def _is_result(tensors: Path) -> bool:
    try:
        return "of" in read_description(tensors)
    except ValueError:
        return False


def _earlier_files(tensors: Path) -> list[str]:
    """The files that earlier versions, which kept no list of them, wrote beside a result."""
    try:
        concepts = len(read_description(tensors)["of"]["concept"])
    except (ValueError, KeyError, TypeError):
        return []
    return [*EVALUATION_FILES, LOSSES, *_prompt_files(concepts)]


def _check_folder(field: str, folder: Path, tolerated: Sequence[int] = ()) -> None:
    """Check in advance that the folder can be written to. Creates nothing.

    Args:
        tolerated: numbers of errors that do not prevent a run.

    Raises:
        ValueError: names the field.
    """
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        if error.errno not in tolerated:
            raise ValueError(f"{field}: cannot write into {str(folder)!r} ({error})") from None
