"""A token and a sample by requests-oauthlib, from the metadata document alone.

usage: requests_oauthlib_client.py BASE HOST EPOCH CLIENT_ID CERT KEY CA
"""

import sys

from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session

base, host, epoch, client_id, cert, key, ca = sys.argv[1:]
tls = {"cert": (cert, key), "verify": ca}

session = OAuth2Session(client=BackendApplicationClient(client_id=client_id))
metadata = session.get(base + "/.well-known/oauth-authorization-server", **tls).json()
assert metadata["issuer"] == base, metadata
assert "tls_client_auth" in metadata["token_endpoint_auth_methods_supported"], metadata

session.fetch_token(metadata["token_endpoint"], client_id=client_id, include_client_id=True, **tls)
sent = session.post(f"{base}/api/perf/{host}/{epoch}", json={"cpu": 4.98}, **tls)
assert sent.status_code == 204, sent.text
read = session.get(f"{base}/api/perf/{host}/by-minute:cpu", **tls)
assert read.json()["summary:by-minute:cpu"]["averages"][-1]["avg"] == 4.98, read.text
print("ok")
