"""The baseline: a classifier that learns from the labelled rows alone."""

import torch
from semipyro.inference import accuracy
from semipyro.inference.training.precision import computing_device
from torch import nn

from .task import Task


def train_on_labels(
    classifier: nn.Module, task: Task, *, learning_rate: float, device: str, steps: int = 1000
) -> nn.Module:
    """Trains a classifier by cross-entropy on the labelled rows, in full batches, binarised anew where the task's are.

    Every 20 steps its accuracy on the validation set is measured, and the best weights are kept, as they are for the
    model. It computes on `device`, and is on the CPU when it returns.
    """
    torch.manual_seed(task.seed)
    known, place = task.y >= 0, computing_device(device)
    classifier.to(place)
    x, y, held_out = task.dataset.train.x[known].to(place), task.y[known].to(place), task.dataset.validation
    optimizer = torch.optim.Adam(classifier.parameters(), lr=learning_rate)
    best, weights = -1.0, classifier.state_dict()
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        logits = classifier(torch.bernoulli(x) if task.binarized else x).logits
        nn.functional.cross_entropy(logits, y).backward()
        optimizer.step()
        if step % 20 == 0 and (found := accuracy(classifier, held_out.x, held_out.y)) > best:
            best, weights = found, {name: value.clone() for name, value in classifier.state_dict().items()}
    classifier.load_state_dict(weights)
    return classifier.cpu()
