"""Native models on a pretended accelerator, under ComfyUI's own memory management. It runs in a
separate process, because torch cannot unregister such a device.

python -m tests.nodes.native.pretended_gpu FOLDER   prints the facts for ``test_memory`` as JSON
"""

from __future__ import annotations

import gc
import json
import sys
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.pretended_accelerator import Pretended, Pretending
from ..pack import node_result, pack_module
from ..pretended_comfyui import KEPT, LOAD, devices, digest, listed, set_up, unload_all
from .tiny_networks import ARCHITECTURES, StandInClip, TinyVae, model

# isort: split
import comfy.model_management as management
from comfy.model_patcher import ModelPatcher

CPU = torch.device("cpu")
NAMES = ("flux", "qwen-image", "sdxl", "sd15")
QUICK = {"steps": 3, "batch_size": 2, "preview_every": 2, "generation_steps": 2}


def everything(handle: Any) -> list[Tensor]:
    network = handle.network.model
    return [*network.parameters(), *network.buffers(), *handle.own_tensors()]


def predicted(handle: Any) -> str:
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(2, *handle.latent_shape, generator=generator) for _ in range(2))
    t = handle.times(torch.tensor([0.3, 0.7]))
    conditioning = handle.encode_prompts(["a cat in ink style", "a dog"])
    with torch.inference_mode(False), torch.no_grad():
        on_device = [x.to(handle.device) for x in (latents, noise, t)]
        latents_t = handle.add_noise(*on_device)
        return digest([handle.predict(latents_t, conditioning, on_device[2])])


def facts_of(name: str, pairs: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    tiny = ARCHITECTURES[name]
    given = model(name)
    given.load_device = LOAD
    clip = StandInClip(tiny)
    vae = TinyVae(tiny.latent[0], given.model.latent_format.latent_dimensions)
    loader = {"model": given, "clip": clip, "vae": vae, "image_size": 64}
    handle = node_result("UnlearnFromComfyUI", **loader)[0]
    values["loaded"] = devices(everything(handle))
    other = ModelPatcher(torch.nn.Linear(4, 4), LOAD, CPU)
    management.load_models_gpu([other])
    values["another's model"] = [listed(other)]

    def unlearn() -> Any:
        pack_module("nodes.page.runs").RUNS.clear()  # else the last run's state would be output
        return node_result("UnlearnRestrictedGradient", model=handle, prompts=pairs, **QUICK)[0]

    first = unlearn()
    values["another's model"] += [listed(other)]
    values["trained"] = devices(everything(first.model))
    values["memory"] = [management.LoadedModel(first.model.patcher).model_memory()]
    values["memory"] += [sum(tensor.nbytes for tensor in first.model.own_tensors())]
    results = [[predicted(handle), predicted(first.model)]]

    unload_all()
    values["unloaded"] = devices(everything(first.model))
    results += [[predicted(handle), predicted(first.model)]]
    values["loaded again"] = devices(everything(first.model))
    unload_all()
    second = unlearn()
    results += [[predicted(handle), predicted(second.model)]]
    values["results"] = results

    management.load_models_gpu([given])  # as KSampler does with the given MODEL
    values["after the given model"] = [predicted(first.model) == results[0][1]]
    gone = [weakref.ref(second.model), weakref.ref(second.model.own_tensors()[0])]
    del second
    gc.collect()
    values["dropped result"] = [ref() is None for ref in gone]
    return values


def main() -> None:
    torch.set_num_threads(1)
    set_up(Path(sys.argv[1]), CPU)
    pack_module("nodes.native.refusals").PLAIN.add(Pretended)  # its weights are a subclass
    Pretended.has_float64 = True  # Flux's positions need it on all GPUs but Apple's
    with Pretending():
        concept = node_result("UnlearnForgetConcept")[0]
        pairs = node_result(
            "UnlearnDiversifyPrompts", concept=concept, train_count=4, test_count=2
        )[0]
        facts = {name: facts_of(name, pairs) for name in NAMES}
        sys.stdout.write(f"{json.dumps(facts)}\n")
    KEPT.clear()


if __name__ == "__main__":
    main()
