"""Augmentation and normalisation give what torchvision's transforms give."""

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from digit_search.training.augmentation import MEAN, STD, normalise, rotate_and_shift


def test_rotation_equals_torchvisions_rotate():
    images = torch.rand(7, 1, 28, 28)
    degrees = torch.tensor([-10.0, -3.5, 0.0, 1.0, 10.0, 45.0, 90.0])
    expected = torch.stack(
        [reference.rotate(image, angle.item(), InterpolationMode.BILINEAR) for image, angle in zip(images, degrees, strict=True)]
    )
    torch.testing.assert_close(rotate_and_shift(images, degrees), expected, atol=2e-5, rtol=0)


def test_rotation_and_shift_equal_torchvisions_affine():
    images = torch.rand(3, 1, 28, 28)
    degrees, shifts = torch.tensor([5.0, -8.0, 0.0]), torch.tensor([[1.0, 0.0], [-2.0, 3.0], [0.0, -1.0]])
    expected = torch.stack(
        [
            reference.affine(image, -angle.item(), shift.tolist(), 1.0, [0.0, 0.0], InterpolationMode.BILINEAR)
            for image, angle, shift in zip(images, degrees, shifts, strict=True)
        ]
    )
    torch.testing.assert_close(rotate_and_shift(images, degrees, shifts), expected, atol=2e-5, rtol=0)


def test_normalisation_equals_the_notebooks():
    images = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    expected = reference.normalize(images / 255, [MEAN], [STD])
    torch.testing.assert_close(normalise(images), expected)
