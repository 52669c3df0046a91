local t = require "penstock.test"

describe("socks-server.lua", function()
  local p, web

  before_each(function()
    p = t.load "socks-server.lua"
    p:dns { ["www.test"] = { "192.0.2.80" }, ["inner.test"] = { "10.1.0.1" } }
    web = p:upstream "192.0.2.80:443"
  end)

  local function connect() return p:client { ip = "10.1.2.3" } end

  local socks = "\5\1\2" .. "\1\5alice\10wonderland" .. "\5\1\0\3"
  local http = "CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: Basic YWxpY2U6d29uZGVybGFuZA==\r\n\r\n"

  it("leads clients of either protocol to the web, wherever what they say is split", function()
    for _, greeting in ipairs { socks .. "\8www.test\1\187", http:format("www.test:443", "www.test:443") } do
      t.splits(greeting .. "hello", function(parts)
        local q = t.load "socks-server.lua"
        q:dns { ["www.test"] = { "192.0.2.80" } }
        local u, c = q:upstream "192.0.2.80:443", q:client { ip = "10.1.2.3" }
        for _, part in ipairs(parts) do c:send(part) end
        assert.equal("hello", u:received())
      end)
    end
  end)

  it("answers each in its own way when the server is down", function()
    p:fail("192.0.2.80:443", "refused")
    assert.equal("\5\2\1\0\5\5\0\1\0\0\0\0\0\0", connect():send(socks .. "\8www.test\1\187"):received())
    assert.matches("^HTTP/1.1 502 ", connect():send(http:format("www.test:443", "a")):received())
  end)

  it("leads by SSH into the house's network only, and by the web not into it", function()
    local ssh, inner = p:upstream "10.20.0.5:22", p:upstream "10.1.0.1:443"
    connect():send(http:format("10.20.0.5:22", "a") .. "SSH-2.0-x\r\n")
    assert.equal("SSH-2.0-x\r\n", ssh:received())
    for _, target in ipairs { "inner.test:443", "10.1.0.1:443", "10.21.0.5:22", "127.0.0.1:80" } do
      assert.matches("^HTTP/1.1 403 ", connect():send(http:format(target, "a")):received())
    end
    assert.equal(0, #inner.connections)
  end)

  it("turns away strangers before they can say anything, and guessers after a while", function()
    local c = p:client { ip = "203.0.113.7" }
    assert.same({ "denied", "not_allowed" }, { c:closed() })
    local reason
    for _ = 1, 101 do
      c = connect():send "\5\1\2\1\5alice\5wrong"
      c:finish()
      reason = select(2, c:closed())
    end
    assert.equal("rate", reason)
    assert.equal(0, #web.connections)
  end)
end)
