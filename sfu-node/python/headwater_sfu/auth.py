"""Only the room plane and the operator may command a node: a bearer token on every call."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio


class BearerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Refuses calls without `authorization: Bearer <token>`; compares in constant time."""

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("the node's token is empty")
        self._expected = f"Bearer {token}".encode()
        self._refusal = grpc.unary_unary_rpc_method_handler(_refuse)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        if self._allowed(handler_call_details.invocation_metadata or ()):
            return await continuation(handler_call_details)
        return self._refusal

    def _allowed(self, metadata: Any) -> bool:
        given = b""
        for key, value in metadata:
            if key == "authorization":
                given = value.encode() if isinstance(value, str) else value
        return hmac.compare_digest(given, self._expected)


async def _refuse(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    await context.abort(
        grpc.StatusCode.UNAUTHENTICATED, "the node's bearer token is missing or wrong: check its Secret"
    )
    raise AssertionError("abort returned")
