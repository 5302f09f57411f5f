"""The text encoders and the autoencoder are off the device while the run takes its steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import json, sys
from tests.core.pretended_accelerator import NAME, Pretending, register
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.job.engine import Observer, Task, unlearn
from unlearn_core.models.load import load_model
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.estimate import sizes
from unlearn_core.unlearning.settings import UnlearnSettings

libraries = register()
facts = {"steps": [], "previews": []}


class Previewing(Observer):
    def after_step(self, report):
        facts["steps"].append(devices())

    def should_end(self, run):
        if len(run.result().reports) == 2:  # a preview, as in ComfyUI
            trained = run.result().model
            trained.decode_latents(trained.sample(["a cat"], [1], steps=2, guidance_scale=2.0))
            facts["previews"].append(devices())
        return False


def devices():
    return sorted({tensor.device.type for tensor in model.encoders()})


with Pretending():
    model = load_model(sys.argv[1], NAME)
    concept = ForgetConcept("cat", replacements=("dog",))
    prompts = ["a {concept} in the {place}"], {"place": ("sea", "sky", "wood", "town")}
    pairs = diversify(concept, *prompts, train_count=2, test_count=2)
    settings = UnlearnSettings(steps=3, batch_size=1)
    facts["before"] = devices()
    unlearn(Task(model, pairs, settings, GenerationSettings(steps=2)), Previewing())
    facts["after"] = devices()
    model.encode_prompts(["a cat"])
    facts["encoding"] = devices()
    estimate = sizes(model, resolved(settings, model), "a cat")
    networks = [estimate.model, estimate.released]
    facts["estimate"] = [
        networks == [
            sum(parameter.nbytes for parameter in model.base.parameters()),
            sum(tensor.nbytes for tensor in model.encoders()),
        ]
    ]
print(json.dumps(facts))
"""


def test_encoders_leave_the_device_during_the_steps_and_return_for_previews(
    sd_folder: Path,
) -> None:
    """In a process of its own, because torch cannot unregister the simulated device."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(sd_folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    facts = json.loads(process.stdout.splitlines()[-1])
    assert facts == {
        "before": ["pretended"],
        "steps": [["cpu"]] * 3,
        "previews": [["pretended"]],
        "after": ["cpu"],
        "encoding": ["pretended"],
        "estimate": [True],
    }
