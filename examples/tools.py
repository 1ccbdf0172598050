"""Functions that the model may call: it says which and with what, run_tools() calls them and tells it the results.

    python examples/tools.py

The schema is made of the types (extra `pydantic`), or given, as for `convert`.
"""

from __future__ import annotations

from typing import Any

import yandexgpt


@yandexgpt.tool
def weather(city: str, days: int = 1) -> dict[str, Any]:
    """Forecast of the temperature in a city, in degrees Celsius."""
    return {"city": city, "temperatures": [-5 + day for day in range(days)]}


@yandexgpt.tool(
    name="convert",
    description="Degrees Celsius in Fahrenheit.",
    parameters={"type": "object", "properties": {"celsius": {"type": "number"}}, "required": ["celsius"]},
)
def to_fahrenheit(celsius: float) -> str:
    return f"{celsius * 9 / 5 + 32:g} °F"


def main() -> None:
    with yandexgpt.Client(model="yandexgpt") as client:
        completion = client.run_tools(
            "Какая погода в Москве, в Фаренгейтах?", tools=[weather, to_fahrenheit], tool_choice="required"
        )
        print(completion.text)

        # One step of it by hand: what does the model want called?
        completion = client.complete("Сколько это: -5 °C?", tools=[to_fahrenheit], tool_choice="convert")
        for call in completion.tool_calls:
            print(f"{call.name}({call.arguments})")


if __name__ == "__main__":
    main()
