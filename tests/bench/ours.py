"""The measured legs: the runner and the requests of production, wired by the composition root."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from bus.author import Author
from bus.context import Context
from bus.spend import BASE, TOKENS, Calendar, Key, scope_token
from services import logs
from services.app.agent_runner import start_runner
from services.app.parts import calm_collector, requests_of
from services.daemon import Bus, daemon, open_bus
from services.fleet.entries import publish, role_key
from services.fleet.registry import Registry
from services.fleet.spec import Cap, FunctionHandler, Role, Window
from services.requests.requests import Ask
from tests.bench import handlers
from tests.bench.leg import Found, Meter, Task, bounded, resident, run, say_ready

PROJECT = "bench"
#: Seconds between two looks at how far the runner is.
_LOOK_S = 0.002


def role(task: Task) -> Role:
    """The role that the runner works for."""
    target = f"{handlers.__name__}:{task.handler}"
    caps = (Cap(cap=10**12, window=Window.MONTH),) if task.capped else ()
    return Role(
        handler=FunctionHandler(target=target),
        concurrency=task.concurrency,
        caps=caps,
        max_tokens=10 if task.capped else None,
    )


async def seed(bus: Bus, name: str) -> None:
    """Make a capped role's counter, as a warden would."""
    now = bus.author.now()
    key = str(Key(scope_token(PROJECT, name), TOKENS, Calendar().id(Window.MONTH.value, now)))
    await bus.counters.add(key, BASE)


async def runner(task: Task) -> Found:
    """Run an agent_runner until it has worked off `count` invocations; they may lie there already, or still come."""
    logs.configure(json=True)
    calm_collector()
    async with daemon("agent_runner", "agent_runner-1", Path(task.home), Context(url=task.url)) as running:
        # Nothing is registered yet, so nothing is pulled: the registration is the start signal.
        working = await start_runner(running, Context(url=task.url), Path(task.home))
        if task.capped:
            await seed(running.bus, task.role)
        rss = [resident()]
        say_ready()
        meter = Meter()
        await publish(running.bus.bucket("registry"), {role_key(PROJECT, task.role): msgspec.json.encode(role(task))})
        for mark in (*task.marks, task.count):
            while working.handled < mark:
                await asyncio.sleep(_LOOK_S)
            rss.append(resident())
        found = meter.read(task.count, rss=tuple(rss), latency_ns=tuple(handlers.entered_ns))
        running.stop()
    return found


async def submit(task: Task) -> Found:
    """Put `count` requests into the log."""
    calm_collector()
    bus = await open_bus(Context(url=task.url), "submit", Author("/bench/submit"))
    registry = Registry(bus.bucket("registry"))
    await publish(bus.bucket("registry"), {role_key(PROJECT, task.role): msgspec.json.encode(role(task))})
    await registry.open()
    requests = requests_of(bus, registry)
    say_ready()
    meter = Meter()
    await bounded(task.count, task.concurrency, lambda: requests.submit(ask(task.role)))
    found = meter.read(task.count)
    await registry.close()
    await bus.close()
    return found


#: The input of every request but the stamped ones: a short prompt.
INPUT = msgspec.Raw(msgspec.json.encode({"prompt": "y" * 200}))


def ask(role_name: str, input: msgspec.Raw = INPUT) -> Ask:
    """One request."""
    return Ask(role=f"{PROJECT}/{role_name}", input=input)


if __name__ == "__main__":
    run({"runner": runner, "submit": submit})
