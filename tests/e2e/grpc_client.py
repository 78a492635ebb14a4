"""A client in another language, which knows nothing of NexusHub but a folder of sockets and of operators' tokens.

    grpc_client.py RUN

Lists every service of every daemon by reflection, v1 and v1alpha, describes each, and calls those of its methods that
only read (List..., Get...Counters, Check). Needs grpcio and grpcio-reflection. Exits 1 with the reason when a promise does not hold.
"""

import sys
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2 as reflection

DAEMONS = ["provider", "procmgr", "debug-api", "proxy"]
DEADLINE = 30


def ask(channel, version, token, request):
    """One question to the reflection service of a version; both speak the same messages."""
    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    call = channel.stream_stream(
        path,
        request_serializer=reflection.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection.ServerReflectionResponse.FromString,
    )
    return next(call(iter([request]), metadata=token, timeout=DEADLINE))


def services(channel, version, token):
    answer = ask(channel, version, token, reflection.ServerReflectionRequest(list_services=""))
    return sorted(service.name for service in answer.list_services_response.service)


def ours(listed):
    """Reflection lists its own version only."""
    return [name for name in listed if "reflection" not in name]


def describe(channel, version, token, symbol, pool, known):
    """Adds the files of a symbol, and those they import, to the pool."""

    def files(**question):
        answer = ask(channel, version, token, reflection.ServerReflectionRequest(**question))
        assert answer.HasField("file_descriptor_response"), f"{question} is not described: {answer}"
        return map(descriptor_pb2.FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)

    def add(file):
        if file.name in known:
            return
        known.add(file.name)
        for name in file.dependency:
            for imported in files(file_by_filename=name):
                add(imported)
        pool.Add(file)

    for file in files(file_containing_symbol=symbol):
        add(file)
    return pool.FindServiceByName(symbol)


def only_reads(method):
    return not method.client_streaming and not method.server_streaming and method.name.startswith(("List", "GetCounters", "Check"))


def call(channel, service, method, token):
    request = message_factory.GetMessageClass(method.input_type)
    answer = message_factory.GetMessageClass(method.output_type)
    stub = channel.unary_unary(
        f"/{service.full_name}/{method.name}",
        request_serializer=request.SerializeToString,
        response_deserializer=answer.FromString,
    )
    return stub(request(), metadata=token, timeout=DEADLINE)


def refused(channel, service, method, token):
    """A call with this token must be refused."""
    try:
        call(channel, service, method, token)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
        return
    raise AssertionError(f"{service.full_name}/{method.name} answered {token}")


def visit(run, daemon):
    token = [("authorization", f"Bearer {(run / 'operator' / daemon).read_text().strip()}")]
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(f"unix:{run}/{daemon}.sock", options=options) as channel:
        listed = services(channel, "v1", token)
        alpha = services(channel, "v1alpha", token)
        assert ours(listed) == ours(alpha), f"v1 and v1alpha differ: {listed}, {alpha}"
        own = f"nexushub.{daemon.replace('-', '')}.v1."
        assert any(name.startswith(own) for name in listed), listed
        assert "grpc.health.v1.Health" in listed, listed
        pool, known, called = descriptor_pool.DescriptorPool(), set(), 0
        for name in listed:
            service = describe(channel, "v1", token, name, pool, known)
            for method in filter(only_reads, service.methods):
                call(channel, service, method, token)
                refused(channel, service, method, None)
                refused(channel, service, method, [("authorization", "Bearer nonsense")])
                called += 1
        assert called >= 2, f"only {called} calls"
        print(f"{daemon}: {len(listed)} services, {called} methods called: {', '.join(listed)}")


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: grpc_client.py RUN")
    run = Path(sys.argv[1]).resolve()
    for daemon in DAEMONS:
        visit(run, daemon)


if __name__ == "__main__":
    main()
