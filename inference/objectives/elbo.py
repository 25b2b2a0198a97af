"""The bound of an unsupervised model, such as the VAE: eq. (5) of Kingma et al. (2014), arXiv:1406.5298.

loss = −mean_n ELBO(x_n)
"""

from torch import Tensor

from .base import Objective


class ELBO(Objective):
    """Terms: `unlabelled` = mean ELBO(x). loss = −unlabelled.

    Only unlabelled rows are read; where labelled rows should count too, pass them as unlabelled ones
    (`batches(..., include_labelled=True)`). A model with labels is clustered: y is summed out everywhere.
    """

    def terms(
        self, x_labelled: Tensor | None, y_labelled: Tensor | None, x_unlabelled: Tensor | None
    ) -> dict[str, Tensor]:
        """`unlabelled`."""
        return {} if x_unlabelled is None else {"unlabelled": self.bound(x_unlabelled)}

    def loss(self, terms: dict[str, Tensor]) -> Tensor:
        """−unlabelled."""
        return -terms["unlabelled"]
