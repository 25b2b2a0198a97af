"""The bound of an unsupervised model, such as the VAE: eq. (5) of Kingma et al. (2014), arXiv:1406.5298.

loss = −mean_n ELBO(x_n)
"""

from torch import Tensor

from .base import Objective, Terms


class ELBO(Objective):
    """Terms: `unlabelled` = mean ELBO(x). loss = −unlabelled.

    Only unlabelled rows are read; where labelled rows should count too, pass them as unlabelled ones
    (`batches(..., include_labelled=True)`). A model with classes is trained as a clustering:
    y is summed out for every row.
    """

    def unlabelled_terms(self, x: Tensor) -> Terms:
        """`unlabelled`."""
        return {"unlabelled": self.bound(x)}
