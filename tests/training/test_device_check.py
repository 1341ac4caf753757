"""What a device lacks is reported before a search starts."""

import pytest

from digit_search.errors import ResourceError
from digit_search.training.device import plan_device
from digit_search.training.device_check import check_operators


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.slow
def test_the_cpu_has_every_operator_in_every_precision(precision):
    check_operators(plan_device("cpu", precision))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            "The operator 'aten::x' is not currently implemented for the MPS device. If you want this op to be",
            "The operator 'aten::x' is not currently implemented for the MPS device",
        ),
        ("", "torch does not name it"),
    ],
)
def test_a_missing_operator_is_named_with_a_remedy(error, reason):
    def rehearse(plan):
        raise NotImplementedError(error)

    with pytest.raises(ResourceError) as caught:
        check_operators(plan_device("mps"), rehearse)
    message = str(caught.value)
    assert message.startswith("mps: torch ")
    assert f"lacks an operator that the training needs: {reason}. Set PYTORCH_ENABLE_MPS_FALLBACK=1" in message
    assert "--gpus-per-trial 0" in message


def test_another_error_of_the_device_stays_that_error():
    def rehearse(plan):
        raise RuntimeError("MPS backend out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        check_operators(plan_device("mps"), rehearse)
