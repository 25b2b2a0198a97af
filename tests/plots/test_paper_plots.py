"""The papers' figures are checked by what they show: which number or image stands where."""

import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pyro.distributions import Normal, OneHotCategorical
from semipyro.papers import PAPERS
from semipyro.plots import (
    cluster_kl,
    component_kl,
    confusion_matrix,
    digit_extraction,
    latent_mesh,
    latent_space,
    reconstructions,
    unit_kl,
)
from semipyro.plots.common import class_colours
from torch import nn

SHAPES = [(8, 8), (28, 28), (4, 6)]
LONG = ["T-shirt/top", "Ankle boot", "$ or %"]


class Layers(nn.Module):
    """z2 ~ N(0, I), y = the half of the plane where z2 lies, x = y A + z2 B: the sites of CaGeM, without z1."""

    def __init__(self, x_dim, noise=0.0):
        super().__init__()
        self.A = nn.Parameter(torch.rand(2, x_dim))
        self.B = nn.Parameter(torch.rand(2, x_dim))
        self.noise = noise
        self.dropout = nn.Dropout(0.9)  # a mean is reproducible in evaluation mode only

    def mean(self, y, z2):
        return self.dropout(y @ self.A + z2 @ self.B)

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", Normal(x.new_zeros(2), 1.0).to_event(1))
            signs = torch.stack([z2[..., 0], -z2[..., 0]], -1)  # class 0 on the right
            y = pyro.sample("y", OneHotCategorical(logits=1e6 * signs), obs=y)
            pyro.sample("x", Normal(self.mean(y, z2), 0.1).to_event(1), obs=x)


class LayersGuide(nn.Module):
    """z2 ~ N(x C, noise²), y = class 1."""

    def __init__(self, x_dim, z2_dim=2, noise=1e-9):
        super().__init__()
        self.C = nn.Parameter(torch.randn(x_dim, z2_dim) / x_dim)
        self.noise = noise

    def encode(self, x, site=None):
        return x @ self.C

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("y", OneHotCategorical(logits=x.new_tensor([-1e6, 1e6])))
            pyro.sample("z2", Normal(x @ self.C, self.noise).to_event(1))


@pytest.fixture(autouse=True)
def _seed():
    pyro.set_rng_seed(0)


def heights(axes):
    """The heights of each set of bars, (sets, units), as they are drawn: from the baseline to the top."""
    found = []
    for bars in axes.patches:
        values, edges, baseline = bars.get_data()
        units = np.arange(1, len(values) // 2 + 2)
        half = 0.4 if len(units) <= 60 else 0.5
        np.testing.assert_allclose(edges.reshape(-1, 2), np.stack([units - half, units + half], 1))
        assert np.isnan(values[1::2]).all(), "bars touch"
        found.append(values[::2] - baseline[::2])
    return np.array(found)


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def blocks(axes, shape):
    """The images of a mosaic, row by row; cells of NaN are left out, and what is between images must be NaN."""
    (picture,) = axes.images
    canvas = np.ma.filled(np.ma.asarray(picture.get_array(), float), np.nan)
    gap = max(1, round(0.07 * shape[1]))
    found = []
    for top, left in itertools.product(
        range(0, len(canvas), shape[0] + gap), range(0, canvas.shape[1], shape[1] + gap)
    ):
        cell = canvas[top : top + shape[0], left : left + shape[1]]
        around = canvas[top : top + shape[0] + gap, left : left + shape[1] + gap]
        assert np.isnan(around).sum() == around.size - (cell.size if not np.isnan(cell).any() else 0)
        if not np.isnan(cell).all():
            found.append(cell.ravel())
    assert picture.get_clim() == (0, 1)
    assert picture.cmap.name == "gray"
    return np.array(found)


# Units


def test_units_are_sorted_in_a_panel_for_each_site():
    a, z = torch.tensor([0.1, 3.0, 0.005]), torch.rand(50)
    figure = unit_kl({"a": a, "z": z})
    for axes, values in zip(figure.axes, (a, z), strict=True):
        np.testing.assert_allclose(heights(axes)[0], values.sort(descending=True).values)
        assert "nats" in axes.get_ylabel()
    assert figure.axes[0].get_title() == "a: 2 of 3 units above 0.01 nats, 3.105 in all"
    assert [axes.get_xlabel() for axes in figure.axes] == ["units of a, sorted", "units of z, sorted"]
    assert unit_kl({"z": a}, threshold=0.2).axes[0].get_title().startswith("z: 1 of 3")


def test_a_latent_that_collapsed_has_an_empty_panel_from_zero():
    (axes,) = unit_kl({"z": torch.zeros(3)}).axes
    assert axes.get_ylim() == (0, 0.01)


def test_clusters_share_one_order_of_units_and_one_scale():
    kls = torch.rand(7, 30)
    figure = cluster_kl(kls, units=12)
    order = kls.sum(0).argsort(descending=True)[:12]
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == [f"y* = {k}" for k in range(7)]
    for axes, values in zip(panels, kls, strict=True):
        np.testing.assert_allclose(heights(axes), values[order][None])
    assert len({axes.get_ylim() for axes in panels}) == 1
    assert not figure.legends


def test_bars_of_a_cluster_are_stacked_by_true_class():
    kls = torch.rand(4, 3, 9)
    kls[2] = math.nan
    figure = cluster_kl(kls, class_names=LONG, order=torch.arange(9).flip(0), units=5)
    for k, axes in enumerate(figure.axes):
        if k == 2:
            assert not axes.patches
            assert [text.get_text() for text in axes.texts] == ["no rows"]
            continue
        np.testing.assert_allclose(heights(axes), kls[k][:, [8, 7, 6, 5, 4]], rtol=1e-6)
        bottoms = np.array([bars.get_data().baseline[::2] for bars in axes.patches])
        np.testing.assert_allclose(bottoms, np.cumsum(heights(axes), 0) - heights(axes), rtol=1e-5)
        assert axes.get_ylim()[1] >= kls[k].sum(0)[4:].max()
        assert [to_hex(bars.get_facecolor()) for bars in axes.patches] == class_colours(3)
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [*LONG[:2], r"\$ or %"]
    assert [to_hex(handle.get_facecolor()) for handle in legend.legend_handles] == class_colours(3)
    assert "in the given order" in figure.get_supxlabel()


def test_an_order_does_not_depend_on_empty_clusters():
    kls = torch.tensor([[1.0, 3.0, 2.0], [math.nan] * 3])
    np.testing.assert_allclose(heights(cluster_kl(kls).axes[0])[0], [3, 2, 1])


@pytest.mark.parametrize("num_components", [2, 15, 16])
def test_components_as_a_table_of_pairs_and_a_profile_of_units(num_components):
    kls = torch.rand(num_components, num_components, 11) ** 8
    kls.diagonal().zero_()
    figure = component_kl(kls)
    table, profile = figure.axes[:2]
    shown = np.ma.filled(np.ma.asarray(table.images[0].get_array(), float), np.nan)
    expected = kls.sum(2).fill_diagonal_(math.nan)
    np.testing.assert_allclose(shown, expected, rtol=1e-5)
    assert (table.get_ylabel(), table.get_xlabel()) == ("component j", "component k")  # rows are the first argument
    assert isinstance(table.images[0].norm, LogNorm) == (num_components > 2 or shown[0, 1] != shown[1, 0])
    assert len(table.texts) == (num_components * (num_components - 1) if num_components <= 15 else 0)
    pairs = kls[~torch.eye(num_components, dtype=torch.bool)]
    order = pairs.mean(0).argsort(descending=True)
    np.testing.assert_allclose(heights(profile), torch.stack([pairs.max(0).values, pairs.mean(0)])[:, order], rtol=1e-5)


def test_components_that_do_not_differ_are_drawn():
    figure = component_kl(torch.zeros(3, 3, 4))
    assert {text.get_text() for text in figure.axes[0].texts} == {"0.00"}


def test_numbers_of_the_table_are_short():
    kls = torch.zeros(2, 2, 1)
    for value, text in (
        (0.04, "0.04"),
        (9.94, "9.9"),
        (9.96, "10"),
        (999.0, "999"),
        (1234.0, "1.2k"),
        (123456.0, "123k"),
    ):
        kls[0, 1], kls[1, 0] = value, 2.0
        texts = {written.get_position(): written.get_text() for written in component_kl(kls).axes[0].texts}
        assert texts == {(1, 0): text, (0, 1): "2.0"}  # across, down


# Reconstructions


@pytest.mark.parametrize("shape", SHAPES)
def test_reconstructions_stand_in_the_place_of_their_inputs(shape):
    dim = math.prod(shape)
    model, guide, x = Layers(dim).train(), LayersGuide(dim), torch.rand(7, dim)
    figure = reconstructions(model, guide, x, shape)
    assert [axes.get_title() for axes in figure.axes] == ["inputs", "reconstructions", "samples"]
    inputs, means, samples = (blocks(axes, shape) for axes in figure.axes)
    np.testing.assert_allclose(inputs, x)
    y = torch.tensor([[0.0, 1.0]]).expand(7, 2)  # the guide's class, and not the model's
    np.testing.assert_allclose(means, (y @ model.A + guide.encode(x) @ model.B).detach(), rtol=1e-4)
    rest = torch.tensor(samples, dtype=torch.float32)
    parts = rest @ torch.linalg.pinv(torch.cat([model.A, model.B]))  # each is a class and some z2, and no noise
    torch.testing.assert_close(parts @ torch.cat([model.A, model.B]), rest, atol=1e-4, rtol=0)
    assert len(samples) == 7
    assert not np.allclose(samples[0], samples[1])
    assert model.training


def test_latents_are_drawn_from_the_guide_and_not_its_means():
    model, guide, x = Layers(64), LayersGuide(64, noise=1.0), torch.rand(4, 64)
    first, second = (blocks(reconstructions(model, guide, x, (8, 8)).axes[1], (8, 8)) for _ in range(2))
    assert not np.allclose(first, second)


def test_reconstructions_of_points_and_of_vectors():
    model, guide, x = Layers(2), LayersGuide(2), torch.randn(5, 2)
    (axes,) = reconstructions(model, guide, x, (2,)).axes
    found = {c.get_label(): np.asarray(c.get_offsets()) for c in axes.collections if isinstance(c, PathCollection)}
    means = (model.A[1] + guide.encode(x) @ model.B).detach()
    np.testing.assert_allclose(found["inputs"], x)
    np.testing.assert_allclose(found["reconstructions"], means, rtol=1e-4)
    assert found["samples"].shape == (5, 2)
    (lines,) = [c for c in axes.collections if isinstance(c, LineCollection)]
    np.testing.assert_allclose(lines.get_segments(), torch.stack([x, means], 1), rtol=1e-4)
    (axes,) = reconstructions(Layers(30), LayersGuide(30), torch.rand(5, 30), (30,)).axes
    assert len(axes.lines) == 15
    assert tick_labels(axes.yaxis) == ["inputs", "reconstructions", "samples"]


# The mesh of a latent


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_of_the_mesh_stands_where_its_latent_is(shape):
    dim = math.prod(shape)
    model, guide, x = Layers(dim), LayersGuide(dim), torch.randn(20, dim)
    box = (-2.0, 2.0, 1.0, 3.0)
    figure = latent_mesh(model, guide, x, torch.arange(20) % 3 - 1, 2, shape, size=4, given=1, extent=box)
    left, middle, right = figure.axes
    across, down = [-1.5, -0.5, 0.5, 1.5], [2.75, 2.25, 1.75, 1.25]
    latents = torch.tensor([[a, d] for d in down for a in across])
    drawn = torch.eye(2)[(latents[:, 0] < 0).long()]  # class 0 on the right, as p(y | z2) has it
    with torch.no_grad():
        expected = {left: drawn @ model.A, right: model.A[1].expand(16, -1)}
    for axes, of_class in expected.items():
        np.testing.assert_allclose(blocks(axes, shape), (of_class + latents @ model.B).detach(), rtol=1e-4, atol=1e-5)
        assert (*axes.get_xlim(), *axes.get_ylim()) == box
        assert axes.images[0].origin == "upper"
        assert axes.get_box_aspect() == pytest.approx(shape[0] / shape[1])
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("z2, dimension 1", "z2, dimension 2")
    (rectangle,) = [patch for patch in middle.patches if isinstance(patch, Rectangle)]
    assert (*rectangle.get_xy(), rectangle.get_width(), rectangle.get_height()) == (-2.0, 1.0, 4.0, 2.0)
    points = np.concatenate([c.get_offsets() for c in middle.collections])
    order = (torch.arange(20) % 3).argsort(stable=True)
    np.testing.assert_allclose(points, guide.encode(x).detach()[order], rtol=1e-5, atol=1e-6)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["unlabelled", "0", "1"]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_cells_of_the_mesh_are_of_one_size(shape):
    """The picture with its gaps fills the box up to half a gap on each side."""
    figure = latent_mesh(Layers(math.prod(shape)), LayersGuide(math.prod(shape)), torch.randn(9, math.prod(shape)),
                         torch.zeros(9, dtype=torch.long), 2, shape, size=5, extent=(0.0, 5.0, 0.0, 10.0))  # fmt: skip
    axes = figure.axes[0]
    left, right, bottom, top = axes.images[0].get_extent()
    rows, columns = axes.images[0].get_array().shape
    gap = max(1, round(0.07 * shape[1]))
    wide, high = (right - left) / columns, (top - bottom) / rows  # a pixel
    assert (shape[1] + gap) * wide == pytest.approx(1.0)
    assert (shape[0] + gap) * high == pytest.approx(2.0)
    assert (left, bottom) == (pytest.approx(gap / 2 * wide), pytest.approx(gap / 2 * high))


def test_the_box_holds_the_inner_part_of_the_data_unless_told():
    guide, x = LayersGuide(64), torch.randn(500, 64)
    figure = latent_mesh(Layers(64), guide, x, torch.zeros(500, dtype=torch.long), 2, (8, 8), size=2)
    assert len(figure.axes) == 2
    left, right, bottom, top = *figure.axes[0].get_xlim(), *figure.axes[0].get_ylim()
    z = guide.encode(x).detach()
    for k, (low, high) in enumerate(((left, right), (bottom, top))):
        assert ((z[:, k] > low) & (z[:, k] < high)).float().mean() == pytest.approx(0.98, abs=0.005)


def test_the_mesh_s_title_speaks_of_classes_where_there_are_any():
    """A VAE has none to draw."""
    y = torch.zeros(9, dtype=torch.long)
    for name, title in {"m1": "Samples given z", "m2": "Samples given z, class drawn"}.items():
        built = PAPERS[name].build(16, 2, z_dim=2, hidden=(4,))
        figure = latent_mesh(built.model, built.guide, torch.rand(9, 16), y, 2, (4, 4), site="z", size=2)
        assert figure.axes[0].get_title() == title


def test_a_latent_that_never_varies_has_a_box():
    guide = LayersGuide(64)
    nn.init.zeros_(guide.C)
    figure = latent_mesh(Layers(64), guide, torch.rand(5, 64), torch.zeros(5, dtype=torch.long), 2, (8, 8), size=2)
    assert (*figure.axes[0].get_xlim(), *figure.axes[0].get_ylim()) == (-1, 1, -1, 1)


# Digit extraction


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("labelled", [range(2), [4, 1], [], range(5)])
def test_every_dimension_has_its_image_number_and_class(shape, labelled):
    images, names = torch.rand(5, math.prod(shape)), ["cat", "ant", "bee", "dog", "elk"]
    figure = digit_extraction(images, shape, labelled=labelled, names=names)
    (axes,) = figure.axes
    (above,) = axes.child_axes
    order = [*sorted(labelled), *(k for k in range(5) if k not in labelled)]
    assert tick_labels(above.xaxis) == [str(k) for k in order]
    assert tick_labels(axes.xaxis) == [names[k] for k in order]
    canvas = np.asarray(axes.images[0].get_array())
    middles = axes.get_xticks()
    np.testing.assert_array_equal(middles, above.get_xticks())
    for k, middle in zip(order, middles, strict=True):
        left = round(middle - (shape[1] - 1) / 2)
        np.testing.assert_array_equal(canvas[:, left : left + shape[1]], images[k].reshape(shape))
    steps, count = np.diff(middles), len(labelled)
    if 0 < count < 5:
        assert steps.argmax() == count - 1
    assert len({step for at, step in enumerate(steps) if at != count - 1}) == 1
    titles = [text.get_text() for text in axes.texts]
    assert titles == [title for title, there in (("labelled", count), ("not labelled", 5 - count)) if there]


def test_without_names_no_class_is_claimed():
    (axes,) = digit_extraction(torch.rand(3, 64), (8, 8), labelled=[0]).axes
    assert tick_labels(axes.xaxis) == []
    assert axes.get_xlabel() == ""


# Clusters in a confusion matrix


def test_clusters_stand_in_the_order_of_their_majority_class():
    clusters = torch.tensor([4, 4, 4, 0, 0, 2, 2, 2, 5, 1])
    y = torch.tensor([0, 0, 1, 2, 2, 1, 1, 0, 2, -1])
    classifier = lambda x: OneHotCategorical(logits=9 * x)  # noqa: E731
    figure = confusion_matrix(classifier, torch.eye(7)[clusters], y, class_names=LONG, clusters=True)
    axes = figure.axes[0]
    assert tick_labels(axes.xaxis) == ["4", "2", "0", "5", "1", "3", "6"]
    assert tick_labels(axes.yaxis) == [*LONG[:2], r"\$ or %"]
    counts = np.array([[2, 1, 0, 0, 0, 0, 0], [1, 2, 0, 0, 0, 0, 0], [0, 0, 2, 1, 0, 0, 0]])
    written = {(int(text.get_position()[1]), int(text.get_position()[0])): int(text.get_text()) for text in axes.texts}
    assert written == dict(np.ndenumerate(counts))
    np.testing.assert_allclose(axes.images[0].get_array(), counts / 3)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("cluster", "true class")
    assert axes.get_title() == "7 of 9 in a cluster of their class (77.8%)"


def test_fewer_clusters_than_classes_are_drawn_too():
    classifier = lambda x: OneHotCategorical(logits=9 * x)  # noqa: E731
    y = torch.arange(12) % 6
    axes = confusion_matrix(classifier, torch.eye(2)[torch.arange(12) % 2], y, clusters=True).axes[0]
    assert axes.images[0].get_array().shape == (6, 2)
    wider = confusion_matrix(classifier, torch.eye(2)[torch.arange(12) % 2], y, clusters=True, num_classes=8).axes[0]
    assert wider.images[0].get_array().shape == (8, 2)


# Many classes


def test_up_to_forty_classes_have_different_colours_and_keep_them():
    assert len(set(class_colours(40))) == 40
    for num_classes in (1, 10, 11, 15, 30):
        assert class_colours(40)[:num_classes] == class_colours(num_classes)
    assert len(set(class_colours(50))) == 50


# Every figure

with torch.random.fork_rng(devices=[]):
    torch.manual_seed(1)
    MODEL, GUIDE, X = Layers(64), LayersGuide(64), torch.rand(30, 64)
    WIDE, WIDE_GUIDE, WIDE_X = Layers(784), LayersGuide(784), torch.rand(30, 784)
Y = torch.arange(30) % 3 - 1
MANY = [f"alphabet {k}" for k in range(30)]
FIGURES = {
    "units": lambda: unit_kl({"a": torch.rand(300) * 100, "z1": torch.rand(3) / 1000, "z2": torch.zeros(1)}),
    "one site": lambda: unit_kl({"z": torch.rand(50)}),
    "clusters": lambda: cluster_kl(torch.rand(10, 3, 200), class_names=LONG),
    "one cluster": lambda: cluster_kl(torch.rand(1, 5)),
    "many clusters": lambda: cluster_kl(1000 * torch.rand(30, 30, 50), class_names=MANY),
    "components": lambda: component_kl(torch.rand(10, 10, 200)),
    "two components": lambda: component_kl(torch.rand(2, 2, 1), component_names=LONG[:2]),
    "many components": lambda: component_kl(1000 * torch.rand(30, 30, 50), component_names=MANY),
    "equal components": lambda: component_kl(torch.zeros(15, 15, 5)),
    "reconstructions": lambda: reconstructions(MODEL, GUIDE, X, (8, 8)),
    "reconstructed images": lambda: reconstructions(WIDE, WIDE_GUIDE, WIDE_X, (28, 28)),
    "one reconstruction": lambda: reconstructions(MODEL, GUIDE, X[:1], (8, 8)),
    "two wide ones": lambda: reconstructions(MODEL, GUIDE, X[:2], (4, 16)),
    "reconstructed points": lambda: reconstructions(Layers(2), LayersGuide(2), torch.rand(9, 2), (2,)),
    "reconstructed vectors": lambda: reconstructions(Layers(30), LayersGuide(30), torch.rand(9, 30), (30,)),
    "mesh": lambda: latent_mesh(MODEL, GUIDE, X, Y, 2, (8, 8)),
    "mesh of images": lambda: latent_mesh(WIDE, WIDE_GUIDE, WIDE_X, Y, 2, (28, 28), given=1, extent=(-3, 3, -3, 3)),
    "mesh, long names": lambda: latent_mesh(MODEL, GUIDE, X, torch.arange(30), 30, (8, 8), class_names=MANY, size=3),
    "tall mesh": lambda: latent_mesh(
        Layers(128), LayersGuide(128), torch.rand(30, 128), Y, 2, (16, 8), given=0, size=3
    ),
    "wide mesh": lambda: latent_mesh(
        Layers(128), LayersGuide(128), torch.rand(30, 128), Y, 2, (8, 16), given=0, size=3
    ),
    "extraction": lambda: digit_extraction(X[:10], (8, 8), labelled=range(5), names=list("0123486597")),
    "extracted images": lambda: digit_extraction(WIDE_X[:10], (28, 28), labelled=range(5)),
    "long extraction": lambda: digit_extraction(WIDE_X, (28, 28), labelled=[3], names=MANY),
    "short extraction": lambda: digit_extraction(X[:2], (8, 8), labelled=[], names=LONG[:2]),
    "confusion": lambda: confusion_matrix(CLASSIFIER, X, Y, clusters=True, class_names=LONG),
    "latent of many": lambda: latent_space(GUIDE, X, torch.arange(30), class_names=MANY),
}


def CLASSIFIER(x):  # noqa: N802
    return OneHotCategorical(logits=9 * x[:, :15])


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_clipped_and_no_names_overlap(name):
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    box, whole = figure.get_tightbbox(), figure.bbox_inches
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= whole.x1 + 0.01
    assert box.y1 <= whole.y1 + 0.01
    panels = [axes for axes in figure.axes if axes.get_visible()]
    for axes in [*panels, *itertools.chain(*(panel.child_axes for panel in panels))]:
        boxes = [label.get_window_extent() for label in axes.xaxis.get_ticklabels() if label.get_text()]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    titles = [axes.title.get_window_extent() for axes in panels]
    assert not any(a.overlaps(b) for a, b in itertools.combinations([t for t in titles if t.width > 0], 2))


def test_modules_keep_their_mode_and_get_no_gradient():
    model, guide = Layers(64), LayersGuide(64)
    model.train()
    model.dropout.eval()
    guide.eval()
    reconstructions(model, guide, X, (8, 8))
    latent_mesh(model, guide, X, Y, 2, (8, 8), given=0)
    assert (model.training, model.dropout.training, guide.training) == (True, False, False)
    assert all(parameter.grad is None for parameter in [*model.parameters(), *guide.parameters()])


def test_double_precision_models_are_drawn():
    model, guide = Layers(64).double(), LayersGuide(64).double()
    reconstructions(model, guide, X.double(), (8, 8))
    latent_mesh(model, guide, X.double(), Y, 2, (8, 8), given=0)


# Errors

NAN = torch.full((3, 4), math.nan)
ERRORS = {
    "no site": (lambda: unit_kl({}), "kls must hold the KL of each unit by site.*got none"),
    "rows": (lambda: unit_kl({"z": torch.rand(3, 4)}), r"kls\['z'\] must be \(L,\) finite floats.*got shape \(3, 4\)"),
    "NaN": (lambda: unit_kl({"z": NAN[0]}), r"must be \(L,\) finite floats"),
    "vector": (lambda: cluster_kl(torch.rand(4)), r"kls must be \(K, L\) or \(K, C, L\) nats"),
    "empty clusters": (lambda: cluster_kl(NAN), r"kls must be \(K, L\)"),
    "no units": (lambda: cluster_kl(torch.rand(2, 3), units=0), "units must be an integer of at least 1, got 0"),
    "order": (lambda: cluster_kl(torch.rand(2, 3), order=torch.tensor([0, 1, 1])), "each of the units 0 to 2 once"),
    "names": (lambda: cluster_kl(torch.rand(2, 3, 4), class_names=["a"]), "class_names must be 3 names.*got 1"),
    "not square": (lambda: component_kl(torch.rand(2, 3, 4)), r"kls must be \(K, K, L\) nats"),
    "one component": (lambda: component_kl(torch.rand(1, 1, 4)), "K ≥ 2"),
    "infinite": (lambda: component_kl(torch.full((2, 2, 4), math.inf)), "kls must be finite, got NaN or infinity"),
    "short order": (lambda: component_kl(torch.rand(2, 2, 4), order=torch.arange(3)), "each of the units 0 to 3 once"),
    "shape": (lambda: reconstructions(MODEL, GUIDE, X, (28, 28)), "64 columns of x, .* 784 values"),
    "images": (lambda: reconstructions(MODEL, GUIDE, X.reshape(-1, 8, 8), (8, 8)), r"x must be of shape \(N, D\)"),
    "no rows": (lambda: reconstructions(MODEL, GUIDE, X[:0], (8, 8)), "N > 0"),
    "mesh of vectors": (lambda: latent_mesh(MODEL, GUIDE, X, Y, 2, (64,)), r"shape must be \(H, W\)"),
    "mesh shape": (lambda: latent_mesh(MODEL, GUIDE, X, Y, 2, (8, 9)), "64 columns of x, .* 72 values"),
    "three dimensions": (lambda: latent_mesh(MODEL, LayersGuide(64, 3), X, Y, 2, (8, 8)), "got 'z2' of 3"),
    "class of y": (lambda: latent_mesh(MODEL, GUIDE, X, Y + 1, 2, (8, 8)), "y must hold classes 0 to 1, got 2"),
    "given class": (lambda: latent_mesh(MODEL, GUIDE, X, Y, 2, (8, 8), given=2), "given must be a class from 0 to 1"),
    "one image": (lambda: latent_mesh(MODEL, GUIDE, X, Y, 2, (8, 8), size=1), "size must be an integer of at least 2"),
    "empty box": (lambda: latent_mesh(MODEL, GUIDE, X, Y, 2, (8, 8), extent=(1, 1, 0, 2)), "left < right"),
    "no such site": (lambda: latent_mesh(MODEL, GUIDE, X, Y, 2, (8, 8), site="z3"), "the model has no site z3"),
    "extracted vectors": (lambda: digit_extraction(X, (64,), labelled=[]), r"shape must be \(H, W\)"),
    "extracted shape": (lambda: digit_extraction(X, (28, 28), labelled=[]), "64 columns of images, .* 784 values"),
    "dimension": (lambda: digit_extraction(X, (8, 8), labelled=[3, 30]), r"labelled must hold .*0 to 29, got \[30\]"),
    "few names": (
        lambda: digit_extraction(X, (8, 8), labelled=[], names=["a"]),
        "^names must be 30 names, one per class, got 1",
    ),
    "class beyond": (
        lambda: confusion_matrix(CLASSIFIER, X, Y, clusters=True, num_classes=1),
        "y must hold classes 0 to 0, got 1",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_wrong_calls_say_what_is_wrong(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()
