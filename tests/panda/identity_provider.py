"""An identity provider on this machine: PanDA's pages about it, device codes, tokens, and every refusal of RFC 8628."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


def id_token(*, lives_s, **claims):
    """An unsigned token, as long as its life says."""
    payload = json.dumps({"exp": time.time() + lives_s, "name": "Alice Example", **claims}).encode()
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.c2ln"


class IdentityProvider:
    """Answers each question about a token with the next of ``answers``; at the end of them it grants one.

    Attributes:
        answers: Error codes of RFC 8628, or numbers for a bare HTTP error.
        refuses_refresh: Whether refresh tokens are worth nothing.
        asked: The forms that were posted to the token endpoint.
        token: What is granted.
    """

    def __init__(self):
        self.answers, self.refuses_refresh, self.asked = [], False, []
        self.token = {"id_token": id_token(lives_s=7200), "refresh_token": "fresh", "token_type": "Bearer"}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(200, provider.page(self.path))

            def do_POST(self):
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.answer(*provider.post(self.path, {name: values[0] for name, values in form.items()}))

            def answer(self, status, content):
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self):
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self):
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def page(self, path):
        """What panda-client reads before it asks for anything."""
        if path == "/auth/EIC_auth_config.json":
            return {
                "oidc_config_url": f"{self.url}/well-known",
                "client_id": "panda",
                "client_secret": "shared",
                "audience": "https://pandaserver",
            }
        return {
            "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device",
        }

    def post(self, path, form):
        """Give a device code or a token, or refuse."""
        if path == "/device":
            return 200, {
                "device_code": "device-secret",
                "user_code": "ABCD-EFGH",
                "verification_uri": f"{self.url}/verify",
                "verification_uri_complete": f"{self.url}/verify?user_code=ABCD-EFGH",
                "expires_in": 60,
                "interval": 5,
            }
        self.asked.append(form)
        if form["grant_type"] == "refresh_token":
            return (400, {"error": "invalid_grant"}) if self.refuses_refresh else (200, self.token)
        if self.answers:
            answer = self.answers.pop(0)
            return (answer, "a gateway") if isinstance(answer, int) else (400, {"error": answer})
        return 200, self.token
