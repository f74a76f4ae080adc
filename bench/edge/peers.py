"""Configurations of the proxies that the edge is measured against, as good as we know how to write them."""
from __future__ import annotations

import subprocess
from pathlib import Path

CADDY = """{{
	admin off
	persist_config off
	auto_https off
	skip_install_trust
}}
:{plain} {{
	tls {folder}/chain.pem {folder}/key.pem
	log {{
		output file {folder}/caddy.log {{
			roll_disabled
		}}
	}}
	reverse_proxy 127.0.0.1:{app}
}}
:{auth} {{
	tls {folder}/chain.pem {folder}/key.pem
	log {{
		output file {folder}/caddy-auth.log {{
			roll_disabled
		}}
	}}
	forward_auth unix/{folder}/auth.sock {{
		uri /auth
		copy_headers X-Ussycode-UserID
	}}
	reverse_proxy 127.0.0.1:{app}
}}
"""
NGINX = """daemon off;
user {user};
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
	log_format json escape=json '{{"ts":$msec,"host":"$host","method":"$request_method","path":"$uri","status":$status,'
		'"ms":$request_time,"bytes":$bytes_sent}}';
	access_log {folder}/nginx.log json buffer=64k flush=1s;
	client_body_temp_path {folder}/nginx-body;
	proxy_temp_path {folder}/nginx-proxy;
	fastcgi_temp_path {folder}/nginx-fastcgi;
	uwsgi_temp_path {folder}/nginx-uwsgi;
	scgi_temp_path {folder}/nginx-scgi;
	keepalive_requests 1000000000;
	ssl_certificate {folder}/chain.pem;
	ssl_certificate_key {folder}/key.pem;
	upstream app {{ server 127.0.0.1:{app}; keepalive 64; keepalive_requests 1000000000; }}
	upstream auth {{ server unix:{folder}/auth.sock; keepalive 64; keepalive_requests 1000000000; }}
	server {{
		listen 127.0.0.1:{plain} ssl;
		location / {{
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
			proxy_pass http://app;
		}}
	}}
	server {{
		listen 127.0.0.1:{auth} ssl;
		location / {{
			auth_request /auth;
			auth_request_set $user $upstream_http_x_ussycode_userid;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
			proxy_set_header X-Ussycode-UserID $user;
			proxy_pass http://app;
		}}
		location = /auth {{
			internal;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Content-Length "";
			proxy_pass_request_body off;
			proxy_pass http://auth;
		}}
	}}
}}
"""


def fetch_nginx(folder: Path) -> Path:
    """Debian's nginx, unpacked under `folder` and not installed; the program's path."""
    program = folder / "nginx" / "usr" / "sbin" / "nginx"
    if not program.exists():
        subprocess.run(["apt-get", "download", "nginx"], cwd=folder, check=True, capture_output=True, timeout=120)
        package = next(folder.glob("nginx_*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, folder / "nginx"], check=True, timeout=60)
    return program
