"""Figures are checked by what they show: the numbers in them, in which row, column, panel and colour."""

import io
import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from pyro.distributions import Normal, OneHotCategorical
from semipyro.inference import sample
from semipyro.plots import (
    analogies,
    class_samples,
    confusion_matrix,
    image_grid,
    latent_space,
    save,
    training_curves,
)
from torch import nn

SHAPES = [(8, 8), (28, 28)]
GREY = "#cccccc"


class LinearModel(nn.Module):
    """x ~ N(y A + z B, 0.1): every class and every z has a mean of its own."""

    def __init__(self, num_classes, z_dim, x_dim):
        super().__init__()
        self.A = nn.Parameter(torch.rand(num_classes, x_dim))
        self.B = nn.Parameter(0.2 * torch.rand(z_dim, x_dim))
        self.register_buffer("y_prior", torch.full((num_classes,), 1 / num_classes))
        self.dropout = nn.Dropout(0.9)  # a mean is reproducible in evaluation mode only

    def mean(self, y, z):
        return self.dropout(y @ self.A + z @ self.B)

    def forward(self, x, y=None):
        z_dim = len(self.B)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", OneHotCategorical(self.y_prior), obs=y)
            z = pyro.sample("z", Normal(x.new_zeros(z_dim), 1.0).to_event(1))
            pyro.sample("x", Normal(self.mean(y, z), 0.1).to_event(1), obs=x)


class LinearGuide(nn.Module):
    """Encodes x to x C, and its other latent "a" to -x C; classifies by the first columns of x."""

    def __init__(self, x_dim, z_dim, num_classes=3):
        super().__init__()
        self.C = nn.Parameter(torch.randn(x_dim, z_dim) / x_dim)
        self.num_classes = num_classes

    def encode(self, x, site=None):
        return -x @ self.C if site == "a" else x @ self.C

    def classify(self, x):
        return OneHotCategorical(logits=5 * x[:, : self.num_classes])


@pytest.fixture(autouse=True)
def _seed():
    pyro.set_rng_seed(0)


def one_hot(labels, num_classes):
    return torch.eye(num_classes)[torch.as_tensor(labels)]


def cells(figure):
    """The images by the position of their cell: {(row, column): array}, columns numbered from the left."""
    (axes,) = figure.axes
    lefts = sorted({round(image.get_extent()[0], 6) for image in axes.images})
    found = {}
    for image in axes.images:
        left, _, bottom, top = image.get_extent()
        assert top < bottom, "upside down"
        assert image.origin == "upper"
        found[int(top), lefts.index(round(left, 6))] = np.asarray(image.get_array())
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first row is on top"
    return found


def luminance(colour):
    """Relative luminance as WCAG 2 defines it."""
    rgb = np.array(colour[:3])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def legend_labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def scatters(figure):
    """{label: (points, colour)} of the scatters in the only axes."""
    (axes,) = figure.axes
    collections = [found for found in axes.collections if isinstance(found, PathCollection)]
    return {c.get_label(): (np.asarray(c.get_offsets()), to_hex(c.get_facecolor()[0])) for c in collections}


# Training curves

HISTORY = [
    {"epoch": 1, "loss": 5.0, "labelled": -3.0, "validation_labelled": None, "seconds": 1.0, "learning_rate": 0.1},
    {"epoch": 2, "loss": 4.0, "labelled": float("nan"), "validation_labelled": -3.5, "kl_weight": 1.0, "step": 7},
    {"epoch": 3, "loss": 3.5, "labelled": -2.0, "validation_labelled": -3.2, "validation_accuracy": 0.9},
]


def test_each_term_has_a_panel_with_its_training_and_validation_curve():
    figure = training_curves(HISTORY)
    panels = {
        axes.get_title(): {line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in figure.axes
    }
    assert panels == {
        "loss": {"training": [[1, 5], [2, 4], [3, 3.5]]},
        "labelled": {"training": [[1, -3], [3, -2]], "validation": [[2, -3.5], [3, -3.2]]},
        "accuracy": {"validation": [[3, 0.9]]},
    }
    units = {axes.get_title(): axes.get_ylabel() for axes in figure.axes}
    assert units == {"loss": "nats per data point", "labelled": "nats per data point", "accuracy": "accuracy"}
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    assert legend_labels(figure) == ["training", "validation"]


def test_panels_share_the_range_of_epochs_and_no_two_overlap():
    figure = training_curves([{"epoch": e, **{f"term_{i}": e * i for i in range(7)}} for e in (10, 20, 30)])
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert len(boxes) == 7
    assert {axes.get_xlim() for axes in figure.axes} == {(10 - 0.8, 30 + 0.8)}
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_single_epoch_shows_as_a_marker_on_a_whole_number():
    figure = training_curves([{"epoch": 4, "loss": 2.0}])
    (line,) = figure.axes[0].lines
    assert line.get_marker() == "o"
    low, high = figure.axes[0].get_xlim()
    assert [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high] == [4]


def test_a_long_history_is_a_line_without_markers():
    figure = training_curves([{"epoch": e, "loss": 1 / (e + 1)} for e in range(50)])
    assert figure.axes[0].lines[0].get_marker() in (None, "None", "")


# Grids of pictures


@pytest.mark.parametrize("shape", [*SHAPES, (3, 5)])
def test_image_grid_puts_images_row_by_row(shape):
    images = torch.rand(5, shape[0] * shape[1])
    figure = image_grid(
        images, rows=2, columns=3, shape=shape, row_labels=["a", "b"], column_labels=["u", "v", "w"], title="Title"
    )
    found = cells(figure)
    assert set(found) == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}
    for (row, column), image in found.items():
        np.testing.assert_array_equal(image, images[3 * row + column].reshape(shape))
    (axes,) = figure.axes
    assert (tick_labels(axes.yaxis), tick_labels(axes.xaxis)) == (["a", "b"], ["u", "v", "w"])
    assert figure.get_suptitle() == "Title"
    assert {(image.get_interpolation(), image.get_clim()) for image in axes.images} == {("nearest", (0, 1))}
    assert axes.get_aspect() == pytest.approx(shape[0] / shape[1])  # pixels are square


def test_vectors_are_lines_on_one_scale():
    vectors = torch.tensor([[0.0, 1.0, 0.0], [0.0, 4.0, 2.0]])
    (axes,) = image_grid(vectors, rows=1, columns=2, shape=(3,)).axes
    heights = np.array([-line.get_ydata() for line in axes.lines])  # y runs down the sheet
    np.testing.assert_allclose((heights - heights[0, 0]) / (heights[1, 1] - heights[0, 0]), vectors / 4, atol=1e-6)
    assert "from 0 to 4" in axes.get_xlabel()
    assert axes.lines[0].get_xdata().max() < 1 < axes.lines[1].get_xdata().min()


def test_constant_vectors_are_drawn_too():
    (axes,) = image_grid(torch.ones(2, 30), rows=1, columns=2, shape=(30,)).axes
    assert all(np.isfinite(line.get_xydata()).all() for line in axes.lines)


# Samples


@pytest.mark.parametrize("shape", SHAPES)
def test_class_samples_has_a_row_of_means_for_each_class(shape):
    model = LinearModel(3, 2, shape[0] * shape[1])
    pyro.set_rng_seed(1)
    figure = class_samples(model, 3, shape, per_class=4, class_names=["ant", "bee", "cat"])
    pyro.set_rng_seed(1)
    expected = sample(model.eval(), 12, one_hot([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], 3), mean=True)
    found = cells(figure)
    assert set(found) == {(row, column) for row in range(3) for column in range(4)}
    plane = torch.linalg.pinv(model.B)
    for (row, column), image in found.items():
        np.testing.assert_allclose(image.ravel(), expected[4 * row + column].detach(), rtol=1e-6)
        rest = torch.tensor(image.ravel()) - model.A[row]  # the mean of its class, up to some z
        torch.testing.assert_close(rest @ plane @ model.B, rest, atol=1e-4, rtol=0)
    assert not np.allclose(found[0, 0], found[0, 1]), "z is drawn for each"
    assert tick_labels(figure.axes[0].yaxis) == ["ant", "bee", "cat"]


class SignModel(nn.Module):
    """z ~ N(0, 1), y is the sign of z (a third class never comes), x ~ N(z, 0.01): x given y is half a Gaussian."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(x.new_zeros(1), 1.0).to_event(1))
            logits = torch.cat([-1000 * z, 1000 * z, z.new_full(z.shape, -1e6)], -1)[..., : self.num_classes]
            pyro.sample("y", OneHotCategorical(logits=logits), obs=y)
            pyro.sample("x", Normal(z.expand(*z.shape[:-1], 2), 0.01).to_event(1), obs=x)


def test_class_samples_where_the_class_depends_on_a_latent():
    """E[x | y] = ∓√(2/π), and x has the sign of its class. The site y alone, fixed, would leave a mean of 0."""
    count = 500
    found = scatters(class_samples(SignModel(2), 2, (2,), per_class=count))
    half = math.sqrt(2 / math.pi)
    for (points, _), sign in zip(found.values(), (-1, 1), strict=True):
        x = torch.as_tensor(points)[:, 0]
        assert len(x) == count
        assert (sign * x > -0.05).all()
        assert abs(x.mean() - sign * half) < 5 * math.sqrt((1 - half**2) / count)
    fixed = sample(SignModel(2), count, one_hot([1] * count, 2))[:, 0]
    assert abs(fixed.mean() - half) > 5 * math.sqrt((1 - half**2) / count), "a case that must fail"


def test_a_class_that_the_model_never_draws_is_left_empty(monkeypatch):
    monkeypatch.setattr("semipyro.plots.samples.ROUNDS", 1)
    found = cells(class_samples(SignModel(3), 3, (1, 2), per_class=2))
    assert [bool(np.isnan(found[row, 0].astype(float)).all()) for row in range(3)] == [False, False, True]
    assert set(scatters(class_samples(SignModel(3), 3, (2,), per_class=2))) == {"0", "1"}


def test_ten_pictures_of_each_class_unless_told():
    assert len(cells(class_samples(LinearModel(2, 1, 64), 2, (8, 8)))) == 20


def test_points_are_drawn_from_the_model_and_not_means():
    model = LinearModel(3, 1, 2)
    with torch.no_grad():
        model.A.copy_(torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]))
        model.B.zero_()  # all spread is that of p(x | y, z)
    found = scatters(class_samples(model, 3, (2,)))
    assert list(found) == ["0", "1", "2"]
    for (points, _), mean in zip(found.values(), model.A.detach().numpy(), strict=True):
        assert points.shape == (200, 2)
        np.testing.assert_allclose(points.mean(0), mean, atol=6 * 0.1 / 200**0.5)
        np.testing.assert_allclose(points.std(0), 0.1, atol=6 * 0.1 / 400**0.5)
    assert len({colour for _, colour in found.values()}) == 3


# Analogies


@pytest.mark.parametrize("shape", SHAPES)
def test_analogies_keep_z_along_a_row_and_y_down_a_column(shape):
    dim = shape[0] * shape[1]
    model, guide, x = LinearModel(3, 2, dim), LinearGuide(dim, 2), torch.rand(4, dim)
    figure = analogies(model, guide, x, 3, shape, class_names=["ant", "bee", "cat"])
    found = cells(figure)
    assert set(found) == {(row, column) for row in range(4) for column in range(4)}
    for row in range(4):
        np.testing.assert_array_equal(found[row, 0].ravel(), x[row])
        for k in range(3):
            expected = model.A[k] + guide.encode(x)[row] @ model.B
            np.testing.assert_allclose(found[row, 1 + k].ravel(), expected.detach(), rtol=1e-4)
    assert tick_labels(figure.axes[0].xaxis) == ["x", "ant", "bee", "cat"]


def test_analogies_set_the_first_column_apart():
    figure = analogies(LinearModel(3, 2, 64), LinearGuide(64, 2), torch.rand(2, 64), 3, (8, 8))
    lefts = sorted({image.get_extent()[0] for image in figure.axes[0].images})
    steps = np.diff(lefts)
    assert steps[0] > 1.2
    np.testing.assert_allclose(steps[1:], 1)


def test_analogies_of_points_lead_from_x_to_its_means():
    model, guide, x = LinearModel(2, 1, 2), LinearGuide(2, 1), torch.randn(5, 2)
    figure = analogies(model, guide, x, 2, (2,))
    found = scatters(figure)
    np.testing.assert_allclose(found["x itself"][0], x)
    expected = {k: (model.A[k] + guide.encode(x) @ model.B).detach().numpy() for k in range(2)}
    for k, points in expected.items():
        np.testing.assert_allclose(found[str(k)][0], points, rtol=1e-5)
    (lines,) = [found for found in figure.axes[0].collections if isinstance(found, LineCollection)]
    wanted = [[x[i].numpy(), expected[k][i]] for i in range(5) for k in range(2)]
    np.testing.assert_allclose(lines.get_segments(), wanted, rtol=1e-5)


def test_analogies_of_vectors_are_lines():
    figure = analogies(LinearModel(3, 2, 30), LinearGuide(30, 2), torch.rand(4, 30), 3, (30,))
    assert len(figure.axes[0].lines) == 4 * (1 + 3)


def test_analogies_keep_the_latent_that_is_named():
    class Renamed(LinearModel):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                y = pyro.sample("y", OneHotCategorical(x.new_ones(2)), obs=y)
                a = pyro.sample("a", Normal(x.new_zeros(2), 1.0).to_event(1))
                pyro.sample("x", Normal(self.mean(y, a), 0.1).to_event(1), obs=x)

    model, guide, x = Renamed(2, 2, 64), LinearGuide(64, 2), torch.rand(1, 64)
    image = cells(analogies(model, guide, x, 2, (8, 8), site="a"))[0, 2]
    expected = model.A[1] + guide.encode(x, "a")[0] @ model.B
    np.testing.assert_allclose(image.ravel(), expected.detach(), rtol=1e-4)


# Latent space


def test_latent_space_of_more_dimensions_is_their_pca():
    guide, x, y = LinearGuide(64, 5), torch.randn(40, 64), torch.arange(40) % 4 - 1
    figure = latent_space(guide, x, y)
    z = guide.encode(x).detach().numpy()
    z = z - z.mean(0)
    _, scales, directions = np.linalg.svd(z, full_matrices=False)
    projected = z @ directions[:2].T
    found = scatters(figure)
    assert list(found) == ["unlabelled", "0", "1", "2"]
    for label, (points, _) in zip(range(-1, 3), found.values(), strict=True):
        np.testing.assert_allclose(np.abs(points), np.abs(projected[y == label]), atol=1e-5)
    assert found["unlabelled"][1] == GREY
    assert len({colour for _, colour in found.values()}) == 4
    fraction = scales[0] ** 2 / (scales**2).sum()
    assert figure.axes[0].get_xlabel() == f"principal component 1 ({fraction:.0%} of variance)"


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_latent_space_of_two_dimensions_is_shown_as_it_is(method):
    guide, x, y = LinearGuide(64, 2), torch.randn(6, 64), torch.tensor([2, 0, 0, 2, -1, 0])
    figure = latent_space(guide, x, y, method=method, class_names=["ant", "bee", "cat"])
    found = scatters(figure)
    z = guide.encode(x).detach()
    assert list(found) == ["unlabelled", "ant", "cat"] == legend_labels(figure)
    for label, (points, _) in zip((-1, 0, 2), found.values(), strict=True):
        np.testing.assert_allclose(points, z[y == label])
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("z1", "z2")


def test_latent_space_of_another_site():
    guide, x = LinearGuide(64, 2), torch.randn(6, 64)
    figure = latent_space(guide, x, torch.zeros(6, dtype=torch.long), site="a")
    np.testing.assert_allclose(scatters(figure)["0"][0], -guide.encode(x).detach())
    assert figure.axes[0].get_xlabel() == "a1"


def test_a_class_has_the_same_colour_whichever_others_occur():
    guide, x = LinearGuide(64, 2), torch.randn(4, 64)
    few = latent_space(guide, x, torch.tensor([2, 2, 2, 2]), class_names=["a", "b", "c"])
    all_of_them = latent_space(guide, x, torch.tensor([0, 1, 2, 2]), class_names=["a", "b", "c"])
    assert scatters(few)["c"][1] == scatters(all_of_them)["c"][1]


@pytest.mark.parametrize("num_rows", [3, 12])
def test_tsne_of_few_rows_is_the_same_for_the_same_seed(num_rows):
    guide, y = LinearGuide(64, 5), torch.arange(num_rows) % 2
    x = torch.randn(num_rows, 64) + 100 * y[:, None]
    first, second = (scatters(latent_space(guide, x, y, method="tsne", seed=3)) for _ in range(2))
    for label in ("0", "1"):
        assert np.isfinite(first[label][0]).all()
        np.testing.assert_array_equal(first[label][0], second[label][0])


def test_latent_space_of_one_dimension_counts_the_points_of_each_class():
    guide, x, y = LinearGuide(64, 1), torch.randn(90, 64), torch.arange(90) % 3 - 1
    figure = latent_space(guide, x, y)
    (axes,) = figure.axes
    assert legend_labels(figure) == ["unlabelled", "0", "1"]
    z = guide.encode(x).detach().numpy()[:, 0]
    for label, patch in zip((-1, 0, 1), axes.patches, strict=True):
        corners = patch.get_xy()
        edges = np.unique(np.round(corners[:, 0], 6))
        counts, _ = np.histogram(z[y == label], np.unique(corners[:, 0]))
        assert corners[:, 1].max() == counts.max()
        assert edges[0] <= z.min() + 1e-5
        assert edges[-1] >= z.max() - 1e-5


def test_a_collapsed_latent_is_drawn():
    guide = LinearGuide(64, 5)
    nn.init.zeros_(guide.C)
    figure = latent_space(guide, torch.randn(9, 64), torch.zeros(9, dtype=torch.long))
    np.testing.assert_array_equal(scatters(figure)["0"][0], np.zeros((9, 2)))


# Confusion matrix


def test_confusion_matrix_counts_and_colours():
    guide, x = LinearGuide(64, 2), torch.randn(80, 64)
    y = torch.randint(-1, 3, (80,))
    figure = confusion_matrix(guide.classify, x, y, class_names=["ant", "bee", "cat"])
    predictions = x[:, :3].argmax(1)
    counts = np.zeros((3, 3), int)
    for true, predicted in zip(y.tolist(), predictions.tolist(), strict=True):
        if true != -1:
            counts[true, predicted] += 1
    axes = figure.axes[0]
    written = {(int(text.get_position()[1]), int(text.get_position()[0])): int(text.get_text()) for text in axes.texts}
    assert written == dict(np.ndenumerate(counts))
    np.testing.assert_allclose(axes.images[0].get_array(), counts / counts.sum(1, keepdims=True))
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    assert tick_labels(axes.yaxis) == tick_labels(axes.xaxis) == ["ant", "bee", "cat"]
    assert axes.get_title().startswith(f"{np.trace(counts)} of {(y >= 0).sum()} right")


def test_numbers_in_a_confusion_matrix_stand_out_from_their_cell():
    y = torch.arange(11).repeat_interleave(10)
    x = one_hot([0 if i < k else 10 for k in range(11) for i in range(10)], 11)  # in row k, k tenths and the rest
    axes = confusion_matrix(LinearGuide(11, 1, num_classes=11).classify, x, y).axes[0]
    image = axes.images[0]
    for text in axes.texts:
        column, row = map(int, text.get_position())
        if text.get_text() != "0":
            cell = luminance(image.cmap(image.norm(image.get_array()[row, column])))
            ink = luminance(to_rgb(text.get_color()))
            assert (max(cell, ink) + 0.05) / (min(cell, ink) + 0.05) > 3.5  # contrast as WCAG 2 defines it


def test_a_class_without_rows_is_an_empty_row():
    axes = confusion_matrix(LinearGuide(3, 1).classify, torch.eye(3)[:2], torch.tensor([0, 1])).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), np.diag([1, 1, 0]))


def test_many_classes_are_not_written():
    guide = LinearGuide(50, 1, num_classes=50)
    axes = confusion_matrix(guide.classify, torch.eye(50), torch.arange(50)).axes[0]
    assert not axes.texts
    np.testing.assert_array_equal(axes.images[0].get_array(), np.eye(50))


# Every figure

with torch.random.fork_rng(devices=[]):
    torch.manual_seed(6)  # its latents need three digits on both axes
    MODEL, GUIDE, X = LinearModel(3, 4, 64), LinearGuide(64, 4), torch.rand(30, 64)
Y = torch.arange(30) % 4 - 1
LONG = ["T-shirt/top", "Ankle boot", "$ or %"]
FIGURES = {
    "curves": lambda: training_curves(HISTORY),
    "grid": lambda: image_grid(X, rows=5, columns=6, shape=(8, 8), column_labels=["ankle boots"] * 6, title="Boots"),
    "one picture": lambda: image_grid(X[:1], rows=1, columns=1, shape=(8, 8), title="A title wider than the picture"),
    "samples": lambda: class_samples(MODEL, 3, (8, 8), class_names=LONG),
    "sampled points": lambda: class_samples(LinearModel(3, 1, 2), 3, (2,), class_names=LONG),
    "sampled vectors": lambda: class_samples(LinearModel(3, 1, 30), 3, (30,), class_names=LONG),
    "analogies": lambda: analogies(MODEL, GUIDE, X[:4], 3, (8, 8), class_names=LONG),
    "analogies of points": lambda: analogies(LinearModel(2, 1, 2), LinearGuide(2, 1), torch.rand(9, 2), 2, (2,)),
    "latent": lambda: latent_space(GUIDE, X, Y, class_names=LONG),
    "many classes": lambda: latent_space(GUIDE, torch.rand(100, 64), torch.arange(100) % 50),
    "confusion": lambda: confusion_matrix(GUIDE.classify, X, Y, class_names=LONG),
}


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
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.xaxis.get_ticklabels() if label.get_text()]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_a_figure_shows_itself_in_a_notebook_without_pyplot():
    assert training_curves(HISTORY)._repr_png_().startswith(b"\x89PNG")


def test_modules_keep_their_mode_and_get_no_gradient():
    model, guide = LinearModel(3, 4, 64), LinearGuide(64, 4)
    model.train()
    model.dropout.eval()
    guide.eval()
    analogies(model, guide, X[:2], 3, (8, 8))
    confusion_matrix(guide.classify, X, Y)
    assert (model.training, model.dropout.training, guide.training) == (True, False, False)
    assert all(parameter.grad is None for parameter in [*model.parameters(), *guide.parameters()])


def test_double_precision_models_are_drawn():
    model, guide = LinearModel(3, 4, 64).double(), LinearGuide(64, 4).double()
    class_samples(model, 3, (8, 8))
    analogies(model, guide, X[:2].double(), 3, (8, 8))


# Files


@pytest.mark.parametrize(("ending", "head"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_save_writes_the_format_of_the_ending_into_a_new_folder(tmp_path, ending, head):
    save(training_curves(HISTORY), tmp_path / "a" / "b" / f"curves.{ending}")
    assert (tmp_path / "a" / "b" / f"curves.{ending}").read_bytes().startswith(head)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [f"curves.{ending}"]


def test_save_that_fails_midway_leaves_the_old_file(tmp_path, monkeypatch):
    figure, path = training_curves(HISTORY), tmp_path / "curves.png"
    path.write_bytes(b"old")

    def fail(self, file, **settings):
        with open(file, "wb") as stream:
            stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_save_replaces_what_is_there_and_takes_a_string(tmp_path):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    save(training_curves(HISTORY), str(path))
    buffer = io.BytesIO()
    training_curves(HISTORY).savefig(buffer, format="png", dpi=150)
    assert path.read_bytes() == buffer.getvalue()


# Errors

LABELS = torch.zeros(30, dtype=torch.long)
ERRORS = {
    "far away": (
        lambda: confusion_matrix(lambda x: None, X, LABELS + 2 * 10**9, clusters=True),
        "y must hold classes from 0 to K-1, got 2000000000 in 30 rows",
    ),
    "no epoch": (lambda: training_curves([]), "history must hold a mapping per epoch"),
    "no key": (lambda: training_curves([{"loss": 1.0}]), "history must have an 'epoch' in each row"),
    "no metric": (lambda: training_curves([{"epoch": 1, "seconds": 2.0, "loss": None}]), "no metric to draw"),
    "wrong shape": (lambda: image_grid(torch.rand(2, 784), rows=1, columns=2, shape=(8, 8)), r"784 columns.*64 values"),
    "colour": (lambda: image_grid(torch.rand(2, 192), rows=1, columns=2, shape=(8, 8, 3)), r"\(H, W\)"),
    "too many": (
        lambda: image_grid(X, rows=2, columns=3, shape=(8, 8)),
        "images must fit in rows=2 and columns=3, got 30",
    ),
    "no images": (lambda: image_grid(X[:0], rows=2, columns=3, shape=(8, 8)), "n > 0"),
    "row labels": (
        lambda: image_grid(X[:4], rows=2, columns=2, shape=(8, 8), row_labels=["a"]),
        "row_labels must be 2",
    ),
    "column labels": (
        lambda: image_grid(X[:2], rows=1, columns=2, shape=(8, 8), column_labels="a"),
        "column_labels must be 2 labels, one per column, got 1",
    ),
    "samples' shape": (lambda: class_samples(MODEL, 3, (28, 28)), r"64 columns of x, got \(28, 28\) with 784 values"),
    "points' shape": (lambda: class_samples(MODEL, 3, (2,)), r"64 columns of x, got \(2,\) with 2 values"),
    "no sample": (
        lambda: class_samples(MODEL, 3, (8, 8), per_class=0),
        "per_class must be an integer of at least 1, got 0",
    ),
    "no class": (lambda: class_samples(MODEL, 0, (8, 8)), "num_classes must be an integer of at least 1, got 0"),
    "names": (lambda: class_samples(MODEL, 3, (8, 8), class_names=["a"]), "class_names must be 3 names.*got 1"),
    "analogies' shape": (lambda: analogies(MODEL, GUIDE, X, 3, (28, 28)), "64 columns of x, .* 784 values"),
    "analogies of images": (lambda: analogies(MODEL, GUIDE, X.reshape(-1, 8, 8), 3, (8, 8)), r"got \(30, 8, 8\)"),
    "method": (lambda: latent_space(GUIDE, X, Y, method="umap"), "method must be one of pca, tsne, got 'umap'"),
    "one-hot": (lambda: latent_space(GUIDE, X, one_hot(LABELS, 3)), r"y must be integers.*argmax"),
    "floats": (lambda: latent_space(GUIDE, X, LABELS.float()), "y must be integers"),
    "below -1": (lambda: latent_space(GUIDE, X, LABELS - 2), "y must hold classes from 0 up, .* got -2"),
    "unnamed class": (
        lambda: latent_space(GUIDE, X, LABELS + 2, class_names=["a", "b"]),
        "class_names must name every class in y, up to 2, got 2",
    ),
    "two rows": (lambda: latent_space(GUIDE, X[:2], LABELS[:2]), "x must have at least 3 rows .* got 2"),
    "no row": (lambda: latent_space(GUIDE, X[:0], LABELS[:0]), "N > 0"),
    "no label": (lambda: confusion_matrix(GUIDE.classify, X, LABELS - 1), "y must have a labelled row"),
    "class beyond": (lambda: confusion_matrix(GUIDE.classify, X, LABELS + 3), "y must hold classes 0 to 2, got 3"),
    "fewer classes": (
        lambda: confusion_matrix(GUIDE.classify, 9 * X, LABELS, num_classes=1),
        "classifier must give classes 0 to 0",
    ),
    "lengths": (lambda: confusion_matrix(GUIDE.classify, X, LABELS[:9]), r"shape \(30,\)"),
    "format": (lambda: save(training_curves(HISTORY), "curves.docx"), "must end with a format.* got 'curves.docx'"),
    "no format": (
        lambda: save(training_curves(HISTORY), "curves"),
        "must end with a format such as .png.* got 'curves'",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_wrong_calls_say_what_is_wrong(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()
