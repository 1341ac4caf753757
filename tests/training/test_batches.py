"""Batches contain every digit once per epoch and can be repeated exactly."""

import numpy as np
import pytest
import torch

from digit_search.records import TrialParams
from digit_search.training.augmentation import normalise
from digit_search.training.batches import evaluation_batches, num_batches, place_digits, split_batches, training_batches
from digit_search.training.device import plan_device


def make_digits(num_rows: int):
    generator = np.random.default_rng(7)
    pixels = generator.integers(0, 256, (num_rows, 784), dtype=np.uint8)
    pixels.setflags(write=False)
    return place_digits(pixels, (np.arange(num_rows) % 10).astype(np.uint8), plan_device("cpu")), pixels


def all_batches(digits, num_rows, params=None, **options):
    params = params or TrialParams(batch_size=8)
    return list(training_batches(digits, torch.arange(num_rows), params, **{"seed": 1, "epoch": 1} | options))


def test_on_the_cpu_the_pixels_are_not_copied():
    digits, pixels = make_digits(3)
    assert digits.images.data_ptr() == pixels.ctypes.data


@pytest.mark.parametrize(("num_rows", "sizes"), [(16, [8, 8]), (15, [8, 7]), (17, [8, 9]), (1, [1]), (7, [7]), (9, [9])])
def test_batches_cover_every_row_and_a_single_last_row_joins_the_batch_before(num_rows, sizes):
    assert [end - start for start, end in split_batches(num_rows, 8)] == sizes
    assert num_batches(num_rows, 8) == len(sizes)
    digits, _ = make_digits(num_rows)
    assert [len(labels) for _, labels in all_batches(digits, num_rows)] == sizes


def test_an_epoch_contains_every_digit_once_with_its_label():
    digits, _ = make_digits(23)
    plain = TrialParams(batch_size=5, rotation_degrees=0.0)
    pairs = [(image, label) for images, labels in all_batches(digits, 23, plain) for image, label in zip(images, labels, strict=True)]
    expected = normalise(digits.images)
    for row in range(23):
        labels = [label for image, label in pairs if torch.equal(image, expected[row])]
        assert labels == [digits.labels[row]]


def test_an_epoch_can_be_repeated_exactly_and_another_epoch_or_seed_differs():
    digits, _ = make_digits(20)
    params = TrialParams(batch_size=20, shift_pixels=2.0)
    first = all_batches(digits, 20, params)[0]
    again = all_batches(digits, 20, params)[0]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], all_batches(digits, 20, params, epoch=2)[0][0])
    assert not torch.equal(first[0], all_batches(digits, 20, params, seed=2)[0][0])


def test_the_augmentation_of_a_digit_does_not_depend_on_the_batch_size():
    digits, _ = make_digits(20)
    small = torch.cat([images for images, _ in all_batches(digits, 20, TrialParams(batch_size=4))])
    large = torch.cat([images for images, _ in all_batches(digits, 20, TrialParams(batch_size=20))])
    torch.testing.assert_close(small, large)


def test_part_of_an_epoch_equals_that_part_of_the_whole():
    digits, _ = make_digits(40)
    whole, part = all_batches(digits, 40), all_batches(digits, 40, first=2, last=4)
    assert len(part) == 2
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[2:4], part, strict=True))


def test_evaluation_keeps_the_order_and_needs_no_labels():
    digits, pixels = make_digits(5)
    rows = torch.tensor([4, 0, 2])
    batches = list(evaluation_batches(digits, rows, 2))
    assert torch.equal(torch.cat([images for images, _ in batches]), normalise(digits.images[rows]))
    assert torch.equal(torch.cat([batch_rows for _, batch_rows in batches]), rows)
    unlabelled = place_digits(pixels, None, plan_device("cpu"))
    assert [len(images) for images, _ in evaluation_batches(unlabelled, rows, 2)] == [2, 1]
    with pytest.raises(ValueError, match="expected digits with labels"):
        unlabelled.labels_of(rows)


def test_no_rows_are_no_batches():
    digits, _ = make_digits(5)
    assert list(evaluation_batches(digits, torch.arange(0), 2)) == []
