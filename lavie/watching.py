"""Being told what specs build: `build` of every spec class runs through whoever watches in this context."""

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeAlias

Watcher: TypeAlias = Callable[[Any, tuple[Any, ...], Callable[[], Any]], Any]
"""`(spec, arguments, run) -> result`: returns what `run` returns, or raises what it raises."""

watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def watchable(build: Callable[..., Any]) -> Callable[..., Any]:
    """Let a `build` method run through the watcher, if there is one."""

    @functools.wraps(build)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        watch = watcher.get()
        if watch is None:
            return build(self, *args, **kwargs)
        return watch(self, (*args, *kwargs.values()), lambda: build(self, *args, **kwargs))

    return run
