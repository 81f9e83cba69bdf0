"""An SMTP server, aiosmtpd, on any port of this machine: says READY with its port, then each mail
that it has accepted as one line of JSON. With a mode, `starttls` or `tls`, and the files of a
certificate and its key, it takes mail over TLS alone."""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP


class Handler:
    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        seen = {"id": mail["Message-ID"], "subject": mail["Subject"], "to": envelope.rcpt_tos}
        seen["headers"] = mail.keys()
        seen["text"] = mail.get_content()
        print(json.dumps(seen), flush=True)
        return "250 OK"


def tls_of(files):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*files)
    return tls


async def main(mode="none", *files):
    loop = asyncio.get_running_loop()
    starttls = {"tls_context": tls_of(files), "require_starttls": True} if mode == "starttls" else {}
    server = await loop.create_server(
        lambda: SMTP(Handler(), hostname="localhost", loop=loop, **starttls),
        "127.0.0.1",
        0,
        ssl=tls_of(files) if mode == "tls" else None,
    )
    print("READY", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
