"""Whether prompts in two stages repair alignment: ``python -m benchmarks.detailing``.

After Saichandran et al. 2025 (Progressive Prompt Detailing): the first sampling steps have a coarse
prompt, the subject alone, and the others the whole prompt. Nothing is trained. It is measured on
the demo model before unlearning, on ours, and on the paper's recipe, which keeps alignment worst of
the gradient methods, for several shares of coarse steps; a share of 0 is ordinary sampling. A
record in ``benchmarks/results/detailing`` is written after each run, so the benchmark can be
interrupted and resumed. ``--table`` prints the table of the runs so far.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality import ROOM, TIERS, code, slug, tuned, write_record
from demo.jobs import job_settings
from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.evaluation.evaluate import evaluate
from unlearn_core.foundation.progress import Progress
from unlearn_core.job.console import CACHE, say
from unlearn_core.job.job import Job
from unlearn_core.judging.settings import EvaluationSettings
from unlearn_core.models.denoiser import sample_dpm_solver, seeded_noise
from unlearn_core.models.guidance import guided
from unlearn_core.models.stable_diffusion import StableDiffusionHandle
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "detailing"
OURS, PAPER = "ours, defaults", "RGD (paper)"
BEFORE = "before unlearning"
METHODS = (BEFORE, OURS, PAPER)
CONCEPTS = TIERS["small"]
SHARES = (0.0, 0.15, 0.3, 0.5)
PICTURES = 32
DETAILS = re.compile(r",| (?:in|on|drawn) ")  # where the details of the demo's prompts begin
FIGURES = (
    "unlearning_accuracy",
    "in_domain_retain",
    "cross_domain_retain",
    "alignment_retain_train",
    "alignment_retain_test",
)


def coarse(prompt: str) -> str:
    """The subject of one of the demo's prompts."""
    return DETAILS.split(prompt)[0]


@dataclass(frozen=True, eq=False)
class TwoStages(StableDiffusionHandle):
    """A model that samples in two stages.

    Attributes:
        coarse_share: of the sampling steps, 0..1.
    """

    coarse_share: float = 0.0

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        latent_shape: tuple[int, int, int] | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        noise = seeded_noise(seeds, latent_shape or self.latent_shape).to(self.device)
        empty = self.encode_prompts([""])[[0] * len(prompts)]
        first, second = (
            guided(self.predict, self.encode_prompts(texts), empty, guidance_scale)
            for texts in ([coarse(prompt) for prompt in prompts], list(prompts))
        )
        left = round(self.coarse_share * steps)

        def predict(latents_t: Tensor, t: Tensor) -> Tensor:
            nonlocal left
            left -= 1
            return (first if left >= 0 else second)(latents_t, t)

        return sample_dpm_solver(self.scheduler_config, noise, predict, steps, progress)


def in_two_stages(model: StableDiffusionHandle, share: float) -> TwoStages:
    return TwoStages(**{f.name: getattr(model, f.name) for f in fields(model)}, coarse_share=share)


def record_of(method: str, concept: str, share: float) -> Path:
    return RESULTS / f"{concept}-{slug(method)}-{share:g}.json"


def perform(method: str, concept: str, cache: LatentCache) -> None:
    """Unlearn once, evaluate with each share, and write the records."""
    settings = UnlearnSettings() if method == OURS else tuned(PAPER)
    assert settings is not None, f"the search of {method} is not complete"
    job = Job(job_settings(concept, settings), ROOM / "detailing" / slug(method), cache=cache)
    if method == BEFORE:
        unlearned = UnlearnedModel(job.base, job.base, job.task.pairs, settings, ())
    else:
        unlearned = job.unlearn(restart=True)
    model: Any = unlearned.model
    for share in SHARES:
        staged = replace(unlearned, model=in_two_stages(model.fixed_copy(), share))
        report = evaluate(staged, EvaluationSettings(pictures=PICTURES), cache=cache)
        record = {
            "method": method,
            "concept": concept,
            "share": share,
            "code": code(),
            "settings": asdict(settings),
            "after": asdict(report.after),
        }
        write_record(record, record_of(method, concept, share))


def table() -> str:
    """Means over the concepts, for each model and share."""
    rows = [
        "| model | coarse steps | UA | IRA | CRA | alignment, train | test | concepts |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in METHODS:
        for share in SHARES:
            files = [record_of(method, concept, share) for concept in CONCEPTS]
            found = [json.loads(f.read_text(encoding="utf-8")) for f in files if f.exists()]
            if found:
                means = [statistics.mean(each["after"][name] for each in found) for name in FIGURES]
                cells = " | ".join(f"{mean:.3f}" for mean in means)
                rows.append(f"| {method} | {share:.0%} | {cells} | {len(found)} |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detailing", description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--table", action="store_true", help="print the table, run nothing")
    options = parser.parse_args(arguments)
    if options.table:
        say(table())
        return
    torch.set_num_threads(1)  # the model is small
    cache = LatentCache(CACHE)
    for method in options.methods:
        for concept in CONCEPTS:
            if not all(record_of(method, concept, share).exists() for share in SHARES):
                perform(method, concept, cache)


if __name__ == "__main__":
    main()
