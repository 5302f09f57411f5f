"""Durable writes: a power failure, a kill, another program or a full disk never loses a model."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from benchmarks.power_failure import after_power_failures, record
from unlearn_core.foundation.atomic import appearing, refuse_existing
from unlearn_core.foundation.leftovers import LOCK, clean_folder, clean_leftovers
from unlearn_core.foundation.own_files import MANIFEST

OLD = {"model_index.json": b"old", "unet/weights": b"old weights", "unet/part": b"old part"}
NEW = {"model_index.json": b"new", "unet/weights": b"new weights", "vae/weights": b"new vae"}


def save_folder(destination: Path, content: dict[str, bytes]) -> None:
    with appearing(destination) as part:
        for name, data in content.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(data)


def save_file(destination: Path, content: bytes) -> None:
    with appearing(destination) as part:
        part.write_bytes(content)


def files(folder: Path) -> dict[str, bytes]:
    return {
        f.relative_to(folder).as_posix(): f.read_bytes()
        for f in folder.rglob("*")
        if f.is_file() and f.name != MANIFEST
    }


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def test_a_power_failure_leaves_the_old_or_the_new_file(models: Path, images: Path) -> None:
    save_file(models / "m", b"old")
    count = 0
    cuts = record(models, lambda: save_file(models / "m", b"new"))
    for image, saved in after_power_failures(models, cuts, images):
        clean_leftovers(image / "m")
        assert (image / "m").read_bytes() in ([b"new"] if saved else [b"old", b"new"])
        count += 1
    assert count > 5


def test_a_power_failure_leaves_nothing_or_a_complete_first_version(
    models: Path, images: Path
) -> None:
    deeper = models / "a" / "b"
    cuts = record(models, lambda: save_folder(deeper / "m", NEW))
    for image, saved in after_power_failures(models, cuts, images):
        clean_leftovers(image / "a" / "b" / "m")
        new = image / "a" / "b" / "m"
        assert files(new) == NEW or (not saved and not new.exists())


def test_a_power_failure_leaves_the_old_or_the_new_folder_and_every_file_of_the_user(
    models: Path, images: Path
) -> None:
    save_folder(models / "m", OLD)
    (models / "m" / "unet" / "mine.txt").write_bytes(b"mine")
    mine = {"unet/mine.txt": b"mine"}
    complete = [{**OLD, **mine}, {**NEW, **mine}]
    count = 0
    cuts = record(models, lambda: save_folder(models / "m", NEW))
    for image, saved in after_power_failures(models, cuts, images):
        clean_leftovers(image / "m")
        assert files(image / "m") in (complete[1:] if saved else complete)
        count += 1
    assert count > 20


def test_the_user_keeps_the_files_in_an_overwritten_folder(models: Path) -> None:
    save_folder(models / "m", OLD)
    (models / "m" / "notes.txt").write_bytes(b"mine")
    (models / "m" / "link").symlink_to(models)
    save_folder(models / "m", NEW)
    assert (models / "m" / "link").is_symlink()
    (models / "m" / "link").unlink()
    assert files(models / "m") == {**NEW, "notes.txt": b"mine"}
    assert [path.name for path in models.iterdir()] == ["m"]


def test_a_file_of_the_user_is_not_overwritten_inside_a_folder(models: Path) -> None:
    save_folder(models / "m", OLD)
    (models / "m" / "vae").mkdir()
    (models / "m" / "vae" / "weights").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="contains 'vae/weights', which was not saved"):
        save_folder(models / "m", NEW)
    assert files(models / "m") == {**OLD, "vae/weights": b"mine"}
    assert [path.name for path in models.iterdir()] == ["m"]


def test_a_changed_file_is_not_overwritten(models: Path) -> None:
    save_folder(models / "m", OLD)
    refuse_existing(models / "m", None, overwrite=True)
    (models / "m" / "unet" / "part").write_bytes(b"repaired")
    with pytest.raises(FileExistsError, match="'unet/part' in 'm' has been changed"):
        refuse_existing(models / "m", None, overwrite=True)


def test_a_link_is_replaced_and_its_target_stays(models: Path) -> None:
    save_folder(models / "elsewhere", OLD)
    (models / "m").symlink_to(models / "elsewhere", target_is_directory=True)
    save_folder(models / "m", NEW)
    assert files(models / "m") == NEW
    assert files(models / "elsewhere") == OLD
    assert not (models / "m").is_symlink()


def _save_and_wait(destination: Path, started: Path) -> None:
    with appearing(destination) as part:
        part.write_bytes(b"half of it")
        started.touch()
        time.sleep(60)


@pytest.fixture
def saving(models: Path, tmp_path: Path) -> multiprocessing.Process:
    """A process in the middle of a save to ``models/m``."""
    started = tmp_path / "started"
    context = multiprocessing.get_context("fork" if os.name != "nt" else "spawn")
    process = context.Process(target=_save_and_wait, args=(models / "m", started))
    process.start()
    while not started.exists():
        time.sleep(0.01)
    return process  # type: ignore[return-value]


def test_two_processes_do_not_save_the_same_name_at_the_same_time(
    models: Path, saving: multiprocessing.Process
) -> None:
    try:
        for save in (
            lambda: save_file(models / "m", b"new"),
            lambda: refuse_existing(models / "m", None, overwrite=False),
        ):
            with pytest.raises(BlockingIOError, match="another program is saving 'm'"):
                save()
        save_file(models / "other", b"new")
    finally:
        saving.terminate()
        saving.join()


def test_the_next_save_removes_the_leftovers_of_a_killed_one(
    models: Path, saving: multiprocessing.Process
) -> None:
    assert saving.pid is not None
    os.kill(saving.pid, signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    saving.join()
    assert len(list(models.glob(".m-*"))) == 1
    (models / ".m-something").mkdir()  # not of this pack
    (models / ".m-abcdefgh").mkdir()
    (models / ".m-abcdefgh" / "photo.jpg").write_bytes(b"mine")
    save_file(models / "m", b"new")
    assert files(models) == {"m": b"new", ".m-abcdefgh/photo.jpg": b"mine"}
    assert sorted(p.name for p in models.iterdir()) == [".m-abcdefgh", ".m-something", "m"]


def test_leftovers_of_earlier_versions_are_removed_after_a_day(models: Path) -> None:
    """They have no lock, so that their owner may be alive on the first day."""
    folder = models / ".m-abcdefgh"
    folder.mkdir()
    (folder / "m.part").write_bytes(b"half of it")
    clean_leftovers(models / "m")
    assert folder.exists()
    old = time.time() - 2 * 24 * 60 * 60
    os.utime(folder, (old, old))
    clean_leftovers(models / "m")
    assert not folder.exists()


def test_a_folder_whose_replacement_was_killed_is_restored(models: Path) -> None:
    folder = models / ".m-abcdefgh"
    folder.mkdir()
    (folder / LOCK).touch()
    save_folder(folder / "old", OLD)
    clean_folder(models)
    assert files(models) == {f"m/{name}": data for name, data in OLD.items()}


def test_a_file_system_without_locks(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, "no locks")

    monkeypatch.setattr("filelock.FileLock.acquire", no_locks)
    save_folder(models / "m", OLD)
    save_folder(models / "m", NEW)
    leftover = models / ".m-abcdefgh"
    leftover.mkdir()
    (leftover / LOCK).touch()
    save_folder(models / "m", OLD)
    assert files(models / "m") == OLD
    assert leftover.exists()  # its owner may be alive
