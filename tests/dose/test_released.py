"""Released vectors are asked for by a list of values."""

import pytest

from valueflow.dose.released import load_released
from valueflow.errors import InvalidInput


@pytest.mark.parametrize("values", ["power", "svt/power", ""])
def test_one_string_is_no_list_of_values(values):
    told = rf"expected a list of values, got one string: write \['{values}'\]"
    with pytest.raises(InvalidInput, match=told):
        load_released("smollm2-135m-instruct", values)


def test_a_list_of_one_value_is_its_card():
    (card,) = load_released("HuggingFaceTB/SmolLM2-135M-Instruct", ["power"])
    assert card.value == "svt/power"
