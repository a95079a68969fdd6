"""Serializer of upload parts, whose media type schemathesis does not know."""

import schemathesis


@schemathesis.serializer("application/offset+octet-stream")
def part(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()
