"""The keyword arguments for type checkers are those that calls and requests take."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from yandexgpt import _options
from yandexgpt._request import build_request
from yandexgpt._rpc.call import CallOptions

GENERATIONS = ["AskOptions", "TurnOptions", "StreamTurnOptions", "RunOptions", "ManyOptions", "ParseOptions"]


def test_options_of_a_call_are_listed_for_type_checkers() -> None:
    assert list(_options.CallKeywords.__annotations__) == list(CallOptions._fields)


@pytest.mark.parametrize("name", GENERATIONS)
def test_other_options_are_parameters_of_the_request(name: str) -> None:
    keywords: Any = getattr(_options, name)
    others = keywords.__annotations__.keys() - CallOptions._fields - {"latest"}
    assert others
    assert others <= inspect.signature(build_request).parameters.keys()
