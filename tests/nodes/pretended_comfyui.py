"""The nodes on a pretended accelerator, loaded and unloaded by ComfyUI's own memory management. It
runs in a separate process, because torch cannot unregister such a device.

python -m tests.nodes.pretended_comfyui FOLDER DEVICE   prints the facts for ``test_memory`` as JSON
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import weakref
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..core.pretended_accelerator import NAME, Pretending, register
from .pack import node_result, pack_module

# isort: split
# `pack` is what makes ComfyUI's own modules importable.
import comfy.model_management as management
import folder_paths
from comfy.model_patcher import ModelPatcher
from server import PromptServer

KEPT = register()
LOAD = torch.device(NAME, 0)
FREE = 2**40  # bytes
DRAWN = {"steps": 2, "guidance_scale": 5.0}
EVALUATION = {"pictures": 2, "generation_steps": 2}
QUICK = {"steps": 3, "batch_size": 2, "preview_every": 2, "generation_steps": 2}


def set_up(folder: Path, offload: torch.device) -> None:
    for name in ("user", "temp", "output"):
        setattr(folder_paths, f"{name}_directory", str(folder / name))
    folder_paths.models_dir = str(folder / "models")
    (folder / "diffusers").mkdir()
    folder_paths.folder_names_and_paths["diffusers"] = ([str(folder / "diffusers")], {"folder"})
    events = SimpleNamespace(client_id="page", send_sync=lambda *_: None)
    setattr(PromptServer, "instance", events)  # noqa: B010
    setattr(management, "get_torch_device", lambda: LOAD)  # noqa: B010
    setattr(management, "unet_offload_device", lambda: offload)  # noqa: B010
    setattr(management, "get_free_memory", free_memory)  # noqa: B010


def free_memory(_: object = None, torch_free_too: bool = False) -> int | tuple[int, int]:
    return (FREE, FREE) if torch_free_too else FREE


def devices(tensors: Iterable[Tensor]) -> list[str]:
    return sorted({str(tensor.device) for tensor in tensors})


def everything(model: Any) -> list[Tensor]:
    return pack_module("unlearn_core.models.weights").tensors_of(
        (*model.networks(), model.denoiser)
    )


def digest(tensors: Iterable[Tensor]) -> str:
    result = hashlib.sha256()
    for tensor in tensors:
        result.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return result.hexdigest()


def load(model: Any) -> None:
    pack_module("nodes.host.memory").load(model)


def trained(unlearned: Any) -> str:
    load(unlearned)
    return digest(pack_module("unlearn_core.saving.run_state").state(unlearned.model).values())


def drawn(model: Any) -> str:
    return digest([model.sample(["a cat in ink style"], [1], **DRAWN)])


def unload_all() -> None:
    """Unload as for another node's model that needs the memory, in inference mode like a node."""
    with torch.inference_mode():
        management.unload_all_models()


def unlearn(model: Any, pairs: Any, scope: str = "xattn") -> Any:
    pack_module("nodes.page.runs").RUNS.clear()  # else the last run's state would be output
    return node_result(
        "UnlearnRestrictedGradient", model=model, prompts=pairs, scope=scope, **QUICK
    )[0]


def evaluated(unlearned: Any) -> str:
    """The digest of the grid."""
    return digest(node_result("UnlearnEvaluateAlignment", unlearned=unlearned, **EVALUATION)[1:2])


def alive() -> list[str]:
    """Networks of evaluators that are still in memory."""
    judges = {"CustomTextCLIP", "CLIP", "ConvJudge", "ClipScorer"}
    return [type(thing).__name__ for thing in gc.get_objects() if type(thing).__name__ in judges]


def listed(patcher: ModelPatcher) -> bool:
    return any(loaded.model is patcher for loaded in management.current_loaded_models)


def facts() -> dict[str, Any]:
    values: dict[str, Any] = {}
    model = node_result("UnlearnLoadModel")[0]
    values["loaded"] = devices(everything(model))
    concept = node_result("UnlearnForgetConcept")[0]
    pairs = node_result("UnlearnDiversifyPrompts", concept=concept, train_count=4, test_count=2)[0]
    other = ModelPatcher(torch.nn.Linear(4, 4), LOAD, management.unet_offload_device())
    management.load_models_gpu([other])
    values["another's model"] = [listed(other)]
    first = unlearn(model, pairs)
    values["another's model"] += [listed(other)]
    values["trained"] = devices(everything(first.model))
    adapted = unlearn(model, pairs, "lora")
    results, handles = [trained(first)], (model, first.model, adapted.model)
    pictures, reports = [list(map(drawn, handles))], [evaluated(first)]

    unload_all()
    values["unloaded"] = devices(tensor for handle in handles for tensor in everything(handle))
    values["listed after unloading"] = len(management.current_loaded_models)
    second = unlearn(model, pairs)
    values["beside a run"] = devices(first.model.own_tensors())
    results.append(trained(second))

    unload_all()
    gc.collect()
    gc.disable()  # from here on, memory must be freed by reference counting
    reports.append(evaluated(first))
    values["judges afterwards"] = alive()
    unload_all()
    management.load_models_gpu([other])
    node_result("UnlearnSaveCheckpoint", unlearned=first, name="saved")
    values["another's model"] += [listed(other)]
    unload_all()
    load(model)  # with the weights that it shares with the others, but not theirs
    values["base alone"] = [devices(everything(model)), devices(first.model.own_tensors())]
    load(adapted)
    load(first)
    pictures.append(list(map(drawn, handles)))
    values.update(results=results, pictures=pictures, reports=reports)

    load(second)
    values["listed"] = len(management.current_loaded_models)
    gone = [weakref.ref(second.model), weakref.ref(second.model.own_tensors()[0])]
    del second
    values["dropped result"] = [ref() is None for ref in gone]
    values["listed without it"] = len(management.current_loaded_models)
    gone = [weakref.ref(model), weakref.ref(model.own_tensors()[0])]
    del model, first, adapted, handles
    values["dropped model"] = [ref() is None for ref in gone]
    values["listed without any"] = len(management.current_loaded_models)
    return values


def main() -> None:
    torch.set_num_threads(1)
    set_up(Path(sys.argv[1]), torch.device(sys.argv[2]))
    with Pretending():
        sys.stdout.write(f"{json.dumps(facts())}\n")


if __name__ == "__main__":
    main()
