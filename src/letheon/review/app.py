"""The page and what it asks for, over HTTP. Only who has the token gets an answer, and only from this machine."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from importlib.resources import files
from typing import Annotated, Any, TypeVar, get_args

from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from letheon.errors import InputError
from letheon.records import Choice, Record, first_fault
from letheon.review import view
from letheon.review.learn import Learner
from letheon.review.session import Filters, Session, Tab

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
FILES = {"": "text/html", "page.css": "text/css", "page.js": "text/javascript"}


class AskedTurn(Record):
    """Which turn the page speaks of."""

    number: Annotated[int, Field(strict=True, ge=0)]


class AskedDecision(AskedTurn):
    """What the person decided about it."""

    decision: Choice
    category: str | None = None


M = TypeVar("M", bound=Record)


def make_app(
    session: Session, learner: Learner, *, token: str, hosts: Collection[str], settings: dict[str, Any]
) -> ASGIApp:
    """The review as an ASGI application, with every path under /TOKEN/.

    Args:
        session: The review.
        learner: Looks on after every decision.
        token: What the URL must hold.
        hosts: Values of the Host header that are answered.
        settings: Told to the page as it is: what does not change while it is open.
    """

    def told(request: Request) -> tuple[Tab, Filters]:
        asked = request.query_params
        tabs: tuple[Tab, ...] = get_args(Tab)
        tab = next((tab for tab in tabs if tab == asked.get("tab", "waiting")), None)
        if tab is None:
            raise InputError(f"tab: expected one of {', '.join(tabs)}")
        return tab, Filters(**{name: asked.get(name) or None for name in ("category", "decision", "judge")})

    def answer(request: Request, **more: Any) -> JSONResponse:
        tab, filters = told(request)
        learner.look()
        now = {"state": view.state(session, learner, tab, filters)}
        queue = {} if tab == "decided" else {"items": view.upcoming(session, tab, filters)}
        return JSONResponse({**now, **queue, **more})

    def known(number: int) -> int:
        if number >= len(session.items):
            raise InputError("number: there is no such turn")
        return number

    async def body(request: Request, model: type[M]) -> M:
        try:
            return model.model_validate_json(await request.body())
        except ValidationError as error:
            raise InputError(first_fault(error)) from None

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "")
        if name not in FILES:
            raise HTTPException(404)
        return Response(page_file(name), media_type=FILES[name])

    async def start(request: Request) -> Response:
        return answer(request, settings=settings)

    async def queue(request: Request) -> Response:
        return answer(request)

    async def decided(request: Request) -> Response:
        _, filters = told(request)
        offset = int(request.query_params.get("offset", "0"))
        return answer(request, rows=view.rows(session, filters, max(0, offset)))

    async def turn(request: Request) -> Response:
        return answer(request, item=view.item(session, known(request.path_params["number"])))

    async def decide(request: Request) -> Response:
        asked = await body(request, AskedDecision)
        session.decide(known(asked.number), asked.decision, asked.category)
        return answer(request)

    async def skip(request: Request) -> Response:
        session.skip(known((await body(request, AskedTurn)).number))
        return answer(request)

    async def undo(request: Request) -> Response:
        number = session.undo()
        return answer(request, item=None if number is None else view.item(session, number))

    def refused(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status_code=400)

    def not_saved(request: Request, error: Exception) -> Response:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return JSONResponse({"error": f"not saved: {why}"}, status_code=507)

    routes = [
        Route("/", page),
        Route("/api/start", start),
        Route("/api/queue", queue),
        Route("/api/decided", decided),
        Route("/api/turn/{number:int}", turn),
        Route("/api/decide", decide, methods=["POST"]),
        Route("/api/skip", skip, methods=["POST"]),
        Route("/api/undo", undo, methods=["POST"]),
        Route("/{name}", page),
    ]
    handlers: Any = {InputError: refused, ValueError: refused, OSError: not_saved}
    app = Starlette(routes=[Mount(f"/{token}", routes=routes)], exception_handlers=handlers)
    return Guard(app, token, hosts)


def page_file(name: str) -> str:
    """The page, its style (Letheon's colours first) or its script."""
    folder = files("letheon.review")
    if name == "page.css":
        colours = (files("letheon") / "palette.css").read_text(encoding="utf-8")
        return colours + (folder / name).read_text(encoding="utf-8")
    return (folder / (name or "page.html")).read_text(encoding="utf-8")


class Guard:
    """Answers 403 to whoever has no token, or comes by another name.

    A page of the web can make a browser ask 127.0.0.1; it cannot guess the token. Nor can it have its own name
    resolve to 127.0.0.1 (DNS rebinding), since the Host header then holds that name.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str]):
        self._app, self._token, self._hosts = app, token.encode(), {host.encode() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        passes = scope["type"] == "http" and self._passes(scope)
        app = self._app if passes else PlainTextResponse("Forbidden: open the URL that the command printed", 403)
        await app(scope, receive, send_with_headers)

    def _passes(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        given = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        has_token = hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self._token)
        return has_token and len(hosts) == 1 and hosts[0] in self._hosts
