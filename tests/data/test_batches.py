"""Batches: which rows come when, what leaks, and whether a run can be resumed."""

import io
import math

import numpy as np
import pytest
import torch
from semipyro.data import batches

K = 3
SIZES = {"labelled_batch_size": 4, "unlabelled_batch_size": 5}


def numbered(n=23, labelled=7):
    """Rows that carry their own number, of which the first ``labelled`` have a label."""
    x = torch.arange(n, dtype=torch.float32).unsqueeze(1).repeat(1, 2)
    y = torch.full((n,), -1)
    y[:labelled] = torch.arange(labelled) % K
    return x, y


def numbers(parts):
    return torch.cat(list(parts))[:, 0].long().tolist()


def equal(left, right):
    """The same batches, in the same order."""
    pairs = list(zip(left, right, strict=True))
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def test_a_pass_goes_once_over_the_unlabelled_rows():
    x, y = numbered()
    data = batches(x, y, **SIZES)
    for _ in range(3):
        parts = [x_unlabelled for _, _, x_unlabelled in data]
        assert [len(part) for part in parts] == [5, 5, 5, 1]
        assert len(data) == len(parts)
        assert sorted(numbers(parts)) == list(range(7, 23))


def test_labelled_batches_are_full_and_go_round_in_shuffled_passes():
    x, y = numbered(n=47)
    batched = list(batches(x, y, **SIZES))
    rows = numbers(x_labelled for x_labelled, _, _ in batched)
    assert [len(x_labelled) for x_labelled, _, _ in batched] == [4] * 8
    passes = [rows[start : start + 7] for start in range(0, 28, 7)]
    assert [sorted(one) for one in passes] == [list(range(7))] * 4
    assert len({tuple(one) for one in passes}) > 1


def test_labels_are_one_hot_and_belong_to_their_rows():
    x, y = numbered()
    for dtype in (torch.float32, torch.float64):
        for x_labelled, y_labelled, _ in batches(x.to(dtype), y, **SIZES):
            assert y_labelled.dtype == x_labelled.dtype == dtype
            assert torch.equal(y_labelled, torch.eye(K, dtype=dtype)[x_labelled[:, 0].long() % K])


def test_fewer_labelled_rows_than_a_batch_wrap_round():
    x, y = numbered(labelled=3)
    for x_labelled, y_labelled, _ in batches(x, y, labelled_batch_size=9, unlabelled_batch_size=6):
        assert torch.bincount(x_labelled[:, 0].long()).tolist() == [3, 3, 3]
        assert y_labelled.sum(0).tolist() == [3, 3, 3]


@pytest.mark.parametrize("include_labelled", [False, True])
def test_labelled_rows_are_in_the_unlabelled_stream_only_if_asked(include_labelled):
    x, y = numbered()
    data = batches(x, y, include_labelled=include_labelled, **SIZES)
    rows = numbers(x_unlabelled for _, _, x_unlabelled in data)
    assert sorted(rows) == list(range(0 if include_labelled else 7, 23))
    assert (data.num_labelled, data.num_unlabelled, data.num_classes) == (7, len(rows), K)


def test_labels_of_unlabelled_rows_are_nowhere():
    """Rows sorted by a class that is hidden come out mixed, and nothing but x comes out of them."""
    n = 4000
    truth = torch.arange(n) // (n // 4)  # sorted by class
    x = torch.stack([torch.arange(n), truth], dim=1).float()
    y = torch.full((n,), -1)
    y[::1000] = truth[::1000]
    data = batches(x, y, labelled_batch_size=4, unlabelled_batch_size=500)
    stored = {name: value for name, value in vars(data).items() if isinstance(value, torch.Tensor)}
    assert torch.equal(stored.pop("_labels"), torch.eye(4))
    assert stored.pop("_labelled_rows").tolist() == [0, 1000, 2000, 3000]
    assert torch.equal(stored.pop("_unlabelled_rows"), (y == -1).nonzero().flatten())
    assert torch.equal(stored.pop("_x"), x)
    assert not stored
    for _, _, x_unlabelled in data:
        assert x_unlabelled.shape[1] == 2
        share = torch.bincount(x_unlabelled[:, 1].long(), minlength=4) / len(x_unlabelled)
        assert (share - 0.25).abs().max() < 6 * math.sqrt(0.25 * 0.75 / len(x_unlabelled))


def test_labelled_order_tells_nothing_of_the_class():
    """Over many passes each labelled row stands first about as often as any other."""
    x, y = numbered(n=8)
    data = batches(x, y, labelled_batch_size=1, unlabelled_batch_size=1)
    first = torch.bincount(torch.tensor([int(next(iter(data))[0][0, 0]) for _ in range(2100)]), minlength=7)
    assert (first / 2100 - 1 / 7).abs().max() < 6 * math.sqrt(1 / 7 * 6 / 7 / 2100)


def test_order_depends_on_the_seed_and_the_pass_alone():
    x, y = numbered()
    one = batches(x, y, seed=1, **SIZES)
    torch.manual_seed(5)
    other, third = batches(x, y, seed=1, **SIZES), batches(x, y, seed=2, **SIZES)
    before = torch.get_rng_state()
    first = list(one)
    assert equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert not equal(first, third)
    assert not equal(first, one)  # the second pass


@pytest.mark.parametrize("binarize", [False, True])
def test_a_resumed_run_sees_the_same_batches(binarize):
    x, y = numbered()
    x = x / len(x)
    data = batches(x, y, binarize=binarize, **SIZES)
    list(data)
    file = io.BytesIO()
    torch.save(data.state_dict(), file)
    second, third = list(data), list(data)
    file.seek(0)
    resumed = batches(x, y, binarize=binarize, seed=99, **SIZES)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert equal(second, resumed)
    assert equal(third, resumed)


def test_the_state_after_the_last_batch_is_that_after_the_pass():
    """Whoever counts batches never asks for one more: the state must be final by then."""
    x, y = numbered()
    data, counted = (batches(x / 23, y, binarize=True, **SIZES) for _ in range(2))
    list(data)
    iterator = iter(counted)
    for _ in range(len(counted)):
        next(iterator)
    assert torch.equal(data.state_dict()["generator"], counted.state_dict()["generator"])


@pytest.mark.parametrize("state", [{}, {"generator": 3}, {"generator": torch.zeros(4)}, None])
def test_a_wrong_state_is_refused(state):
    with pytest.raises(ValueError, match="state must be what state_dict"):
        batches(*numbered(), **SIZES).load_state_dict(state)


def test_binarised_batches_are_new_draws_with_the_right_means():
    n, d, passes = 50, 4, 200
    x, y = torch.rand(n, d, generator=torch.Generator().manual_seed(0)), numbered(n)[1]
    x[:, 0], x[:, 1] = 0, 1
    data = batches(x, y, labelled_batch_size=7, unlabelled_batch_size=43, binarize=True)
    batched = [batch for _ in range(passes) for batch in data]
    labelled, unlabelled = (torch.stack([batch[side] for batch in batched]) for side in (0, 2))
    for draws, rows in ((labelled, x[:7]), (unlabelled, x[7:])):
        assert set(draws.unique().tolist()) == {0, 1}
        assert not draws[..., 0].any()
        assert draws[..., 1].all()
        error = math.sqrt(float((rows * (1 - rows))[:, 2:].mean()) / draws[..., 2:].numel())
        assert abs(float(draws[..., 2:].mean() - rows[:, 2:].mean())) < 6 * error
        assert draws[0].tolist() != draws[1].tolist()


def test_without_binarize_rows_come_as_they_are():
    x, y = torch.randn(23, 2), numbered()[1]
    rows = torch.cat([x_unlabelled for _, _, x_unlabelled in batches(x, y, **SIZES)])
    assert torch.equal(rows.sort(dim=0).values, x[7:].sort(dim=0).values)


def noisy(x):
    return x + torch.rand_like(x)


def test_a_transform_sees_the_rows_of_every_batch_and_nothing_else():
    """Labelled and unlabelled x, by itself, in the order of the batches; what it returns is what comes out."""
    x, y = numbered()
    seen = []

    def changed(*rows, **others):
        seen.append((rows, others))
        return -rows[0]

    plain, data = list(batches(x, y, **SIZES)), list(batches(x, y, transform=changed, **SIZES))
    assert all(len(rows) == 1 and not others for rows, others in seen)
    passed = [rows[0] for rows, _ in seen]
    assert equal([passed], [[side for batch in plain for side in batch[::2]]])
    for (x_labelled, y_labelled, x_unlabelled), (left, labels, right) in zip(data, plain, strict=True):
        assert torch.equal(x_labelled, -left)
        assert torch.equal(x_unlabelled, -right)
        assert torch.equal(y_labelled, labels)


def test_a_transform_comes_after_binarisation():
    """It is given zeros and ones, the same that come without it."""
    x, y = torch.rand(23, 2), numbered()[1]
    seen = []
    data = batches(x, y, binarize=True, transform=lambda rows: seen.append(rows) or rows / 2, **SIZES)
    for batch, plain in zip(data, batches(x, y, binarize=True, **SIZES), strict=True):
        assert torch.equal(batch[0], plain[0] / 2)
        assert torch.equal(batch[2], plain[2] / 2)
    assert set(torch.cat(seen).unique().tolist()) == {0, 1}


def test_a_transforms_noise_is_the_global_generators():
    """The same global seed gives the same noise, another seed another; the order is that of the batches' own seed."""
    x, y = numbered()
    runs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        runs.append(list(batches(x, y, transform=noisy, **SIZES)))
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])
    floors = [[(x_l.floor(), y_l, x_u.floor()) for x_l, y_l, x_u in run] for run in runs]
    assert equal(floors[0], floors[2])
    assert equal(floors[0], batches(x, y, **SIZES))
    data = batches(x, y, transform=noisy, **SIZES)
    assert not equal([batch[::2] for batch in data], [batch[::2] for batch in data])  # and new in every pass


def test_a_resumed_run_with_a_transform_needs_the_global_seed_too():
    """The batches' state holds their own generator alone."""
    x, y = numbered()
    data = batches(x, y, transform=noisy, **SIZES)
    list(data)
    state = data.state_dict()
    torch.manual_seed(7)
    second = list(data)
    resumed = batches(x, y, transform=noisy, seed=99, **SIZES)
    resumed.load_state_dict(state)
    torch.manual_seed(7)
    assert equal(second, resumed)


def test_a_transform_may_change_the_width_and_leaves_the_rows_alone():
    """Statistics [μ, σ] of 2 become draws of 1; the rows behind the batches, and their fingerprint, stay."""
    x, y = numbered()
    before = x.clone()
    data = batches(x, y, transform=lambda rows: rows[:, :1].mul_(0), **SIZES)
    for x_labelled, _, x_unlabelled in data:
        assert x_labelled.shape[1] == x_unlabelled.shape[1] == 1
    assert torch.equal(x, before)
    assert data.fingerprint == batches(x, y, **SIZES).fingerprint


@pytest.mark.parametrize("side", ["labelled", "unlabelled"])
def test_a_transform_of_one_stream_alone(side):
    """Where the other is left out, it is called for what is there."""
    x, y = numbered(n=10, labelled=10 if side == "labelled" else 0)
    sizes = {**SIZES, "labelled_batch_size": 4 if side == "labelled" else 0}
    seen = []
    data = list(batches(x, y, transform=lambda rows: seen.append(rows) or rows, **sizes))
    assert sorted(numbers(seen)) == list(range(10))
    assert all((batch[0] is None) == (side == "unlabelled") for batch in data)
    assert all((batch[2] is None) == (side == "labelled") for batch in data)


@pytest.mark.parametrize("y", [numbered()[1], None])
def test_unsupervised_batches_need_no_labels(y):
    x = numbered()[0]
    data = batches(x, y, labelled_batch_size=0, unlabelled_batch_size=5, include_labelled=True)
    batched = list(data)
    assert {(x_labelled, y_labelled) for x_labelled, y_labelled, _ in batched} == {(None, None)}
    assert sorted(numbers(x_unlabelled for _, _, x_unlabelled in batched)) == list(range(23))
    assert (data.num_labelled, data.num_unlabelled) == (0, 23)


def test_unsupervised_batches_leave_labelled_rows_out_unless_asked():
    x, y = numbered()
    data = batches(x, y, labelled_batch_size=0, unlabelled_batch_size=50)
    assert sorted(numbers(x_unlabelled for _, _, x_unlabelled in data)) == list(range(7, 23))


def test_without_unlabelled_rows_a_pass_goes_over_the_labelled_ones():
    x, y = numbered(n=10, labelled=10)
    data = batches(x, y, **SIZES)
    batched = list(data)
    assert [len(x_labelled) for x_labelled, _, _ in batched] == [4, 4, 2]
    assert len(data) == 3
    assert all(x_unlabelled is None for _, _, x_unlabelled in batched)
    assert sorted(numbers(x_labelled for x_labelled, _, _ in batched)) == list(range(10))


def test_hidden_classes_widen_the_labels():
    data = batches(*numbered(), num_classes=5, hidden_classes=(3, 4), **SIZES)
    _, y_labelled, _ = next(iter(data))
    assert y_labelled.shape == (4, 5)
    assert not y_labelled[:, 3:].any()
    assert data.num_classes == 5


@pytest.mark.parametrize("order", ["read-only", "strided", "big-endian"])
def test_arrays_of_every_kind_are_welcome(order):
    x, y = (part.numpy().copy() for part in numbered())
    if order == "read-only":
        x.setflags(write=False)
        y.setflags(write=False)
    elif order == "strided":
        x, y = x[::-1][::-1], np.repeat(y, 2)[::-2][::-1]
    else:
        x, y = x.astype(">f4"), y.astype(">i8")
    assert equal(batches(x, y, **SIZES), batches(*numbered(), **SIZES))


def test_batches_carry_no_gradient():
    x, y = numbered()
    x_labelled, _, x_unlabelled = next(iter(batches(x.requires_grad_(), y, **SIZES)))
    assert not x_labelled.requires_grad
    assert not x_unlabelled.requires_grad


def with_value(value, rows=(3, 5)):
    x = numbered()[0]
    x[list(rows)] = value
    return x


X, Y = numbered()
BAD = [
    ({"x": X[:, 0]}, r"x must be floating numbers of shape \(N, D\), got torch.float32 of shape \(23,\)"),
    ({"x": X.long()}, "x must be floating numbers .* got torch.int64"),
    ({"x": X[:0], "y": Y[:0]}, "x must have at least one row and one column"),
    ({"x": X[:, :0]}, "x must have at least one row and one column"),
    ({"x": np.array([["a"]])}, "x must be numbers, got an array of <U1"),
    ({"x": with_value(math.nan)}, "x must be finite, got NaN or infinity in 2 of 23 rows, the first is row 3"),
    ({"x": with_value(-math.inf)}, "x must be finite, got NaN or infinity in 2 of 23 rows"),
    ({"y": Y[:-1]}, "y must have one label for each of the 23 rows, got 22"),
    ({"y": Y.float()}, "y must be integer labels .* got torch.float32"),
    ({"y": Y > 0}, "y must be integer labels .* got torch.bool"),
    ({"y": Y.unsqueeze(1)}, r"y must be integer labels of shape \(N,\), .* shape \(23, 1\)"),
    ({"y": Y - 1}, "y must hold classes from 0 up, or -1 where unlabelled, got -2"),
    ({"num_classes": 2}, "num_classes must be above 2, the largest class in y, got 2"),
    ({"num_classes": -1}, "num_classes must be an integer of at least 0, got -1"),
    ({"num_classes": 4}, r"y must have .* in every class, got none in \[3\]; label some, or give hidden_classes=\[3\]"),
    ({"y": torch.where(Y == 1, -1, Y)}, r"y must have a labelled row in every class, got none in \[1\]"),
    ({"y": None}, "y must have a labelled row, got none"),
    ({"y": torch.full((23,), -1)}, "y must have a labelled row, got none; .* labelled_batch_size=0"),
    ({"hidden_classes": [3]}, r"hidden_classes must be among the classes \[0, 1, 2\], got 3"),
    ({"hidden_classes": [2]}, "hidden_classes must have no labels in y, got class 2, .* hide them with mask_labels"),
    ({"labelled_batch_size": -1}, "labelled_batch_size must be an integer of at least 0, got -1"),
    ({"labelled_batch_size": 2.0}, "labelled_batch_size must be an integer of at least 0, got 2.0"),
    ({"unlabelled_batch_size": 0}, "unlabelled_batch_size must be an integer of at least 1, got 0"),
    ({"unlabelled_batch_size": True}, "unlabelled_batch_size must be an integer"),
    ({"labelled_batch_size": 0, "y": Y.clamp(min=0)}, "y must have an unlabelled row with labelled_batch_size=0"),
    ({"seed": "a"}, "seed must be an integer of at least 0, got 'a'"),
    ({"seed": 2**63}, r"seed must be below 2\*\*63"),
    ({"binarize": True}, r"x must lie in \[0, 1\] to be binarised, got values from 0 to 22; scale it"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_errors(change, message):
    arguments = {"x": X, "y": Y, **SIZES, **change}
    with pytest.raises(ValueError, match=message):
        batches(arguments.pop("x"), arguments.pop("y"), **arguments)
