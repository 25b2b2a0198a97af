"""Semi-supervised deep generative models in Pyro.

Every paper's generative process is a Pyro ``model``, every inference network a ``guide``; labels are observed where
they are known and summed out exactly where they are not.
"""

__version__ = "0.1.0"
