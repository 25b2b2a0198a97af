"""A checkpoint that is damaged, crafted or of a later version is refused in one line, and one of before is read."""

import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from semipyro.inference import fit, load_weights
from semipyro.inference.training.checkpoint import FORMAT, digest, read_checkpoint

from helpers.mutations import outcomes
from helpers.training_runs import Line, line_batches


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint of two epochs."""
    folder = tmp_path_factory.mktemp("whole")
    fit(Line(), line_batches(), epochs=2, out=folder, progress=False)
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture
def path(whole, tmp_path):
    """A copy of it, where a run is resumed."""
    target = tmp_path / "checkpoints" / "last.ckpt"
    target.parent.mkdir()
    return shutil.copy(whole, target)


def resume(path):
    return fit(Line(), line_batches(), epochs=3, out=path.parent.parent, resume=True, progress=False)


@pytest.mark.reliability
def test_damaged_checkpoints_are_refused(path, tries, counted):
    """Bits that say nothing of the content, such as a time, may change; none that does is read."""
    found = outcomes(path, lambda path: digest(read_checkpoint(path)), 3 * tries)
    counted("damaged checkpoints", found)
    assert set(found) <= {"refused", "unchanged"}, found
    assert found["refused"] > 2 * tries


@pytest.mark.reliability
def test_pytorch_alone_reads_damaged_checkpoints(path, tries):
    """What the test before would count if nothing were compared."""
    found = outcomes(path, lambda path: digest(torch.load(path, weights_only=True)), 3 * tries)
    assert sum(count for what, count in found.items() if what.startswith("silent")) > tries / 10


def without(name):
    return lambda content: content.pop(name)


def put(name, value):
    return lambda content: content.update({name: value})


CRAFTED = {
    **{f"no {name}": (without(name), f"has no {name}")
       for name in ("history", "seed", "batches", "optimizer_states", "loops", "epoch", "global_step")},
    **{f"{name} is {value!r}": (put(name, value), f"{name} is of type")
       for name, value in (("history", {}), ("seed", 1.5), ("seed", True), ("batches", 3), ("optimizer_states", "Adam"),
                           ("epoch", None), ("fit_settings", []), ("state_dict", 7))},
    "a history one row short": (lambda content: content["history"].pop(), "history has 1 rows after 2 epochs"),
    "a row that is none": (lambda content: content["history"].__setitem__(0, 3), "row 1 of its history is not that of"),
    "rows changed": (lambda content: content["history"].reverse(), "row 1 of its history is not that of epoch 1"),
    "text in a row": (lambda content: content["history"][1].update(loss="low"), "row 2 .* holds what is not a number"),
    "two optimisers": (lambda content: content["optimizer_states"].append({}), "has no state of one optimiser"),
    "weights of text": (lambda content: content["state_dict"].update(w="a"), "weights are not tensors"),
}  # fmt: skip


@pytest.mark.parametrize("number", [1, 2, FORMAT])
@pytest.mark.parametrize(("change", "message"), CRAFTED.values(), ids=CRAFTED)
def test_crafted_checkpoints_are_refused(path, change, message, number):
    """Those of before have no digest, and are looked at more closely."""
    content = torch.load(path, weights_only=True)
    change(content)
    if number < FORMAT:
        content["format"] = number
        del content["digest"]
    torch.save(content, path)
    expected = message if number < FORMAT else "something in it was changed"
    for read in (resume, read_checkpoint, lambda path: load_weights(Line(), path)):
        with pytest.raises(ValueError, match=f"is not as fit wrote it: .*{expected}"):
            read(path)


@pytest.mark.parametrize(
    "change",
    [
        put("seed", 3),
        lambda content: content["history"][0].update(loss=0.0),
        lambda content: content["optimizer_states"][0]["state"][0].pop("exp_avg"),
        lambda content: content["state_dict"]["objective.model.0.bias"].add_(1e-6),
        lambda content: content["fit_settings"].update(learning_rate=1.0),
        without("digest"),
        without("format"),
        put("more", 1),
    ],
)
def test_nothing_can_be_changed_without_a_word(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"last\.ckpt is not as fit wrote it: something in it was changed; delete it"):
        resume(path)


@pytest.mark.parametrize("number", [0, FORMAT + 1, "3", None])
def test_a_format_that_this_version_does_not_know(path, number):
    content = torch.load(path, weights_only=True)
    content["format"] = number
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"its format is {number!r}, and this version of semipyro reads 1 to {FORMAT}"):
        resume(path)


def test_a_checkpoint_saved_again_is_the_same(path):
    torch.save(torch.load(path, weights_only=True), path)
    assert len(resume(path)) == 3


def test_the_digest_knows_types_shapes_and_places():
    contents = [
        {"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": [1]}, {"a": (1,)}, {"b": 1}, {"a": {"a": 1}},
        {"a": torch.ones(2, 3)}, {"a": torch.ones(3, 2)}, {"a": torch.ones(2, 3, dtype=torch.float64)},
        {"a": torch.ones(2, 3, dtype=torch.bfloat16)}, {"a": torch.ones(())}, {"a": torch.ones(0)},
    ]  # fmt: skip
    assert len({digest(content) for content in contents}) == len(contents)
    assert digest({"a": 1, "digest": "x"}) == digest({"a": 1})


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_not_waited_for(path, kind):
    path.unlink()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(ValueError, match="must be a file, got a (folder|pipe)"):
        load_weights(Line(), path)


def test_a_full_disk_is_an_os_error_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    """/dev/full takes no byte, as a full disk does; from the second epoch on, it is where the checkpoint goes first."""
    checkpoints = tmp_path / "checkpoints"
    monkeypatch.setattr("semipyro.files.uuid.uuid4", lambda: SimpleNamespace(hex="x"))

    def fill(row):
        (checkpoints / ".last.ckpt.x.partial").symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left on device"):
        fit(Line(), line_batches(), epochs=3, out=tmp_path, report=fill, progress=False)
    assert [path.name for path in checkpoints.iterdir()] == ["last.ckpt"]
    assert len(read_checkpoint(checkpoints / "last.ckpt")["history"]) == 1
    monkeypatch.undo()
    assert len(fit(Line(), line_batches(), epochs=3, out=tmp_path, resume=True, progress=False)) == 3
