"""The part of an invoker that does not wait, shared by the invokers of both clients."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from yandexgpt._concurrency import fork_safety
from yandexgpt._rpc import failures
from yandexgpt._rpc.call import new_call
from yandexgpt._rpc.client_state import ClientState
from yandexgpt._rpc.iam import IamExchange
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from yandexgpt._config import Settings
    from yandexgpt._rpc.call import Call, CallOptions
    from yandexgpt._rpc.methods import Method

__all__ = ["BaseInvoker"]


class Registry(Protocol):
    """The channels of a client, and the calls on them."""

    closed: bool


RegistryT = TypeVar("RegistryT", bound=Registry)


class BaseInvoker(Generic[RegistryT]):
    """Settings, state and channels of one client.

    Args:
        settings: of the client.
        parent: the invoker of the client whose ``with_options`` created this one, or None. State that depends on
            unchanged settings is shared with it.
        new_registry: creates the registry of the channels, if it is not shared.
    """

    def __init__(
        self, settings: Settings, parent: BaseInvoker[RegistryT] | None, new_registry: Callable[[Settings], RegistryT]
    ) -> None:
        self.settings = settings
        self.state: ClientState = ClientState(settings, parent.state if parent else None)
        if parent is None or parent.settings.connection_key != settings.connection_key:
            self.owns_registry = True
            self.registry = new_registry(settings)
        else:
            self.owns_registry = False
            self.registry = parent.registry
        self.closed = False

    @property
    def is_closed(self) -> bool:
        """Whether this client, or the client that has opened the connection, is closed."""
        return self.closed or self.registry.closed

    def check_open(self) -> None:
        """Refuse to make calls if the client or the process does not allow them.

        Raises:
            ConfigurationError: the client is closed, or this process was forked while calls were in flight.
        """
        fork_safety.check()
        if self.closed or self.registry.closed:
            raise ConfigurationError("the client is closed")

    def check_not_closed_in_pause(self) -> None:
        """Check that the client was not closed during a wait between two calls.

        Raises:
            CancelledError: it was closed.
        """
        if self.is_closed:
            raise failures.client_closed_error(self.settings.operation_endpoint.target)

    def begin(self, method: Method, subject: str, options: CallOptions) -> Call:
        """Create a call. Its deadline runs from now.

        Raises:
            ConfigurationError: as :meth:`check_open`.
            ValueError: an argument has an impossible value.
        """
        self.check_open()
        return new_call(self.state, method, subject, options)

    def header_or_future(self, call: Call) -> str | Future[str]:
        """Return the ``authorization`` to send, or a future of it."""
        credentials = self.settings.credentials
        if credentials.header is not None:
            return credentials.header
        fetch = partial(credentials.fetch, IamExchange(self.settings))
        return credentials.token_cache.header(fetch, rejected=call.rejected_authorization)
