"""Interactive figures for notebooks, with ipywidgets: sliders over a latent space, and menus for experiments."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from typing import Any

import torch
from matplotlib.figure import Figure
from pyro import poutine
from torch import Tensor

from ..contract import Model
from ..inference.evaluation import sample
from ..modules import evaluating, module_tensor
from .grid import image_grid

MOST_SLIDERS = 12
PICTURE_DPI = 400  # a single picture is small in inches


def latent_sliders(
    model: Model,
    shape: tuple[int, ...],
    *,
    num_classes: int | None = None,
    site: str = "z",
    start: Tensor | None = None,
    reach: float = 2.5,
) -> Any:
    """A slider for each unit of a latent, and buttons for the class: the mean of p(x | y, z) is drawn as they move.

    Args:
        model: p with the latent `site` and, where `num_classes` is given, y.
        shape: shape of one row of x: (H, W) of an image, or (D,).
        num_classes: K, for a model with classes.
        site: the latent. Its first 12 units get a slider, the others stay where they start.
        start: (L,) values to start at, such as `guide.encode(x)[0]`; zeros unless given.
        reach: sliders go from minus this to this, or to the largest absolute value in `start` if that is larger.

    Returns:
        An `ipywidgets.VBox`, whose last child is the output.

    Raises:
        ImportError: ipywidgets is not installed.
        ValueError: the model has no such latent, a start of another width, or a shape that is not that of x.
    """
    widgets = _ipywidgets()
    values = _start(model, site, start)
    furthest = max(reach, values.abs().max().item())
    sliders = [
        widgets.FloatSlider(value, min=-furthest, max=furthest, step=furthest / 50, description=f"{site}{unit}")
        for unit, value in enumerate(values[:MOST_SLIDERS].tolist(), start=1)
    ]
    classes = widgets.ToggleButtons(options=list(range(num_classes or 0)), description="class y")
    output = widgets.Output()

    def draw(_: Any = None) -> None:
        values[: len(sliders)] = torch.tensor([slider.value for slider in sliders])
        y = torch.eye(num_classes)[[classes.value]] if num_classes else None
        _show(output, _picture(model, {site: values[None]}, y, shape))

    controls = [classes, *sliders] if num_classes else sliders
    for control in controls:
        control.observe(draw, "value")
    draw()
    return widgets.VBox([*controls, output])


def explore(run: Callable[..., Figure | None], **choices: Sequence[Any]) -> Any:
    """A menu for each choice and a button that calls `run` with what is chosen, and shows the figure that it returns.

        explore(train, data=["moons", "circles"], flow=[None, "planar", "iaf"], length=[1, 2, 4])

    What `run` prints is shown too, and so is its ValueError if the chosen values do not work. It is called once at the
    start, with the first value of each choice.

    Args:
        run: called with a keyword for each choice.
        choices: the values of each choice, of which the first is chosen at the start.

    Returns:
        An `ipywidgets.VBox`, whose last child is the output.

    Raises:
        ImportError: ipywidgets is not installed.
        ValueError: nothing to choose from.
    """
    widgets = _ipywidgets()
    if not choices or not all(choices.values()):
        raise ValueError(f"choices must hold at least one value each, such as flow=['planar', 'iaf'], got {choices!r}")
    menus = {
        name: widgets.Dropdown(options=[(str(value), value) for value in values], description=name)
        for name, values in choices.items()
    }
    button = widgets.Button(description="Run", button_style="primary")
    output = widgets.Output()

    def start(_: Any = None) -> None:
        button.disabled, button.description = True, "running …"
        printed, figure = StringIO(), None
        try:
            with redirect_stdout(printed):
                figure = run(**{name: menu.value for name, menu in menus.items()})
        except ValueError as error:  # a choice that does not work, such as a flow in one dimension
            print(error, file=printed)
        finally:
            button.disabled, button.description = False, "Run"
            _show(output, figure, printed.getvalue())

    button.on_click(start)
    start()
    return widgets.VBox([widgets.HBox([*menus.values(), button]), output])


def _ipywidgets() -> Any:
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError("the interactive figures need ipywidgets: pip install 'semipyro[notebooks]'") from error
    return ipywidgets


def _start(model: Model, site: str, start: Tensor | None) -> Tensor:
    """A copy of the values at which the sliders start."""
    with evaluating(model):
        nodes: Any = poutine.trace(model).get_trace(module_tensor(model).new_empty(1, 0)).nodes
    if site not in nodes or nodes[site]["type"] != "sample":
        raise ValueError(f"site must be a latent of the model, got {site!r}")
    dim = nodes[site]["fn"].event_shape[0]
    values = torch.zeros(dim) if start is None else torch.as_tensor(start).detach().cpu().float().clone()
    if values.shape != (dim,):
        raise ValueError(f"start must be of shape ({dim},), one value per unit of {site}, got {tuple(values.shape)}")
    return values


def _picture(model: Model, latents: dict[str, Tensor], y: Tensor | None, shape: tuple[int, ...]) -> Figure:
    like = module_tensor(model)
    latents = {name: value.to(like) for name, value in latents.items()}
    image = sample(model, 1, None if y is None else y.to(like), latents=latents, mean=True)
    figure = image_grid(image, rows=1, columns=1, shape=shape)
    figure.set_dpi(PICTURE_DPI)
    return figure


def _show(output: Any, figure: Figure | None, printed: str = "") -> None:
    """Replaces what the output holds by the printed text and the figure."""
    outputs: list[dict[str, Any]] = []
    if printed:
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed})
    if figure is not None:
        png = BytesIO()
        figure.savefig(png, format="png")
        data = {"image/png": b64encode(png.getvalue()).decode()}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    output.outputs = tuple(outputs)
