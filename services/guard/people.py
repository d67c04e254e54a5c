"""What people say to the guard over HTTP, each with an approver's token: approve, deny, pause, resume, change a mode.

Every word is audited in the approver's name; orders are on disk before they are answered.

Source: design.md sections 3.6 and 3.8.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field

from edgeagents.adapters.web_pages import Shown, shows
from edgeagents.errors import InvalidInputError, NotFoundError, StoreError, UnauthorisedError, UnavailableError
from edgeagents.model.message import Mode
from services.guard.approvals import Approvals
from services.guard.attempts import Attempts
from services.guard.jobs import Job, Means, approved, end
from services.guard.orders import ModeOrder, Pause, Scope
from services.guard.shown import ApprovalList, Decided, OrdersShown

log = logging.getLogger(__name__)

Reason = Annotated[str, Field(max_length=500)]
# Of the page this says nothing: OpenAPI has no parameters of that name, but `APPROVER`.
Bearer = Annotated[str, Header(include_in_schema=False)]
APPROVER = HTTPBearer(scheme_name="approver", description="an approver's token, of the guard's file", auto_error=False)


class Verdict(BaseModel):
    """What an approver says on a command that waits."""

    decision: Literal["approve", "deny"]
    reason: Reason = ""


class PlaceOrder(BaseModel):
    """What is to be paused, or resumed."""

    scope: Scope
    name: str = Field("", max_length=512)
    reason: Reason = ""


class ModeChange(BaseModel):
    """Which mode an agent is to be in."""

    name: str = Field(max_length=512)
    mode: Mode
    reason: Reason = ""


class People:
    """Carries out what approvers say."""

    def __init__(
        self,
        means: Means,
        approvals: Approvals,
        put: Callable[[Job], Awaitable[None]],
        last_sequence: Callable[[], Awaitable[int]],
    ) -> None:
        """Wire the parts; `put` takes an approved command, `last_sequence` is the newest in the command stream."""
        self._means = means
        self._approvals = approvals
        self._put = put
        self._last_sequence = last_sequence
        self._attempts = Attempts(means.clocks.now)

    # --- who is it -------------------------------------------------------------------------------

    def approver(self, address: str, authorization: str) -> str:
        """Return the name of who calls.

        Raises:
            TooManyAttemptsError: too many wrong tokens came from there.
            UnauthorisedError: the token is nobody's.
        """
        self._attempts.check(address)
        try:
            name = self._approvals.approver(authorization.removeprefix("Bearer ").strip())
        except UnauthorisedError:
            if self._attempts.failed(address):
                log.warning("a wrong approver's token from %s (further ones are counted in the audit)", address)
            raise
        self._attempts.succeeded(address)
        return name

    def tell_of_guesses(self, *, at_once: bool = False) -> None:
        """Audit a burst of wrong tokens once it is over; `at_once`: what there is so far."""
        burst = self._attempts.ended_burst(at_once=at_once)
        if burst is not None:
            self._means.audit.append(
                "wrong-tokens", tried=burst.tried, compared=burst.compared, addresses=burst.addresses,
                seconds=round(burst.last_s - burst.began_s, 1),
            )  # fmt: skip

    # --- approvals -------------------------------------------------------------------------------

    async def decide(self, command_id: str, verdict: Verdict, name: str) -> None:
        """Let a waiting command pass, or refuse it, in an approver's name.

        Raises:
            NotFoundError: nothing waits under that id (any more): decided already, or expired.
        """
        means = self._means
        about = {"command": command_id, "approver": name, "decision": verdict.decision, "reason": verdict.reason}
        try:
            waiting = self._approvals.take(command_id)
        except NotFoundError as error:
            means.audit.append("approval", **about, refused=str(error))
            raise
        means.audit.append("approval", **about)
        decided = approved(waiting.job, name, means.clocks.site())
        if verdict.decision == "approve":
            await self._put(decided)
        else:
            text = f"denied by {name}" + (f": {verdict.reason}" if verdict.reason else "")
            try:
                # Whatever becomes of the caller, the command ends.
                await asyncio.shield(end(means, decided, "refused", text, "approval"))
            except StoreError:
                self._approvals.keep(waiting)
                raise

    # --- orders ----------------------------------------------------------------------------------

    async def pause(self, order: PlaceOrder, name: str) -> None:
        """Stop actuation in a scope at once, and refuse what waits there for a human.

        Raises:
            InvalidInputError: a name is missing, or one too many.
            NotFoundError: no such agent or device.
            UnavailableError: core-metadata has not answered yet, so nobody knows the device.
            StoreError: not on disk; it holds all the same, until the guard is restarted.
        """
        means = self._means
        _check_names(order)
        if order.scope == "agent":
            if not means.owner.may_have_file(order.name):
                means.orders.check_agent(order.name)
        elif order.scope == "device":
            self._check_device(order.name)
        pause = Pause(order.scope, order.name, name, order.reason, means.clocks.wall_ns())
        await means.orders.pause(pause)
        for job in self._approvals.dropped(lambda job: pause.covers(job.agent, job.command.device)):
            await end(means, job, "refused", str(pause), "order")
        means.audit.append("paused", scope=order.scope, name=order.name, approver=name, reason=order.reason)
        await self._call(order)

    async def resume(self, order: PlaceOrder, name: str) -> None:
        """End a pause; other pauses hold on.

        Raises:
            InvalidInputError: a name is missing, or one too many.
            NotFoundError: it is not paused.
            UnavailableError: the broker does not tell what was given meanwhile; the pause holds on.
            StoreError: not on disk; the pause holds on.
        """
        _check_names(order)
        means = self._means
        pause = means.orders.paused_at((order.scope, order.name))
        await means.orders.resume(pause, self._last_sequence)
        means.audit.append("resumed", scope=order.scope, name=order.name, approver=name, reason=order.reason)
        await self._call(order)

    async def _call(self, order: PlaceOrder) -> None:
        """Have the agents that an order may concern ask what they may do now; without it they ask within seconds."""
        for name in [order.name] if order.scope == "agent" else sorted(self._means.owner.agents):
            await self._means.desk.call(name)

    async def change_mode(self, change: ModeChange, name: str) -> None:
        """Put an agent into a mode, and have it ask what it may do now.

        Raises:
            NotFoundError: no agent file declares it.
            StoreError: not on disk; `observe` holds all the same, until the guard is restarted.
        """
        means = self._means
        await means.orders.order_mode(change.name, change.mode, name, change.reason, means.clocks.wall_ns())
        means.audit.append("mode", agent=change.name, mode=change.mode, approver=name, reason=change.reason)
        await means.desk.call(change.name)

    def _check_device(self, name: str) -> None:
        devices = self._means.devices
        if devices.device(name) is not None:
            return
        if not devices.is_ready:
            raise UnavailableError(f"core-metadata has not told yet whether there is a device {name!r}: pause all")
        raise NotFoundError(f"core-metadata knows no device {name!r}: is it spelt as there?")

    def orders(self) -> dict[str, Any]:
        """Return what is ordered, as `GET /api/v3/guard` shows it."""
        orders = self._means.orders
        return {
            "paused": [shown_pause(pause) for pause in orders.paused],
            "modes": orders.modes,
            "modeOrders": [shown_mode(order) for order in orders.ordered],
        }


def _check_names(order: PlaceOrder) -> None:
    if (order.scope == "all") == bool(order.name):
        wanted = "no name" if order.scope == "all" else f"the {order.scope}'s name"
        raise InvalidInputError(f"scope {order.scope!r} needs {wanted}, not {order.name!r}")


def shown_pause(pause: Pause) -> dict[str, Any]:
    """Return a pause as people are shown it."""
    return {
        "scope": pause.scope, "name": pause.name, "by": pause.approver, "reason": pause.reason,
        "sinceUnixNs": pause.since_ns,
    }  # fmt: skip


def shown_mode(order: ModeOrder) -> dict[str, Any]:
    """Return a mode by order as people are shown it."""
    return {
        "agent": order.agent, "mode": order.mode, "by": order.approver, "reason": order.reason,
        "sinceUnixNs": order.since_ns,
    }  # fmt: skip


def add_people_routes(app: FastAPI, people: People, approvals: Approvals) -> None:
    """Add the routes that take an approver's token."""

    def approver(request: Request, authorization: str) -> str:
        return people.approver(request.client.host if request.client else "", authorization)

    def page(model: type[Shown], description: str) -> dict[str, Any]:
        return {"tags": ["people"], "dependencies": [Depends(APPROVER)], **shows(model, description)}

    def done(**more: Any) -> dict[str, Any]:
        return {"apiVersion": "v3", "statusCode": 200, **more}

    @app.get("/api/v3/approval", **page(ApprovalList, "What waits."))
    async def list_approvals(request: Request, authorization: Bearer = "") -> dict[str, Any]:
        """List the commands that wait for a human, the oldest first."""
        approver(request, authorization)
        waiting = approvals.listed()
        return done(totalCount=len(waiting), approvals=waiting)

    @app.post("/api/v3/approval/{command_id}", **page(Decided, "It is decided."))
    async def decide(
        request: Request, command_id: str, verdict: Verdict, authorization: Bearer = ""
    ) -> dict[str, Any]:  # fmt: skip
        """Let a waiting command pass, or refuse it."""
        await people.decide(command_id, verdict, approver(request, authorization))
        return done(commandId=command_id, decision=verdict.decision)

    @app.post("/api/v3/pause", **page(OrdersShown, "All orders as they are now."))
    async def pause(request: Request, order: PlaceOrder, authorization: Bearer = "") -> dict[str, Any]:
        """Stop actuation of all, of an agent, or at a device, at once; it survives a restart."""
        await people.pause(order, approver(request, authorization))
        return done(**people.orders())

    @app.post("/api/v3/resume", **page(OrdersShown, "All orders as they are now."))
    async def resume(request: Request, order: PlaceOrder, authorization: Bearer = "") -> dict[str, Any]:
        """End a pause; nothing that was given before it goes out any more."""
        await people.resume(order, approver(request, authorization))
        return done(**people.orders())

    @app.post("/api/v3/mode", **page(OrdersShown, "All orders as they are now."))
    async def mode(request: Request, change: ModeChange, authorization: Bearer = "") -> dict[str, Any]:
        """Put an agent into a mode: `observe` decides and commands nothing."""
        await people.change_mode(change, approver(request, authorization))
        return done(**people.orders())
