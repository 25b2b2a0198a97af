"""OMNIGLOT: exact area averages, two sources that agree, a cache that is checked."""

import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from semipyro.data import load, omniglot

ALPHABETS = {"images_background": ("Beta", "Alpha"), "images_evaluation": ("Aleph",)}  # Alpha 0, Beta 1, Aleph 2
CHARACTERS, DRAWERS = 2, 20
NUM_IMAGES = 3 * CHARACTERS * DRAWERS


def drawings():
    """Made drawings: (folder, alphabet, character in the alphabet, character, drawer, image)."""
    random = np.random.default_rng(0)
    character = 0
    for half, alphabets in ALPHABETS.items():
        for alphabet in alphabets:
            for local in range(1, CHARACTERS + 1):
                character += 1
                for drawer in range(1, DRAWERS + 1):
                    yield half, alphabet, local, character, drawer, random.random((105, 105)) < 0.3


def write_folder(root):
    image = pytest.importorskip("PIL.Image")
    for half, alphabet, local, character, drawer, ink in drawings():
        folder = root / "omniglot-py" / half / alphabet / f"character{local:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(~ink).save(folder / f"{character:04d}_{drawer:02d}.png")


def write_archive(root):
    rows = list(drawings())
    (root / "omniglot").mkdir(parents=True)
    np.savez_compressed(
        root / "omniglot" / "omniglot105.npz",
        images_packed=np.packbits(np.stack([row[-1] for row in rows]), axis=2),
        alphabet=np.array([["Alpha", "Beta", "Aleph"].index(row[1]) for row in rows], dtype=np.uint8),
        drawer=np.array([row[4] for row in rows], dtype=np.uint8),
    )


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SEMIPYRO_DATA", raising=False)
    return tmp_path / "cache" / "semipyro"


@pytest.fixture
def small(monkeypatch):
    """As many images as are made here, instead of 32,460."""
    monkeypatch.setattr(omniglot, "NUM_IMAGES", NUM_IMAGES)


@pytest.fixture
def archive(tmp_path, small):
    write_archive(tmp_path / "root")
    return tmp_path / "root"


def listing(root):
    return {path.relative_to(root): (path.stat().st_size, path.stat().st_mtime_ns) for path in root.rglob("*")}


def same(one, other):
    return all(
        torch.equal(getattr(getattr(one, part), key), getattr(getattr(other, part), key))
        for part in ("train", "validation", "test")
        for key in ("x", "y")
    )


def test_area_averages_are_exact():
    """Each pixel made 4x4, blocks of 15x15 averaged: 105 x 4 = 28 x 15."""
    images = np.random.default_rng(1).random((3, 105, 105)) < 0.4
    fine = images.repeat(4, axis=1).repeat(4, axis=2)
    expected = fine.reshape(3, 28, 15, 28, 15).sum(axis=(2, 4))
    assert np.array_equal(omniglot.shrink(images), expected)


def test_area_averaging_keeps_the_mean():
    images = np.random.default_rng(2).random((5, 105, 105)) < 0.4
    for image, counts in zip(images, omniglot.shrink(images), strict=True):
        assert Fraction(int(counts.sum()), 225 * 28 * 28) == Fraction(int(image.sum()), 105 * 105)


def test_all_ink_is_one_and_no_ink_is_zero():
    counts = omniglot.shrink(np.stack([np.ones((105, 105)), np.zeros((105, 105))]))
    assert set(counts[0].flat) == {omniglot.AREA}
    assert set(counts[1].flat) == {0}


def test_split_is_by_drawer_and_shapes_are_as_said(archive):
    data = load("omniglot", archive)
    sizes = [len(part) for part in (data.train, data.validation, data.test)]
    assert sizes == [NUM_IMAGES * share // 20 for share in (14, 1, 5)]
    assert (data.name, data.num_classes, data.shape) == ("omniglot", 50, (28, 28))
    for part, share in ((data.train, 14), (data.validation, 1), (data.test, 5)):
        assert (part.x.dtype, part.y.dtype, part.x.shape[1]) == (torch.float32, torch.int64, 784)
        assert torch.bincount(part.y).tolist() == [share * CHARACTERS] * 3
    first_test = next(row[-1] for row in drawings() if row[4] == 16)
    fine = first_test.repeat(4, axis=0).repeat(4, axis=1).reshape(28, 15, 28, 15).mean(axis=(1, 3))
    np.testing.assert_allclose(data.test.x[0].numpy(), fine.ravel(), rtol=1e-6)  # float32


def test_torchvision_images_and_the_archive_give_the_same(archive, tmp_path):
    write_folder(tmp_path / "other")
    assert same(load("omniglot", archive), load("omniglot", tmp_path / "other"))


def test_roots_are_never_written(archive, cache, tmp_path):
    write_folder(tmp_path / "other")
    for root in (archive, tmp_path / "other"):
        before = listing(root)
        load("omniglot", root)
        assert listing(root) == before
    assert len(list(cache.iterdir())) == 2
    assert all(path.suffix == ".npz" for path in cache.iterdir())  # no temporary file is left


def forbid_reading(monkeypatch):
    def read(source):
        raise AssertionError(f"{source} was read again")

    monkeypatch.setattr(omniglot, "read_drawings", read)


def test_the_cache_is_used(archive, monkeypatch):
    first = load("omniglot", archive)
    forbid_reading(monkeypatch)
    assert same(first, load("omniglot", archive))


@pytest.mark.parametrize("damage", ["cut", "byte", "other", "garbage", "part"])
def test_a_damaged_cache_is_made_anew(archive, cache, damage):
    first = load("omniglot", archive)
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-1000])
    elif damage == "byte":
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    elif damage == "garbage":
        path.write_bytes(b"garbage")
    else:
        with np.load(path) as arrays:
            arrays = dict(arrays)
        arrays["source" if damage == "other" else "drawer"] = np.array("x") if damage == "other" else np.arange(3)
        np.savez(path, **arrays)
    damaged = path.read_bytes()
    assert same(first, load("omniglot", archive))
    assert path.read_bytes() != damaged
    assert list(cache.iterdir()) == [path]


def test_another_source_is_not_served_from_the_cache(archive, monkeypatch):
    load("omniglot", archive)
    path = archive / "omniglot" / "omniglot105.npz"
    with np.load(path) as arrays:
        arrays = dict(arrays)
    arrays["images_packed"] = ~arrays["images_packed"]
    np.savez_compressed(path, **arrays)
    changed = load("omniglot", archive)
    assert float(changed.train.x.mean()) > 0.5  # it was 0.3


def test_a_changed_image_is_not_served_from_the_cache(tmp_path, small):
    write_folder(tmp_path)
    first = load("omniglot", tmp_path)
    path = next(tmp_path.rglob("0001_16.png"))
    pytest.importorskip("PIL.Image").fromarray(np.zeros((105, 105), dtype=bool)).save(path)
    second = load("omniglot", tmp_path)
    assert not same(first, second)
    assert second.test.x[0].tolist() == [1] * 784


def test_an_interrupted_write_leaves_nothing(archive, cache, monkeypatch):
    def replace(*names):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.warns(RuntimeWarning, match="disk full"):
        load("omniglot", archive)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_error(archive, cache):
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        data = load("omniglot", archive)
    assert len(data.train) == 84


def test_missing_images_are_noticed(tmp_path):
    write_archive(tmp_path)
    with pytest.raises(ValueError, match="must hold 32460 images, got 120"):
        load("omniglot", tmp_path)


def test_a_damaged_archive_is_noticed(archive):
    path = archive / "omniglot" / "omniglot105.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="omniglot105.npz is damaged: images_packed.npy in it is not what was written"):
        load("omniglot", archive)


def test_an_archive_with_other_arrays_is_refused(archive):
    np.savez(archive / "omniglot" / "omniglot105.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match="must hold images_packed, alphabet and drawer"):
        load("omniglot", archive)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("bytes", "0001_01.png must be an image of 105x105 pixels that can be read, got cannot identify"),
        ("shape", "0001_01.png must be an image of 105x105 pixels that can be read, got one of 3x3"),
    ],
)
def test_a_damaged_image_is_named(tmp_path, small, damage, message):
    write_folder(tmp_path)
    path = next(tmp_path.rglob("0001_01.png"))
    if damage == "bytes":
        path.write_bytes(b"no image")
    else:
        pytest.importorskip("PIL.Image").fromarray(np.zeros((3, 3), dtype=np.uint8)).save(path)
    with pytest.raises(ValueError, match=message):
        load("omniglot", tmp_path)


def test_an_empty_folder_is_noticed(tmp_path):
    for half in ALPHABETS:
        (tmp_path / "omniglot-py" / half).mkdir(parents=True)
    with pytest.raises(ValueError, match="omniglot-py must hold images, got none"):
        load("omniglot", tmp_path)


def test_missing_files_are_downloaded(tmp_path, small, fake_torchvision):
    calls = []

    def download(root, *, background, download):
        assert download
        calls.append((root, background))
        write_folder(tmp_path / "root")

    fake_torchvision(Omniglot=download)
    assert len(load("omniglot", tmp_path / "root").train) == 84
    assert calls == [(str(tmp_path / "root"), True), (str(tmp_path / "root"), False)]


def test_a_failing_download_says_what_is_missing_and_what_to_do(tmp_path, fake_torchvision):
    def download(root, **options):
        raise OSError("no network")

    fake_torchvision(Omniglot=download)
    with pytest.raises(
        ValueError,
        match=r"images_background is missing .*OSError: no network.*background=False, download.*SEMIPYRO_DATA",
    ):
        load("omniglot", tmp_path)


def test_the_real_archive_is_the_complete_one(data_root):
    path = data_root / "omniglot" / "omniglot105.npz"
    if not path.is_file():
        pytest.skip("no omniglot105.npz in SEMIPYRO_DATA")
    with np.load(path) as arrays:
        images = np.unpackbits(arrays["images_packed"], axis=2, count=105)
    digest = "b3a28d0e34c4daf19fe5d04f6f68f58a2de755709c5a8715faf93a512b0a81e7"
    assert hashlib.sha256(images.tobytes()).hexdigest() == digest


def test_real_omniglot(data_root):
    data = load("omniglot", data_root)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [22_722, 1_623, 8_115]
    for part in (data.train, data.validation, data.test):
        assert part.y.unique().tolist() == list(range(50))
        assert 0.05 < float(part.x.mean()) < 0.15  # ink is sparse: not inverted
        assert float(part.x.min()) >= 0
        assert float(part.x.max()) <= 1
