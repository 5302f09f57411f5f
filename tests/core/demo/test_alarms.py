"""The alarms on the demo models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.jobs import CANVASES, EMOJI, job_settings
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.foundation.progress import Progress
from unlearn_core.job.engine import Observer, Task, unlearn
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.unlearning.alarms import DOES_NOT_MOVE, RAN_AWAY, UNKNOWN_WORD, Alarm
from unlearn_core.unlearning.known_words import unknown_words
from unlearn_core.unlearning.recipes import from_recipe
from unlearn_core.unlearning.results import StepReport
from unlearn_core.unlearning.settings import UnlearnSettings

# Few and rough pictures, so that the runs take seconds.
SETTINGS = UnlearnSettings(steps=6, batch_size=4, picture_pairs=6, picture_steps=4)
DRAWING = GenerationSettings(steps=8, batch_size=12)


class Listener(Observer):
    def __init__(self) -> None:
        self.events: list[Alarm | int] = []

    def after_step(self, report: StepReport) -> None:
        self.events.append(report.step)

    def after_alarm(self, alarm: Alarm) -> None:
        self.events.append(alarm)


@pytest.fixture(scope="module", params=CANVASES)
def canvas(request: pytest.FixtureRequest) -> ModelHandle:
    return load_model(CANVASES[request.param])


@pytest.fixture(scope="module")
def emoji() -> ModelHandle:
    return load_model(EMOJI)


def pairs(concept: str, word: str | None = None) -> PromptPairs:
    """The demo's prompts, with another word in the concept's place."""
    job = job_settings(concept, UnlearnSettings())
    return replace(job, concept=replace(job.concept, name=word or concept)).pairs()


@pytest.mark.parametrize("concept", ["ink", "twemoji", "cat"])
def test_the_models_know_their_words(canvas: ModelHandle, concept: str) -> None:
    assert unknown_words(canvas, pairs(concept), Progress()) == []


@pytest.mark.parametrize("word", ["wugling", "mondrian"])
def test_a_word_that_the_models_do_not_know(canvas: ModelHandle, word: str) -> None:
    (alarm,) = unknown_words(canvas, pairs("ink", word), Progress())
    assert (alarm.step, alarm.kind, alarm.values) == (0, UNKNOWN_WORD, {"word": word})
    assert "draw a picture of it" in alarm.message


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        *(
            from_recipe(name, steps=6, batch_size=4, picture_pairs=6, picture_steps=4)
            for name in ("RGD (paper)", "NPO", "gradient ascent")
        ),
    ],
)
def test_no_false_alarm(emoji: ModelHandle, settings: UnlearnSettings) -> None:
    """The paper's recipes move slowly, so few of their steps may be too few to move."""
    listener = Listener()
    result = unlearn(Task(emoji, pairs("ink"), settings, DRAWING), listener)
    alarms = [alarm.kind for alarm in result.alarms]
    assert set(alarms) <= (set() if settings is SETTINGS else {DOES_NOT_MOVE})
    assert [event for event in listener.events if isinstance(event, int)] == [1, 2, 3, 4, 5, 6]


def test_no_false_alarm_with_class_labels() -> None:
    job = job_settings("three", replace(SETTINGS, steps=12))
    task = Task(load_model(job.model), job.pairs(), job.unlearn, DRAWING)
    assert unlearn(task, Observer()).alarms == ()


def test_no_false_alarm_with_flow_matching() -> None:
    job = job_settings("ink", SETTINGS, CANVASES["flow"])
    task = Task(load_model(job.model), job.pairs(), job.unlearn, DRAWING)
    assert unlearn(task, Observer()).alarms == ()


def test_a_rate_that_is_a_hundred_times_too_high(emoji: ModelHandle) -> None:
    """The run goes back, lowers the rate, and ends with a usable model: its distance to the frozen
    model stays far below that of noise. The result is the same bit for bit."""
    rate = 100 * Task(emoji, pairs("ink"), SETTINGS, DRAWING).settings.learning_rate
    task = Task(emoji, pairs("ink"), replace(SETTINGS, learning_rate=rate), DRAWING)
    listener = Listener()
    result = unlearn(task, listener)
    alarms = [event for event in listener.events if isinstance(event, Alarm)]
    assert alarms[0].kind == RAN_AWAY
    assert tuple(alarms) == result.alarms
    steps = [report.step for report in result.reports]
    assert steps == list(range(1, len(steps) + 1))
    assert steps
    assert max(report.retain_loss for report in result.reports) < 0.1
