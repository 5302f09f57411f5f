"""A stopped run of a node continues, also after a restart of ComfyUI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch
from comfy_execution.utils import CurrentNodeContext

from ..conftest import QUICK, FakeServer
from ..pack import NODES, call, node_result, pack_module, run_node, shown_by

UNLEARN = "UnlearnRestrictedGradient"
SIX = {**QUICK, "steps": 6, "preview_every": 0}
Interrupted = comfy.model_management.InterruptProcessingException


def weights(unlearned: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in unlearned.model.named_parameters()}


def states() -> list[Path]:
    return list(pack_module("nodes.host.folders").states_folder().glob("*.safetensors"))


def only_run() -> dict[str, Any]:
    (run,) = call("GET", "/unlearn/runs?workflow=a-graph&client=page")[1]
    return run


def failing(monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
    """Raises the error instead of the step that follows ``after`` finished ones."""
    unlearning = pack_module("unlearn_core.unlearning.loop").Unlearning
    step = unlearning._step

    def fails(self: Any) -> Any:
        if len(self.reports) == after:
            raise error
        return step(self)

    monkeypatch.setattr(unlearning, "_step", fails)


def stop(monkeypatch: pytest.MonkeyPatch, error: BaseException, **inputs: Any) -> None:
    """A run that fails after three steps."""
    with monkeypatch.context() as patched:
        failing(patched, 3, error)
        with pytest.raises(type(error)):
            run_node(UNLEARN, **inputs)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("error", [Interrupted(), torch.OutOfMemoryError("full")])
def test_the_same_node_queued_again_continues(
    loaded: Any,
    pairs: Any,
    page: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    restarted: bool,
) -> None:
    stop(monkeypatch, error, model=loaded, prompts=pairs, **SIX)
    run = only_run()
    assert run["state"] == ("cancelled" if isinstance(error, Interrupted) else "failed")
    assert (run["stored"], run["saved"], len(states())) == (3, [3], 1)
    if restarted:
        pack_module("nodes.page.runs").RUNS.clear()
        shutil.rmtree(tmp_path / "temp")
    before = len(page.steps)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert len(page.steps) == before + 3
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["state"], run["resumed_at"], run["stored"]) == ("finished", 3, None)
    assert [step[0] for step in run["steps"]] == [1, 2, 3, 4, 5, 6]
    assert run["saved"] == ([6] if restarted else [3, 6])
    assert output.result is not None
    pack_module("nodes.page.runs").RUNS.clear()
    (state,) = states()
    state.unlink()
    whole = weights(node_result(UNLEARN, model=loaded, prompts=pairs, **SIX)[0])
    for name, tensor in weights(output.result[0]).items():
        assert torch.equal(tensor, whole[name])


def test_a_result_that_is_not_saved_survives_a_restart_of_comfyui(
    loaded: Any, pairs: Any, page: FakeServer, tmp_path: Path
) -> None:
    """The server may be killed while the result is evaluated."""
    finished = weights(node_result(UNLEARN, model=loaded, prompts=pairs, **SIX)[0])
    pack_module("nodes.page.runs").RUNS.clear()
    shutil.rmtree(tmp_path / "temp")
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["state"], run["resumed_at"], len(page.steps)) == ("finished", 6, 6)
    assert output.result is not None
    for name, tensor in weights(output.result[0]).items():
        assert torch.equal(tensor, finished[name])
    run_node("UnlearnSaveCheckpoint", unlearned=output.result[0])
    assert states() == []


def test_a_finished_run_with_other_previews_begins_anew(
    loaded: Any, pairs: Any, page: FakeServer
) -> None:
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    run_node(UNLEARN, model=loaded, prompts=pairs, **{**SIX, "generation_steps": 3})
    assert len(page.steps) == 12


def test_other_inputs_begin_anew_and_say_so(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(monkeypatch, Interrupted(), model=loaded, prompts=pairs, **SIX)
    before = len(page.steps)
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **{**SIX, "seed": 1})
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["resumed_at"], run["not_resumed"]) == (None, "other inputs")
    assert len(page.steps) == before + 6
    # With the earlier inputs again, the stopped run continues.
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert shown_by(output)["unlearn_run"][0]["resumed_at"] == 3


def test_another_clip_skip_begins_anew_and_says_so(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(monkeypatch, Interrupted(), model=loaded, prompts=pairs, **SIX)
    skipping = pack_module("unlearn_core.models.clip_skip").with_clip_skip(loaded, 2)
    before = len(page.steps)
    output = run_node(UNLEARN, model=skipping, prompts=pairs, **SIX)
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["resumed_at"], run["not_resumed"]) == (None, "other inputs")
    assert len(page.steps) == before + 6


def test_a_damaged_state_is_not_continued(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(monkeypatch, Interrupted(), model=loaded, prompts=pairs, **SIX)
    (file,) = states()
    file.write_bytes(file.read_bytes()[:-3])
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    (run,) = shown_by(output)["unlearn_run"]
    assert (run["resumed_at"], run["not_resumed"], run["result"]) == (None, "damaged", 6)
    assert run["saved"] == [6], "those of the stopped run have gone"


def test_start_again(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The button: once after the run has stopped, once while it continues."""
    stop(monkeypatch, Interrupted(), model=loaded, prompts=pairs, **SIX)
    assert call("POST", "/unlearn/restart", {})[0] == 400
    assert call("POST", "/unlearn/restart", {"key": "none"})[0] == 400
    status, answer = call("POST", "/unlearn/restart", {"key": only_run()["key"]})
    assert (status, answer["stored"], states()) == (200, None, [])

    stop(monkeypatch, Interrupted(), model=loaded, prompts=pairs, **SIX)
    send = page.send_sync

    def press(event: str, data: dict[str, Any], sid: str | None = None) -> None:
        send(event, data, sid)
        if event == "unlearn.step" and data["step"] == 5:
            assert call("POST", "/unlearn/restart", {"key": only_run()["key"]})[0] == 200

    with monkeypatch.context() as patched:
        patched.setattr(page, "send_sync", press)
        with pytest.raises(Interrupted):
            run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert (only_run()["state"], only_run()["stored"], states()) == ("cancelled", None, [])
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert shown_by(output)["unlearn_run"][0]["resumed_at"] is None


def test_start_again_after_a_continued_run_has_finished(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(monkeypatch, Interrupted(), model=loaded, prompts=pairs, **SIX)
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    before, fingerprint = len(page.steps), fingerprint_of("7")
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert len(page.steps) == before, "the saved result is returned"
    run = only_run()
    assert (run["state"], run["resumed_at"]) == ("finished", 3)
    assert fingerprint_of("7") == fingerprint
    assert call("POST", "/unlearn/restart", {"key": run["key"]})[0] == 200
    assert fingerprint_of("7") != fingerprint, "else ComfyUI would not execute the node"
    assert fingerprint_of("8") == 0
    output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    (run,) = shown_by(output)["unlearn_run"]
    assert (len(page.steps), run["resumed_at"], run["result"]) == (before + 6, None, 6)
    run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert len(page.steps) == before + 6, "started again once"


def fingerprint_of(node: str) -> object:
    """Asked as by ComfyUI before an execution."""
    with CurrentNodeContext("a prompt", node, 0):
        return NODES[UNLEARN].fingerprint_inputs(steps=6)


def test_states_are_bounded_in_number_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = pack_module("nodes.page.stored_runs")
    files = [tmp_path / f"{i}.safetensors" for i in range(6)]
    for age, file in enumerate(files):
        file.write_bytes(bytes(10))
        os.utime(file, (1000 - age, 1000 - age))
    new = tmp_path / "new.safetensors"
    assert stored.make_room(new, 10)
    assert sorted(tmp_path.glob("*.safetensors")) == files[:3], "with the new one there are four"
    monkeypatch.setattr(stored, "MOST_BYTES", 25)
    assert stored.make_room(new, 10)
    assert sorted(tmp_path.glob("*.safetensors")) == files[:1]
    assert not stored.make_room(new, 26)
    assert sorted(tmp_path.glob("*.safetensors")) == files[:1]


def test_a_full_disk_does_not_end_the_run(
    loaded: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pack_module("nodes.page.stored_runs"), "SHARE_OF_DISK", 0)
    with monkeypatch.context() as patched:
        patched.setattr(pack_module("unlearn_core.job.resumption"), "SHARE", 100.0)
        run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
    assert only_run()["state"] == "finished"
    assert caplog.text.count("the disk has too little free space") == 1


def test_a_run_keeps_the_scope_that_was_chosen_for_the_memory(
    loaded: Any, pairs: Any, page: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The panel shows it, and the same inputs continue and return this run, although the default
    scope fits by then."""
    monkeypatch.setattr(pack_module("unlearn_core.unlearning.fitting"), "FULL_SIZE", 1)
    with monkeypatch.context() as patched:
        patched.setattr(pack_module("nodes.page.followed_run"), "free_bytes", lambda _: 1)
        stop(patched, Interrupted(), model=loaded, prompts=pairs, **SIX)
    run = only_run()
    assert run["automatic"]["scope"] == run["memory"]["scope"] == "lora, cross-attention"
    assert (run["memory"]["too_large"], len(states())) == ("xattn", 1)
    for _ in range(2):
        output = run_node(UNLEARN, model=loaded, prompts=pairs, **SIX)
        (run,) = shown_by(output)["unlearn_run"]
        assert (run["state"], run["resumed_at"]) == ("finished", 3)
        assert output.result is not None
        assert output.result[0].settings.scope == "lora, cross-attention"
    assert len(page.steps) == 6
