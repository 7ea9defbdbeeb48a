/** nginx as a bare `proxy_pass` without a log: the limit that C sets. A peer when it is installed. */
export function nginxConfig (port: number, upstreamPort: number, key: string): string {
  return `
    daemon off;
    # one process, so that its processor time is all of nginx's
    master_process off;
    pid nginx.pid;
    error_log stderr error;
    events { worker_connections 1024; }
    http {
      access_log off;
      client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
      keepalive_requests 1000000000;
      upstream apixo { server 127.0.0.1:${upstreamPort}; keepalive 64; }
      server {
        listen 127.0.0.1:${port};
        location / {
          proxy_pass http://apixo;
          proxy_http_version 1.1;
          proxy_set_header connection "";
          proxy_set_header authorization "Bearer ${key}";
        }
      }
    }`
}
