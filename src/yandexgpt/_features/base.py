"""What both clients have in common: their arguments, and what they make of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from yandexgpt._checks import Metadata
from yandexgpt._config import Settings
from yandexgpt._retry import DEFAULT_RETRY, Retry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from yandexgpt.credentials import Credentials

__all__ = ["BaseClient"]


class BaseClient:
    """The part of a client that does not wait."""

    _driver_type: ClassVar[type[Any]]
    _driver: Any

    def __init__(
        self,
        *,
        folder_id: str | None = None,
        credentials: Credentials | str | None = None,
        model: str = "yandexgpt-lite",
        endpoint: str | None = None,
        operation_endpoint: str | None = None,
        iam_endpoint: str | None = None,
        tls: bool | str | os.PathLike[str] | None = None,
        timeout: float | None = 60.0,
        attempt_timeout: float | None = None,
        retry: Retry = DEFAULT_RETRY,
        max_concurrency: int | None = None,
        log_data: bool = True,
        metadata: Metadata = (),
        channel_options: Sequence[tuple[str, Any]] = (),
        interceptors: Sequence[Any] = (),
    ) -> None:
        settings = Settings.resolve(
            folder_id=folder_id,
            credentials=credentials,
            model=model,
            endpoint=endpoint,
            operation_endpoint=operation_endpoint,
            iam_endpoint=iam_endpoint,
            tls=tls,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            retry=retry,
            max_concurrency=max_concurrency,
            log_data=log_data,
            metadata=metadata,
            channel_options=channel_options,
            interceptors=interceptors,
        )
        self._driver = self._driver_type(settings, None)

    def with_options(self, **options: Any) -> Self:
        """A client with some arguments of this one changed, on the same connection if they allow it.

        Closing it does not close the connection it shares; closing this one does.

        Args:
            options: as for the class itself.

        Raises:
            ConfigurationError: a value cannot be used, or the client is closed.
            TypeError: there is no such argument.
        """
        self._driver.check_open()
        client = type(self).__new__(type(self))
        client._driver = self._driver_type(self._driver.settings.with_options(options), self._driver)
        return client

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._driver.settings.describe()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client cannot be pickled or copied: make one in each process, or let fork inherit it")
