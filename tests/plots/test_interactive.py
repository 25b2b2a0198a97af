"""What the notebooks' controls draw is what the model says, and a choice that does not work says why."""

import base64
import builtins
import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from semipyro.inference import sample
from semipyro.papers import PAPERS
from semipyro.plots import explore, image_grid, latent_sliders

SHAPE = (4, 4)


@pytest.fixture
def m2():
    torch.manual_seed(0)
    objective = PAPERS["m2"].build(16, 3, z_dim=2, hidden=(5,))
    for parameter in objective.parameters():
        torch.nn.init.normal_(parameter)
    return objective


def shown(box):
    """The picture in a box's output, as numbers."""
    (output,) = box.children[-1].outputs
    return imread(io.BytesIO(base64.b64decode(output["data"]["image/png"])))


def drawn(image):
    """The same, of an image that is drawn directly."""
    buffer = io.BytesIO()
    figure = image_grid(image, rows=1, columns=1, shape=SHAPE)
    figure.set_dpi(400)
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return imread(buffer)


def test_the_picture_is_the_mean_at_the_sliders(m2):
    box = latent_sliders(m2.model, SHAPE, num_classes=3, start=torch.tensor([0.5, -1.0]))
    classes, first, second, _ = box.children
    assert (first.value, second.value) == (0.5, -1.0)
    pictures = [shown(box)]
    first.value, classes.value = 2.0, 2
    pictures.append(shown(box))
    for picture, z, k in zip(pictures, ([0.5, -1.0], [2.0, -1.0]), (0, 2), strict=True):
        mean = sample(m2.model, 1, torch.eye(3)[[k]], latents={"z": torch.tensor([z])}, mean=True)
        assert np.array_equal(picture, drawn(mean))
    assert not np.array_equal(*pictures)


def test_a_model_without_classes_has_sliders_alone_that_reach_its_start():
    model = PAPERS["m1"].build(16, z_dim=20, hidden=(5,)).model
    start = torch.zeros(20)
    start[0], start[19] = 4.0, 1.0
    box = latent_sliders(model, SHAPE, start=start)
    *sliders, _ = box.children
    assert len(sliders) == 12
    assert sliders[0].max == 4.0
    assert np.array_equal(shown(box), drawn(sample(model, 1, latents={"z": start[None]}, mean=True)))
    assert start[0] == 4.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"site": "a"}, "site must be a latent of the model, got 'a'"),
        ({"start": torch.zeros(3)}, r"start must be of shape \(2,\)"),
    ],
)
def test_what_has_no_slider_is_refused(m2, settings, message):
    with pytest.raises(ValueError, match=message):
        latent_sliders(m2.model, SHAPE, num_classes=3, **settings)


def test_a_run_shows_what_it_printed_and_drew():
    seen = []

    def run(flow, length):
        seen.append((flow, length))
        print(f"{flow} of length {length}")
        return Figure() if length > 1 else None

    box = explore(run, flow=["planar", "iaf"], length=[1, 2])
    *menus, button = box.children[0].children
    assert [output["text"] for output in box.children[-1].outputs] == ["planar of length 1\n"]
    menus[0].value, menus[1].value = "iaf", 2
    assert seen == [("planar", 1)]  # nothing runs before the button is pressed
    button.click()
    assert seen[1:] == [("iaf", 2)]
    kinds = [output["output_type"] for output in box.children[-1].outputs]
    assert kinds == ["stream", "display_data"]
    assert not button.disabled


def test_a_choice_that_does_not_work_says_why_and_others_still_run():
    def run(dim):
        if dim < 2:
            raise ValueError("needs 2 dimensions")
        print("fine")

    box = explore(run, dim=[1, 2])
    (menu, button), output = box.children[0].children, box.children[-1]
    assert output.outputs[0]["text"] == "needs 2 dimensions\n"
    menu.value = 2
    button.click()
    assert output.outputs[0]["text"] == "fine\n"


@pytest.mark.parametrize("choices", [{}, {"flow": []}])
def test_nothing_to_choose_from_is_refused(choices):
    with pytest.raises(ValueError, match="at least one value"):
        explore(print, **choices)


def test_without_ipywidgets_it_says_what_to_install(m2, monkeypatch):
    usual = builtins.__import__

    def absent(name, *rest, **more):
        if name == "ipywidgets":
            raise ImportError(name)
        return usual(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"pip install 'semipyro\[notebooks\]'"):
        latent_sliders(m2.model, SHAPE, num_classes=3)
