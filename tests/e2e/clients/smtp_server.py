"""An SMTP server, aiosmtpd, on any port of this machine: says READY with its port, then each mail
that it has accepted as one line of JSON."""

import asyncio
import email
import email.policy
import json

from aiosmtpd.smtp import SMTP


class Handler:
    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        seen = {"id": mail["Message-ID"], "subject": mail["Subject"], "to": envelope.rcpt_tos}
        seen["headers"] = mail.keys()
        seen["text"] = mail.get_content()
        print(json.dumps(seen), flush=True)
        return "250 OK"


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Handler(), hostname="localhost", loop=loop), "127.0.0.1", 0
    )
    print("READY", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
