-- Destinations with options: the spec plays the proxies.
local t = require "penstock.test"

describe("a chain of proxies", function()
  local p, socks, c

  before_each(function()
    p = t.load "support/via.lua"
    socks = p:upstream "10.0.0.1:1080"
    c = p:client { ip = "203.0.113.7" }
  end)

  it("is walked, and early bytes are the client's first", function()
    assert.equal("\5\1\0", socks:read())
    socks:send "\5\0"
    assert.equal("\5\1\0\1\10\0\0\2\12\56", socks:read())
    socks:send "\5\0\0\1\0\0\0\0\0\0"
    assert.equal("CONNECT mail.example:25 HTTP/1.1\r\nHost: mail.example:25\r\n\r\n", socks:read())
    socks:send "HTTP/1.1 200 OK\r\n\r\n220 hello\r\n"
    assert.equal("220 hello\r\n", c:received())
    c:send "HELO\r\n"
    assert.equal("HELO\r\n", socks:read())
  end)

  it("names the proxy that says no", function()
    socks:send "\5\255"
    assert.equal("rst", c:ended())
    assert.same({ "refused", "hop" }, { c:closed() })
  end)
end)

describe("a PROXY header", function()
  it("tells the client's address", function()
    local p = t.load "support/via.lua"
    local u = p:upstream "10.0.0.9:25"
    p:client { ip = "203.0.113.7", port = 1 }
    assert.matches("^PROXY TCP4 203%.0%.113%.7 127%.0%.0%.1 1 %d+\r\n$", u:received())
  end)
end)
