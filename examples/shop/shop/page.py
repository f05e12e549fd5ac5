"""The shop's page: POST /buy with name and quantity answers with the total."""

import argparse
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

from shop.cart import Cart


class Page(BaseHTTPRequestHandler):
    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        cart = Cart("eur").add(form["name"][0], int(form["quantity"][0]))
        answer = f"total: {cart.total()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    port = arguments.parse_args().port
    print(f"open on port {port}", flush=True)
    HTTPServer(("127.0.0.1", port), Page).serve_forever()


if __name__ == "__main__":
    main()
