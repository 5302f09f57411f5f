"""POST requests that the pack's routes accept and refuse, through a real aiohttp server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import FormData, web
from aiohttp.test_utils import TestClient, TestServer

from ..pack import ROUTES, pack_module

posts = pack_module("nodes.page.post_route")
POSTS = sorted(
    route.path for route in ROUTES if isinstance(route, web.RouteDef) and route.method == "POST"
)
HERE = {"Host": "studio.example.org:8188", "Origin": "http://studio.example.org:8188"}
Answer = tuple[int, Any, int]  # status, JSON and how often a handler ran


def post(path: str = "/do", **request: Any) -> Answer:
    """Post to one of the pack's routes, or to a test route that returns its input."""
    count = 0

    async def work() -> Answer:
        async def handler(content: dict[str, Any]) -> object:
            nonlocal count
            count += 1
            if "wrong" in content:
                raise ValueError("wrong: it is wrong")
            return content

        routes = web.RouteTableDef()
        posts.add_post(routes, "/do", handler, largest=1000)
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.add_routes(routes)
        app.add_routes(ROUTES)
        async with TestClient(TestServer(app)) as client:
            answer = await client.post(path, **request)
            return answer.status, await answer.json(), count

    return asyncio.run(work())


def sent(headers: Mapping[str, str]) -> Answer:
    return post(json={"a": 1}, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},  # curl, or a script
        HERE,
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {**HERE, "Sec-Fetch-Site": "same-origin"},
        # A proxy that rewrites Host: the browser's header decides.
        {**HERE, "Host": "127.0.0.1:8188", "Sec-Fetch-Site": "same-origin"},
        {"Host": "studio.example.org", "Origin": "https://studio.example.org"},
        {"Host": "studio.example.org:443", "Origin": "https://studio.example.org"},
        {"Host": "Studio.Example.org", "Origin": "https://studio.example.org:443"},
        {"Host": "[::1]:8188", "Origin": "http://[::1]:8188"},
        {"Content-Type": "application/json; charset=utf-8"},
    ],
)
def test_the_page_and_scripts_pass(headers: dict[str, str]) -> None:
    assert sent(headers) == (200, {"a": 1}, 1)


@pytest.mark.parametrize(
    "headers",
    [
        {**HERE, "Origin": "https://evil.example.net"},
        {**HERE, "Origin": "http://studio.example.org"},  # another port
        {**HERE, "Origin": "http://studio.example.org:8188.evil.example.net"},
        {**HERE, "Origin": "http://evil.example.net:8188"},
        {**HERE, "Origin": "null"},  # a sandboxed frame, or a data: address
        {**HERE, "Origin": ""},
        {**HERE, "Origin": "http://["},
        {**HERE, "Origin": "http://studio.example.org:x"},
        {**HERE, "X-Forwarded-Host": "evil.example.net", "Origin": "https://evil.example.net"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another port of this machine
        {**HERE, "Sec-Fetch-Site": "cross-site"},
        {**HERE, "Origin": "null", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_pages_are_refused(headers: dict[str, str]) -> None:
    status, answer, count = sent(headers)
    assert (status, count) == (403, 0)
    assert "only ComfyUI's own page may send this" in answer["error"]


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"a": "1"}},  # a form
        {"data": FormData({"a": "1"}, default_to_multipart=True)},
        {"data": '{"a": 1}', "headers": {"Content-Type": "text/plain"}},
        {"data": '{"a": 1}', "headers": {"Content-Type": "text/plain; x=application/json"}},
        {"data": b'{"a": 1}'},
        {},
    ],
)
@pytest.mark.parametrize("path", ["/do", *POSTS])
def test_a_form_is_refused_even_without_origin(body: dict[str, Any], path: str) -> None:
    """With ``Referrer-Policy: no-referrer``, some requests of old browsers have no ``Origin``."""
    status, answer, count = post(path, **body)
    assert (status, count) == (415, 0)
    assert "Content-Type must be application/json" in answer["error"]


@pytest.mark.parametrize("path", POSTS)
def test_every_post_route_of_the_pack_is_guarded(path: str) -> None:
    assert post(path, json={}, headers={"Origin": "null"})[0] == 403


def test_the_list_of_post_routes() -> None:
    names = [path.removeprefix("/unlearn/") for path in POSTS]
    assert names == [
        "cache/clear",
        "cache/limit",
        "end",
        "prompts",
        "restart",
        "scorer",
        "scorer/cancel",
    ]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\xff", "is not JSON"),
        (b"[" * 60, "is not JSON"),
        (b"[1]", "must be a JSON object, got list"),
        (b"null", "must be a JSON object, got NoneType"),
        (b'{"wrong": 1}', "wrong: it is wrong"),
    ],
)
def test_malformed_bodies_are_refused(body: bytes, words: str) -> None:
    status, answer, _ = post(data=body, headers={"Content-Type": "application/json"})
    assert status == 400
    assert words in answer["error"]


def test_deep_nesting_is_refused() -> None:
    body = b'{"concept":' * 100_000
    headers = {"Content-Type": "application/json"}
    status, answer, _ = post("/unlearn/prompts", data=body, headers=headers)
    assert status in (400, 413)
    assert "is nested too deeply" in answer["error"] or "larger than" in answer["error"]


@pytest.mark.parametrize(
    ("with_length", "beyond_comfyui"), [(True, False), (False, False), (False, True)]
)
def test_a_body_over_the_limit_is_refused(with_length: bool, beyond_comfyui: bool) -> None:
    async def pieces() -> Any:
        for _ in range(9 if beyond_comfyui else 1):
            yield b" " * 1024 * 1024

    data = b" " * 1001 if with_length else pieces()
    status, answer, count = post(data=data, headers={"Content-Type": "application/json"})
    assert (status, count) == (413, 0)
    assert "the body is larger than 1000 bytes" in answer["error"]


@pytest.mark.parametrize("path", [*POSTS, "/do"])
@pytest.mark.parametrize("depth", [65, 400, 900, 5000])
def test_deeply_nested_json_is_refused(path: str, depth: int) -> None:
    body = b'{"key": ' + b"[" * depth + b"]" * depth + b', "step": null}'
    headers = {"Content-Type": "application/json"}
    status, answer, count = post(path, data=body, headers=headers)
    assert status in (400, 413)
    assert "error" in answer
    assert count == 0


@pytest.mark.parametrize("value", [3, 1.5, None, True, [], ["a"], {}, {"a": 1}])
def test_a_value_of_another_type_is_refused(value: object) -> None:
    for content in ({"key": value, "step": None}, {"key": "a", "step": value}):
        assert post("/unlearn/end", json=content)[0] == 400
    for content in ({"concept": value, "prompts": value}, {"concept": {"concept": value}}):
        assert post("/unlearn/prompts", json=content)[0] == 400
