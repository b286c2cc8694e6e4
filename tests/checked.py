"""The type checker of the test run: beartype, wherever it understands the annotations."""

from collections.abc import Callable
from typing import Any

from beartype import beartype
from beartype.roar import BeartypeDecorHintException


def shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the annotations of a function, shapes included; leave alone what beartype cannot check.

    That is what pydantic's hooks are annotated with: protocols, and Self outside a decorated class.
    """
    try:
        return beartype(function)
    except BeartypeDecorHintException:
        return function
