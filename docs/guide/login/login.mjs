// Login with ussycode for Node: who asks is in request.user and request.email.
//
//   createServer(login(handler))                        nobody comes in without signing in
//   createServer(login(handler, { required: false }))   everybody comes in; the user may be ""
//   app.use((request, response, next) => login(next)(request, response))                 Express
import { createPublicKey, verify as signedBy } from "node:crypto";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

export function login(handler, { required = true } = {}) {
  return (request, response) => {
    request.user = request.headers["x-ussycode-userid"] ?? "";
    request.email = request.headers["x-ussycode-email"] ?? "";
    if (request.user || !required) return handler(request, response);
    const page = ["GET", "HEAD"].includes(request.method) && (request.headers.accept ?? "").includes("text/html");
    if (page) {
      response.writeHead(302, { Location: "/__ussycode/login?redirect=" + encodeURIComponent(request.url) }).end();
    } else {
      response.statusCode = 401;
      response.setHeader("Content-Type", "application/json").setHeader("WWW-Authenticate", "Bearer");
      response.end('{"error": "sign in first"}\n');
    }
  };
}

// The claims of an X-Ussycode-Assertion. `keys` is the list in ISSUER/.well-known/jwks.json, kept for an hour.
export function verify(token, { issuer, audience, keys }) {
  const [head, body, signature] = token.split(".");
  const { alg, kid } = JSON.parse(Buffer.from(head, "base64url"));
  const key = keys.find((one) => one.kid === kid);
  if (alg !== "EdDSA" || !key) throw new Error("not one of the platform's keys");
  const publicKey = createPublicKey({ key, format: "jwk" });
  if (!signedBy(null, Buffer.from(`${head}.${body}`), publicKey, Buffer.from(signature, "base64url"))) {
    throw new Error("the signature is wrong");
  }
  const claims = JSON.parse(Buffer.from(body, "base64url"));
  if (claims.iss !== issuer || claims.aud !== audience) throw new Error("meant for somebody else");
  if (claims.exp * 1000 <= Date.now()) throw new Error("too old");
  return claims;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  createServer(login((request, response) => response.end(`hello ${request.user} ${request.email}\n`)))
    .listen(Number(process.argv[2]), "127.0.0.1");
}
