"""The alternatives to the emulator's own answers: forwarding and replay."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from yandexgpt._endpoint import is_loopback, parse_endpoint
from yandexgpt.emulator.record_replay.forwarder import Forwarder
from yandexgpt.emulator.record_replay.matching import MatchMode
from yandexgpt.emulator.record_replay.replayer import Replayer
from yandexgpt.emulator.record_replay.writer import RecordingWriter

__all__ = ["Backend", "make_backend"]

Backend = Forwarder | Replayer
_PathLike = str | os.PathLike[str]


def make_backend(
    *,
    upstream: str | None,
    upstream_tls: bool | _PathLike,
    record: _PathLike | None,
    record_texts: bool,
    replay: _PathLike | None,
    match: MatchMode,
) -> Backend | None:
    """The backend for the arguments of :class:`Emulator`; None: the emulator answers by itself.

    Raises:
        ValueError: an argument is invalid, or arguments exclude each other; the message names the argument.
    """
    if match not in get_args(MatchMode):
        raise ValueError(f"match must be one of {', '.join(get_args(MatchMode))}, not {match!r}")
    if replay is None and match != "request":
        raise ValueError(f"match={match!r} needs replay, the recording in which answers are found so")
    if replay is not None and (upstream is not None or record is not None):
        raise ValueError("replay answers by itself: it goes with neither upstream nor record")
    if record is not None and upstream is None:
        raise ValueError("record needs upstream, the host:port of the service whose calls are to be recorded")
    if replay is not None:
        return Replayer(_path("replay", replay), match)
    if upstream is None:
        return None
    tls = upstream_tls if isinstance(upstream_tls, bool) else str(_path("upstream_tls", upstream_tls))
    if isinstance(tls, str) and not Path(tls).is_file():
        raise ValueError(f"upstream_tls: there is no file {tls!r} (True, False or the path of a PEM bundle)")
    endpoint = parse_endpoint("upstream", upstream, tls)
    if tls is False and not is_loopback(endpoint.target):
        raise ValueError(
            f"upstream_tls=False would send credentials to {endpoint} unencrypted; plaintext is for loopback only"
        )
    return Forwarder(
        endpoint, None if record is None else RecordingWriter(_path("record", record), texts=bool(record_texts))
    )


def _path(name: str, value: _PathLike) -> Path:
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{name} must be the path of a file, not {value!r}")
    return Path(value)
