"""Login with ussycode for ASGI apps (FastAPI, Starlette, …): who asks is in scope["ussycode.user"] and ["ussycode.email"].

    app.add_middleware(Login)                   # nobody comes in without signing in
    app.add_middleware(Login, required=False)   # everybody comes in; the user may be ""
"""
from urllib.parse import quote


class Login:
    def __init__(self, app, required=True):
        self.app, self.required = app, required

    async def __call__(self, scope, receive, send):
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        user, email = headers.get("x-ussycode-userid", ""), headers.get("x-ussycode-email", "")
        if user or not self.required:
            return await self.app({**scope, "ussycode.user": user, "ussycode.email": email}, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        if scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", ""):
            return await answer(send, 302, b"", (b"location", login_address(scope).encode()))
        await answer(send, 401, b'{"error": "sign in first"}\n', (b"www-authenticate", b"Bearer"))


def login_address(scope):
    """Where a browser signs in and then comes back to this page."""
    query = "?" + scope["query_string"].decode() if scope["query_string"] else ""
    return "/__ussycode/login?redirect=" + quote(quote(scope["path"]) + query, safe="/")


async def answer(send, status, body, *headers):
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def hello(scope, receive, send):
    if scope["type"] == "http":
        await answer(send, 200, f"hello {scope['ussycode.user']} {scope['ussycode.email']}\n".encode())


app = Login(hello)  # uvicorn asgi_login:app --port 8000
