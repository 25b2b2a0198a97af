"""Files are written whole or not at all, damage is found, and a folder belongs to one process."""

import os
import signal
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from semipyro.files import check_archive, check_file, checksum, hold, read_json, write_json, write_whole

from helpers.mutations import outcomes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
HOLDER = """
import sys, time
from semipyro.files import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "numbers"
    write_whole(path, lambda temporary: temporary.write_text("old"))

    def fails(temporary):
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(path, fails)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_name_have_files_of_their_own(tmp_path):
    """Also in two containers, whose processes can have the same number."""
    seen = set()

    def inner(temporary):
        seen.add(temporary)
        temporary.write_text("inner")

    def outer(temporary):
        seen.add(temporary)
        write_whole(tmp_path / "numbers", inner)
        temporary.write_text("outer")

    write_whole(tmp_path / "numbers", outer)
    assert len(seen) == 2
    assert (tmp_path / "numbers").read_text() == "outer"


@given(content=st.dictionaries(st.text().filter(lambda name: name != "sha256"), JSON, max_size=5))
def test_json_is_read_as_it_was_written(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "content.json"
    write_json(path, content)
    assert read_json(path, sealed=True) == content


def test_keys_that_are_no_text_become_text(tmp_path):
    write_json(tmp_path / "content.json", {"by class": {2: 0.5, 10: 0.25}, "others": {None: 1, True: 2}})
    found = {"by class": {"2": 0.5, "10": 0.25}, "others": {"null": 1, "true": 2}}
    assert read_json(tmp_path / "content.json", sealed=True) == found


@pytest.mark.reliability
def test_damaged_json_is_refused(tmp_path, tries, counted):
    path = tmp_path / "record.json"
    write_json(path, {"accuracy": 0.918, "seed": 3, "names": ["a", "ü"], "settings": {"hidden": [500, 50]}})
    found = outcomes(path, lambda path: read_json(path, sealed=True), 3 * tries)
    counted("damaged JSON files", found)
    assert set(found) <= {"refused", "unchanged"}, found
    assert found["refused"] > 2 * tries


def test_a_number_changed_by_hand_is_found(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"accuracy": 0.918})
    path.write_text(path.read_text().replace("0.918", "0.981"))
    with pytest.raises(ValueError, match="was changed or damaged after it was written"):
        read_json(path)


def test_json_without_a_checksum_is_of_version_0_1(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"paper": "m2"}')
    assert read_json(path) == {"paper": "m2"}
    with pytest.raises(ValueError, match="has no checksum"):
        read_json(path, sealed=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "must hold a JSON object, got list"),
        ('{"a": ', "is damaged, or not a JSON file"),
        ("[" * 100_000, "is damaged, or not a JSON file"),
        ("\udcff", "is damaged, or not a JSON file"),
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path, text, message):
    path = tmp_path / "settings.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=message):
        read_json(path)


def test_the_checksum_is_of_the_content_and_not_of_its_order():
    assert checksum({"a": 1, "b": (2, 3)}) == checksum({"b": [2, 3], "a": 1, "sha256": "of something else"})
    assert checksum({"a": 1}) != checksum({"a": 2})


@pytest.mark.parametrize("kind", ["folder", "pipe", "none"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / "file"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "none": lambda: None}[kind]()
    for read in (check_file, read_json, check_archive):
        with pytest.raises(ValueError, match="must be a file, got (a folder|a pipe or a device|none)"):
            read(path)


def test_a_file_that_may_not_be_opened_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "arrays.npz"
    np.savez(path, x=np.arange(3))

    def denied(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("semipyro.files.open", denied, raising=False)
    for read in (check_file, read_json, check_archive):
        with pytest.raises(PermissionError):
            read(path)


@pytest.mark.reliability
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_damaged_archives_are_refused(tmp_path, tries, counted, write):
    path = tmp_path / "arrays.npz"
    write(path, weights=np.random.RandomState(0).randn(20, 10), names=np.array(["a", "b"]))

    def read(path):
        check_archive(path)
        with np.load(path) as arrays:
            return {name: arrays[name].tolist() for name in arrays.files}

    found = outcomes(path, read, 3 * tries)
    counted(f"damaged archives of numpy.{write.__name__}", found)
    assert set(found) <= {"refused", "unchanged"}, found


def test_an_archive_may_have_a_comment(tmp_path):
    path = tmp_path / "arrays.npz"
    np.savez(path, x=np.arange(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"measured in spring"
    check_archive(path)


def test_an_archive_that_declares_too_much_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        for _ in range(1100):
            member.write(bytes(2**20))
    assert path.stat().st_size < 2**21
    with pytest.raises(ValueError, match=r"would unpack to 1\.1 GiB"):
        check_archive(path)


def test_a_held_folder_is_refused_to_others_and_free_afterwards(tmp_path):
    refused = []

    def other():
        try:
            with hold(tmp_path):
                refused.append(False)
        except ValueError as error:
            refused.append(str(error))

    with hold(tmp_path):
        other()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with hold(tmp_path, ".another"):
            pass
    with hold(tmp_path):
        pass
    assert refused == [f"another process is at work in {tmp_path}; wait for its end, or choose another folder"] * 2


@pytest.mark.reliability
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_leaves_no_lock(tmp_path, how):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process is at work"), hold(tmp_path):
            pass
        process.send_signal(how)
        process.wait()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with hold(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
