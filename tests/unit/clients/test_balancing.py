"""A name that stands for several servers: the channel's requests go round them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc

from clients import _transport


class _Counting(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self) -> None:
        self.count = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def answer(request: bytes, _context: grpc.ServicerContext) -> bytes:
            self.count += 1
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


def test_requests_go_round_all_servers_of_a_name() -> None:
    handlers, servers, ports = [], [], []
    for _ in range(2):
        handler = _Counting()
        server = grpc.server(ThreadPoolExecutor(2), handlers=(handler,))
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        server.start()
        handlers.append(handler)
        servers.append(server)
    options = _transport._grpc_arguments("grpc://triton:8001", None)["channel_args"]
    both = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    try:
        with grpc.insecure_channel(both, options=options) as channel:
            ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for _ in range(40):
                assert ask(b"x", timeout=20, wait_for_ready=True) == b"x"
    finally:
        for server in servers:
            server.stop(None)
    # The first requests may go before the second connection stands.
    assert min(handler.count for handler in handlers) >= 5
