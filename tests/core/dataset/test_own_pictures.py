"""The user's own pictures in the forget set and the retain set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from unlearn_core.dataset import own_pictures
from unlearn_core.dataset.drawing import LatentCache, draw_latents
from unlearn_core.dataset.own_pictures import (
    OwnPictures,
    bucket_sizes,
    captioned,
    crop_to_fill,
    left_out,
    read_folder,
    with_captions,
)
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.dataset.training_sets import make_training_sets
from unlearn_core.foundation.pixels import as_bytes, as_floats
from unlearn_core.foundation.progress import Progress
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.prompts.pairs import PromptPairs, together
from unlearn_core.saving.run_state import run_identity
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.settings import UnlearnSettings

from ..embeddings import embeddings
from ..watching import Recorder, StopError, Stopping

DRAWING = GenerationSettings(steps=2)


def read(folder: Path, text: str) -> tuple[list[Tensor], tuple[str, ...]]:
    own = read_folder(folder, text, alone=False)
    return [own.image(i) for i in range(len(own.images))], own.captions


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return as_bytes(torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture
def ink_pairs() -> PromptPairs:
    return diversify(
        ForgetConcept("ink", "style", ("inky",), ("pixel", "noto")),
        ["a {object} in {concept} style"],
        {"object": ("cat", "dog", "fish", "bird")},
        train_count=4,
        test_count=2,
    )


FORGET_PICTURES = OwnPictures(
    (picture(40, 40), picture(30, 60, 1), picture(64, 64, 2)),
    ("a boat in ink style", "an inky owl", "ink style house"),
)
RETAIN_PICTURES = OwnPictures((picture(50, 50, 3), picture(60, 30, 4)), ("a boat", "a red owl"))


def test_own_pictures_are_added_to_both_sets(sd_model: ModelHandle, ink_pairs: PromptPairs) -> None:
    plain = make_training_sets(sd_model, ink_pairs, DRAWING)
    progress = Recorder()
    sets = make_training_sets(
        sd_model,
        ink_pairs,
        DRAWING,
        forget_pictures=FORGET_PICTURES,
        retain_pictures=RETAIN_PICTURES,
        progress=progress,
    )
    counts = progress.counts("making images")
    assert counts == sorted(counts)
    assert counts[:6] == list(range(6))  # own ones first, one by one
    # 4 pairs, 3 forget pictures and their parallels, 2 retain pictures
    assert progress.updates[-1] == ("making images", 16, 16)
    drawn, *own = sets.paired
    assert torch.equal(drawn.forget.latents, plain.paired[0].forget.latents)
    assert sum(len(part.forget) for part in own) == 3
    for part in own:
        assert part.forget.latents.shape == part.retain.latents.shape
    assert sum(map(len, sets.retain)) == 4 + 3 + 2
    assert len({part.forget.latents.shape[2:] for part in sets.paired}) > 1


def test_a_picture_is_paired_with_its_own_parallel(
    sd_model: ModelHandle, ink_pairs: PromptPairs
) -> None:
    """The picture is encoded; its parallel is generated from the caption with a replacement."""
    alone = replace(
        FORGET_PICTURES,
        images=FORGET_PICTURES.images[2:],
        captions=FORGET_PICTURES.captions[2:],
        alone=True,
    )
    sets = make_training_sets(sd_model, ink_pairs, DRAWING, forget_pictures=alone)
    (part,) = sets.paired
    size = bucket_sizes(sd_model)
    square = min(size, key=lambda s: abs(s[0] - s[1]))
    expected = sd_model.encode_images(
        crop_to_fill(as_floats(FORGET_PICTURES.image(2)), square)[None]
    )
    torch.testing.assert_close(part.forget.latents, expected)
    replacement = ink_pairs.train[0].replacement
    parallel = draw_latents(sd_model, [f"{replacement} style house"], DRAWING)
    torch.testing.assert_close(part.retain.latents, parallel)
    caption = embeddings(sd_model.encode_prompts(["ink style house"])).values
    assert torch.equal(embeddings(part.forget.conditioning).values, caption)
    assert sets.retain == (part.retain,)


def test_own_pictures_alone_are_the_retain_set(
    sd_model: ModelHandle, ink_pairs: PromptPairs
) -> None:
    sets = make_training_sets(
        sd_model, ink_pairs, DRAWING, retain_pictures=replace(RETAIN_PICTURES, alone=True)
    )
    assert sum(map(len, sets.retain)) == 2
    assert not sets.includes_parallels
    batches = Unlearning(sd_model, sets, UnlearnSettings(batch_size=2, paired=True)).batches
    own = torch.cat([part.latents.flatten() for part in sets.retain])
    for _ in range(4):
        for latents, *_ in batches.retain(batches.forget()):
            assert torch.isin(latents, own).all()


def test_batches_have_every_size_in_proportion(
    sd_model: ModelHandle, ink_pairs: PromptPairs
) -> None:
    sets = make_training_sets(
        sd_model,
        ink_pairs,
        DRAWING,
        forget_pictures=FORGET_PICTURES,
        retain_pictures=RETAIN_PICTURES,
    )
    run = Unlearning(sd_model, sets, UnlearnSettings(steps=3, batch_size=2, paired=False))
    assert len(list(run)) == 3
    shapes = [tuple(run.batches.forget().latents.shape[2:]) for _ in range(300)]
    for part in sets.paired:
        size = part.forget.latents.shape[2:]
        rows = sum(len(p.forget) for p in sets.paired if p.forget.latents.shape[2:] == size)
        assert shapes.count(tuple(size)) / 300 == pytest.approx(rows / 7, abs=0.1)
    whole = replace(run.settings, retain_batch_factor=0)
    batches = Unlearning(sd_model, sets, whole).batches
    assert sum(len(part[0]) for part in batches.retain(batches.forget())) == 9


def test_a_model_of_a_single_size_has_one_bucket(class_folder: Path) -> None:
    model = load_model(class_folder)
    edge = model.info.image_size
    assert bucket_sizes(model) == [(edge, edge)]


@given(st.integers(5, 90), st.integers(5, 90), st.sampled_from([(8, 8), (8, 16), (24, 8)]))
def test_cropping_preserves_the_range(height: int, width: int, size: tuple[int, int]) -> None:
    result = crop_to_fill(as_floats(picture(height, width)), size)
    assert result.shape == (3, *size)
    assert 0 <= result.min() <= result.max() <= 1
    flat = crop_to_fill(torch.full((3, height, width), 0.25), size)
    torch.testing.assert_close(flat, torch.full((3, *size), 0.25), atol=1e-3, rtol=0)


def test_the_middle_of_a_picture_is_cropped() -> None:
    wide = torch.zeros(3, 10, 30)
    wide[:, :, 10:20] = 1
    assert crop_to_fill(wide, (10, 10)).min() == 1


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (("a cat",), "'a cat' does not mention 'ink'"),
        (("ink", "ink"), "2 for 1 picture;"),
    ],
)
def test_captions_of_forget_pictures_must_mention_the_concept(
    sd_model: ModelHandle, ink_pairs: PromptPairs, captions: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_training_sets(
            sd_model,
            ink_pairs,
            DRAWING,
            forget_pictures=OwnPictures((picture(8, 8),), captions),
        )


def test_captions_of_retain_pictures_must_not_mention_the_concept(
    sd_model: ModelHandle, ink_pairs: PromptPairs
) -> None:
    bad = OwnPictures((picture(8, 8),), ("an inky cat",))
    with pytest.raises(ValueError, match="of a retain picture mentions 'ink'"):
        make_training_sets(sd_model, ink_pairs, DRAWING, retain_pictures=bad)


def test_one_caption_applies_to_all() -> None:
    assert with_captions("123", " a cat \n") == ("a cat",) * 3
    assert with_captions("12", "a cat\n\na dog") == ("a cat", "a dog")
    for text in ("", "a\nb"):
        with pytest.raises(ValueError, match="captions: "):
            with_captions("123", text)


def test_a_line_with_a_name_takes_precedence(tmp_path: Path) -> None:
    names = ("a.png", "b.png", "c.png")
    beside = [tmp_path / name.replace("png", "txt") for name in names]
    beside[1].write_text("from the file")
    one = with_captions(names, "c.png: mine: 1\nall", beside)
    assert one == ("all", "from the file", "mine: 1")
    assert with_captions(names, "b.png: mine\n1\n2\n3", beside) == ("1", "mine", "3")
    with pytest.raises(ValueError, match="captions: there is no picture 'd.png'; remove that line"):
        with_captions(names, "all\nd.png: of another folder", beside)
    with pytest.raises(ValueError, match="captions: 'a.png' has no caption; add 'a.txt'"):
        with_captions(names, "c.png: mine", beside)
    assert with_captions(("1", "2"), "2: mine\nall") == ("all", "mine")
    assert with_captions(("1", "2"), "2：一只猫\n1:1 format") == ("1:1 format", "一只猫")
    assert with_captions(("a：1.png", "b: 2.png"), "a：1.png: x\nb: 2.png：y") == ("x", "y")
    for empty in ("a.png:", "a.png: "):
        with pytest.raises(ValueError, match="captions: 'a.png:' has no caption"):
            with_captions(names, f"all\n{empty}")


def test_hidden_files_are_skipped_and_the_rest_is_named(tmp_path: Path) -> None:
    """macOS, Windows and photo programs write files of their own beside the pictures."""
    for name in ("a.png", "b.jfif"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    (tmp_path / "b.txt").write_bytes("a cat,\r\non a “table”\r\n".encode("cp1252"))
    for name in ("._a.png", "._b.txt", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07")
    assert read(tmp_path, "a thing")[1] == ("a thing", "a cat, on a “table”")
    assert left_out(tmp_path) == ""
    for name in ("clip.gif", "notes.md", "c.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert len(read(tmp_path, "a thing")[0]) == 2
    assert (
        left_out(tmp_path) == f"left out of {tmp_path.name}: c.txt, clip.gif, folder.png, notes.md"
    )
    for i in range(4):
        (tmp_path / f"z{i}.heic").touch()
    assert left_out(tmp_path).endswith("notes.md, z0.heic and 3 more")

    class Announced(Progress):
        def announce(self, sentence: str) -> None:
            said.append(sentence)

    said: list[str] = []
    read_folder(tmp_path, "a thing", False, Announced())
    assert said == [left_out(tmp_path)]


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    red = np.zeros((6, 4, 3), np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "b.png")
    Image.new("L", (5, 5), 128).save(tmp_path / "a.JPG", "JPEG")
    turned = Image.new("RGB", (8, 2))
    exif = turned.getexif()
    exif[0x0112] = 6  # orientation: the camera was rotated
    turned.save(tmp_path / "c.jpg", exif=exif)
    (tmp_path / "notes.md").write_text("no picture")
    (tmp_path / "b.txt").write_text("\ufeffa red thing\n", encoding="utf-8")
    images, captions = read(tmp_path, "a thing")
    assert [tuple(image.shape) for image in images] == [(3, 5, 5), (3, 6, 4), (3, 4, 2)]
    assert captions == ("a thing", "a red thing", "a thing")
    edited = ("a grey thing", "a scarlet thing", "a black thing")
    assert read(tmp_path, "\n".join(edited))[1] == edited
    assert images[1][0].min() == 255
    with pytest.raises(ValueError, match=r"captions: 'a.JPG' has no caption; add 'a.txt'"):
        read(tmp_path, "")
    (tmp_path / "b.txt").write_text(" \n")
    with pytest.raises(ValueError, match=r"captions: 'b.txt' is empty"):
        read(tmp_path, "a thing")
    (tmp_path / "b.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"captions: 'b.txt' is not UTF-8 text"):
        read(tmp_path, "a thing")
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "a.JPG", "PNG")
    assert read(tmp_path, "1\n2\n3")[0][0].min() == 255, "transparent pixels become white"
    (tmp_path / "d.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"folder: 'd.png' cannot be read"):
        read(tmp_path, "1\n2\n3\n4")


def test_pictures_are_limited_to_the_size_that_a_model_needs(tmp_path: Path) -> None:
    """And to the widest bucket's aspect ratio, since they are scaled before they are cropped."""
    Image.new("RGB", (40, 6000), "red").save(tmp_path / "a.png")
    Image.new("RGB", (4000, 3000), "red").save(tmp_path / "b.jpg")
    Image.new("P", (9000, 30)).save(tmp_path / "c.png")
    (tall, photo, wide), _ = read(tmp_path, "a thing")
    assert tall.shape == (3, 71, 40)
    assert photo.shape == (3, own_pictures.LARGEST_EDGE, 2048)
    assert wide.shape == (3, 30, 53)
    assert all(image.dtype == torch.uint8 for image in (tall, photo, wide))


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_pictures_of_more_than_8_bits_are_refused(tmp_path: Path, mode: str) -> None:
    """Conversion to 8 bits would turn them all white."""
    kind, name = ("TIFF", "a.bmp") if mode == "F" else ("PNG", "a.png")
    Image.new(mode, (8, 8)).save(tmp_path / name, kind)
    with pytest.raises(ValueError, match=f"folder: '{name}' cannot be read"):
        read(tmp_path, "a thing")


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[::-1].replace(b"TADI", b"T\0DI", 1)[::-1])  # the last part
    with pytest.raises(ValueError, match="folder: 'a.png' cannot be read"):
        read(tmp_path, "a thing")


def test_a_folder_with_too_many_pictures_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_pictures, "LARGEST", 1)
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match="folder: .* has 2 pictures, the limit is 1; remove some"):
        read(tmp_path, "a cat")


def test_a_folders_pictures_are_read_only_when_needed(
    tmp_path: Path, sd_model: ModelHandle, ink_pairs: PromptPairs
) -> None:
    """A thousand photographs do not fit into memory."""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "b.png")
    progress = Recorder()
    own = read_folder(tmp_path, "ink cat\nink dog", True, progress)
    assert progress.updates == [("reading pictures", done, 2) for done in (0, 1, 2)]
    assert own.images == (tmp_path / "a.png", tmp_path / "b.png")
    in_memory = OwnPictures((own.image(0), own.image(1)), own.captions, alone=True)
    actual, expected = (
        make_training_sets(sd_model, ink_pairs, DRAWING, forget_pictures=pictures).paired
        for pictures in (own, in_memory)
    )
    for left, right in zip(actual, expected, strict=True):
        assert torch.equal(left.forget.latents, right.forget.latents)
    before = identity(own, ink_pairs, sd_model)
    assert identity(own, ink_pairs, sd_model) == before
    Image.new("RGB", (64, 64), "green").save(tmp_path / "b.png")
    assert identity(own, ink_pairs, sd_model) != before, "another picture makes it another run"
    (tmp_path / "b.png").unlink()
    with pytest.raises(ValueError, match=r"folder: 'b.png' cannot be read"):
        make_training_sets(sd_model, ink_pairs, DRAWING, forget_pictures=own)


def identity(own: OwnPictures, pairs: PromptPairs, model: ModelHandle) -> object:
    return run_identity(model, pairs, UnlearnSettings(), DRAWING, own, None)


@pytest.mark.parametrize(("forget", "retain"), [(FORGET_PICTURES, None), (None, RETAIN_PICTURES)])
def test_encoding_can_be_cancelled_between_two_pictures(
    sd_model: ModelHandle,
    ink_pairs: PromptPairs,
    forget: OwnPictures | None,
    retain: OwnPictures | None,
) -> None:
    encode, calls = type(sd_model).encode_images, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(sd_model), "encode_images", lambda *args: calls.append(1) or encode(*args)
        )
        with pytest.raises(StopError):
            make_training_sets(
                sd_model,
                ink_pairs,
                DRAWING,
                forget_pictures=forget,
                retain_pictures=retain,
                progress=Stopping(2),  # the first check is that of the phase
            )
    assert len(calls) == 1


def test_values_beyond_black_and_white_are_clamped() -> None:
    """Bicubic resizing, also ComfyUI's, produces them; on overflow, white would become black."""
    pixels = as_bytes(torch.tensor([-0.1, -0.001, 0.0, 0.5, 1.0, 1.02, 1.2]))
    assert pixels.tolist() == [0, 0, 0, 128, 255, 255, 255]


def test_made_up_names_also_replace_the_concept_in_captions() -> None:
    pairs = diversify(
        ForgetConcept("cat", "object"),
        ["a {concept} {place}"],
        {"place": ("indoors", "outdoors", "at sea", "at night")},
        train_count=4,
        test_count=1,
        invented_names=2,
    )
    own = OwnPictures((picture(8, 8),) * 2, ("a cat on a mat", "a cat"))
    names = {pair.replacement for pair in pairs.train}
    assert len(names) == 2
    for pair, _ in captioned(own, pairs):
        assert pair.replacement in names
        assert pair.replacement in pair.retain


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder: no pictures in"):
        read(tmp_path, "a thing")


def test_own_retain_pictures_are_used_with_default_settings(
    sd_model: ModelHandle, ink_pairs: PromptPairs
) -> None:
    """The parallels come first at every step, but own pictures must be used as well."""
    sets = make_training_sets(sd_model, ink_pairs, DRAWING, retain_pictures=RETAIN_PICTURES)
    batches = Unlearning(sd_model, sets, UnlearnSettings(batch_size=2)).batches
    own = torch.cat([part.latents.flatten() for part in sets.retain[1:]])
    seen = [
        torch.isin(latents, own).all()
        for _ in range(20)
        for latents, *_ in batches.retain(batches.forget())
    ]
    assert 0 < sum(map(bool, seen)) < len(seen)
    plain = make_training_sets(sd_model, ink_pairs, DRAWING)
    parallels = Unlearning(sd_model, plain, UnlearnSettings(batch_size=2)).batches
    assert len(list(parallels.retain(parallels.forget()))) == 1


def test_the_parallel_of_a_caption_mentions_no_concept_of_the_run() -> None:
    """Otherwise the run would preserve one concept while it forgets the other."""
    cat = diversify(
        ForgetConcept("cat", "object", (), ("owl",)),
        ["a {concept} {place}"],
        {"place": ("indoors", "outdoors")},
        train_count=1,
        test_count=1,
    )
    ink = diversify(
        ForgetConcept("ink", "style", (), ("pixel",)),
        ["a boat in {concept} style {place}"],
        {"place": ("at sea", "ashore")},
        train_count=1,
        test_count=1,
    )
    own = OwnPictures((picture(8, 8),) * 3, ("a cat in ink style", "ink cat", "a cat"))
    both = together(ink, cat)
    assert [(pair.retain, k) for pair, k in captioned(own, both)] == [
        ("an owl in pixel style", 0),
        ("pixel owl", 0),
        ("an owl", 1),
    ]


def test_a_picture_keeps_its_own_concept_and_replacement_in_any_bucket(
    sd_model: ModelHandle,
) -> None:
    """The shapes of the pictures alternate, so that the buckets change their order."""
    cat, ink = (
        diversify(
            ForgetConcept(name, kind, (), replacements),
            ["{concept} {place}"],
            {"place": ("here", "there")},
            train_count=2,
            test_count=1,
        )
        for name, kind, replacements in (
            ("cat", "object", ("owl", "bee")),
            ("ink", "style", ("oil", "wax")),
        )
    )
    shapes = [(40, 40), (30, 60), (40, 40), (30, 60)]
    own = OwnPictures(
        tuple(picture(*shape, seed) for seed, shape in enumerate(shapes)),
        ("a cat", "an ink boat", "an ink car", "a cat on a mat"),
        alone=True,
    )
    both = together(cat, ink)
    sets = make_training_sets(sd_model, both, DRAWING, forget_pictures=own)
    expected = dict(zip(own.captions, (0, 1, 1, 0), strict=True))
    concepts = {}
    for part in sets.paired:
        for values, concept in zip(
            embeddings(part.forget.conditioning).values, part.concepts.tolist(), strict=True
        ):
            (caption,) = (
                text
                for text in own.captions
                if torch.equal(embeddings(sd_model.encode_prompts([text])).values[0], values)
            )
            concepts[caption] = concept
    assert concepts == expected
    assert len(sets.paired) == 2
    replacements = [pair.replacement for pair, _ in captioned(own, both)]
    assert len({replacements[0], replacements[3]}) == 2, "a concept's replacements alternate"


def test_a_cached_picture_has_the_requested_size(sd_model: ModelHandle, tmp_path: Path) -> None:
    cache = LatentCache(tmp_path)
    whole = sd_model.latent_shape
    half = (whole[0], whole[1] // 2, whole[2])
    for shape in (whole, half, whole):
        latents = draw_latents(sd_model, ["a cat"], DRAWING, latent_shape=shape, cache=cache)
        assert latents.shape[1:] == shape
