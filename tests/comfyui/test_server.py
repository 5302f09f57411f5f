"""The live server has the pack's nodes, help texts and templates, and runs the demo."""

from __future__ import annotations

from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from live_server import PACK_FOLDER, Event, LiveServer
from workflow_files import DEMO, QUICK, as_prompt, read, with_widgets

NODE_IDS = (
    "UnlearnLoadModel",
    "UnlearnForgetConcept",
    "UnlearnDiversifyPrompts",
    "UnlearnRestrictedGradient",
    "UnlearnEvaluateAlignment",
    "UnlearnSaveCheckpoint",
    "UnlearnOwnPictures",
    "UnlearnDemoModel",
    "UnlearnFromComfyUI",
    "UnlearnQuickForget",
)


def test_log_has_no_failure_of_the_pack(server: LiveServer) -> None:
    log = server.log.read_text(errors="replace")
    about_pack = [line for line in log.splitlines() if PACK_FOLDER in line]
    assert about_pack, "the log does not mention the pack"
    assert not [line for line in about_pack if "FAILED" in line or "Cannot import" in line]


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_node_exists_and_every_input_has_a_tooltip(server: LiveServer, node_id: str) -> None:
    node = server.get(f"/object_info/{node_id}")[node_id]
    assert node["description"]
    assert node["category"]
    groups = [node["input"].get(group, {}) for group in ("required", "optional")]
    inputs = {name: spec for group in groups for name, spec in group.items()}
    assert inputs
    for name, (_, *options) in inputs.items():
        tooltip = options[0].get("tooltip") if options else None
        assert tooltip, f"{node_id}.{name} has no tooltip"


def test_the_pack_has_no_other_node(server: LiveServer) -> None:
    nodes = {
        name
        for name, node in server.object_info().items()
        if node["python_module"].endswith(PACK_FOLDER)
    }
    assert nodes == set(NODE_IDS)


def test_templates_browser_lists_the_demo(server: LiveServer) -> None:
    assert DEMO.stem in server.get("/api/workflow_templates")[PACK_FOLDER]


def test_page_gets_the_chinese_texts(server: LiveServer) -> None:
    chinese = server.get("/i18n")["zh"]
    assert chinese["nodeDefs"].keys() >= set(NODE_IDS)
    assert chinese["nodeCategories"]["unlearn"] == "遗忘"
    for node_id in NODE_IDS:
        title = chinese["nodeDefs"][node_id]["display_name"]
        page = f"{server.url}/extensions/{PACK_FOLDER}/docs/{node_id}/zh.md"
        with urlopen(page, timeout=60) as answer:
            assert answer.read().decode().startswith(f"# {title} (")


def test_demo_runs_with_progress_and_previews(server: LiveServer) -> None:
    info = server.object_info()
    own_seed = {**QUICK["UnlearnRestrictedGradient"], "seed": 5}  # no other test has this run
    widgets = {**QUICK, "UnlearnRestrictedGradient": own_seed}
    run = server.run(as_prompt(with_widgets(read(DEMO), widgets, info), info))
    assert run.status == "success", run.error
    progress = run.of_kind("progress")
    assert progress[-1]["value"] == progress[-1]["max"], "the bar stops before its end"
    steps = [data["step"] for data in run.of_kind("unlearn.preview")]
    assert steps == [2, 4]
    assert len(run.of_kind("unlearn.before")) == 1
    (live,) = [
        output["unlearn_run"][0] for output in run.outputs.values() if "unlearn_run" in output
    ]
    for preview in live["previews"]:
        address = f"{server.url}/view?{urlencode(preview['picture'])}"
        with urlopen(address, timeout=60) as picture:
            assert picture.headers["Content-Type"].startswith("image/")


def test_cancel_stops_the_run_but_not_the_server(server: LiveServer) -> None:
    info = server.object_info()
    unlearn = {**QUICK["UnlearnRestrictedGradient"], "steps": 1000}
    long = {**QUICK, "UnlearnRestrictedGradient": unlearn}
    prompt = as_prompt(with_widgets(read(DEMO), long, info), info)
    pressed = False

    def press_cancel(event: Event) -> None:
        nonlocal pressed
        if not pressed and event.kind == "unlearn.step":
            pressed = True
            server.interrupt()

    run = server.run(prompt, timeout=60, on_event=press_cancel)
    assert run.status == "interrupted"
    assert server.get("/system_stats")["system"]["comfyui_version"]


def test_cached_models_still_work_after_unloading(server: LiveServer) -> None:
    info = server.object_info()
    widgets = {
        **QUICK,
        "UnlearnRestrictedGradient": {**QUICK["UnlearnRestrictedGradient"], "seed": 6},
    }
    assert server.run(as_prompt(with_widgets(read(DEMO), widgets, info), info)).status == "success"
    server.unload_models()
    evaluation = {**QUICK["UnlearnEvaluateAlignment"], "seed": 6}
    prompt = as_prompt(
        with_widgets(read(DEMO), {**widgets, "UnlearnEvaluateAlignment": evaluation}, info), info
    )
    run = server.run(prompt)
    assert run.status == "success", run.error
    (cached,) = run.of_kind("execution_cached")
    kinds = {prompt[node]["class_type"] for node in cached["nodes"]}
    assert {"UnlearnLoadModel", "UnlearnRestrictedGradient"} <= kinds
    assert "UnlearnEvaluateAlignment" not in kinds
