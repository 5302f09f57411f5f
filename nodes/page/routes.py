"""Routes that the pack adds to ComfyUI's server."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from aiohttp import web

from ...unlearn_core.dataset.cache import LatentCache
from ..host.folders import cache_folder
from .history import last_run, workflow_of
from .post_route import Content, add_post
from .prompt_table import preview
from .runs import RUNS, begin_anew, end_now
from .scorer_download import add_scorer_routes

LARGEST_TABLE = 16 * 1024 * 1024  # bytes; thousands of edited prompts stay far below


def add_routes(routes: web.RouteTableDef) -> None:
    """Add the pack's routes; ComfyUI serves each of them under ``/api`` as well."""
    add_scorer_routes(routes)
    add_post(routes, "/unlearn/end", end)
    add_post(routes, "/unlearn/restart", restart)
    add_post(routes, "/unlearn/cache/clear", clear_cache)
    add_post(routes, "/unlearn/cache/limit", limit_cache)
    add_post(routes, "/unlearn/prompts", prompts, largest=LARGEST_TABLE)

    @routes.get("/unlearn/runs")
    async def runs(request: web.Request) -> web.Response:
        """The last run of each node of a graph, for a page that was opened or reloaded meanwhile.
        ``followed`` is true if the requesting tab receives the run's events."""
        workflow, client = request.query.get("workflow"), request.query.get("client")
        runs_of_graph = [run for run in list(RUNS.values()) if run.workflow == workflow]
        return web.json_response(
            [{**run.as_json(), "followed": run.client == client} for run in runs_of_graph]
        )

    @routes.get("/unlearn/cache")
    async def cache(_: web.Request) -> web.Response:
        """The size of the picture cache and its limit, in bytes."""
        return web.json_response(await asyncio.to_thread(cache_size))

    @routes.get("/unlearn/last_run")
    async def last(request: web.Request) -> web.Response:
        """The outputs of a graph's nodes in its last finished run; null if there is none."""
        try:
            run = await asyncio.to_thread(last_run, request.query.get("workflow", ""))
        except RecursionError:  # a graph of thousands of nodes in a row, or deeply nested values
            run = None
        return web.json_response(run)

    @routes.get("/unlearn/workflow")
    async def workflow(request: web.Request) -> web.Response:
        """The id of the graph that a prompt came from; null if it has none."""
        return web.json_response(workflow_of(request.query.get("prompt", "")))


async def end(content: Content) -> dict[str, Any]:
    """End the run ``key`` with the state of ``step``; null means the current step.

    Raises:
        ValueError: a missing or malformed field, or see ``end_now``.
    """
    for name in ("key", "step"):
        if name not in content:
            raise ValueError(f"{name} is missing; send the key of a run, and a step or null")
    key, step = content["key"], content["step"]
    if not isinstance(key, str):
        raise ValueError(f"key must be a text, got {key!r:.80}")
    if not isinstance(step, (int, type(None))) or isinstance(step, bool):
        raise ValueError(f"step must be a whole number or null, got {step!r:.80}")
    return end_now(key, step).as_json()


def cache_size() -> dict[str, Any]:
    cache = LatentCache(cache_folder())
    return {**asdict(cache.size()), "limit": cache.limit}


async def clear_cache(_: Content) -> dict[str, Any]:
    """Delete all pictures in the cache, and return ``cache_size``."""
    await asyncio.to_thread(LatentCache(cache_folder()).clear)
    return await asyncio.to_thread(cache_size)


async def limit_cache(content: Content) -> dict[str, Any]:
    """Set the limit of the cache in gigabytes, and return ``cache_size``.

    Raises:
        ValueError: not a number of gigabytes, or the folder is not writable.
    """
    try:
        await asyncio.to_thread(LatentCache(cache_folder()).set_limit, content.get("gigabytes"))
    except OSError as error:
        raise ValueError(f"the limit could not be stored: {error}") from None
    return await asyncio.to_thread(cache_size)


async def restart(content: Content) -> dict[str, Any]:
    """Let the next execution of the run ``key`` begin anew.

    Raises:
        ValueError: the field is missing, or see ``begin_anew``.
    """
    if "key" not in content:
        raise ValueError("key is missing; send the key of a run")
    return begin_anew(content["key"]).as_json()


async def prompts(content: Content) -> dict[str, Any]:
    """The pairs of prompts for the values of the widgets, before any picture is drawn.

    Raises:
        ValueError: values that the nodes would refuse too.
    """
    try:
        # Thousands of prompts take a while, and the server must stay responsive.
        return await asyncio.to_thread(preview, content)
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(
            f"the values of the widgets are incomplete: {error!r:.200}; reload the page"
        ) from None
