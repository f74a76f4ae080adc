"""Login with ussycode for WSGI apps (Flask, Django, …): who asks is in environ["ussycode.user"] and ["ussycode.email"].

    app.wsgi_app = Login(app.wsgi_app)          # nobody comes in without signing in
    app.wsgi_app = Login(app.wsgi_app, False)   # everybody comes in; the user may be ""
"""
from urllib.parse import quote


class Login:
    def __init__(self, app, required=True):
        self.app, self.required = app, required

    def __call__(self, environ, start_response):
        environ["ussycode.user"] = environ.get("HTTP_X_USSYCODE_USERID", "")
        environ["ussycode.email"] = environ.get("HTTP_X_USSYCODE_EMAIL", "")
        if environ["ussycode.user"] or not self.required:
            return self.app(environ, start_response)
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") and "text/html" in environ.get("HTTP_ACCEPT", ""):
            start_response("302 Found", [("Location", login_address(environ)), ("Content-Length", "0")])
            return [b""]
        start_response("401 Unauthorized", [("Content-Type", "application/json"), ("WWW-Authenticate", "Bearer")])
        return [b'{"error": "sign in first"}\n']


def login_address(environ):
    """Where a browser signs in and then comes back to this page."""
    path = quote(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "/"), encoding="latin-1")
    query = "?" + environ["QUERY_STRING"] if environ.get("QUERY_STRING") else ""
    return "/__ussycode/login?redirect=" + quote(path + query, safe="/")


if __name__ == "__main__":
    import sys
    from wsgiref.simple_server import make_server

    def hello(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"hello {environ['ussycode.user']} {environ['ussycode.email']}\n".encode()]

    make_server("127.0.0.1", int(sys.argv[1]), Login(hello)).serve_forever()
