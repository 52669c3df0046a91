-- Real programs on both sides. Each is started by the test in a folder of its own; one that is not installed makes its
-- cases pending.
local e2e = require "tests.e2e.support.case"
local peers = require "tests.e2e.support.peers"
local bulk, sys = e2e.bulk, e2e.sys

local KB, MB = 1024, 1024 * 1024

local case_with, wait_for_listener = peers.case_with, peers.wait_for_listener
local free_port, run = peers.free_port, peers.run

local nginx_config = [[
daemon off;
user root;
worker_processes 1;
pid FOLDER/nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  server {
    listen unix:FOLDER/nginx.sock;
    root FOLDER/www;
    location = /close { keepalive_timeout 0; return 200 "closed\n"; }
  }
}
]]

local function start_nginx(t)
  local folder = t:folder()
  os.execute("mkdir " .. folder .. "/www")
  sys.write_file(folder .. "/www/small", "small file\n")
  sys.write_file(folder .. "/www/big", bulk.text(0, 20 * MB))
  local config = t:file("nginx.conf", (nginx_config:gsub("FOLDER", folder)))
  local nginx = t:spawn { "nginx", "-c", config, "-p", folder, "-e", "stderr" }
  local address = "unix:" .. folder .. "/nginx.sock"
  wait_for_listener(t, address, nginx)
  return address
end

describe("nginx and curl:", function()
  case_with("nginx curl", "a file of 20 MB comes byte for byte", function(t)
    local p = t:penstock { "127.0.0.1:0", start_nginx(t) }
    local path = t:folder() .. "/got"
    run(t, { "curl", "-sS", "--max-time", "60", "-o", path, ("http://%s/big"):format(p.address) })
    assert.is_true(sys.read_file(path) == bulk.text(0, 20 * MB))
  end)

  case_with("nginx curl", "keep-alive, closing and parallel requests are answered", function(t)
    local p = t:penstock { "127.0.0.1:0", start_nginx(t) }
    local url = "http://" .. p.address
    assert.equal(("small file\n"):rep(3), run(t, { "curl", "-sS", url .. "/small", url .. "/small", url .. "/small" }))
    p:access(1)
    assert.equal("closed\n", run(t, { "curl", "-sS", url .. "/close" }))
    assert.equal(("small file\n"):rep(40), run(t, {
      "curl", "-sS", "--no-keepalive", "-Z", "--parallel-max", "20", url .. "/small?[1-40]",
    }))
  end)

  case_with("nginx curl", "a download that its client breaks off leaves nothing behind", function(t)
    local p = t:penstock { "127.0.0.1:0", start_nginx(t) }
    local url = ("http://%s/big"):format(p.address)
    local curl = t:spawn { "curl", "-sS", "--limit-rate", "100K", "-o", "/dev/null", url }
    sys.wait_until(function() return p:descriptors() > 20 end, sys.now() + 0.5)
    curl:kill()
    local line = p:access()
    assert.is_true(line.reason == "reset" or line.reason == "eof", line.reason)
  end)

  case_with("nginx curl haproxy", "haproxy in front of penstock gets every answer", function(t)
    local p = t:penstock { "127.0.0.1:0", start_nginx(t) }
    local port = free_port(t)
    local config = t:file("haproxy.cfg", ([[
global
  maxconn 100
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend f
  bind 127.0.0.1:%d
  default_backend b
backend b
  server s %s
]]):format(port, p.address))
    local haproxy = t:spawn { "haproxy", "-db", "-q", "-f", config }
    local address = "127.0.0.1:" .. port
    wait_for_listener(t, address, haproxy)
    local path = t:folder() .. "/got"
    run(t, { "curl", "-sS", "--max-time", "60", "-o", path, ("http://%s/big"):format(address) })
    assert.is_true(sys.read_file(path) == bulk.text(0, 20 * MB))
    assert.equal(("small file\n"):rep(40), run(t, {
      "curl", "-sS", "-Z", "--parallel-max", "10", ("http://%s/small?[1-40]"):format(address),
    }))
    haproxy:terminate()
    p:access(2)
  end)
end)

describe("redis:", function()
  local function start_redis(t)
    local path = t:folder() .. "/redis.sock"
    local redis = t:spawn {
      "redis-server", "--port", "0", "--unixsocket", path, "--dir", t:folder(), "--save", "", "--appendonly", "no",
      "--loglevel", "warning",
    }
    wait_for_listener(t, "unix:" .. path, redis)
    return "unix:" .. path
  end

  local function expect_benchmark(t, p, ...)
    local out = run(t, { "redis-benchmark", "-h", "127.0.0.1", "-p", tostring(p.port), "-n", "2000", "-q", ... })
    local _, tests = out:gsub("requests per second", "")
    assert.is_true(tests > 0, out)
    assert.is_nil((out:find "[Ee]rror"))
  end

  case_with("redis-server redis-benchmark", "redis-benchmark runs, small, pipelined and with large values", function(t)
    local p = t:penstock { "127.0.0.1:0", start_redis(t) }
    expect_benchmark(t, p, "-t", "set,get,incr", "-c", "20")
    expect_benchmark(t, p, "-t", "set,get", "-c", "5", "-P", "16")
    expect_benchmark(t, p, "-t", "set,get", "-c", "5", "-d", tostring(20 * KB))
  end)

  case_with("redis-server redis-benchmark", "redis-benchmark runs through data hooks and two workers", function(t)
    local policy = t:file("observe.lua", "return { data = function(conn, dir, chunk) return chunk end }")
    local p = t:penstock { "--workers", "2", "-p", policy, "127.0.0.1:0", start_redis(t) }
    expect_benchmark(t, p, "-t", "set,get", "-c", "20", "-P", "4")
  end)
end)

describe("iperf3:", function()
  for name, option in pairs { ["up"] = "--no-delay", ["down"] = "--reverse", ["both ways at once"] = "--bidir" } do
    case_with("iperf3", "a second of full load, " .. name, function(t)
      local port = free_port(t)
      local server = t:spawn { "iperf3", "-s", "-1", "-B", "127.0.0.1", "-p", tostring(port), "--forceflush" }
      assert.is_truthy(server:wait_for("out", "(Server listening)"))
      local p = t:penstock { "127.0.0.1:0", "127.0.0.1:" .. port }
      run(t, { "iperf3", "-c", "127.0.0.1", "-p", tostring(p.port), "-t", "1", "-P", "2", option })
      assert.equal(0, server:wait())
      p:access(3)
      local sum = 0
      for _, line in ipairs(p:access_lines()) do sum = sum + line.up + line.down end
      assert.is_true(sum > 1 * MB)
    end)
  end
end)
