"""Whatever a file or an argument holds: the right data or one ValueError, in little time and memory."""

import hashlib
import resource
import time
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from semipyro.data import batches, binarize, idx, load, mask_labels, omniglot
from semipyro.data.idx import read_idx

from helpers.mutations import outcomes

pytestmark = pytest.mark.reliability
PARTS = ("train", "validation", "test")


@contextmanager
def little(seconds=1.0, megabytes=500):
    """Ends in an error where more memory is asked for, or more processor time was taken."""
    pages = Path("/proc/self/statm")  # where there is none, time alone is measured
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if pages.exists():
        used = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, limits[1]))
    start = time.process_time()
    try:
        yield
        assert time.process_time() - start < seconds
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def outcome(call):
    """What a call returns, or the one line in which it refuses to, in little time and memory."""
    try:
        with little():
            return call(), None
    except ValueError as error:
        told = str(error)
    assert "\n" not in told
    return None, told


# The user's own arrays

TYPES = ["O", "?", "i1", "i2", ">i4", "i8", "u1", "u2", "u8", "f2", "f4", ">f8", "g", "c8", "S2", "U3", "M8[D]"]
TYPES += ["m8[s]", "i4,f4"]
NUMBERS = [-2, -1, 0, 1, 2, 7, 999, 1000, 1001, 255, 2**31, 2_000_000_000, 2**63 - 1]


@st.composite
def any_array(draw, first=None):
    """An array of any type and shape; with `first`, of so many rows."""
    shape = draw(drawn.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9))
    shape = shape if first is None else (first, *shape[1:])
    elements = st.none() | st.integers() | st.text(max_size=2)
    kind = draw(st.sampled_from(TYPES))
    return draw(drawn.arrays(kind, shape, elements=elements if kind == "O" else None))


@st.composite
def rows(draw, n, shape):
    """Rows as they should be."""
    kind = draw(st.sampled_from(["f4", ">f8", "i2", "u1", "?"]))
    elements = {"elements": st.floats(-1e6, 1e6, width=32)} if "f" in kind else {}
    return draw(drawn.arrays(kind, (n, *shape), **elements))


@st.composite
def labels(draw, n, least=-1):
    """Labels as they should be: few classes, or one that is far away."""
    far = draw(st.sampled_from([*[None] * 4, *NUMBERS]))
    found = draw(st.lists(st.integers(least, 2), min_size=n, max_size=n))
    found = np.array([*found[:-1], far] if found and far is not None else found, dtype=np.int64)
    return found.astype(draw(st.sampled_from(["i8", "i8", "i8", ">i4", "i2", "u1", "u8"])))


@st.composite
def files(draw):
    """Arrays of a file, most of them nearly as they should be."""
    n, n_test = draw(st.integers(0, 20)), draw(st.integers(1, 4))
    shape = draw(st.sampled_from([(2,), (1,), (2, 3), (0,), ()]))
    arrays = {"x": draw(rows(n, shape)), "y": draw(labels(n))}
    arrays |= {"x_test": draw(rows(n_test, shape)), "y_test": draw(labels(n_test, 0))}
    for name in draw(st.sampled_from([["x_test", "y_test"]] * 4 + [["y", "y_test"], [], ["y"], list(arrays)])):
        del arrays[name]
    if arrays and draw(st.integers(0, 3)) == 0:
        arrays[draw(st.sampled_from(sorted(arrays)))] = draw(any_array() | any_array(first=n))
    return arrays


def expected_classes(arrays, num_classes):
    """K of arrays that make a data set; None for those that do not."""
    sides = [("x", "y"), ("x_test", "y_test")][: 1 + ("x_test" in arrays)]
    if "x" not in arrays or ("y_test" in arrays) > ("x_test" in arrays and "y" in arrays):
        return None
    if len(sides) == 2 and ("y" in arrays) != ("y_test" in arrays):
        return None
    y = []
    for key, name in sides:
        x = arrays[key]
        if x.dtype.kind not in "biuf" or x.ndim < 2 or not x.size or x.shape[1:] != arrays["x"].shape[1:]:
            return None
        with np.errstate(over="ignore"):
            if not np.isfinite(x.astype(np.float32)).all():
                return None
        given = arrays.get(name, np.full(len(x), -1))
        if given.dtype.kind not in "iu" or given.shape != (len(x),) or min(given.tolist()) < -1:
            return None
        if name == "y_test" and name in arrays and min(given.tolist()) < 0:
            return None
        y.append([int(label) for label in given])
    known = {label for part in y for label in part if label >= 0}
    largest, most = max(known, default=-1), max(sum(map(len, y)), 1000)
    if largest >= most or (num_classes is None and known != set(range(len(known)))):
        return None
    if num_classes is not None and not largest < num_classes <= most:
        return None
    own = [label for label in y[0] if label >= 0] or y[0]
    enough = max(map(own.count, own)) >= (2 if len(sides) == 2 else 3)  # one is kept, one or two are held out
    return (num_classes or largest + 1) if enough else None


def as_rows(x, y):
    """Rows with their labels, in an order of their own."""
    x = np.asarray(x).reshape(len(x), -1).astype(np.float32)
    return sorted((*row, label) for row, label in zip(x.tolist(), np.asarray(y).tolist(), strict=True))


@given(arrays=files(), num_classes=st.none() | st.none() | st.sampled_from([0, 3, 8, 1000, 1001, 2**31, 2**63]))
def test_any_arrays_are_a_right_data_set_or_one_helpful_error(arrays, num_classes, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.npz"
    np.savez(path, **arrays)
    expected = expected_classes(arrays, num_classes)
    data, told = outcome(lambda: load(path, num_classes=num_classes))
    if told is not None:
        assert expected is None, told
        assert str(path) in told or told.startswith(("y must have a class with two labelled rows", "num_classes must"))
        return
    assert data.num_classes == expected
    assert data.shape == arrays["x"].shape[1:]
    parts = [getattr(data, part) for part in PARTS]
    assert all(len(part) and part.x.dtype == torch.float32 and part.y.dtype == torch.int64 for part in parts)
    found = [row for part in parts for row in as_rows(part.x, part.y)]
    written = []
    for key, name in (("x", "y"), ("x_test", "y_test")):
        if key in arrays:
            written += as_rows(arrays[key], arrays.get(name, np.full(len(arrays[key]), -1)))
    assert sorted(found) == sorted(written)


def write_member(path, header, body, version=(1, 0)):
    """An archive whose CRCs are right, with an array `x` of this header."""
    length = len(header).to_bytes(2 if version == (1, 0) else 4, "little")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY" + bytes(version) + length + header + body)


SIDES = st.sampled_from([-3, -1, 0, 1, 2, 5, True, 10**6, 10**10, 2**63, 10**30])


@given(
    shape=st.lists(SIDES, max_size=4).map(tuple),
    kind=st.sampled_from(["<f8", "|u1", ">i4", "<U0", "<U99999", "|V0", "|O", "nonsense", ("<f8", (10**6,)), [], 3]),
    body=st.binary(max_size=100),
    version=st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)]),
    fortran=st.booleans() | st.none(),
)
def test_a_header_that_says_more_than_there_is_takes_no_memory(shape, kind, body, version, fortran, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "crafted.npz"
    write_member(path, repr({"descr": kind, "fortran_order": fortran, "shape": shape}).encode(), body, version)
    data, told = outcome(lambda: load(path))
    if told is not None:
        assert str(path) in told or told.startswith("y must have a class with two")
        assert "allocate" not in told
    else:
        assert sum(getattr(data, part).x.numel() for part in PARTS) == np.prod(shape)


NESTED = [b"(" * 9000, b"[" * 9000, b"-" * 9000]


@given(
    header=st.binary(max_size=60) | st.text("{'descr': <f84,}()", max_size=60).map(str.encode) | st.sampled_from(NESTED)
)
def test_a_header_that_is_none_is_refused(header, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "crafted.npz"
    write_member(path, header, b"")
    with pytest.raises(ValueError, match="crafted.npz: x must be an array that can be read, got .+; write"), little():
        load(path)


def test_an_archive_that_declares_gigabytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((100, 100)))
    archive = bytearray(path.read_bytes())
    size = archive.rindex(b"PK\x01\x02") + 24  # in the directory
    archive[size : size + 4] = (3 * 2**30).to_bytes(4, "little")
    path.write_bytes(archive)
    with pytest.raises(ValueError, match=r"bomb.npz would unpack to 3\.0 GiB"), little():
        load(path)


# Labels as arguments

PLAIN = st.lists(st.integers(-1, 3), min_size=1, max_size=6)
TENSORS = st.sampled_from([torch.float32, torch.complex64, torch.bool, torch.uint8, torch.int32, torch.uint64])
ANYTHING = st.one_of(
    PLAIN, PLAIN.map(tuple), PLAIN.map(np.array), PLAIN.map(torch.tensor), PLAIN.map(set),
    st.builds(lambda y, kind: torch.tensor(y).to(kind), PLAIN, TENSORS),
    PLAIN.map(lambda y: torch.tensor(y).to_sparse()),
    PLAIN.map(lambda y: np.ma.array(y, mask=[label == 0 for label in y])),
    PLAIN.map(iter), st.lists(PLAIN, max_size=3), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2))),
    st.lists(st.sampled_from(NUMBERS) | st.integers()), st.lists(st.floats() | st.none() | st.text(max_size=2)),
    st.none(), st.integers(), st.text(max_size=3), st.just({0: 1}), any_array(),
)  # fmt: skip


def plain(value):
    """The labels as a list where they are labels; None where they are not."""
    if isinstance(value, (list, tuple)) and all(isinstance(label, int) for label in value):
        found = list(value)
    elif isinstance(value, np.ma.MaskedArray):
        found = None if value.mask.any() else value.data.tolist()
    elif isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.ndim == 1:
        found = value.tolist()
    elif isinstance(value, torch.Tensor) and value.layout == torch.strided and value.dim() == 1:
        found = value.tolist() if value.dtype in (torch.uint8, torch.int32, torch.int64, torch.uint64) else None
    else:
        found = None
    return found if found is not None and all(-1 <= label < 2**63 for label in found) else None


@given(y=ANYTHING)
def test_any_labels_are_kept_or_refused(y):
    expected = plain(y)
    masked, told = outcome(lambda: mask_labels(y, fraction=1.0))
    if told is None:
        assert masked.tolist() == expected
    else:
        assert told.startswith("y must ")
        assert not expected or max(expected) < 0, told


@given(y=ANYTHING, num_classes=st.none() | st.sampled_from([4, 1000, 2**31, 2**62]), hidden=st.booleans())
def test_batches_have_the_labels_or_refuse_them(y, num_classes, hidden):
    expected = [-1] * 3 if y is None else plain(y)
    n = len(expected) if expected else 3
    labelled = sum(label >= 0 for label in expected or [])
    sizes = {"labelled_batch_size": max(1, labelled), "unlabelled_batch_size": n, "include_labelled": True}
    classes = [k for k in range(4) if k not in (expected or [])] if hidden else ()
    data, told = outcome(
        lambda: batches(torch.zeros(n, 1), y, num_classes=num_classes, hidden_classes=classes, **sizes)
    )
    if told is None:
        (_, one_hot, _), *_ = data
        assert data.num_classes == (max(expected) + 1 if num_classes is None else num_classes)
        assert sorted(one_hot.argmax(1).tolist()) == sorted(label for label in expected if label >= 0)
    else:
        assert told.startswith(("y must ", "num_classes must ", "hidden_classes must "))
        assert not expected or set(expected) - {-1} != set(range(4)) or num_classes not in (None, 4), told


@pytest.mark.parametrize("hidden", [range(10**12), [0, 10**12], 3, None, [None], ["a"], [[0]], [-1]])
def test_wrong_hidden_classes_are_refused_at_once(hidden):
    y = torch.tensor([0, 1])
    for call in (
        lambda: mask_labels(y, per_class=1, hidden_classes=hidden),
        lambda: batches(
            torch.zeros(2, 1),
            y,
            labelled_batch_size=1,
            unlabelled_batch_size=1,
            num_classes=1000,
            hidden_classes=hidden,
        ),
    ):
        with pytest.raises(ValueError, match="hidden_classes must (be|have)"), little():
            call()


def test_hidden_entries_of_rows_are_refused():
    x = np.ma.array([[0.5, 0.2]], mask=[[False, True]])
    for call in (lambda: binarize(x, 0), lambda: batches(x, labelled_batch_size=0, unlabelled_batch_size=1)):
        with pytest.raises(ValueError, match="x must not hide entries under a mask; fill them"):
            call()
    assert binarize(np.ma.array([[0.0, 1.0]]), 0).tolist() == [[0.0, 1.0]]


# Damage


def content(data):
    """All rows and labels."""
    return [part.tolist() for name in PARTS for part in vars(getattr(data, name)).values()]


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_damaged_file_of_ones_own_is_refused(tmp_path, tries, counted, write):
    path = tmp_path / "mine.npz"
    write(path, x=np.random.RandomState(0).randn(30, 4), y=np.arange(30) % 3)
    found = outcomes(path, lambda path: content(load(path)), 3 * tries)
    counted(f"damaged tables of numpy.{write.__name__}", found)
    assert set(found) <= {"refused", "unchanged"}, found
    assert found["refused"] > 2 * tries


def test_damaged_idx_files_are_refused(tmp_path, tries, counted):
    """They have no checksum of their own; the originals' are in the table."""
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 4, 0]) + bytes(range(256)) * 4)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    found = outcomes(path, lambda path: read_idx(path, md5).tolist(), 3 * tries)
    counted("damaged files of MNIST", found)
    assert set(found) <= {"refused", "unchanged"}, found
    assert found["refused"] > 2 * tries


def test_an_idx_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / idx.FILES[0]
    with path.open("wb") as file:
        file.truncate(10 * 2**30)  # without taking room on the disk
    with pytest.raises(ValueError, match=f"{path.name} must have at most 67108864 bytes, got 10737418240"), little():
        read_idx(path, "")


@pytest.fixture
def drawings(tmp_path, monkeypatch):
    """Two characters by 20 people as an archive, and an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(omniglot, "NUM_IMAGES", 40)
    folder = tmp_path / "omniglot"
    folder.mkdir()
    ink = np.random.RandomState(0).rand(40, 105, 105) < 0.1
    np.savez_compressed(
        folder / "omniglot105.npz", images_packed=np.packbits(ink, axis=2),
        alphabet=np.repeat(np.arange(2, dtype=np.uint8), 20), drawer=np.tile(np.arange(1, 21, dtype=np.uint8), 2),
    )  # fmt: skip
    return tmp_path


def test_a_damaged_cache_is_made_again(drawings, tries, counted):
    first = content(load("omniglot", drawings))
    (path,) = (drawings / "cache" / "semipyro").iterdir()
    found = outcomes(path, lambda path: content(load("omniglot", drawings)) == first, 3 * tries)
    counted("damaged caches of OMNIGLOT, made anew", found)
    assert found == {"unchanged": 3 * tries}


def test_a_damaged_archive_of_drawings_is_refused(drawings, tries, counted):
    path = drawings / "omniglot" / "omniglot105.npz"
    found = outcomes(path, lambda path: {k: v.tolist() for k, v in omniglot.read_drawings(path).items()}, 3 * tries)
    counted("damaged archives of OMNIGLOT", found)
    assert set(found) <= {"refused", "unchanged"}, found
    assert found["refused"] > 2 * tries


def test_a_damaged_drawing_is_refused(tmp_path, tries, counted):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "0001_01.png"
    image.fromarray(np.random.RandomState(0).rand(105, 105) < 0.9).save(path)
    found = outcomes(path, lambda path: omniglot._read_image(path).tolist(), 3 * tries)
    counted("damaged images of OMNIGLOT", found)
    assert set(found) <= {"refused", "unchanged"}, found
    assert found["refused"] > 2 * tries


@pytest.mark.parametrize("size", [(106, 105), (9_500, 9_500), (100_000, 100_000)])
def test_a_drawing_of_another_size_is_not_unpacked(tmp_path, size):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "0001_01.png"
    image.new("1", (105, 105)).save(path)
    drawing = bytearray(path.read_bytes())
    drawing[16:24] = b"".join(side.to_bytes(4, "big") for side in size)
    drawing[29:33] = zlib.crc32(drawing[12:29]).to_bytes(4, "big")
    path.write_bytes(drawing)
    with pytest.raises(ValueError, match="0001_01.png must be an image of 105x105 pixels that can be read"), little():
        omniglot._read_image(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"alphabet": np.full(40, 50, dtype=np.uint8)},
            "must hold 50 alphabets by the drawers 1 to 20, got 51 by 1",
        ),
        ({"drawer": np.full(40, 21, dtype=np.uint8)}, "must hold 50 alphabets by the drawers 1 to 20, got 2 by 21 to"),
        ({"drawer": np.zeros(40, dtype=np.uint8)}, "must hold 50 alphabets by the drawers 1 to 20, got 2 by 0 to 0"),
        ({"drawer": np.ones(40)}, "must hold images_packed, alphabet and drawer, bytes of one length"),
        ({"alphabet": np.uint8(1)}, "must hold images_packed, alphabet and drawer, bytes of one length"),
        (
            {"images_packed": np.zeros((40, 2, 2), dtype=np.uint8)},
            "must hold images_packed, alphabet and drawer, bytes",
        ),
    ],
)
def test_drawings_that_are_others_are_refused(drawings, change, message):
    path = drawings / "omniglot" / "omniglot105.npz"
    with np.load(path) as arrays:
        arrays = dict(arrays)
    np.savez(path, **{**arrays, **change})
    with pytest.raises(ValueError, match=message):
        load("omniglot", drawings)
