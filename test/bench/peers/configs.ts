/** nginx as a bare `proxy_pass` without a log: the limit that C sets. */
export function nginxConfig (port: number, upstreamPort: number, key: string): string {
  return `
    daemon off;
    # one process, so that its processor time is all of nginx's
    master_process off;
    pid nginx.pid;
    error_log stderr error;
    events { worker_connections 8192; }
    http {
      access_log off;
      client_max_body_size 16m;
      client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
      keepalive_requests 1000000000;
      upstream apixo { server 127.0.0.1:${upstreamPort}; keepalive 64; }
      server {
        listen 127.0.0.1:${port} backlog=4096;
        location = /livez { return 200 ok; }
        location / {
          proxy_pass http://apixo;
          proxy_http_version 1.1;
          proxy_set_header connection "";
          proxy_set_header authorization "Bearer ${key}";
          proxy_max_temp_file_size 0;
        }
      }
    }`
}

interface HaproxyOptions {
  readonly port: number
  readonly upstreamPort: number
  readonly key: string
  readonly secret: string
  /** Let in once a minute; others as often as they like. */
  readonly limitedAddress: string
}

/** haproxy with a JWT check, a limit by address and a log line a request. */
export function haproxyConfig ({ port, upstreamPort, key, secret, limitedAddress }: HaproxyOptions): string {
  return `
    global
      nbthread 1
      maxconn 8192
      log stdout format raw local0
      tune.bufsize 32768
    defaults
      mode http
      log global
      option httplog
      timeout client 60s
      timeout server 60s
      timeout connect 5s
    frontend in
      bind 127.0.0.1:${port} backlog 4096
      monitor-uri /livez
      stick-table type ip size 100k expire 1m store http_req_rate(1m)
      http-request track-sc0 src
      http-request deny deny_status 429 if { src ${limitedAddress} } { sc_http_req_rate(0) gt 1 }
      http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000000 }
      http-request set-var(txn.token) http_auth_bearer
      http-request deny deny_status 401 unless { var(txn.token),jwt_verify("HS256","${secret}") -m int 1 }
      http-request set-header authorization "Bearer ${key}"
      default_backend apixo
    backend apixo
      http-reuse always
      server upstream 127.0.0.1:${upstreamPort}
`
}
