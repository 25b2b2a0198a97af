"""Data sets by name and from the user's own arrays, and what is said when something is wrong with them."""

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from semipyro.data import idx, load, pixel_filter

# Importing


def test_importing_loads_neither_torchvision_nor_scikit_learn_nor_pil():
    names = ("torchvision", "sklearn", "PIL", "pyro", "matplotlib", "lightning")
    code = f"import sys, semipyro.data; print([name for name in {names} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Data sets that need no files


def parts(data):
    return [data.train, data.validation, data.test]


@pytest.mark.parametrize(
    ("name", "num_classes", "shape", "rows"),
    [("digits", 10, (8, 8), 1797), ("moons", 2, (2,), 10_000), ("circles", 2, (2,), 10_000)],
)
def test_built_in_data_sets(name, num_classes, shape, rows):
    data = load(name)
    assert (data.name, data.num_classes, data.shape) == (name, num_classes, shape)
    assert sum(len(part) for part in parts(data)) == rows
    counts = torch.stack([torch.bincount(part.y, minlength=num_classes) for part in parts(data)]).float()
    shares = counts / counts.sum(0)
    assert (shares - torch.tensor([[0.6], [0.2], [0.2]])).abs().max() < 1 / counts.sum(
        0
    ).min()  # rounding to whole rows
    for part in parts(data):
        assert (part.x.dtype, part.y.dtype) == (torch.float32, torch.int64)
        assert part.x.shape == (len(part.y), math.prod(shape))
    assert all(torch.equal(a.x, b.x) for a, b in zip(parts(data), parts(load(name)), strict=True))


def test_digits_are_the_original_rows_each_once():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    data = load("digits")
    rows = torch.cat([torch.cat([part.x * 16, part.y.unsqueeze(1)], dim=1) for part in parts(data)])
    expected = torch.tensor(np.column_stack([x, y]), dtype=torch.float32)
    assert sorted(rows.tolist()) == sorted(expected.tolist())
    assert float(data.train.x.max()) == 1


@pytest.mark.parametrize("name", ["moons", "circles"])
def test_points_can_be_told_apart(name):
    """The nearest of 2,000 training points has the right label for nearly every test point."""
    data = load(name)
    nearest = torch.cdist(data.test.x[:500], data.train.x[:2000]).argmin(1)
    assert (data.train.y[nearest] == data.test.y[:500]).float().mean() > 0.98


# The user's own arrays


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


def rows(n=60, shape=(2, 3)):
    return np.arange(n * math.prod(shape), dtype=np.float64).reshape(n, *shape)


Y = np.arange(60) % 3


def test_own_data_is_divided_by_class(tmp_path):
    data = load(write(tmp_path / "mine.npz", x=rows(), y=Y))
    assert (data.name, data.num_classes, data.shape) == ("mine", 3, (2, 3))
    assert [torch.bincount(part.y).tolist() for part in parts(data)] == [[12] * 3, [4] * 3, [4] * 3]
    numbers = torch.cat([part.x[:, 0] for part in parts(data)]) / 6
    assert sorted(numbers.tolist()) == list(range(60))
    for part in parts(data):
        assert torch.equal(part.y, (part.x[:, 0] / 6).long() % 3)
        assert (part.x.dtype, part.x.shape[1]) == (torch.float32, 6)


def test_unlabelled_rows_go_to_train(tmp_path):
    y = np.where(np.arange(60) < 30, Y, -1)
    data = load(str(write(tmp_path / "mine.npz", x=rows(), y=y)))
    assert [int((part.y == -1).sum()) for part in parts(data)] == [30, 0, 0]
    assert [torch.bincount(part.y[part.y >= 0]).tolist() for part in parts(data)] == [[6] * 3, [2] * 3, [2] * 3]


def test_a_class_of_three_is_in_every_part(tmp_path):
    data = load(write(tmp_path / "mine.npz", x=rows(6), y=np.array([0, 0, 0, 1, 1, 1])))
    assert [sorted(part.y.tolist()) for part in parts(data)] == [[0, 1]] * 3


def test_own_test_set_is_kept(tmp_path):
    path = write(
        tmp_path / "mine.npz", x=rows(), y=Y, x_test=rows(4) + 0.5, y_test=np.array([4, 0, 1, 1], dtype=np.uint8)
    )
    with pytest.raises(ValueError, match=r"from 0 to 4, got none of \[3\].*give load num_classes=5 if so meant"):
        load(path)
    data = load(path, num_classes=5)
    assert data.num_classes == 5
    assert torch.equal(data.test.x, torch.tensor(rows(4) + 0.5, dtype=torch.float32).flatten(1))
    assert data.test.y.tolist() == [4, 0, 1, 1]
    assert [len(part) for part in parts(data)] == [48, 12, 4]


def test_own_data_without_labels(tmp_path):
    data = load(write(tmp_path / "mine.npz", x=rows().astype(np.uint8)))
    assert data.num_classes == 0
    assert [len(part) for part in parts(data)] == [36, 12, 12]
    assert all((part.y == -1).all() for part in parts(data))
    with_test = load(write(tmp_path / "other.npz", x=rows(), x_test=rows(5)))
    assert [len(part) for part in parts(with_test)] == [48, 12, 5]


def test_classes_without_a_row_are_asked_about(tmp_path):
    path = write(tmp_path / "mine.npz", x=rows(), y=Y * 2 + 1)
    with pytest.raises(ValueError, match=r"y must have rows of all classes from 0 to 5, got none of \[0, 2, 4\]"):
        load(path)
    assert load(path, num_classes=6).num_classes == 6
    assert load(path, num_classes=1000).num_classes == 1000
    assert load(write(tmp_path / "other.npz", x=rows()), num_classes=4).num_classes == 4
    for wrong, message in [
        (5, "num_classes must be above 5, the largest class in .*mine.npz: y, got 5"),
        (1001, "num_classes must be at most 1000 with 60 rows, got 1001"),
        (6.0, "num_classes must be an integer of at least 0, got 6.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            load(path, num_classes=wrong)


@pytest.mark.parametrize("label", [1000, 2_000_000_000, 2**63 - 1])
@pytest.mark.parametrize("num_classes", [None, 2_000_000_001])
def test_a_label_far_above_the_number_of_rows_is_refused(tmp_path, label, num_classes):
    path = write(tmp_path / "mine.npz", x=rows(), y=np.append(Y[:-1], label))
    with pytest.raises(ValueError, match=f"mine.npz: y must hold classes from 0 to K-1, got {label} in 60 rows"):
        load(path, num_classes=num_classes)


def test_unsigned_labels_do_not_become_negative(tmp_path):
    """2**64 - 1 is no -1."""
    path = write(tmp_path / "mine.npz", x=rows(), y=np.append(Y[:-1], -1).astype(np.uint64))
    with pytest.raises(ValueError, match=r"mine.npz: y must hold classes below 2\*\*63"):
        load(path)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
@pytest.mark.parametrize("name", ["mine.npz", "mnist", "omniglot", "omniglot half"])
def test_what_is_no_file_is_refused(tmp_path, monkeypatch, name, kind):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    raw, images = tmp_path / "MNIST" / "raw", tmp_path / "omniglot-py"
    path = {
        "mine.npz": tmp_path / "mine.npz", "mnist": raw / idx.FILES[0],
        "omniglot": tmp_path / "omniglot" / "omniglot105.npz",
        "omniglot half": images / "images_background" / "Beta" / "character01" / "0001_01.png",
    }[name]  # fmt: skip
    for folder in (raw, path.parent, images / "images_evaluation"):
        folder.mkdir(parents=True, exist_ok=True)
    for file in idx.FILES[1:]:
        (raw / file).touch()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    message = "must (be a file, got a folder|be a file, got a pipe|hold images, got none)"
    with pytest.raises(ValueError, match=f"{path.name} {message}"):
        load(path if name == "mine.npz" else name.split()[0], tmp_path)


def test_other_arrays_in_the_file_are_not_looked_at(tmp_path):
    data = load(write(tmp_path / "mine.npz", x=rows(), y=Y, names=np.array([{}], dtype=object)))
    assert data.num_classes == 3


def changed(value, at=(3, 5)):
    x = rows()
    x[list(at), 0, 0] = value
    return x


X = rows()
BAD_ARRAYS = [
    ({"y": Y}, r"mine.npz must hold an array 'x', got none; write it with numpy.savez"),
    ({"x": np.array([["a"]] * 60)}, "mine.npz: x must be numbers, got <U1"),
    ({"x": np.array([{}] * 60)}, "mine.npz: x must be an array that can be read, got .*without Python objects"),
    (
        {"x": X, "y": np.array([None] * 60)},
        "mine.npz: y must be an array that can be read, got .*without Python objects",
    ),
    ({"x": X[:, 0, 0]}, r"mine.npz: x must be of shape \(N, D\) or \(N, ...\) and not empty, got \(60,\)"),
    ({"x": X[:0]}, r"mine.npz: x must be of shape .* not empty, got \(0, 2, 3\)"),
    ({"x": changed(np.nan)}, "mine.npz: x must be finite, got NaN or infinity in 2 of 60 rows, the first is row 3"),
    ({"x": changed(np.inf)}, "mine.npz: x must be finite, got NaN or infinity in 2 of 60 rows"),
    ({"x": changed(1e300)}, "mine.npz: x must be finite, got NaN or infinity in 2 of 60 rows"),
    ({"x": X, "y": Y[:-1]}, "mine.npz: y must have one label for each of the 60 rows, got 59"),
    ({"x": X, "y": Y.astype(float)}, "mine.npz: y must be integer labels .* got torch.float64"),
    ({"x": X, "y": Y > 0}, "mine.npz: y must be integer labels .* got torch.bool"),
    ({"x": X, "y": np.array(["a"] * 60)}, "mine.npz: y must be numbers, got an array of <U1"),
    ({"x": X, "y": np.stack([Y, Y], 1)}, r"mine.npz: y must be integer labels .* shape \(60, 2\)"),
    ({"x": X, "y": Y - 2}, "mine.npz: y must hold classes from 0 up, or -1 where unlabelled, got -2"),
    ({"x": X, "y": Y, "x_test": X}, "mine.npz must hold x_test only together with y_test"),
    ({"x": X, "y": Y, "y_test": Y}, "mine.npz must hold y_test only together with y and x_test"),
    ({"x": X, "x_test": X, "y_test": Y}, "mine.npz must hold y_test only together with y and x_test"),
    ({"x": X, "y": Y, "x_test": X[:, :1], "y_test": Y}, r"x_test must have rows of shape \(2, 3\), .* got \(1, 3\)"),
    ({"x": X, "y": Y, "x_test": X, "y_test": Y[1:]}, "y_test must have one label for each of the 60 rows, got 59"),
    ({"x": X, "y": Y, "x_test": X, "y_test": Y - 1}, "y_test must give every row a class, got 20 of -1"),
    ({"x": X[:3], "y": Y[:3]}, "y must have a class with two labelled rows"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS, ids=[message[:40] for _, message in BAD_ARRAYS])
def test_wrong_arrays(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "mine.npz", **arrays))


@pytest.mark.parametrize("damage", ["missing", "text", "pickle", "npy", "cut", "byte"])
def test_damaged_archives(tmp_path, damage):
    path = write(tmp_path / "mine.npz", x=rows(), y=Y)
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("x,y\n1,2\n")
    elif damage == "pickle":
        path.write_bytes(b"\x80\x04N.")
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, rows())
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[1000] ^= 255  # among the numbers of x
        path.write_bytes(content)
    message = {"missing": "must be a file, got none", "byte": "is damaged: x.npy in it is not what was written"}
    with pytest.raises(ValueError, match=f"mine.npz {message.get(damage, 'must be an .npz archive')}"):
        load(path)


def test_a_data_set_of_a_name_has_its_own_classes():
    with pytest.raises(ValueError, match="num_classes must be given for an .npz alone, got 10 for 'digits'"):
        load("digits", num_classes=10)


# MNIST and Fashion-MNIST

N_TRAIN, N_TEST = 10_030, 12


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
    return header + array.tobytes()


def made_arrays():
    """Training images of 2x3 pixels that carry their number, their labels, and the same for the test."""
    number = np.arange(N_TRAIN)
    images = np.zeros((N_TRAIN, 2, 3), dtype=np.uint8)
    images[:, 0, 0], images[:, 1, 2] = number % 256, number // 256
    return images, (number % 10).astype(np.uint8), images[:N_TEST] + 1, np.full(N_TEST, 7, dtype=np.uint8)


def write_idx(root, folder="MNIST"):
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for file, array in zip(idx.FILES, made_arrays(), strict=True):
        (raw / file).write_bytes(idx_bytes(array))
    return raw


@pytest.fixture
def made(monkeypatch):
    """The checksums of the made files, in place of the original files'."""
    sums = tuple(hashlib.md5(idx_bytes(array)).hexdigest() for array in made_arrays())
    monkeypatch.setattr(idx, "MD5", {"MNIST": sums, "FashionMNIST": sums})
    monkeypatch.delenv("SEMIPYRO_DATA", raising=False)


def check_made(data):
    images, labels, test_images, test_labels = made_arrays()
    assert [len(part) for part in parts(data)] == [30, 10_000, N_TEST]
    x = torch.cat([data.train.x, data.validation.x])
    assert torch.equal((x * 255).round().to(torch.uint8), torch.tensor(images).flatten(1))
    assert torch.cat([data.train.y, data.validation.y]).tolist() == labels.tolist()
    assert torch.equal((data.test.x * 255).round().to(torch.uint8), torch.tensor(test_images).flatten(1))
    assert data.test.y.tolist() == test_labels.tolist()
    assert (data.num_classes, data.shape, data.train.x.dtype) == (10, (2, 3), torch.float32)
    assert float(data.validation.x.max()) == 1  # 255


def listing(root):
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in root.rglob("*")}


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_idx_files_are_read_and_the_root_left_alone(tmp_path, made, name, folder):
    write_idx(tmp_path, folder)
    before = listing(tmp_path)
    data = load(name, tmp_path)
    check_made(data)
    assert data.name == name
    assert listing(tmp_path) == before


@pytest.mark.parametrize("way", ["argument", "variable", "cache", "home"])
def test_where_the_root_is(tmp_path, monkeypatch, made, way):
    """The argument goes before the variable, the variable before the cache folder."""
    names = ["argument", "variable", "cache", "home"]
    here = tmp_path / "here"
    write_idx({"cache": here / "semipyro", "home": here / ".cache" / "semipyro"}.get(way, here))
    empty = {name: str(tmp_path / "empty") for name in names[names.index(way) :]}
    where = {**empty, way: str(here)}
    for name, variable in {"variable": "SEMIPYRO_DATA", "cache": "XDG_CACHE_HOME", "home": "HOME"}.items():
        monkeypatch.delenv(variable, raising=False)
        if name in where:
            monkeypatch.setenv(variable, where[name])
    check_made(load("mnist", where.get("argument")))


@pytest.mark.parametrize("file", idx.FILES)
@pytest.mark.parametrize("damage", ["byte", "cut"])
def test_damaged_idx_files_are_named(tmp_path, made, file, damage):
    path = write_idx(tmp_path) / file
    content = bytearray(path.read_bytes())
    if damage == "byte":
        content[len(content) // 2] ^= 1
    else:
        del content[-1]
    path.write_bytes(content)
    found = hashlib.md5(content).hexdigest()
    with pytest.raises(ValueError, match=f"{file} must be a file with MD5 .* got {len(content)} .* {found}.*delete it"):
        load("mnist", tmp_path)


def test_missing_idx_files_are_downloaded_into_the_root(tmp_path, made, fake_torchvision):
    calls = []

    def download(root, *, download):
        calls.append((root, download))
        write_idx(tmp_path / "root")

    fake_torchvision(MNIST=download)
    check_made(load("mnist", tmp_path / "root"))
    assert calls == [(str(tmp_path / "root"), True)]
    check_made(load("mnist", tmp_path / "root"))
    assert len(calls) == 1


@pytest.mark.parametrize("failure", ["import", "network", "nothing"])
def test_a_failed_download_says_what_is_missing_and_what_to_do(tmp_path, made, fake_torchvision, monkeypatch, failure):
    def download(root, *, download):
        if failure == "network":
            raise OSError("no network")

    fake_torchvision(MNIST=download)
    if failure == "import":
        monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    reason = {"import": "Error: ", "network": "OSError: no network", "nothing": "not there after the download"}[failure]
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is missing") as error:
        load("mnist", tmp_path)
    assert reason in str(error.value)
    assert f"torchvision.datasets.MNIST({str(tmp_path)!r}, download=True)" in str(error.value)
    assert "SEMIPYRO_DATA" in str(error.value)


def test_one_missing_file_is_the_one_named(tmp_path, made, fake_torchvision):
    (write_idx(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    fake_torchvision(MNIST=lambda root, *, download: None)
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte is missing"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("name", ["mnists", "MNIST", "", "data.npy"])
def test_unknown_names(name):
    with pytest.raises(ValueError, match=f"must be one of digits, .*omniglot, .* ends in .npz, got '{name}'"):
        load(name)


@pytest.mark.parametrize(
    ("name", "folder", "pixels", "counts"),
    [
        ("mnist", "MNIST", 444, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        ("fashion-mnist", "FashionMNIST", 690, [1000] * 10),
    ],
)
def test_the_original_files(data_root, name, folder, pixels, counts):
    if not (data_root / folder).is_dir():
        pytest.skip(f"no {folder} in SEMIPYRO_DATA")
    data = load(name, data_root)
    assert [len(part) for part in parts(data)] == [50_000, 10_000, 10_000]
    assert torch.bincount(data.test.y).tolist() == counts
    train = torch.cat([data.train.x, data.validation.x])
    assert (float(train.min()), float(train.max())) == (0, 1)
    assert int(pixel_filter(train).sum()) == pixels
