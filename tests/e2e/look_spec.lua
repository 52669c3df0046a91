-- What a hook may look at before there is an upstream, and that the upstream gets all of it.
local e2e = require "tests.e2e.support.case"
local case = e2e.case
local scripted = require "tests.e2e.support.scripted"
local sockets = require "tests.e2e.support.sockets"

local function u16(n) return string.char(math.floor(n / 256), n % 256) end

-- A ClientHello for `name` in TLS records of at most `most` bytes.
local function client_hello(name, most)
  local sni = u16(#name + 3) .. "\0" .. u16(#name) .. name
  local alpn = "\2h2\8http/1.1"
  local extensions = "\0\0" .. u16(#sni) .. sni .. "\0\16" .. u16(#alpn + 2) .. u16(#alpn) .. alpn ..
    "\0\43" .. u16(5) .. "\4\3\4\3\3"
  local body = "\3\3" .. ("r"):rep(32) .. "\0" .. "\0\2\19\1" .. "\1\0" .. u16(#extensions) .. extensions
  local message = "\1\0" .. u16(#body) .. body
  local records = {}
  for at = 1, #message, most do
    local part = message:sub(at, at + most - 1)
    records[#records + 1] = "\22\3\1" .. u16(#part) .. part
  end
  return table.concat(records)
end

local policy = [[
  return { connect = function(conn)
    local hello, err = conn:hello()
    local name = hello and hello.sni or conn:http_host()
    conn:tag("name", name)
    conn:tag("why", err)
    if hello then conn:tag("alpn", table.concat(hello.alpn, ",") .. " " .. table.concat(hello.versions, ",")) end
  end }]]

local function send_slowly(client, bytes)
  for i = 1, #bytes do client:send(bytes:sub(i, i)) end
end

local function expect_all(t, p, server, client, bytes)
  local upstream = t:accept(server)
  assert.equal(bytes, upstream:read(#bytes))
  client:finish()
  upstream:finish()
  client:expect_eof()
  return p:access()
end

describe("conn:nodelay:", function()
  case("sets each side while it is connected, and refuses other words", function(t)
    for _, on in ipairs { true, false } do
      local p, server = scripted.start(t, ([[
        return { connected = function(conn)
          conn:tag("set", tostring(conn:nodelay("client", %s)) .. tostring(conn:nodelay("upstream", %s)))
          conn:tag("wrong", tostring(pcall(conn.nodelay, conn, "peer", true)))
        end }]]):format(on, on), { args = { on and "--no-nodelay" or "--nodelay" } })
      local client, upstream = t:expect_echo(p, server)
      assert.equal(on, sockets.find(p, p.address, client.own).nodelay)
      assert.equal(on, sockets.find(p, upstream.from, server.address).nodelay)
      client:finish()
      upstream:finish()
      client:expect_eof()
      local line = p:access()
      assert.equal("truetrue", line.set)
      assert.equal("false", line.wrong)
    end
  end)
end)

describe("conn:hello and conn:http_host:", function()
  for _, most in ipairs { 16384, 40, 1 } do
    case(("a ClientHello in records of %d bytes, a byte at a time, gives its name and goes on whole"):format(most),
      function(t)
        local p, server = scripted.start(t, policy)
        local client, bytes = t:connect(p), client_hello("Db.lab", most)
        send_slowly(client, bytes)
        local line = expect_all(t, p, server, client, bytes)
        assert.equal("Db.lab", line.name)
        assert.equal("h2,http/1.1 1.3,1.2", line.alpn)
      end)
  end

  case("what is no TLS is a mismatch at its first bytes, and the Host of a request is found", function(t)
    local p, server = scripted.start(t, policy)
    local client, bytes = t:connect(p), "GET / HTTP/1.1\r\nHost: WWW.lab:8080\r\n\r\nbody"
    send_slowly(client, bytes)
    local line = expect_all(t, p, server, client, bytes)
    assert.equal("www.lab", line.name)
    assert.equal("mismatch", line.why)
  end)

  case("what is neither holds nobody up", function(t)
    local p, server = scripted.start(t, policy)
    local client = t:connect(p)
    client:send "SSH-2.0-x\r\n"
    local line = expect_all(t, p, server, client, "SSH-2.0-x\r\n")
    assert.equal("-", line.name)
  end)

  case("a client that ends early is told apart", function(t)
    local p, server = scripted.start(t, [[
      return { connect = function(conn)
        local hello, err = conn:hello()
        conn:tag("why", err)
        if hello then error "no" end
      end }]])
    local client = t:connect(p)
    client:send(client_hello("a.lab", 16384):sub(1, 20))
    client:finish()
    local upstream = t:accept(server)
    assert.equal(20, #upstream:read(20))
    upstream:finish()
    client:expect_eof()
    assert.equal("eof", p:access().why)
  end)
end)
