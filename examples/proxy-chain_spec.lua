local t = require "penstock.test"

local CONNECT = "CONNECT mail.example:25 HTTP/1.1\r\nHost: mail.example:25\r\n\r\n"
local SOCKS_LOGIN = "\5\2\0\2"

-- What all its clients have said.
local function heard(upstream)
  local parts = {}
  for i, c in ipairs(upstream.connections) do parts[i] = c:received() end
  return table.concat(parts)
end

describe("proxy-chain.lua", function()
  local p

  before_each(function() p = t.load "proxy-chain.lua" end)

  it("reaches the mail server through a proxy, which gets nothing of the client's before", function()
    p:fail("10.0.0.1:1080", "refused")
    p:fail("10.0.0.2:1080", "refused")
    local http = p:upstream "10.0.0.3:3128"
    local c = p:client()
    c:send "EHLO a\r\n"
    assert.equal(CONNECT, http:read())
    http:send "HTTP/1.1 200 OK\r\n\r\n220 hello\r\n"
    assert.equal("220 hello\r\n", c:received())
    assert.equal("EHLO a\r\n", http:read())
  end)

  it("spreads its connections over the proxies", function()
    local exits = { p:upstream "10.0.0.1:1080", p:upstream "10.0.0.2:1080", p:upstream "10.0.0.3:3128" }
    for _ = 1, 6 do p:client() end
    for _, exit in ipairs(exits) do assert.equal(2, #exit.connections) end
    assert.equal(SOCKS_LOGIN:rep(2), heard(exits[1]))
  end)

  it("goes on when a proxy does not answer, and last to the relay, which learns who the client is", function()
    p:upstream "10.0.0.1:1080"
    p:fail("10.0.0.2:1080", "refused")
    p:fail("10.0.0.3:3128", "refused")
    p:dns { ["relay.internal"] = "10.0.0.25" }
    local relay = p:upstream "relay.internal:25"
    p:client { ip = "203.0.113.7" }
    t.advance(4)
    assert.equal("\r\n\r\n\0\r\nQUIT\n", relay:received():sub(1, 12))
    assert.equal("\203\0\113\7", relay:received():sub(17, 20))
  end)

  it("leaves out proxies that fail their checks", function()
    p:fail("10.0.0.1:1080", "refused")
    p:fail("10.0.0.2:1080", "refused")
    local http = p:upstream "10.0.0.3:3128"
    t.advance(11)
    assert.matches("exits: socks5://10.0.0.2:1080 is down: refused", table.concat(p:log(), "\n"), 1, true)
    for _ = 1, 3 do p:client() end
    assert.equal(CONNECT:rep(3), heard(http))
  end)

  it("tells the log when nothing could be reached", function()
    for _, address in ipairs { "10.0.0.1:1080", "10.0.0.2:1080", "10.0.0.3:3128", "relay.internal:25" } do
      p:fail(address, "refused")
    end
    assert.equal("refused", (p:client():closed()))
    assert.matches("relay.internal:25: refused", table.concat(p:log(), "\n"), 1, true)
  end)
end)
