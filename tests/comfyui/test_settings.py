"""The pack's entry in ComfyUI's settings."""

from __future__ import annotations

import pytest
from comfy_page import ComfyPage
from front_ends import View
from playwright.sync_api import expect


@pytest.mark.both_front_ends
@pytest.mark.classic_look
def test_the_picture_cache_is_shown_and_cleared(page: ComfyPage, view: View) -> None:
    folder = page.server.base / "user" / "unlearn_cache"
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    picture, other = folder / f"{0:064x}.safetensors", folder / "mine.safetensors"
    picture.write_bytes(bytes(40_000_000))
    other.write_bytes(b"mine")
    page.page.evaluate("() => app.extensionManager.command.execute('Comfy.ShowSettingsDialog')")
    dialog = page.page.get_by_role("dialog")
    dialog.get_by_text("Unlearn", exact=True).first.click()
    panel = page.page.locator(".unlearn-cache")
    expect(panel).to_contain_text("1 picture, 0.04 of at most 5.00 GB")
    page.screenshot(f"settings_{view.name}")
    panel.get_by_role("button", name="Clear").click()
    expect(panel).to_contain_text("0 pictures, 0.00 of at most 5.00 GB")
    expect(panel.get_by_role("button", name="Clear")).to_be_disabled()
    assert [file.name for file in folder.iterdir()] == [other.name]
    panel.get_by_label("Limit in GB").fill("7")
    panel.get_by_label("Limit in GB").press("Tab")
    expect(panel).to_contain_text("0 pictures, 0.00 of at most 7.00 GB")
    (folder / "limit.json").unlink()
    other.unlink()
