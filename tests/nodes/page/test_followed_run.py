"""Runs in the live panel: events, early ends, and output of saved steps."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
from pathlib import Path
from typing import Any

import comfy.model_management
import numpy as np
import pytest
import torch
from PIL import Image

from ..conftest import QUICK, FakeServer
from ..pack import WORKFLOW, call, node_result, pack_module, run_node, shown_by

UNLEARN = "UnlearnRestrictedGradient"
SIX = {**QUICK, "steps": 6, "preview_every": 2}
Interrupted = comfy.model_management.InterruptProcessingException


def weights(unlearned: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in unlearned.model.named_parameters()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def after_step(page: FakeServer, monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    """Call ``act`` during the run, after this step's event."""
    send = page.send_sync

    def watch(event: str, data: dict[str, Any], sid: str | None = None) -> None:
        send(event, data, sid)
        if event == "unlearn.step" and data["step"] == step:
            act()

    monkeypatch.setattr(page, "send_sync", watch)


def live_runs(workflow: str = WORKFLOW, client: str = "page") -> list[dict[str, Any]]:
    return call("GET", f"/unlearn/runs?workflow={workflow}&client={client}")[1]


def test_a_cache_that_cannot_be_written_is_noted_on_the_panel(
    loaded: Any, pairs: Any, page: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "unlearn_cache").write_bytes(b"a file in the place of the folder")
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **QUICK)
    (run,) = shown_by(output)["unlearn_run"]
    (note,) = run["notes"]
    assert note.startswith("Warning: the picture cache could not be written")
    assert run["state"] == "finished"
    sent = [data["notes"] for event, data in page.sent if event == "unlearn.run"]
    assert sent[0] == []
    assert [note] in sent[1:-1], "shown while the run goes on"


def test_what_the_page_receives(loaded: Any, pairs: Any, page: FakeServer, tmp_path: Path) -> None:
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["node"], run["workflow"], run["state"]) == ("7", WORKFLOW, "finished")
    assert [step[0] for step in run["steps"]] == [1, 2, 3, 4, 5, 6]
    assert [preview["step"] for preview in run["previews"]] == [2, 4, 6]
    assert run["saved"] == [2, 4, 6]
    assert run["result"] == 6
    for at in (run["before"], *(preview["picture"] for preview in run["previews"])):
        with Image.open(tmp_path / at["type"] / at["subfolder"] / at["filename"]) as picture:
            assert picture.width > picture.height, "the prompts' pictures are in one row"
    # A page opened later receives the same as one that was open from the start.
    run = json.loads(json.dumps(run, allow_nan=False))
    assert live_runs() == [{**run, "followed": True}]
    assert live_runs(client="another tab") == [{**run, "followed": False}]
    assert live_runs("another graph") == []
    # Another graph on the page may have a node of the same id.
    assert {(data["node"], data["workflow"]) for _, data in page.sent} == {("7", WORKFLOW)}
    phases = [data["phase"] for event, data in page.sent if event == "unlearn.phase"]
    assert list(dict.fromkeys(phases)) == [
        "first look",
        "making images",
        "first edit",
        "unlearning",
    ]


def test_previews_and_output_show_the_change_of_the_model(
    loaded: Any, pairs: Any, tmp_path: Path
) -> None:
    """With a learning rate that ruins the model."""
    ruined = {**SIX, "steps": 2, "learning_rate": 1.0, "warm_start": False}
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **ruined)
    (run,) = shown_by(output)["unlearn_run"]
    (preview,) = run["previews"]
    assert preview["step"] == 2
    pictures = []
    for at in (run["before"], preview["picture"]):
        with Image.open(tmp_path / at["type"] / at["subfolder"] / at["filename"]) as picture:
            pictures.append(picture.convert("RGB").tobytes())
    assert pictures[0] != pictures[1]
    assert output.result is not None
    unlearned, _, comparison, *_ = output.result
    drawing = pack_module("unlearn_core.dataset.settings").GenerationSettings(2, batch_size=2)
    previews = pack_module("unlearn_core.dataset.previews").PreviewPrompts.of(pairs, drawing)
    before, after = (previews.draw(model) for model in (loaded, unlearned.model))
    expected = pack_module("unlearn_core.reporting.grids").before_after(
        previews.prompts, before, after
    )
    actual = (comparison[0] * 255).round().to(torch.uint8).numpy()
    assert (actual == np.asarray(expected.convert("RGB"))).all()


def test_other_own_pictures_give_another_run(loaded: Any, pairs: Any) -> None:
    retained = [
        node_result("UnlearnOwnPictures", images=images, captions="a boat", alone=True)[0]
        for images in (torch.zeros(1, 16, 16, 3), torch.ones(1, 16, 16, 3))
    ]
    one, other, again = (
        weights(node_result(UNLEARN, model=loaded, prompts=pairs, retain_pictures=own, **SIX)[0])
        for own in (retained[0], retained[1], retained[0])
    )
    assert not equal(one, other)
    assert equal(one, again)


def test_the_same_node_in_another_graph_has_its_own_run(
    loaded: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = iter(("first", "second"))
    nodes = pack_module("nodes.restricted_gradient")
    monkeypatch.setattr(nodes, "workflow_id", lambda _: next(graphs))
    for _ in range(2):
        run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert [live_runs(graph)[0]["workflow"] for graph in ("first", "second")] == ["first", "second"]


def test_stop_and_keep_gives_the_model_as_it_is(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        status, answer = call("POST", "/unlearn/end", {"key": live_runs()[0]["key"], "step": None})
        assert (status, answer["state"]) == (200, "running")

    after_step(page, monkeypatch, 3, stop)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["state"], run["result"], len(run["steps"])) == ("kept", 3, 3)
    assert output.result is not None
    stopped = output.result[0]

    # With `keep_step` in the workflow, the result is the same from the saved run and from scratch.
    for forget_first in (False, True):
        if forget_first:
            pack_module("nodes.page.runs").RUNS.clear()
        again = node_result(UNLEARN, model=loaded, prompts=pairs, **SIX, keep_step=3)[0]
        assert equal(weights(again), weights(stopped))
        assert len(again.reports) == 3


def test_stop_and_keep_an_earlier_step(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_back() -> None:
        assert call("POST", "/unlearn/end", {"key": live_runs()[0]["key"], "step": 2})[0] == 200

    after_step(page, monkeypatch, 5, go_back)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert shown_by(output)["unlearn_run"][0]["result"] == 2
    assert output.result is not None
    assert len(output.result[0].reports) == 2


def test_after_a_run_an_earlier_step_is_output_without_another_run(
    loaded: Any, pairs: Any, page: FakeServer
) -> None:
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    count = len(page.steps)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX, keep_step=4)
    assert len(page.steps) == count, "nothing was trained again"
    assert shown_by(output)["unlearn_run"][0]["state"] == "kept"
    run_node(UNLEARN, model=loaded, prompts=pairs, **{**SIX, "seed": 1}, keep_step=4)
    assert len(page.steps) == count + 4, "another seed is another run, which ends at that step"


@pytest.mark.parametrize("before", [0, 4])
def test_all_steps_do_not_count_as_a_chosen_step(
    loaded: Any, pairs: Any, page: FakeServer, before: int
) -> None:
    """Else the page would store it as ``keep_step``, and fewer ``steps`` would be refused."""
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    count = len(page.steps)
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX, keep_step=before)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["state"], run["result"], len(page.steps)) == ("finished", 6, count)


@pytest.mark.parametrize("change", [{"image_size": 64}, {"vae": "of another file"}])
def test_a_model_loaded_with_other_options_gives_another_run(
    loaded: Any, pairs: Any, page: FakeServer, change: dict[str, Any]
) -> None:
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    count = len(page.steps)
    info = dataclasses.replace(loaded.info, **change)
    other = dataclasses.replace(loaded, info=info)
    run_node(UNLEARN, model=other, prompts=pairs, **SIX)
    assert len(page.steps) == count + 6


def test_cancel_loses_no_step(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel = comfy.model_management.interrupt_current_processing
    after_step(page, monkeypatch, 3, lambda: cancel(True))
    with pytest.raises(Interrupted):
        run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    (run,) = live_runs()
    assert (run["state"], run["saved"]) == ("cancelled", [2, 3])
    count = len(page.steps)
    unlearned = node_result(UNLEARN, model=loaded, prompts=pairs, **SIX, keep_step=3)[0]
    assert (len(page.steps), len(unlearned.reports)) == (count, 3)


def test_cancel_does_not_wait_for_the_whole_retain_set(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step over thousands of pictures takes minutes."""

    def cancelled(self: Any) -> None:
        if len(page.steps) == 1 and self.done == 1:  # during the second
            raise Interrupted

    progress = pack_module("nodes.host.progress").NodeProgress
    monkeypatch.setattr(progress, "check", cancelled)
    whole = {**SIX, "preview_every": 0, "retain_batch_factor": 0}
    with pytest.raises(Interrupted):
        run_node(UNLEARN, model=loaded, prompts=pairs, **whole)
    assert [run["note"] for run in live_runs()] == ["Cancelled after step 1 of 6."]


def test_a_step_that_is_not_saved_cannot_be_chosen(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[tuple[int, Any]] = []

    def go_back() -> None:
        answers.append(call("POST", "/unlearn/end", {"key": live_runs()[0]["key"], "step": 3}))

    after_step(page, monkeypatch, 5, go_back)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert answers == [(400, {"error": "step: step 3 is not saved; choose one of [2, 4]"})]
    assert shown_by(output)["unlearn_run"][0]["result"] == 6


def test_a_step_whose_file_is_missing_is_trained_again(
    loaded: Any, pairs: Any, page: FakeServer, tmp_path: Path
) -> None:
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    count = len(page.steps)
    for file in (tmp_path / "temp" / "unlearn").rglob("*.safetensors"):
        file.unlink()
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX, keep_step=4)
    assert len(page.steps) == count + 4


def test_a_new_run_replaces_the_previous_one(loaded: Any, pairs: Any, tmp_path: Path) -> None:
    for seed in (0, 1):
        run_node(UNLEARN, model=loaded, prompts=pairs, **{**SIX, "seed": seed})
    folders = list((tmp_path / "temp" / "unlearn").iterdir())
    assert [folder.name for folder in folders] == [run["key"] for run in live_runs()]


def test_steps_are_saved_evenly_and_reported_to_the_page(
    loaded: Any, pairs: Any, page: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten steps of Stable Diffusion 1.5 trained in full would be 34 GB."""
    monkeypatch.setattr(pack_module("nodes.page.saved_steps"), "MOST_STEPS", 3)
    every = {**SIX, "preview_every": 1}
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **every)
    (run,) = shown_by(output)["unlearn_run"]
    assert [preview["step"] for preview in run["previews"]] == [1, 2, 3, 4, 5, 6]
    assert run["saved"] == [2, 4, 6]
    assert [data["saved"] for event, data in page.sent if event == "unlearn.saved"] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [2, 3, 4],
        [2, 4, 5],
        [2, 4, 6],
    ]
    files = (tmp_path / "temp" / "unlearn").rglob("*.safetensors")
    assert sorted(file.stem for file in files) == ["step_000002", "step_000004", "step_000006"]
    count = len(page.steps)
    for step, more in ((4, 0), (3, 3)):
        (unlearned, *_) = node_result(UNLEARN, model=loaded, prompts=pairs, **every, keep_step=step)
        assert len(unlearned.reports) == step
        assert len(page.steps) == count + more, "a step that is not saved is trained again"


def test_a_requested_step_stays_saved(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module("nodes.page.saved_steps"), "MOST_STEPS", 1)

    def go_back() -> None:
        assert call("POST", "/unlearn/end", {"key": live_runs()[0]["key"], "step": 2})[0] == 200

    after_step(page, monkeypatch, 3, go_back)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["saved"], run["result"]) == ([2, 3], 2)


def test_without_disk_space_no_step_is_saved(
    loaded: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type("Usage", (), {"free": 10})()
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert shown_by(output)["unlearn_run"][0]["saved"] == []
    assert output.result is not None, "the run itself needs none"


def test_a_failure_to_save_a_step_does_not_end_the_run(
    loaded: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("quota exceeded")

    monkeypatch.setattr(pack_module("nodes.page.runs"), "write_unlearned", fail)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["state"], run["saved"]) == ("finished", [])


def test_without_disk_space_for_the_pictures_the_run_goes_on(
    loaded: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["state"], run["before"], run["previews"]) == ("finished", None, [])
    assert re.search(r"step_000002\.\w+' could not be written", caplog.text)
    assert "free some disk space" in caplog.text


def test_a_saved_step_of_a_lora_contains_its_factors(
    loaded: Any, pairs: Any, tmp_path: Path
) -> None:
    """Merged into the weights they would be as large as the model."""
    widgets = {**SIX, "scope": "lora", "lora_rank": 2, "warm_start": False}
    (whole, *_) = node_result(UNLEARN, model=loaded, prompts=pairs, **widgets)
    (file,) = (tmp_path / "temp" / "unlearn").glob("*/step_000006.safetensors")
    factors = sum(p.numel() for _, p in whole.model.named_parameters() if p.shape.count(2))
    assert file.stat().st_size < 4 * factors + 200_000
    (again, *_) = node_result(UNLEARN, model=loaded, prompts=pairs, **widgets)
    assert again.model.lora_layers().keys() == whole.model.lora_layers().keys()
    assert equal(weights(whole), weights(again))


def test_a_failure_is_reported(loaded: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("out of paint")

    monkeypatch.setattr(pack_module("unlearn_core.job.engine"), "begin", fail)
    with pytest.raises(ValueError, match="out of paint"):
        run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert [(run["state"], run["note"]) for run in live_runs()] == [("failed", "out of paint")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"key": "unknown", "step": None}, "nothing to stop"),
        ({"key": "unknown", "step": "../../x"}, "step must be a whole number"),
        ({"key": "unknown"}, "step"),
        (["no object"], ""),
    ],
)
def test_invalid_requests_are_refused(content: object, words: str) -> None:
    status, answer = call("POST", "/unlearn/end", content)
    assert status == 400
    assert words in answer["error"]


def test_a_finished_run_cannot_be_stopped(loaded: Any, pairs: Any) -> None:
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    status, answer = call("POST", "/unlearn/end", {"key": live_runs()[0]["key"], "step": None})
    assert status == 400
    assert "nothing to stop" in answer["error"]


def test_keep_step_beyond_the_steps_is_refused(loaded: Any, pairs: Any) -> None:
    with pytest.raises(ValueError, match="keep_step must be at most 6, the number of steps, got 9"):
        run_node(UNLEARN, model=loaded, prompts=pairs, **SIX, keep_step=9)


def test_the_closed_form_has_no_steps_but_a_preview(
    loaded: Any, pairs: Any, page: FakeServer, tmp_path: Path
) -> None:
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX, method="UCE (closed form)")
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["state"], run["total"], run["steps"]) == ("finished", 0, [])
    assert run["saved"] == [], "there is no step to save"
    (after,) = run["previews"]
    assert after["step"] == 0
    pictures = []
    for at in (run["before"], after["picture"]):
        with Image.open(tmp_path / at["type"] / at["subfolder"] / at["filename"]) as picture:
            pictures.append(picture.convert("RGB").tobytes())
    assert pictures[0] != pictures[1]
    assert [event for event, _ in page.sent].count("unlearn.preview") == 1


def test_events_go_only_to_the_tab_that_queued_the_run(
    loaded: Any, pairs: Any, page: FakeServer
) -> None:
    page.client_id = "mine"
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert page.sent
    assert set(page.receivers) == {"mine"}
    page.client_id = None  # a script queued it; without a receiver ComfyUI sends to every tab
    page.sent.clear()
    run_node(UNLEARN, model=loaded, prompts=pairs, **{**SIX, "seed": 1})
    assert page.sent == []


def test_the_progress_event_of_a_step_precedes_its_preview(
    loaded: Any, pairs: Any, page: FakeServer
) -> None:
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    done = 0
    for event, data in page.sent:
        if event == "unlearn.phase" and data["phase"] == "unlearning":
            done = data["done"]
        if event == "unlearn.preview":
            assert data["step"] == done


def test_steps_of_old_runs_are_deleted(
    loaded: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else each graph saved under another name would leave its steps until ComfyUI restarts."""
    graphs = [f"graph {i}" for i in range(6)]
    names = iter(graphs)
    monkeypatch.setattr(
        pack_module("nodes.restricted_gradient"), "workflow_id", lambda _: next(names)
    )
    for _ in graphs:
        run_node(UNLEARN, model=loaded, prompts=pairs, **QUICK)
    remaining = [graph for graph in graphs if live_runs(graph.replace(" ", "%20"))]
    assert remaining == graphs[-4:], "the newest and three others"
    folders = [path for path in (tmp_path / "temp" / "unlearn").iterdir() if path.is_dir()]
    assert len(folders) == 4


def test_output_of_a_saved_step_is_reported_to_the_requesting_tab(
    loaded: Any, pairs: Any, page: FakeServer
) -> None:
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    page.client_id = "another"
    page.receivers.clear()
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX, keep_step=2)
    assert set(page.receivers) == {"another"}


def test_a_kept_step_of_an_earlier_run_does_not_stop_an_edit(loaded: Any, pairs: Any) -> None:
    """The panel writes it; then somebody chooses the recipe UCE."""
    settings = {**SIX, "method": "UCE (closed form)", "keep_step": 3}
    unlearned = node_result(UNLEARN, model=loaded, prompts=pairs, **settings)[0]
    assert unlearned.reports == ()
    assert [run["state"] for run in live_runs()] == ["finished"]


def test_a_failed_run_keeps_its_last_step(
    loaded: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = pack_module("unlearn_core.unlearning.loop").Unlearning
    step = loop._step

    def fourth_fails(self: Any) -> Any:
        if len(self.reports) == 3:
            raise torch.OutOfMemoryError("full")
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", fourth_fails)
        with pytest.raises(torch.OutOfMemoryError):
            run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    (run,) = live_runs()
    assert (run["state"], run["saved"]) == ("failed", [2, 3])
    kept = node_result(UNLEARN, model=loaded, prompts=pairs, **SIX, keep_step=3)[0]
    assert len(kept.reports) == 3


def test_a_step_that_runs_out_of_memory_is_repeated_and_reported(
    loaded: Any, pairs: Any, page: FakeServer
) -> None:
    errors = [torch.OutOfMemoryError("full")]

    def fail(*_: object) -> None:
        if torch.is_grad_enabled() and errors:
            raise errors.pop()

    hook = loaded.denoiser.register_forward_pre_hook(fail)  # the trained copy has it too
    try:
        output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    finally:
        hook.remove()
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["state"], len(run["steps"])) == ("finished", 6)
    assert (run["memory"]["failed_step"], run["memory"]["micro_batch"]) == (1, 1)
    (event,) = (data for event, data in page.sent if event == "unlearn.memory")
    assert event["memory"] == run["memory"]


def breaking(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Breaks the weights after step 4, once or each time that it is reached."""
    optimizer = pack_module("unlearn_core.unlearning.optimizer").RestrictedAdam
    take_step = optimizer.step
    left = times

    def step(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal left
        change = take_step(self, *arguments, **options)
        if left and (self.steps == 4 or left < times):  # the optimizer begins again after a return
            left -= 1
            with torch.no_grad():
                for parameter in self.parameters:
                    parameter.fill_(float("nan"))
        return change

    monkeypatch.setattr(optimizer, "step", step)


def test_a_step_to_keep_that_is_not_finite_gives_the_one_before(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch, 1)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX, keep_step=4)
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["result"], len(run["steps"])) == (3, 3)
    assert run["alarms"][-1]["kind"] == "gave up, not finite"
    assert output.result is not None
    assert all(p.isfinite().all() for _, p in output.result[0].model.named_parameters())


@pytest.mark.parametrize("times", [1, 100])
def test_undone_steps_leave_the_page_and_the_disk(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    breaking(monkeypatch, times)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    (run,) = shown_by(output)["unlearn_run"]
    kinds = [alarm["kind"] for alarm in run["alarms"] if "back_to" in alarm["values"]]
    last = 6 if times == 1 else 3
    assert kinds == (["not finite"] if times == 1 else ["not finite"] * 3 + ["gave up, not finite"])
    assert [step[0] for step in run["steps"]] == list(range(1, last + 1))
    assert [preview["step"] for preview in run["previews"]] == ([2, 4, 6] if last == 6 else [2, 3])
    assert (run["state"], run["result"]) == ("finished", last)
    assert run["saved"] == [preview["step"] for preview in run["previews"]]
    assert output.result is not None
    unlearned = output.result[0]
    assert len(unlearned.reports) == last
    assert all(p.isfinite().all() for _, p in unlearned.model.named_parameters())
    events = [data["alarms"] for event, data in page.sent if event == "unlearn.run"]
    assert events[-1] == run["alarms"]
