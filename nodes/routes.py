"""What the page may ask the server for, beside queueing a graph."""

from __future__ import annotations

import asyncio

from aiohttp import web

from .history import last_run
from .live import RUNS, end_now
from .prompt_table import preview
from .scorer_download import add_scorer_routes


def add_routes(routes: web.RouteTableDef) -> None:
    """Add the pack's addresses to ComfyUI's own, which offers each under ``/api`` as well."""
    add_scorer_routes(routes)

    @routes.get("/unlearn/runs")
    async def runs(request: web.Request) -> web.Response:
        """The last run of each node of a graph, for a page that was opened or reloaded meanwhile.
        ``followed`` says whether its events reach the asking tab."""
        workflow, client = request.query.get("workflow"), request.query.get("client")
        found = [run for run in list(RUNS.values()) if run.workflow == workflow]
        return web.json_response(
            [{**run.told(), "followed": run.client == client} for run in found]
        )

    @routes.get("/unlearn/last_run")
    async def last(request: web.Request) -> web.Response:
        """What the nodes of a graph showed in its last finished run; null where there is none."""
        return web.json_response(last_run(request.query.get("workflow", "")))

    @routes.post("/unlearn/end")
    async def end(request: web.Request) -> web.Response:
        """End a run and keep a state of it; ``step`` is null for the one it is in."""
        try:
            content = await request.json()
            key, step = content["key"], content["step"]
            if not isinstance(step, (int, type(None))) or isinstance(step, bool):
                raise ValueError(f"step must be a whole number or null, got {step!r:.80}")
            run = end_now(key, step)
        except (ValueError, KeyError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(run.told())

    @routes.post("/unlearn/prompts")
    async def prompts(request: web.Request) -> web.Response:
        """The pairs that the widgets' values make, before anything is drawn."""
        try:
            # Thousands of prompts take a while, in which the server must answer others.
            table = await asyncio.to_thread(preview, await request.json())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(table)
