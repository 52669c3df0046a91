-- PROXY headers of clients: from listed networks they are required, believed and taken off; nothing else of them
-- reaches the upstream, and no upstream is reached without one that is right.
local e2e = require "tests.e2e.support.case"
local peers = require "tests.e2e.support.peers"
local proxy = require "tests.e2e.support.proxy"
local case, sys = e2e.case, e2e.sys

local KB = 1024
local LISTED = { "--accept-proxy", "127.0.0.0/8,::1,unix" }

local V1 = proxy.v1("TCP4", "203.0.113.7", "10.0.0.1", "50000", "443")
local V2 = proxy.v2("203.0.113.7", 50000, "10.0.0.1", 443)

local function start(t, server, ...)
  local args = { LISTED[1], LISTED[2] }
  for _, word in ipairs { ... } do args[#args + 1] = word end
  args[#args + 1] = "127.0.0.1:0"
  args[#args + 1] = server.address
  return t:penstock(args)
end

-- Answers each client with what the connect hook finds in conn.
local tell = [[
local ps = require "penstock"
local function at(a)
  return a and ("%s:%s%s"):format(a.ip, tostring(a.port), a.path and " " .. a.path or "") or "-"
end
local function text(conn)
  local p, tlvs = conn.proxy, {}
  if not p then return ("client %s, no header\n"):format(at(conn.client)) end
  for type, value in pairs(p.tlv) do tlvs[#tlvs + 1] = ("%d=%s"):format(type, #value < 40 and value or #value) end
  table.sort(tlvs)
  return ("client %s key %s, v%d by %s told %s, path %s, dest %s, tlv %s\n"):format(at(conn.client), conn.client.key,
    p.version, p.ip, tostring(p.told), tostring(p.path), at(p.dest), table.concat(tlvs, " "))
end
]]

local function start_telling(t, from, bind)
  return t:penstock { "run", t:file("tell.lua", tell .. ([[
ps.listen { name = "tell", bind = "%s", accept_proxy = { from = %s }, policy = {
  connect = function(conn) return ps.reply(text(conn)) end,
} }]]):format(bind or "127.0.0.1:0", from or '{ "127.0.0.0/8", "::1", "unix" }')) }
end

local function told(t, p, header)
  return (t:connect(p):send(header):read_all())
end

describe("a header", function()
  local function expect_relayed(t, p, server, header)
    local client = t:connect(p)
    client:send(header .. "ping")
    local upstream = t:accept(server)
    upstream:expect "ping"
    upstream:send "pong"
    client:expect "pong"
    client:finish()
    upstream:expect_eof()
    upstream:close()
    client:expect_eof()
  end

  case("of either version is taken off, and what stands right behind it goes to the upstream", function(t)
    local server = t:listen()
    local p = start(t, server)
    for i, header in ipairs { V1, V2 } do
      expect_relayed(t, p, server, header)
      local line = p:expect_end({ reason = "eof", client = "203.0.113.7:50000", up = 4, down = 4 }, i)
      assert.matches("^127%.0%.0%.1:%d+$", line.proxy)
    end
  end)

  case("may come split at any byte", function(t)
    local p = start_telling(t)
    for _, header in ipairs { V1, V2, proxy.v2("2001:db8::7", 1, "::1", 2, proxy.tlv(0xE0, "x")) } do
      local whole = told(t, p, header)
      assert.matches("told true", whole)
      for at = 1, #header - 1 do
        local client = t:connect(p)
        client:send(header:sub(1, at))
        client:wait_delivered()
        client:send(header:sub(at + 1))
        assert.equal(whole, (client:read_all()))
        client:close()
      end
    end
  end)

  case("may come byte by byte, with data behind it", function(t)
    local server = t:listen()
    local p = start(t, server)
    for _, header in ipairs { V1, V2 } do
      local client = t:connect(p)
      local bytes = header .. "data"
      for i = 1, #bytes do
        client:send(bytes:sub(i, i))
        client:wait_delivered()
      end
      t:accept(server):expect "data"
    end
  end)

  case("and the end of the client right behind it are both passed on", function(t)
    local server = t:listen()
    local p = start(t, server)
    for _, header in ipairs { V1, V2 } do
      t:connect(p):send(header):finish()
      local upstream = t:accept(server)
      upstream:expect_eof()
    end
  end)

  case("is all that a server that speaks first waits for", function(t)
    local server = t:listen()
    local p = start(t, server)
    for _, header in ipairs { V1, V2 } do
      local client = t:connect(p):send(header)
      t:accept(server):send "220 welcome\r\n"
      client:expect "220 welcome\r\n"
    end
  end)

  case("brings 100 KB behind it in one go, all of it for the upstream", function(t)
    local server = t:listen()
    local p = start(t, server)
    local text = e2e.bulk.text(0, 100 * KB)
    local client = t:connect(p):send(V2 .. text):finish()
    local upstream = t:accept(server)
    assert.is_true(upstream:read_all() == text)
    upstream:close()
    client:expect_eof()
  end)

  case("is found with data and an end behind it when all of that has come before it is looked at", function(t)
    local server = t:listen()
    local p = start(t, server)
    for i, header in ipairs { V1, V2 } do
      p:freeze()
      local whole = t:connect(p):send(header .. "ping"):finish()
      local cut = t:connect(p):send(header:sub(1, -2)):finish()
      local aborted = t:connect(p):send(header .. "ping")
      aborted:wait_delivered()
      aborted:reset()
      p:thaw()
      repeat -- the aborted one may get as far as this
        local upstream = t:accept(server)
        local text, how = upstream:read_all()
        assert.is_true(how == "ECONNRESET" or text == "ping")
        upstream:close()
      until text == "ping" and how == "eof"
      whole:expect_eof()
      cut:read_all()
      p:access(3 * i)
      local late = server:try_accept(0)
      if late then late:close() end
    end
    local cuts = 0
    for _, line in ipairs(p:access_lines()) do cuts = cuts + (line.detail == "cut" and 1 or 0) end
    assert.equal(2, cuts)
  end)

  case("is off when hooks look at what the client sends", function(t)
    local server = t:listen()
    local p = t:penstock { "--accept-proxy", "127.0.0.1", "-p", t:file("look.lua", [[
      return { connect = function(conn)
        conn:tag("line", conn:peek_line(100))
        conn:tag("host", conn:http_host())
      end }]]), "127.0.0.1:0", server.address }
    local client = t:connect(p):send(V1:sub(1, -2))
    client:wait_delivered()
    client:send "\nGET / HTTP/1.1\r\nHost: a.lab\r\n\r\n"
    local upstream = t:accept(server)
    upstream:expect "GET / HTTP/1.1\r\nHost: a.lab\r\n\r\n"
    upstream:close()
    client:close()
    p:expect_end { line = "GET / HTTP/1.1", host = "a.lab" }
  end)

  case("is taken from IPv6 proxies, and of IPv4 ones that come to an IPv6 socket", function(t)
    local server = t:listen()
    local p = t:penstock { "--accept-proxy", "127.0.0.1,::1", "[::]:0", server.address }
    for _, address in ipairs { "[::1]:" .. p.port, "127.0.0.1:" .. p.port } do
      t:connect(address):send(V1 .. "ping")
      t:accept(server):expect "ping"
    end
  end)

  case("is taken from UNIX sockets where unix is listed", function(t)
    local server = t:listen()
    local path = "unix:" .. t:folder() .. "/in.sock"
    local p = t:penstock { "--accept-proxy", "unix", path, server.address }
    for _, header in ipairs { V1, V2 } do
      local client = t:connect(p):send(header:sub(1, 9))
      client:send(header:sub(10) .. "ping")
      t:accept(server):expect "ping"
    end
  end)
end)

describe("conn", function()
  case("is that of the client that the header tells: IPv4, IPv6 and UNIX", function(t)
    local p = start_telling(t)
    local tail = "by 127.0.0.1 told true, path nil, dest "
    assert.equal("client 203.0.113.7:50000 key 203.0.113.7, v1 " .. tail .. "10.0.0.1:443, tlv \n", told(t, p, V1))
    assert.equal("client 203.0.113.7:50000 key 203.0.113.7, v2 " .. tail .. "10.0.0.1:443, tlv \n", told(t, p, V2))
    assert.equal("client 2001:db8::7:1 key 2001:db8::/64, v1 " .. tail .. "::1:65535, tlv \n",
      told(t, p, proxy.v1("TCP6", "2001:db8::7", "::1", "1", "65535")))
    assert.equal("client 2001:db8::7:1 key 2001:db8::/64, v2 " .. tail .. "::1:2, tlv \n",
      told(t, p, proxy.v2("2001:db8::7", 1, "::1", 2)))
    assert.equal("client unix:nil key unix, v2 by 127.0.0.1 told true, path /from, dest unix:nil @to, tlv \n",
      told(t, p, proxy.v2_unix("/from", "\0to")))
    local long = ("p"):rep(108)
    assert.equal(("client unix:nil key unix, v2 by 127.0.0.1 told true, path %s, dest unix:nil %s, tlv \n"):format(
      long, long), told(t, p, proxy.v2_unix(long, long)))
  end)

  case("is that of the socket where the header tells no client: LOCAL, UNKNOWN, datagrams", function(t)
    local p = start_telling(t)
    for _, header in ipairs {
      "PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", proxy.raw(0x20, 0, ""),
      proxy.raw(0x20, 0x11, "xyz"),
      proxy.raw(0x21, 0, ""), proxy.raw(0x21, 0, "what means nothing"), proxy.raw(0x21, 0x12, ("x"):rep(12)),
    } do
      local client = t:connect(p):send(header)
      assert.equal(("client %s key 127.0.0.1, v%d by 127.0.0.1 told false, path nil, dest -, tlv \n"):format(client.own,
        header:find "^PROXY" and 1 or 2), (client:read_all()))
    end
  end)

  case("is as ever for clients that are not listed, whose bytes are data, whatever they look like", function(t)
    local server = t:listen()
    local p = t:penstock { "--accept-proxy", "192.0.2.0/24,2001:db8::/32,unix", "127.0.0.1:0", server.address }
    local client = t:connect(p):send(V1)
    local upstream = t:accept(server)
    upstream:expect(V1)
    client:close()
    upstream:close()
    local line = p:expect_end { reason = "eof", client = client.own }
    assert.is_nil(line.proxy)
    local other = start_telling(t, '{ "127.0.0.2", "unix" }')
    assert.matches("^client 127%.0%.0%.1:%d+, no header\n$", told(t, other, ""))
    local listed = t:connect(other, { from = "127.0.0.2:0" }):send(V1)
    assert.matches("^client 203%.0%.113%.7:50000 .* by 127%.0%.0%.2 told true", (listed:read_all()))
  end)

  case("is the proxy's in the accept hook, and the client's from connect to close", function(t)
    local server = t:listen()
    local p = t:penstock { "--accept-proxy", "127.0.0.1", "-p", t:file("hooks.lua", [[
      return {
        accept = function(conn) conn:tag("accept", conn.client.ip .. " " .. tostring(conn.proxy)) end,
        connect = function(conn) conn:tag("connect", conn.client.ip) end,
        connected = function(conn) conn:tag("connected", conn.client.key) end,
        close = function(conn) conn:tag("close", conn.client.ip .. " " .. conn.proxy.version) end,
      }]]), "127.0.0.1:0", server.address }
    local client = t:connect(p):send(V2)
    t:accept(server):close()
    client:close()
    p:expect_end { accept = "127.0.0.1 false", connect = "203.0.113.7", connected = "203.0.113.7",
      close = "203.0.113.7 2" }
  end)

  case("awaits its header in accept as conn.proxy == false, and ready policies judge it then", function(t)
    local server = t:listen()
    local policy = t:file("allow.lua", [[
      return {
        { accept = function(conn) conn:tag("accept", conn.proxy) end },
        require "penstock.policy.allow" { "203.0.113.0/24", "127.0.0.3" },
      }]])
    local p = t:penstock { "--accept-proxy", "127.0.0.1", "-p", policy, "127.0.0.1:0", server.address }
    t:connect(p):send(V1 .. "ping")
    t:accept(server):expect "ping"
    t:connect(p):send(proxy.v1("TCP4", "127.0.0.1", "10.0.0.1", "1", "2")):read_all()
    p:expect_end({ reason = "denied", detail = "not_allowed", accept = "false" }, 1)
    t:connect(p, { from = "127.0.0.2:0" }):read_all()
    p:expect_end({ reason = "denied", detail = "not_allowed", accept = "-" }, 2)
    t:connect(p, { from = "127.0.0.3:0" }):send "ping"
    t:accept(server):expect "ping"
  end)

  case("has a header that came while the accept hook waited", function(t)
    local server = t:listen()
    local p = t:penstock { "--accept-proxy", "127.0.0.1", "-p", t:file("wait.lua", [[
      local ps = require "penstock"
      return { accept = function() ps.sleep(0.2) end }]]), "127.0.0.1:0", server.address }
    t:connect(p):send(V1 .. "ping")
    t:accept(server):expect "ping"
  end)

  case("cannot be looked into before the header: in accept that is an error that says so", function(t)
    local p = t:penstock { "--accept-proxy", "127.0.0.1", "-p", t:file("peek.lua", [[
      return { accept = function(conn) conn:peek(1) end }]]), "127.0.0.1:0", "127.0.0.1:9" }
    t:expect_error "a PROXY header stands before what the client sends; call it in connect or later"
    t:connect(p):offer(V1):expect_reset()
    p:expect_end { reason = "script" }
  end)

  case("has the options of version 2 by type and by name", function(t)
    local p = t:penstock { "run", t:file("tlv.lua", [[
      local ps = require "penstock"
      ps.listen { bind = "127.0.0.1:0", accept_proxy = { from = "127.0.0.1" }, policy = { connect = function(conn)
        local tlv = conn.proxy.tlv
        local ssl = tlv.ssl
        return ps.reply(table.concat({ tlv.alpn, tlv[1], tlv.authority, tlv.unique_id, tlv.netns, tlv[0xE0],
          tostring(tlv.nonsense), tostring(tlv[7]), ssl.client, ssl.verify, ssl.version, ssl.cn, ssl.cipher,
          ssl.sig_alg, ssl.key_alg, ssl[0x30], tostring(ssl.group) }, " "))
      end } }]]) }
    local ssl = proxy.tlv(0x20, "\7\0\0\1\2" .. proxy.tlv(0x21, "TLSv1.3") .. proxy.tlv(0x22, "cn") ..
      proxy.tlv(0x23, "AES") .. proxy.tlv(0x24, "SHA256") .. proxy.tlv(0x25, "RSA2048") .. proxy.tlv(0x30, "?"))
    local tlvs = proxy.tlv(1, "h2") .. proxy.tlv(2, "a.lab") .. proxy.tlv(5, "id") .. proxy.tlv(0x30, "ns") ..
      proxy.tlv(0xE0, "mine") .. proxy.tlv(0xE0, "second") .. proxy.tlv(4, "padding") .. ssl
    assert.equal("h2 h2 a.lab id ns mine nil nil 7 258 TLSv1.3 cn AES SHA256 RSA2048 ? nil",
      told(t, p, proxy.v2("192.0.2.1", 1, "192.0.2.2", 2, tlvs)))
  end)
end)

describe("a connection is ended before any upstream is dialled", function()
  local unix_sized = ("x"):rep(12)
  local wrong = {
    { "without a header", "GET / HTTP/1.1\r\n\r\n", "missing" },
    { "with TLS instead of a header", "\22\3\1\2\0", "missing" },
    { "with a header in small letters", "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "missing" },
    { "with a family that is none", "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", "malformed" },
    { "with an address that is none", "PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", "malformed" },
    { "with an address of the other family", "PROXY TCP4 ::1 ::1 1 2\r\n", "malformed" },
    { "with a port that is none", "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", "malformed" },
    { "with a word too many", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", "malformed" },
    { "with a line that ends in a newline alone", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "malformed" },
    { "with a line of 108 bytes", "PROXY UNKNOWN " .. ("x"):rep(92) .. "\r\n", "too_long" },
    { "with a line without end", "PROXY UNKNOWN " .. ("x"):rep(4000), "too_long" },
    { "with a signature that goes wrong", "\r\n\r\n\0\r\nQUIT\r", "missing" },
    { "with version 3", proxy.raw(0x31, 0x11, unix_sized), "malformed" },
    { "with a command that is none", proxy.raw(0x22, 0x11, unix_sized), "malformed" },
    { "with a binary family that is none", proxy.raw(0x21, 0x41, unix_sized), "malformed" },
    { "with too few bytes of addresses", proxy.raw(0x21, 0x11, "12345678901"), "malformed" },
    { "with options that do not add up", proxy.v2("1.2.3.4", 1, "1.2.3.4", 2, "\224\0\9x"), "malformed" },
    { "with an SSL option that does not add up", proxy.v2("1.2.3.4", 1, "1.2.3.4", 2, proxy.tlv(0x20, "\1")),
      "malformed" },
    { "with 16 KiB of options", proxy.v2("1.2.3.4", 1, "1.2.3.4", 2, proxy.tlv(0xE0, ("x"):rep(16 * KB))), "too_long" },
    { "with a wrong checksum",
      proxy.with_checksum(proxy.v2("1.2.3.4", 1, "1.2.3.4", 2, proxy.tlv(3, "\0\0\0\0")), 1), "checksum" },
    { "with a checksum of another size", proxy.v2("1.2.3.4", 1, "1.2.3.4", 2, proxy.tlv(3, "\0\0\0")), "malformed" },
  }

  for _, one in ipairs(wrong) do
    case(one[1], function(t)
      local server = t:listen()
      local p = start(t, server)
      t:connect(p):offer(one[2]):expect_reset()
      p:expect_end { reason = "proxy", detail = one[3], side = "client", upstream = "-", up = 0 }
      p:log(("PROXY header of 127%%.0%%.0%%.1:%%d+: (%s) %%(1 refused so far%%)"):format(one[3]))
      assert.is_nil(server:try_accept(0))
    end)
  end

  case("with an end instead of a header, or in the midst of one", function(t)
    local server = t:listen()
    local p = start(t, server)
    t:connect(p):finish():read_all()
    p:expect_end({ reason = "proxy", detail = "missing" }, 1)
    for i, header in ipairs { V1, V2 } do
      t:connect(p):send(header:sub(1, -2)):finish():read_all()
      p:expect_end({ reason = "proxy", detail = "cut" }, 1 + i)
    end
    assert.is_nil(server:try_accept(0))
  end)

  case("with a reset in the midst of a header", function(t)
    local server = t:listen()
    local p = start(t, server)
    for i, header in ipairs { V1, V2 } do
      local client = t:connect(p):send(header:sub(1, 20))
      client:wait_delivered()
      client:reset()
      p:expect_end({ reason = "reset", side = "client", detail = "proxy_header" }, i)
    end
    assert.is_nil(server:try_accept(0))
  end)

  case("with a header that is not whole within the handshake timeout, however it drips in", function(t)
    local server = t:listen()
    local p = start(t, server, "--handshake-timeout", "400ms")
    local silent, dripping = t:connect(p), t:connect(p)
    local at = 0
    sys.wait_until(function()
      at = at + 1
      dripping:offer(V1:sub(at, at))
      sys.poll({}, sys.now() + 0.05)
      return #p:access_lines() == 2 or at == #V1 - 1
    end)
    silent:expect_reset()
    for i = 1, 2 do p:expect_end({ reason = "timeout", detail = "proxy_header", upstream = "-" }, i) end
    assert.is_true(at < #V1 - 1, "it was not before its end that the header was too late")
    assert.is_nil(server:try_accept(0))
    t:connect(p):send(V1 .. "ping")
    t:accept(server):expect "ping"
  end)

  case("from an address that is not listed, where others are denied", function(t)
    local server = t:listen()
    local p = t:penstock {
      "--accept-proxy", "127.0.0.2", "--accept-proxy-others", "deny", "127.0.0.1:0", server.address,
    }
    t:connect(p):expect_reset()
    p:expect_end({ reason = "proxy", detail = "not_listed" }, 1)
    t:connect(p):offer(V1):expect_reset()
    p:expect_end({ reason = "proxy", detail = "not_listed" }, 2)
    t:connect(p, { from = "127.0.0.2:0" }):send(V1 .. "ping")
    t:accept(server):expect "ping"
  end)
end)

describe("headers are", function()
  case("checked against their checksum", function(t)
    local p = start_telling(t)
    local header = proxy.v2("1.2.3.4", 1, "1.2.3.4", 2, proxy.tlv(0xE0, "x") .. proxy.tlv(3, "\0\0\0\0"))
    assert.matches("^client 1%.2%.3%.4:1 ", told(t, p, proxy.with_checksum(header)))
  end)

  case("taken up to 4096 bytes", function(t)
    local p = start_telling(t)
    local header = proxy.v2("1.2.3.4", 1, "1.2.3.4", 2, proxy.tlv(0xE0, ("x"):rep(4096 - 16 - 12 - 3)))
    assert.equal(4096, #header)
    assert.matches("tlv 224=4065", told(t, p, header))
    local v1 = "PROXY UNKNOWN " .. ("x"):rep(91) .. "\r\n"
    assert.equal(107, #v1)
    assert.matches("told false", told(t, p, v1))
  end)

  case("counted where they are refused, by listener and reason", function(t)
    local p = t:penstock { "run", t:file("count.lua", [[
      local ps = require "penstock"
      ps.listen { name = "in", bind = "127.0.0.1:0", accept_proxy = { from = "127.0.0.1" }, to = "127.0.0.1:9",
        timeouts = { handshake = 0.2 } }
      ps.listen { name = "ask", bind = "127.0.0.1:0", policy = {
        connect = function() return ps.reply(ps.metrics()) end } }
    ]]) }
    for _ = 1, 3 do t:connect(p):offer("nonsense"):expect_reset() end
    t:connect(p):offer("PROXY nonsense\r\n"):expect_reset()
    t:connect(p):expect_reset()
    p:access(5)
    local text = t:connect(p.addresses[2]):read_all()
    assert.matches('penstock_proxy_refused_total{listener="in",why="missing"} 3\n', text, 1, true)
    assert.matches('penstock_proxy_refused_total{listener="in",why="malformed"} 1\n', text, 1, true)
    assert.matches('penstock_proxy_refused_total{listener="in",why="late"} 1\n', text, 1, true)
    local _, lines = p.err:gsub("PROXY header of [^\n]* refused so far", "")
    assert.equal(3, lines) -- the 1st, 2nd and 4th
  end)
end)

describe("limits:", function()
  local function from(ip, port) return proxy.v1("TCP4", ip, "10.0.0.1", tostring(port or 1), "443") end

  case("--max-per-ip counts the clients that are told, not their proxy", function(t)
    local server = t:listen()
    local p = start(t, server, "--max-per-ip", "2")
    local open = {}
    for i = 1, 6 do
      open[i] = { t:connect(p):send(from("203.0.113." .. (1 + i % 3), i) .. "ping") }
      open[i][2] = t:accept(server)
      open[i][2]:expect "ping"
    end
    t:connect(p):send(from "203.0.113.1"):expect_reset()
    p:expect_end({ reason = "limit", detail = "per_ip", client = "203.0.113.1:1" }, 1)
    p:log "max%-per%-ip 2 reached by (203%.0%.113%.1)"
    assert.is_nil(server:try_accept(0))
    for _, side in ipairs(open[3]) do side:close() end -- one of .1's goes, and there is room for one
    p:access(2)
    t:connect(p):send(from "203.0.113.1" .. "ping")
    t:accept(server):expect "ping"
    t:connect(p):send(from "203.0.113.1"):expect_reset()
    t:connect(p):send(from "203.0.113.9" .. "ping")
    t:accept(server):expect "ping"
  end)

  case("--max-per-ip counts a proxy that speaks for itself by its own address", function(t)
    local server = t:listen()
    local p = start(t, server, "--max-per-ip", "1")
    for i, header in ipairs { "PROXY UNKNOWN\r\n", proxy.raw(0x20, 0, "") } do
      local client = t:connect(p):send(header .. "ping")
      local upstream = t:accept(server)
      upstream:expect "ping"
      t:connect(p):send(header):expect_reset()
      client:close()
      upstream:close()
      p:access(2 * i)
    end
  end)

  case("--max-per-ip counts who is not listed when they are accepted", function(t)
    local server = t:listen()
    local p = t:penstock { "--max-per-ip", "1", "--accept-proxy", "127.0.0.2", "127.0.0.1:0", server.address }
    t:expect_echo(p, server)
    t:connect(p):expect_reset()
    t:connect(p, { from = "127.0.0.2:0" }):send(from "203.0.113.1" .. "ping")
    t:accept(server):expect "ping"
    t:connect(p, { from = "127.0.0.2:0" }):send(from "127.0.0.1"):expect_reset() -- it has one
    t:connect(p, { from = "127.0.0.3:0" }):send "ping"
    t:accept(server):expect "ping"
  end)

  case("500 connections that never send a header do not hinder others, and end with their deadline", function(t)
    local server = t:listen()
    local p = start(t, server, "--handshake-timeout", "2s", "--max-per-ip", "3")
    for _ = 1, 500 do t:connect(p) end
    for i = 1, 20 do
      local client = t:connect(p):send(from("203.0.113." .. i) .. "ping")
      local upstream = t:accept(server)
      upstream:expect "ping"
      upstream:close()
      client:expect_eof()
      client:close()
    end
    p:access(520)
    local ends = {}
    for _, line in ipairs(p:access_lines()) do
      local key = line.reason .. " " .. line.detail
      ends[key] = (ends[key] or 0) + 1
    end
    assert.same({ ["eof -"] = 20, ["timeout proxy_header"] = 500 }, ends)
  end)
end)

describe("a chain of proxies", function()
  case("passes on what the header has told: client and destination, in both versions", function(t)
    local server = t:listen()
    local p1 = start(t, server, "--send-proxy", "v1")
    local p2 = start(t, server, "--send-proxy", "v2")
    for _, header in ipairs { V1, V2 } do
      t:connect(p1):send(header .. "ping")
      t:accept(server):expect(V1 .. "ping")
      t:connect(p2):send(header .. "ping")
      t:accept(server):expect(V2 .. "ping")
    end
    for _, to in ipairs { "/to", "\0to", ("p"):rep(108) } do
      local header = proxy.v2_unix("/from", to)
      t:connect(p2):send(header .. "ping")
      t:accept(server):expect(header .. "ping")
    end
    t:connect(p1):send(proxy.v2_unix("/from", "/to") .. "ping")
    t:accept(server):expect "PROXY UNKNOWN\r\nping"
  end)

  case("tells the proxy itself where that speaks for itself", function(t)
    local server = t:listen()
    local p = start(t, server, "--send-proxy", "v1")
    local client = t:connect(p):send(proxy.raw(0x20, 0, "") .. "ping")
    t:accept(server):expect(proxy.v1("TCP4", "127.0.0.1", "127.0.0.1", client.own:match ":(%d+)$", tostring(p.port)) ..
      "ping")
  end)

  case("of three of penstock tells the first client to the last", function(t)
    local last = start_telling(t)
    local middle = start(t, last, "--send-proxy", "v2")
    local first = t:penstock { "--send-proxy", "v1", "127.0.0.1:0", middle.address }
    local client = t:connect(first)
    assert.equal(("client %s key 127.0.0.1, v2 by 127.0.0.1 told true, path nil, dest %s, tlv \n"):format(client.own,
      first.address), (client:read_all()))
  end)

  local function start_passing(t, server, options)
    return t:penstock { "run", t:file("pass.lua", ([[
      local ps = require "penstock"
      ps.listen { bind = "127.0.0.1:0", accept_proxy = { from = { "127.0.0.1" } }, policy = { connect = function(conn)
        local tlv = conn.proxy.tlv
        return { "%s", proxy = "v2", %s }
      end } }]]):format(server.address, options)) }
  end

  case("passes options on as they came with tlv = conn.proxy.tlv", function(t)
    local server = t:listen()
    local p = start_passing(t, server, "tlv = tlv")
    local header = proxy.v2("203.0.113.7", 50000, "10.0.0.1", 443, proxy.tlv(1, "h2") .. proxy.tlv(2, "a.lab") ..
      proxy.tlv(0x20, "\7\0\0\0\0" .. proxy.tlv(0x21, "TLSv1.3") .. proxy.tlv(0x77, "?")) .. proxy.tlv(0xE0, "a\0b"))
    t:connect(p):send(header .. "ping")
    t:accept(server):expect(header .. "ping")
    local long = proxy.v2("203.0.113.7", 50000, "10.0.0.1", 443, proxy.tlv(0xE0, ("x"):rep(4065)))
    t:connect(p):send(long .. "ping")
    t:accept(server):expect(long .. "ping")
  end)

  case("computes the checksum of what it sends anew", function(t)
    local server = t:listen()
    local p = start_passing(t, server, "tlv = (function() tlv.authority = 'b.lab' return tlv end)()")
    local function header(authority)
      return proxy.with_checksum(proxy.v2("203.0.113.7", 50000, "10.0.0.1", 443, proxy.tlv(2, authority) ..
        proxy.tlv(3, "\0\0\0\0")))
    end
    t:connect(p):send(header "a.lab" .. "ping")
    t:accept(server):expect(header "b.lab" .. "ping")
  end)

  case("writes options by their names, and TLS", function(t)
    local server = t:listen()
    local p = start_passing(t, server, [[tlv = {
      alpn = "h2", authority = "a.lab", unique_id = "id", [0xE0] = "x",
      crc32c = true, netns = "ns",
      ssl = { client = 7, verify = 1, version = "TLSv1.3", cn = "me", cipher = "AES", [0x77] = "?" } }]])
    t:connect(p):send(V1 .. "ping")
    t:accept(server):expect(proxy.with_checksum(proxy.v2("203.0.113.7", 50000, "10.0.0.1", 443, proxy.tlv(1, "h2") ..
      proxy.tlv(2, "a.lab") .. proxy.tlv(3, "\0\0\0\0") .. proxy.tlv(5, "id") .. proxy.tlv(0x20, "\7\0\0\0\1" ..
      proxy.tlv(0x21, "TLSv1.3") .. proxy.tlv(0x22, "me") .. proxy.tlv(0x23, "AES") .. proxy.tlv(0x77, "?")) ..
      proxy.tlv(0x30, "ns") .. proxy.tlv(0xE0, "x"))) .. "ping")
  end)

  for options, message in pairs {
    ["tlv = { autority = 'x' }"] = "its keys are types from 0 to 255, or alpn, authority",
    ["tlv = { authority = 5 }"] = "its values strings",
    ["tlv = { authority = 'a', [2] = 'b' }"] = "it has one type twice",
    ["tlv = { ssl = { cn = 5 } }"] = "ssl is written { version = ",
    ["tlv = { ssl = { client = 256 } }"] = "ssl is written { version = ",
    ["tlv = { ssl = 'x' }"] = "ssl is written { version = ",
    ["tlv = { crc32c = false }"] = "its values strings",
    ["tlv = (function() tlv.authority = {} return tlv end)()"] = "conn.proxy.tlv: its keys are types",
  } do
    case("does not take " .. options, function(t)
      t:expect_error(message:gsub("%p", "%%%0"))
      local p = start_passing(t, { address = "127.0.0.1:9" }, options)
      t:connect(p):send(V1):expect_reset()
      p:expect_end { reason = "script" }
    end)
  end
end)

describe("accept_proxy is refused", function()
  local function expect_refusal(t, accept_proxy, message)
    t:expect_error "ps.listen: accept_proxy"
    local status, err = t:run { "run", t:file("bad.lua", ('local ps = require "penstock"\n' ..
      'ps.listen { bind = "127.0.0.1:0", to = "127.0.0.1:9", accept_proxy = %s }'):format(accept_proxy)) }
    assert.equal(2, status)
    assert.is_truthy(err:find(message, 1, true), err)
  end

  for accept_proxy, message in pairs {
    ["true"] = 'who sends a PROXY header says who the client is, so name the networks that are believed: ' ..
      'accept_proxy = { from = { "10.0.0.0/8", "unix" } }',
    ["{}"] = "accept_proxy has no from",
    ["{ from = {} }"] = "accept_proxy names no network in from",
    ["{ form = { '10/8' } }"] = 'did you mean "from"?',
    ["{ from = { '10.1.0.0/8' } }"] = 'has bits behind its prefix; the network is "10.0.0.0/8"',
    ["{ from = { 'db.internal' } }"] = '"db.internal" is no address or network',
    ["{ from = { '10/8' }, others = 'reject' }"] =
      'ps.listen: accept_proxy.others: "reject" is not known; write accept or deny',
  } do
    case("as " .. accept_proxy, function(t) expect_refusal(t, accept_proxy, message) end)
  end

  case("on the command line without networks", function(t)
    local option = "--accept-proxy"
    for _, args in ipairs { { option, "--send-proxy" }, { option .. "=" }, { option, "8080" } } do
      args[#args + 1] = "127.0.0.1:9"
      local status, err = t:run(args)
      assert.equal(2, status)
      assert.matches("write the addresses that are believed: 10.0.0.0/8", err, 1, true)
    end
    local status, err = t:run { "--accept-proxy-others", "deny", "127.0.0.1:0", "127.0.0.1:9" }
    assert.equal(2, status)
    assert.matches("add --accept-proxy 10.0.0.0/8", err, 1, true)
  end)

  case("never where it is right: check tells who is believed", function(t)
    local status, _, out = t:run { "check", t:file("good.lua", [[
      local ps = require "penstock"
      ps.listen { bind = "127.0.0.1:0", to = "127.0.0.1:9",
        accept_proxy = { from = { "10/8", "unix" }, others = "deny" } }
    ]]) }
    assert.equal(0, status)
    assert.matches("proxy     headers from 10/8,unix; others denied", out, 1, true)
  end)
end)

describe("a reload", function()
  local function config(server, accept_proxy)
    return ([[
      local ps = require "penstock"
      ps.listen { bind = "127.0.0.1:0", to = "%s", %s }]]):format(server.address, accept_proxy)
  end

  local function reload(p)
    local from = #p.err + 1
    p:signal "HUP"
    p:log("version %d+ is (in force)", from)
  end

  case("changes who is believed; who waits for a header goes on with what it came under", function(t)
    local server = t:listen()
    local path = t:file("r.lua", config(server, 'accept_proxy = { from = { "127.0.0.1" } }'))
    local p = t:penstock { "run", path }
    local waiting = t:connect(p):send(V1:sub(1, 10))
    waiting:wait_delivered()
    t:connect(p):send(V1 .. "ping")
    t:accept(server):expect "ping"
    sys.write_file(path, config(server, ""))
    reload(p)
    t:connect(p):send(V1)
    t:accept(server):expect(V1)
    waiting:send(V1:sub(11) .. "late")
    t:accept(server):expect "late"
    sys.write_file(path, config(server, 'accept_proxy = { from = { "127.0.0.9" }, others = "deny" }'))
    reload(p)
    t:connect(p):offer(V1):expect_reset()
    t:connect(p, { from = "127.0.0.9:0" }):send(V2 .. "ping")
    t:accept(server):expect "ping"
  end)
end)

local function start_haproxy(t, frontend, backend)
  local port = peers.free_port(t)
  local config = t:file(("haproxy-%d.cfg"):format(port), ([[
global
  maxconn 100
defaults
  mode tcp
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend f
  bind 127.0.0.1:%d %s
  default_backend b
backend b
  server s %s
]]):format(port, frontend, backend))
  local child = t:spawn { "haproxy", "-db", "-q", "-f", config }
  peers.wait_for_listener(t, "127.0.0.1:" .. port, child)
  return "127.0.0.1:" .. port
end

describe("haproxy", function()
  for version, option in pairs { v1 = "send-proxy", v2 = "send-proxy-v2" } do
    peers.case_with("haproxy", "in front of penstock tells its client by " .. option, function(t)
      local p = start_telling(t)
      local client = t:connect(start_haproxy(t, "", p.address .. " " .. option))
      local text = client:read_all()
      assert.matches(("client %s key 127.0.0.1, %s by 127.0.0.1 told true, path nil, dest %s, tlv "):format(client.own,
        version, client.address), text, 1, true)
    end)
  end

  peers.case_with("haproxy", "sends checksum, unique id and its own health checks, which penstock takes", function(t)
    local p = start_telling(t)
    local address = start_haproxy(t, "\n  unique-id-format id-%pid", p.address ..
      " send-proxy-v2 proxy-v2-options crc32c,unique-id check inter 50ms")
    local client = t:connect(address)
    assert.matches("client " .. client.own:gsub("%p", "%%%0") .. ".* tlv 3=....? 5=id%-%d+\n", (client:read_all()))
    local line = p:wait_for("err", "(client=127.0.0.1:%d+ proxy=127.0.0.1:%d+)")
    assert.is_truthy(line)
    assert.is_nil((p.err:find "reason=proxy"))
  end)

  peers.case_with("haproxy", "behind penstock takes what a chain passes on, checksum included", function(t)
    local server = t:listen()
    local haproxy = start_haproxy(t, "accept-proxy", server.address .. " send-proxy-v2 proxy-v2-options authority")
    local p = t:penstock { "run", t:file("chain.lua", ([[
      local ps = require "penstock"
      ps.listen { bind = "127.0.0.1:0", accept_proxy = { from = { "127.0.0.1" } }, policy = { connect = function()
        return { "%s", proxy = "v2", tlv = { authority = "a.lab", crc32c = true } }
      end } }]]):format(haproxy)) }
    t:connect(p):send(V2 .. "ping")
    t:accept(server):expect(proxy.v2("203.0.113.7", 50000, "10.0.0.1", 443, proxy.tlv(2, "a.lab")) .. "ping")
  end)
end)

describe("TLS", function()
  -- A certificate of its own for "a.lab", with its key: one file and two.
  local function make_certificate(t)
    local cert, key = t:folder() .. "/cert.pem", t:folder() .. "/key.pem"
    peers.run(t, {
      "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
      "-subj", "/CN=a.lab", "-keyout", key, "-out", cert,
    })
    return cert, key, t:file("both.pem", sys.read_file(cert) .. sys.read_file(key))
  end

  peers.case_with("openssl curl", "begins right behind the header that curl sends", function(t)
    local cert, key = make_certificate(t)
    local p = t:penstock { "run", t:file("tls.lua", tell .. ([[
ps.listen { name = "tls", bind = "127.0.0.1:0", tls = { cert = "%s", key = "%s" },
  accept_proxy = { from = "127.0.0.1" }, policy = { connect = function(conn)
    return ps.reply("HTTP/1.0 200 OK\r\n\r\n" .. conn.tls.version .. " " .. text(conn))
  end } }]]):format(cert, key)) }
    local url = ("https://%s/"):format(p.address)
    local out = peers.run(t, { "curl", "-sSk", "--haproxy-protocol", url })
    assert.matches("^TLSv?1%.3 client 127%.0%.0%.1:%d+ key 127%.0%.0%.1, v1 by 127%.0%.0%.1 told true", out)
    local child = t:spawn { "curl", "-sSk", url }
    assert.is_truthy(child:wait() ~= 0)
    p:expect_end({ reason = "proxy", detail = "missing" }, 2)
  end)

  peers.case_with("openssl haproxy", "that haproxy ended is told in tlv.ssl, and goes on behind a header", function(t)
    local cert, key, both = make_certificate(t)
    local p = t:penstock { "run", t:file("ssl.lua", ([[
local ps = require "penstock"
ps.listen { name = "told", bind = "127.0.0.1:0", accept_proxy = { from = "127.0.0.1" }, policy = {
  connect = function(conn)
    local ssl, name = conn.proxy.tlv.ssl, conn.proxy.tlv.authority
    return ps.reply(("%%s %%s %%s %%s %%s\n"):format(ssl.version, ssl.cipher, ssl.client, ssl.verify, name))
  end } }
ps.listen { name = "tls", bind = "127.0.0.1:0", tls = { cert = "%s", key = "%s" },
  accept_proxy = { from = "127.0.0.1" }, policy = { connect = function(conn)
    return ps.reply(conn.tls.version .. " " .. conn.client.ip .. "\n")
  end } }
]]):format(cert, key)) }
    local function ask(backend)
      local address = start_haproxy(t, "ssl crt " .. both, backend)
      return peers.run(t, { "openssl", "s_client", "-quiet", "-connect", address, "-servername", "a.lab" })
    end
    assert.matches("^TLSv1%.3 TLS_%S+ 1 0 a%.lab\n", ask(p.address ..
      " send-proxy-v2 proxy-v2-options ssl,ssl-cipher,authority"))
    assert.matches("1%.3 127%.0%.0%.1\n", ask(p.addresses[2] .. " send-proxy-v2 ssl verify none"))
  end)
end)

describe("nginx", function()
  local function start_nginx(t, servers)
    local folder, port = t:folder(), peers.free_port(t)
    local config = t:file("nginx.conf", (([[
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
user root;
worker_processes 1;
pid FOLDER/nginx.pid;
error_log stderr warn;
events { worker_connections 128; }
stream { server { SERVERS } }
]]):gsub("SERVERS", servers):gsub("FOLDER", folder):gsub("PORT", tostring(port))))
    local child = t:spawn { "nginx", "-c", config, "-p", folder, "-e", "stderr" }
    peers.wait_for_listener(t, "127.0.0.1:" .. port, child)
    return "127.0.0.1:" .. port
  end

  peers.case_with("nginx", "in front of penstock tells its client by proxy_protocol on", function(t)
    local p = start_telling(t)
    local servers = "listen 127.0.0.1:PORT; proxy_pass %s; proxy_protocol on;"
    local client = t:connect(start_nginx(t, servers:format(p.address)))
    assert.equal(("client %s key 127.0.0.1, v1 by 127.0.0.1 told true, path nil, dest %s, tlv \n"):format(client.own,
      client.address), (client:read_all()))
  end)

  peers.case_with("nginx", "behind penstock takes what a chain passes on, in both versions", function(t)
    local nginx = start_nginx(t, [[listen 127.0.0.1:PORT proxy_protocol;
      return "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port";]])
    for _, version in ipairs { "v1", "v2" } do
      local p = start(t, { address = nginx }, "--send-proxy", version)
      assert.equal("203.0.113.7 50000 10.0.0.1 443", told(t, p, V2))
    end
  end)
end)
