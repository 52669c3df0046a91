-- Targets with options: through real SOCKS5 servers and HTTP proxies, and PROXY headers that real servers read.
local e2e = require "tests.e2e.support.case"
local peers = require "tests.e2e.support.peers"
local case, case_with, bulk = e2e.case, peers.case_with, e2e.bulk

local MB = 1024 * 1024

local function plain(text) return (text:gsub("%p", "%%%0")) end

local function expect_way(t, p, listener)
  local client, upstream = t:expect_echo(p, listener)
  client:close()
  upstream:close()
end

-- ---- proxies ----

-- Returns "127.0.0.1:port" of a SOCKS5 server.
local function start_socks(t, ...)
  local port = peers.free_port(t)
  local child = t:spawn { "microsocks", "-i", "127.0.0.1", "-p", tostring(port), ... }
  local address = "127.0.0.1:" .. port
  peers.wait_for_listener(t, address, child)
  return address
end

-- Returns "127.0.0.1:port" of an HTTP proxy with these further lines of configuration.
local function start_http(t, lines)
  local port = peers.free_port(t)
  local config = t:file(("tinyproxy-%d.conf"):format(port), ([[
Port %d
Listen 127.0.0.1
Timeout 600
MaxClients 50
Allow 127.0.0.1
DisableViaHeader Yes
%s
]]):format(port, lines or ""))
  local child = t:spawn { "tinyproxy", "-d", "-c", config }
  local address = "127.0.0.1:" .. port
  peers.wait_for_listener(t, address, child)
  return address
end

-- penstock with a policy of this text, which names the destination.
local function start(t, text, args)
  local argv = { "-p", t:file("policy.lua", 'local ps = require "penstock"\n' .. text) }
  for _, word in ipairs(args or {}) do argv[#argv + 1] = word end
  argv[#argv + 1], argv[#argv + 2] = "127.0.0.1:0", "-"
  return t:penstock(argv)
end

-- A policy whose connect hook returns what this Lua expression gives.
local function start_to(t, destination)
  return start(t, ("return { connect = function() return %s end }"):format(destination))
end

describe("proxies on the way:", function()
  case_with("microsocks", "--via reaches the target through a SOCKS5 server, and the access line tells", function(t)
    local server, socks = t:listen(), start_socks(t)
    local p = t:penstock { "--via", "socks5://" .. socks, "127.0.0.1:0", server.address }
    expect_way(t, p, server)
    p:expect_end { reason = "eof", upstream = server.address, via = "socks5://" .. socks, up = 4, down = 4 }
  end)

  case("the access line of a direct connection has no via", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", server.address }
    expect_way(t, p, server)
    assert.is_nil(p:access().via)
  end)

  case_with("microsocks", "a login is given, percent-decoded, and not logged", function(t)
    local server, socks = t:listen(), start_socks(t, "-u", "a@b", "-P", "pass:word")
    local p = t:penstock { "--via", "socks5://a%40b:pass:word@" .. socks, "127.0.0.1:0", server.address }
    expect_way(t, p, server)
    p:expect_end { via = "socks5://" .. socks }
    assert.is_nil(p.err:find("pass", 1, true))
  end)

  case_with("microsocks", "a wrong password resets the client and is told", function(t)
    local socks = start_socks(t, "-u", "user", "-P", "right")
    local p = t:penstock { "--via", "socks5://user:wrong@" .. socks, "127.0.0.1:0", t:listen().address }
    t:connect(p):expect_reset()
    p:expect_end { reason = "refused", side = "upstream", detail = "hop" }
    p:log(("(socks5 %s: wrong user or password)"):format(plain(socks)))
    assert.is_nil(p.err:find("wrong@", 1, true))
  end)

  case_with("microsocks", "a missing login is told", function(t)
    local socks = start_socks(t, "-u", "user", "-P", "right")
    local p = t:penstock { "--via", "socks5://" .. socks, "127.0.0.1:0", t:listen().address }
    t:connect(p):expect_reset()
    p:log(("(socks5 %s: it asks for a login)"):format(plain(socks)))
  end)

  case_with("tinyproxy", "an HTTP proxy is a way, with a login or without", function(t)
    local server = t:listen()
    local open, closed = start_http(t), start_http(t, "BasicAuth user pass")
    local p = t:penstock { "--via=http://" .. open, "127.0.0.1:0", server.address }
    t:expect_echo(p, server)
    p = t:penstock { "--via=http://user:p%61ss@" .. closed, "127.0.0.1:0", server.address }
    t:expect_echo(p, server)
    p = t:penstock { "--via=http://user:no@" .. closed, "127.0.0.1:0", server.address }
    t:connect(p):expect_reset()
    p:expect_end { reason = "refused", detail = "hop" }
    p:log(("(http %s: 4%%d%%d, it asks for)"):format(plain(closed)))
  end)

  case_with("microsocks tinyproxy", "a chain of both is walked in the order in which it is written", function(t)
    local server, socks, http = t:listen(), start_socks(t), start_http(t)
    local first, second = "socks5://" .. socks, "http://" .. http
    local p = t:penstock { "--via", first .. "," .. second, "127.0.0.1:0", server.address }
    expect_way(t, p, server)
    p:expect_end { via = first .. "," .. second }
    p = t:penstock { "--via", second, "--via", first, "127.0.0.1:0", server.address }
    expect_way(t, p, server)
    p:expect_end { via = second .. "," .. first }
  end)

  case_with("microsocks tinyproxy", "what the upstream sends first comes through a chain", function(t)
    local server, socks, http = t:listen(), start_socks(t), start_http(t)
    local p = t:penstock { "--via", ("socks5://%s,http://%s"):format(socks, http), "127.0.0.1:0", server.address }
    for _ = 1, 5 do
      local client = t:connect(p)
      t:accept(server):send("220 hello\r\n"):finish()
      client:expect "220 hello\r\n"
    end
  end)

  case_with("microsocks", "10 MB each way come byte for byte", function(t)
    local server = t:listen()
    local p = t:penstock { "--via", "socks5://" .. start_socks(t), "127.0.0.1:0", server.address }
    local client, upstream = t:pair(p, server)
    bulk.run {
      { from = client, to = upstream, bytes = 10 * MB },
      { from = upstream, to = client, bytes = 10 * MB },
    }
  end)

  case_with("microsocks", "a target that refuses behind a proxy is told apart from a proxy that does", function(t)
    local socks, nobody = start_socks(t), t:refusing().address
    local p = t:penstock { "--via", "socks5://" .. socks, "127.0.0.1:0", nobody }
    t:connect(p):expect_reset()
    p:expect_end { reason = "refused", detail = "hop", upstream = nobody }
    p:log(("cannot connect to %s .*(socks5 %s: connection refused)"):format(plain(nobody), plain(socks)))
    p = t:penstock { "--via", "socks5://" .. nobody, "127.0.0.1:0", socks }
    t:connect(p):expect_reset()
    p:log(("cannot connect to %s .*(socks5 %s: connection refused)"):format(plain(socks), plain(nobody)))
  end)

  case("a proxy that hangs ends with --connect-timeout", function(t)
    local hop = t:listen()
    local p = t:penstock {
      "--connect-timeout", "200ms", "--via", "socks5://" .. hop.address, "127.0.0.1:0", "a.test:1",
    }
    t:connect(p):expect_reset()
    p:expect_end { reason = "timeout", detail = "hop" }
    p:log(("(socks5 %s: timed out)"):format(plain(hop.address)))
  end)

  case("a client that goes away while a proxy is spoken with ends at once", function(t)
    local hop = t:listen()
    local p = t:penstock { "--connect-timeout", "0", "--via", "socks5://" .. hop.address, "127.0.0.1:0", "a.test:1" }
    local client = t:connect(p)
    local proxy = t:accept(hop)
    proxy:expect "\5\1\0"
    client:reset()
    p:expect_end { reason = "reset", side = "client" }
    proxy:read_all()
  end)

  case("early bytes behind the last answer are the first that the client gets", function(t)
    local hop = t:listen()
    local p = t:penstock { "--via", "http://" .. hop.address, "127.0.0.1:0", "a.test:1" }
    local client = t:connect(p)
    local proxy = t:accept(hop)
    proxy:expect "CONNECT a.test:1 HTTP/1.1\r\nHost: a.test:1\r\n\r\n"
    proxy:send("HTTP/1.1 200 OK\r\n\r\n" .. bulk.text(0, 100000))
    assert.is_true(client:read(100000) == bulk.text(0, 100000))
  end)
end)

describe("destinations of hooks:", function()
  case_with("microsocks tinyproxy", "a list fails over from a hanging chain to one that works", function(t)
    local server, hanging = t:listen(), t:listen()
    local p = start(t, ([[
      return {
        connect = function()
          return {
            { "a.test:25", via = { "socks5://%s" }, timeout = 0.2 },
            { "%s", via = { "socks5://%s", "http://%s" }, timeout = "4s" },
            "127.0.0.1:1",
          }
        end,
        connected = function(conn)
          conn.log.info("by %%s to %%s at %%s", table.concat(conn.upstream.via, "+"), conn.upstream.name,
            conn.upstream.addr)
        end,
      }]]):format(hanging.address, server.address, start_socks(t), start_http(t)))
    t:expect_echo(p, server)
    local via, name, addr = p:log "by (%S+) to (%S+) at ([%d.:]+)"
    assert.equal(server.address, name)
    assert.equal("socks5://" .. addr, via:match "^(.*)%+http://127")
  end)

  case("the failed hook is told which proxy failed and why, and may choose another way", function(t)
    local server, hop = t:listen(), t:refusing().address
    local p = start(t, ([[
      return {
        connect = function() return { "a.test:25", via = "http://%s" } end,
        failed = function(conn, dest, err, detail)
          conn.log.info("%%s|%%s|%%s", dest, err, detail)
          return { "%s", proxy = "v1" }
        end,
        connected = function(conn) conn.log.info("via is %%s", tostring(conn.upstream.via)) end,
      }]]):format(hop, server.address))
    local client = t:connect(p)
    t:accept(server):expect(("PROXY TCP4 127.0.0.1 127.0.0.1 %s %d\r\n"):format(client.own:match ":(%d+)$", p.port))
    p:log(("(a%%.test:25|refused|http %s: connection refused)"):format(plain(hop)))
    p:log "(via is nil)"
  end)

  case("options of a table hold for every address in its text", function(t)
    local server = t:listen()
    local p = start_to(t, ('{ "%s,%s", proxy = "v1" }'):format(t:refusing().address, server.address))
    t:connect(p)
    t:accept(server):expect "PROXY TCP4 "
  end)

  case("a source of its own is what the upstream sees", function(t)
    local server = t:listen()
    local p = start_to(t, ('{ "%s", bind = "127.0.0.3" }'):format(server.address))
    local _, upstream = t:expect_echo(p, server)
    assert.matches("^127%.0%.0%.3:", upstream.from)
  end)

  case("options in tlv come in the header of version 2, by type", function(t)
    local server = t:listen()
    local p = start_to(t, ('{ "%s", proxy = "v2", tlv = { [0xE1] = "b", [0xE0] = "a\\0c", [5] = "" } }'):format(
      server.address))
    t:connect(p)
    local head = t:accept(server):read(16 + 12 + 3 + 6 + 4)
    assert.equal("\r\n\r\n\0\r\nQUIT\n\33\17\0\25", head:sub(1, 16))
    assert.equal("\5\0\0\224\0\3a\0c\225\0\1b", head:sub(29))
  end)

  case_with("microsocks", "ps.tcp.connect takes the same, and tells which proxy has failed", function(t)
    local server, nobody = t:listen(), t:refusing().address
    local p = start(t, ([[
      return { accept = function(conn)
        local _, err, detail = ps.tcp.connect { "a.test:1", via = "socks5://%s" }
        conn.log.info("%%s|%%s", err, detail)
        local socket = ps.tcp.connect { { "%s", via = "socks5://%s", proxy = "v2" } }
        socket:send("hello")
        conn.log.info("answer %%s", socket:receive(3))
        socket:close()
        ps.tcp.connect { "a.test:1", vai = "x" }
      end }]]):format(nobody, server.address, start_socks(t)))
    t:expect_error 'ps.tcp.connect got a destination with the option "vai" %(did you mean "via"%?%)'
    local client = t:connect(p)
    local upstream = t:accept(server)
    upstream:expect "\r\n\r\n\0\r\nQUIT\n\32\0\0\0hello"
    upstream:send "yes"
    p:log(("(refused|socks5 %s: connection refused)"):format(plain(nobody)))
    p:log "(answer yes)"
    client:expect_reset()
  end)

  -- What is wrong, and what the error says.
  local wrong = {
    ['{ "a:1", prxy = "v1" }'] = 'option "prxy" %(did you mean "proxy"%?%), which is not known',
    ['{ "a:1", sausage = 1 }'] =
      'option "sausage", which is not known; options are tls, proxy, tlv, via, via_tls, bind and timeout',
    ['{ "a:1", tls = "yes" }'] = 'write tls = true, or tls = {',
    ['{ "a:1", tls = { cat = "x" } }'] = 'it has no option "cat"; options are ca, name, cert, key',
    ['{ "a:1", tls = { ca = "/nonexistent.pem" } }'] = 'cannot read "/nonexistent.pem": No such file',
    ['{ "a:1", tls = { alpn = { 5 } } }'] = 'alpn is a list of texts',
    ['{ "a:1", tls = { pin = "abc" } }'] = '"abc" is no fingerprint',
    ['{ "a:1", tls = { min = "1.1" } }'] = 'min is "1.2" or "1.3"',
    ['{ "unix:/x", tls = true }'] = 'needs the name that its certificate is for',
    ['"tls://a"'] = '"a" has no port',
    ['{ "a:1", proxy = "v3" }'] = 'write proxy = "v1" or proxy = "v2"',
    ['{ "a:1", proxy = "v1", tlv = { [1] = "x" } }'] = 'tlv belongs to proxy = "v2" only',
    ['{ "a:1", proxy = "v2", tlv = { [256] = "x" } }'] = 'types from 0 to 255',
    ['{ "a:1", proxy = "v2", tlv = { [1] = 5 } }'] = 'its values strings',
    ['{ "a:1", proxy = "v2", tlv = { [1] = ("x"):rep(5000) } }'] = '4080 bytes',
    ['{ "a:1", via = "tls://u:secret@h" }'] = 'socks5%+tls://host:1080 or https://host:443',
    ['{ "a:1", via = { "socks5://h", key = 1 } }'] = 'it is a list',
    ['{ "a:1", via = { 5 } }'] = 'write via = "socks5://host:1080"',
    ['{ "unix:/x", via = "socks5://h" }'] = 'no proxy can reach the UNIX socket',
    ['{ "a:1", bind = "localhost" }'] = 'write an IP address of this host',
    ['{ "[::1]:1", bind = "127.0.0.1" }'] = 'other family',
    ['{ "a:1", timeout = 0 }'] = 'write seconds over 0',
    ['{ "a:1", timeout = {} }'] = 'write seconds over 0',
    ['{ "a:1", "b:1", timeout = 1 }'] = 'more than one address',
    ['{ timeout = 1 }'] = 'no text',
    ['{}'] = 'an empty list',
    ['{ "a:1", 5 }'] = 'no text',
    ['{ { { "a:1" } } }'] = 'no text',
    ['{ "a:1", "b" }'] = '"b" has no port',
    ['"a:1\\0"'] = 'zero byte',
  }

  case("one that makes no sense costs its connection and says what is right", function(t)
    t:expect_error "script error in the connect hook"
    for text, right in pairs(wrong) do
      local p = start_to(t, text)
      t:connect(p):expect_reset()
      p:expect_end { reason = "script" }
      local said = p:log "script error in the connect hook: ([^\n]*)"
      assert.is_truthy(said:find(right), ("%s: %s"):format(text, said))
      assert.is_nil(said:find("secret", 1, true))
      p:stop()
    end
  end)
end)

-- ---- PROXY headers read by others ----

local function start_haproxy(t)
  local port = peers.free_port(t)
  local config = t:file("haproxy.cfg", ([[
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend f
  bind 127.0.0.1:%d accept-proxy
  http-request return status 200 content-type text/plain lf-string "%%[src] %%[src_port] %%[dst] %%[dst_port]"
]]):format(port))
  local haproxy = t:spawn { "haproxy", "-db", "-q", "-f", config }
  peers.wait_for_listener(t, "127.0.0.1:" .. port, haproxy)
  return "127.0.0.1:" .. port
end

local function start_nginx(t)
  local port = peers.free_port(t)
  local folder = t:folder()
  local config = t:file("nginx.conf", ([[
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
worker_processes 1;
pid FOLDER/nginx.pid;
error_log stderr warn;
events { worker_connections 64; }
stream {
  server {
    listen 127.0.0.1:PORT proxy_protocol;
    return "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port";
  }
}
]]):gsub("FOLDER", folder):gsub("PORT", tostring(port)))
  local nginx = t:spawn { "nginx", "-c", config, "-p", folder, "-e", "stderr" }
  peers.wait_for_listener(t, "127.0.0.1:" .. port, nginx)
  return "127.0.0.1:" .. port
end

describe("PROXY headers:", function()
  for _, version in ipairs { "v1", "v2" } do
    case_with("haproxy", ("--send-proxy %s tells haproxy the client and where it had connected to"):format(version),
      function(t)
        local p = t:penstock { "--send-proxy", version, "127.0.0.1:0", start_haproxy(t) }
        local client = t:connect(p, { from = "127.0.0.9:0" })
        client:send "GET / HTTP/1.0\r\n\r\n"
        local body = client:read_all():match "\r\n\r\n(.*)"
        assert.equal(("127.0.0.9 %s 127.0.0.1 %d"):format(client.own:match ":(%d+)$", p.port), body)
      end)

    case_with("nginx", ("--send-proxy %s tells nginx the same, of an IPv6 client too"):format(version), function(t)
      local p = t:penstock { "--send-proxy", version, "[::1]:0", start_nginx(t) }
      local client = t:connect(p)
      assert.equal(("::1 %s ::1 %d"):format(client.own:match ":(%d+)$", p.port), (client:read_all()))
    end)
  end

  case_with("haproxy microsocks", "behind a proxy on the way, the header goes to the target", function(t)
    local p = t:penstock {
      "--send-proxy", "v2", "--via", "socks5://" .. start_socks(t), "127.0.0.1:0", start_haproxy(t),
    }
    local client = t:connect(p)
    client:send "GET / HTTP/1.0\r\n\r\n"
    local body = client:read_all():match "\r\n\r\n(.*)"
    assert.equal(("127.0.0.1 %s 127.0.0.1 %d"):format(client.own:match ":(%d+)$", p.port), body)
  end)

  case("a client of a UNIX listener is told as one, with the path", function(t)
    local server = t:listen()
    local path = t:folder() .. "/in.sock"
    t:penstock { "--send-proxy", "v2", "unix:" .. path, server.address }
    t:connect("unix:" .. path)
    local head = t:accept(server):read(16 + 216)
    assert.equal("\r\n\r\n\0\r\nQUIT\n\33\49\0\216", head:sub(1, 16))
    assert.equal(("\0"):rep(108) .. path .. "\0", head:sub(17, 17 + 108 + #path))
  end)
end)

describe("--via and --send-proxy:", function()
  case("what is no proxy, and what cannot go together, is refused", function(t)
    local function expect_refused(part, ...)
      local status, err = t:run { ... }
      assert.equal(2, status)
      assert.is_truthy(err:find(part, 1, true), err)
      assert.is_nil(err:find("room for", 1, true))
    end
    expect_refused("write socks5://host:1080", "--via", "10.0.0.1:1080", "8080", "a:1")
    expect_refused("write socks5://host:1080", "--via", "socks5://a,", "8080", "a:1")
    expect_refused("no proxy can reach the UNIX socket", "--via", "socks5://a", "8080", "unix:/run/x")
    expect_refused("options of what its connect hook returns", "--via", "socks5://a", "-p", "x.lua", "8080", "-")
    expect_refused("write v1 or v2", "--send-proxy", "3", "8080", "a:1")
  end)
end)
