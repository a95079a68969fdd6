"""What schemathesis cannot send by itself: pieces of uploads, which are bytes under a name of their own."""

import schemathesis


@schemathesis.serializer("application/offset+octet-stream")
def piece(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()
