-- TLS with real programs: curl, openssl, redis, nginx, haproxy.
local e2e = require "tests.e2e.support.case"
local peers = require "tests.e2e.support.peers"
local tls = require "tests.e2e.support.tls"
local bulk, sys = e2e.bulk, e2e.sys
local case_with, run = peers.case_with, peers.run

local MB = 1024 * 1024

-- nginx that serves files, plain on a UNIX socket and over TLS on a port.
local function start_nginx(t, cert)
  local folder, port = t:folder(), peers.free_port(t)
  os.execute("mkdir " .. folder .. "/www")
  sys.write_file(folder .. "/www/big", bulk.text(0, 20 * MB))
  sys.write_file(folder .. "/www/small", "small file\n")
  local config = t:file("nginx.conf", ([[
    daemon off; user root; worker_processes 1; pid FOLDER/nginx.pid; error_log stderr warn;
    events { worker_connections 512; }
    http {
      access_log off; client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy;
      fastcgi_temp_path FOLDER/fastcgi; uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
      server {
        listen unix:FOLDER/nginx.sock;
        listen 127.0.0.1:PORT ssl;
        ssl_certificate CERT; ssl_certificate_key KEY;
        root FOLDER/www;
      }
    }]]):gsub("%u%u%u+", { FOLDER = folder, PORT = port, CERT = cert.cert, KEY = cert.key }))
  local nginx = t:spawn { "nginx", "-c", config, "-p", folder, "-e", "stderr" }
  peers.wait_for_listener(t, "unix:" .. folder .. "/nginx.sock", nginx)
  return "unix:" .. folder .. "/nginx.sock", "localhost:" .. port
end

describe("TLS with real programs:", function()
  case_with("nginx curl", "curl gets files by every way, checks the certificate, and resumes", function(t)
    local cert = tls.certificate(t:folder(), "web.lab")
    local plain, secure = start_nginx(t, cert)
    local ends = t:penstock { "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0", plain }
    local begins = t:penstock { "--tls", "--tls-ca", cert.cert, "127.0.0.1:0", secure }
    local both = t:penstock { "--tls-cert", cert.cert, "--tls-key", cert.key, "--tls-ca", cert.cert, "127.0.0.1:0",
      "tls://" .. secure }
    for _, way in ipairs { { ends, "https" }, { begins, "http" }, { both, "https" } } do
      local url = ("%s://localhost:%d/big"):format(way[2], way[1].port)
      local got = t:folder() .. "/got"
      for _, version in ipairs { "1.2", "1.3" } do
        run(t, { "curl", "-sS", "--noproxy", "*", "--cacert", cert.cert, "--tls-max", version, "--max-time", "60", "-o",
          got, url })
        assert.is_true(sys.read_file(got) == bulk.text(0, 20 * MB))
      end
      local small = url:gsub("big", "small")
      assert.equal(("small file\n"):rep(3),
        run(t, { "curl", "-sS", "--noproxy", "*", "--cacert", cert.cert, small, small, small }))
    end
    local other = tls.certificate(t:folder(), "other")
    local child = t:spawn { "curl", "-sS", "--noproxy", "*", "--cacert", other.cert,
      ("https://localhost:%d/"):format(ends.port) }
    assert.equal(60, child:wait(60)) -- the certificate is not trusted
  end)

  case_with("openssl", "openssl s_client and s_server are understood", function(t)
    local cert, port = tls.certificate(t:folder(), "s.lab"), peers.free_port(t)
    local upstream = t:listen()
    local ends = t:penstock { "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0", upstream.address }
    for _, version in ipairs { "-tls1_2", "-tls1_3" } do
      run(t, { "sh", "-c", ("printf 'hello\\n' | openssl s_client -quiet -no_ign_eof -connect %s %s -CAfile %s " ..
        "-verify_return_error -servername s.lab"):format(ends.address, version, cert.cert) })
      local socket = t:accept(upstream)
      socket:expect("hello\n"):expect_eof()
    end
    local server = t:spawn { "openssl", "s_server", "-rev", "-quiet", "-accept", "127.0.0.1:" .. port, "-cert",
      cert.cert, "-key", cert.key }
    peers.wait_for_listener(t, "127.0.0.1:" .. port, server)
    local begins = t:penstock { "--tls", "--tls-ca", cert.cert, "127.0.0.1:0", "localhost:" .. port }
    for _ = 1, 2 do t:connect(begins):send("hello\n"):expect("olleh\n"):close() end
  end)

  case_with("redis-server redis-cli", "redis-cli reaches a plain server by TLS, and a TLS server plainly", function(t)
    local ca = tls.ca(t:folder(), "ca")
    local cert = tls.certificate(t:folder(), "redis.lab", { ca = ca })
    local us = tls.certificate(t:folder(), "us", { ca = ca })
    local port, tls_port = peers.free_port(t), peers.free_port(t)
    local server = t:spawn { "redis-server", "--port", tostring(port), "--tls-port", tostring(tls_port), "--save", "",
      "--tls-cert-file", cert.cert, "--tls-key-file", cert.key, "--tls-ca-cert-file", ca.cert, "--bind", "127.0.0.1",
      "--dir", t:folder() }
    peers.wait_for_listener(t, "127.0.0.1:" .. tls_port, server)
    local ends = t:penstock { "--tls-cert", cert.cert, "--tls-key", cert.key, "--tls-client-ca", ca.cert, "127.0.0.1:0",
      "127.0.0.1:" .. port }
    local begins = t:penstock { "--tls", "--tls-ca", ca.cert, "--tls-dial-cert", us.cert, "--tls-dial-key", us.key,
      "127.0.0.1:0", "localhost:" .. tls_port }
    assert.equal("OK\n", run(t, { "redis-cli", "-h", "127.0.0.1", "-p", tostring(ends.port), "--tls", "--cacert",
      ca.cert, "--cert", us.cert, "--key", us.key, "set", "k", ("v"):rep(100000) }))
    assert.equal(("v"):rep(100000) .. "\n",
      run(t, { "redis-cli", "-h", "127.0.0.1", "-p", tostring(begins.port), "get", "k" }))
    local child = t:spawn { "redis-cli", "-h", "127.0.0.1", "-p", tostring(ends.port), "--tls", "--cacert", ca.cert,
      "ping" }
    child:wait(60)
    assert.is_nil((child.out .. child.err):find "PONG") -- it showed no certificate
  end)

  case_with("haproxy curl nginx", "haproxy speaks TLS to penstock, and penstock to haproxy", function(t)
    local cert = tls.certificate(t:folder(), "localhost")
    local plain = start_nginx(t, cert)
    local both = t:file("both.pem", sys.read_file(cert.cert) .. sys.read_file(cert.key))
    local p = t:penstock { "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0", plain }
    local in_port = peers.free_port(t)
    local q_listener = t:penstock { "--tls", "--tls-ca", cert.cert, "127.0.0.1:0", "localhost:" .. in_port }
    local config = t:file("haproxy.cfg", ([[
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen far
    bind 127.0.0.1:%d ssl crt %s
    server penstock %s ssl verify required ca-file %s verifyhost localhost
]]):format(in_port, both, p.address, cert.cert))
    local haproxy = t:spawn { "haproxy", "-db", "-f", config }
    peers.wait_for_listener(t, "127.0.0.1:" .. in_port, haproxy)
    local got = t:folder() .. "/got"
    run(t, { "curl", "-sS", "--noproxy", "*", "--max-time", "60", "-o", got,
      ("http://%s/big"):format(q_listener.address) })
    assert.is_true(sys.read_file(got) == bulk.text(0, 20 * MB))
  end)
end)
