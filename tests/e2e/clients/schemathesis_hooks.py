"""What a client of the API does that its description cannot say."""

import gzip
import re

import requests
import schemathesis


class AsClientsDo(requests.auth.AuthBase):
    """Packs a body as its header says, and sends the token where one is taken."""

    def __call__(self, request):
        if request.path_url.startswith("/oauth2/token"):
            request.headers.pop("Authorization", None)
        if request.headers.get("Content-Encoding") in ("gzip", "zstd") and request.body:
            body = request.body
            request.body = gzip.compress(body.encode() if isinstance(body, str) else body, mtime=0)
            request.headers.update({"Content-Encoding": "gzip", "Content-Length": str(len(request.body))})
        path, _, query = request.path_url.partition("?")
        if path in ("/live", "/api/live") and "host=web1" not in query and is_sound(query):
            # Of other hosts nothing comes, and the stream would not end.
            request.url = f"{request.url.partition('?')[0]}?{NUMBER.sub('', query)}&events=0"
        return request


NUMBER = re.compile(r"events=\d+(&|$)")


def is_sound(query):
    return NUMBER.search(query) or "events=" not in query


@schemathesis.hook
def before_call(context, case, kwargs):
    kwargs["auth"] = AsClientsDo()


@schemathesis.hook
def map_body(context, body):
    """JSON Schema takes 60.0 for an integer; the receiver wants it written as one."""
    if isinstance(body, dict):
        return {key: map_body(context, value) for key, value in body.items()}
    if isinstance(body, list):
        return [map_body(context, item) for item in body]
    return int(body) if isinstance(body, float) and body.is_integer() else body


@schemathesis.serializer("application/x-pem-file", "application/pkix-crl", "application/x-protobuf")
def bytes_as_they_are(context, value):
    return value if isinstance(value, bytes) else str(value).encode()
