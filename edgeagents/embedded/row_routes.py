"""What the routes of core-metadata share: many objects in, one result each out; lists in pages."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response

from edgeagents.embedded.contracts import Item, read_many
from edgeagents.embedded.contracts import Request as Kind
from edgeagents.embedded.http import answer, failure, ok, paging, param, read_json, write_json
from edgeagents.embedded.rows import has_labels, listed
from edgeagents.embedded.storage import Row, Table
from edgeagents.errors import EdgeAgentsError

Work = Callable[[Item], Awaitable[str | None]]
Question = Callable[[Request], Callable[[Row], bool]]
Show = Callable[[list[Row]], list[Row]]


async def each(request: Request, kind: Kind, work: Work, done_status: int = 200) -> Response:
    """Return 207 with one result per object of the request: `done_status`, or 201 with the id that `work` returns."""
    results = []
    for item in read_many(kind, await read_json(request)):
        try:
            found = await work(item)
        except EdgeAgentsError as error:
            results.append(failure(error, item.request_id))
        else:
            done = {} if found is None else {"id": found}
            results.append(answer(201 if done else done_status, request_id=item.request_id, **done))
    return write_json(results, 207)


def lister(table: Table, key: str, question: Question, show: Show = list) -> Callable[[Request], Awaitable[Response]]:
    """Return the route of a list under `key`: the rows that the request asks for, as `show` shows them."""

    async def answer_list(request: Request) -> Response:
        offset, limit = paging(request)
        total, rows = listed(table, offset, limit, question(request))
        parts: dict[str, Any] = {"totalCount": total, key: show(rows)}
        return ok(**parts)

    return answer_list


def labelled(request: Request) -> Callable[[Row], bool]:
    """Return the question whether a row has the labels that a request names."""
    return has_labels(label for label in request.query_params.get("labels", "").split(",") if label)


def equal(key: str, part: str = "") -> Question:
    """Return the question whether a row's `key` is what stands in the path as `part`, or as `key`."""

    def question(request: Request) -> Callable[[Row], bool]:
        wanted = param(request, part or key)
        return lambda row: row.get(key, "") == wanted

    return question
