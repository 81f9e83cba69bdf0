// A token by oauth4webapi's TlsClientAuth, from the metadata document alone, judged by oauth4webapi and by jose.
//
// usage: oauth4webapi_client.mjs BASE HOST EPOCH CLIENT_ID CERT KEY CA
import assert from 'node:assert/strict'
import { webcrypto } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { Agent, fetch } from 'undici'

// Node 18 has it, but not as a global.
globalThis.crypto ??= webcrypto
const oauth = await import('oauth4webapi')
const jose = await import('jose')

const [base, host, epoch, clientId, cert, key, ca] = process.argv.slice(2)
const tls = { cert: readFileSync(cert), key: readFileSync(key), ca: readFileSync(ca) }
const dispatcher = new Agent({ connect: tls })
const options = { [oauth.customFetch]: (url, init) => fetch(url, { ...init, dispatcher }) }

const issuer = new URL(base)
const discovery = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...options })
const server = await oauth.processDiscoveryResponse(issuer, discovery)

const client = { client_id: clientId }
const parameters = new URLSearchParams({ scope: 'metrics:write' })
const response = await oauth.clientCredentialsGrantRequest(server, client, oauth.TlsClientAuth(), parameters, options)
const { access_token: token } = await oauth.processClientCredentialsResponse(server, client, response)

// validateJwtAccessToken knows of one confirmation method alone, DPoP's, and says so of ours (RFC 8705 section 3.1)
// when typ, issuer, audience, times and all required claims have been found good.
const url = `${base}/api/perf/${host}/${epoch}`
const headers = { authorization: `Bearer ${token}` }
const verdict = await oauth
  .validateJwtAccessToken(server, new Request(url, { headers }), base, options)
  .catch((error) => error)
assert.equal(verdict.message, 'unsupported JWT Confirmation method')
assert.equal(verdict.cause.claims.client_id, clientId)

// The signature it did not come to, by the same author's jose.
const keys = await (await fetch(server.jwks_uri, { dispatcher })).json()
const { payload } = await jose.jwtVerify(token, jose.createLocalJWKSet(keys), {
  issuer: base,
  audience: base,
  typ: 'at+jwt',
  algorithms: ['EdDSA'],
  requiredClaims: ['sub', 'client_id', 'iat', 'exp', 'jti', 'scope', 'cnf'],
})
assert.equal(payload.sub, host)

const sent = await fetch(url, { method: 'POST', headers, body: JSON.stringify({ cpu: 4.98 }), dispatcher })
assert.equal(sent.status, 204, await sent.text())
console.log('ok')
await dispatcher.close()
